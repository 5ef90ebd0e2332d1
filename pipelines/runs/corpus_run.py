"""A corpus as the job that the runner runs: several models, one after the other, and filters over the whole input.

Tested in tests/jobs/test_build_corpus.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.errors import clipped, say
from pipelines.quality.signature_pass import SignaturePass
from pipelines.readers.shard_index import MeasuredShard
from pipelines.readers.sources import ImageShards
from pipelines.runs.row_run import RowRun, TaskStage
from pipelines.samples import Chunk
from pipelines.tasks.corpus import Corpus


@dataclass(frozen=True, kw_only=True)
class CorpusRun(RowRun):
    """What the command line of a corpus means, except for the inputs, the output and the machines."""

    task: Corpus
    source: ImageShards
    engines: tuple[TaskStage, ...]
    drops_near_duplicates: bool = False
    """Whether an image that looks like another one of the corpus is removed."""

    @property
    def stages(self) -> Sequence[TaskStage]:
        """The engines, in the order of the command."""
        return self.engines

    def prepare(self, output: str, shards: Sequence[MeasuredShard], chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Compare the images of all shards, and note in the chunks which ones are near-duplicates."""
        if not self.drops_near_duplicates:
            return chunks
        images = replace(self.source, columns=replace(self.source.columns, fields=()), field_options={})
        signing = SignaturePass(output=output, source=images, max_pixels=self.task.max_pixels)
        say("looking for near-duplicates ...")
        signing.run(shards, on_receipt=lambda receipt: None)
        found = signing.duplicates(shards)
        say(f"{len(found)} samples are near-duplicates of others")
        return [replace(chunk, filtered=_reasons(found.in_chunk(chunk))) for chunk in chunks]


def _reasons(kept: Mapping[int, str]) -> tuple[tuple[int, str], ...]:
    """Return (position, reason) for each near-duplicate of a chunk, by the key of the sample that is kept."""
    return tuple((at, f"near-duplicate (of {clipped(key)})") for at, key in sorted(kept.items()))
