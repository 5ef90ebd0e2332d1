"""The signatures of all images of an input, and the decision which of the images are near duplicates.

Before the images are processed, CPU tasks read every shard once and keep the signatures in `_chunks/signatures/` of the
output. That folder has the layout of an output (data/, errors/, _chunks/done/), so what holds for rows holds for
signatures: each is made once, a run that was killed or that overlaps with another continues, and images that could not
be fetched are tried again. The next run makes only those of new shards.

The decisions are a function of the signatures: rows that are published stay, and of the others the first one is kept,
in the order of shards and positions. Images that cannot be read have no signature and are never duplicates.

Tested in tests/pipelines/quality/test_signature_pass.py.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from pipelines import storage
from pipelines.dataset import layout
from pipelines.dataset.chunk_files import ChunkFiles, error_row, failed_positions, still_waits
from pipelines.dataset.row_formats import PARQUET
from pipelines.engine.attempts import Attempt
from pipelines.errors import SampleError, printable
from pipelines.images.codec import open_small
from pipelines.planning.claims import configuration_hash
from pipelines.planning.finished import MarkReader
from pipelines.planning.plan import make_plan
from pipelines.quality.decisions import Duplicates, decide
from pipelines.quality.perceptual_hash import GRID_PX, SIGNATURE_BYTES, signature
from pipelines.readers.shard_index import MeasuredShard
from pipelines.readers.sources import ImageShards
from pipelines.samples import Chunk, Sample
from pipelines.stages.row_faults import blaming_sample
from pipelines.storage.store import FILES, Store

RECIPE = 1
"""Changes if the signatures of the same images change, so that they are made again."""
SAMPLES_AT_ONCE = 1024
"""Samples of a task."""
DECODED_PX = 2 * GRID_PX
"""JPEG images are decoded at a fraction of their size, with sides of at least this."""
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("file", pa.string()),
        pa.field("version", pa.string(), nullable=False),
        pa.field("signature", pa.binary(SIGNATURE_BYTES), nullable=False),
    ]
)
"""`file` is the URI of a loose image, null in shards; `version` is the fingerprint of that image or of the shard."""

Run = Callable[[Iterable[Chunk], Callable[[Chunk, Attempt], Mapping[str, Any]]], Iterator[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class SignaturePass:
    """Makes the signatures of an input, in the folder of an output, and decides. Light and picklable."""

    output: str
    source: ImageShards
    max_pixels: int
    """Larger images cannot be read, as in the job itself."""
    store: Store = FILES

    @property
    def root(self) -> str:
        """The folder of the signatures."""
        return storage.join(self.output, "_chunks", "signatures")

    def run(
        self,
        measured: Sequence[MeasuredShard],
        on_receipt: Callable[[Mapping[str, Any]], None],
        run: Run | None = None,
    ) -> None:
        """Make the signatures that are missing.

        Args:
            measured: The shards of the input.
            on_receipt: Called for each finished task with its receipt: chunk, ok, bad.
            run: Runs the tasks; None means as CPU tasks of Ray, which must be running.

        Raises:
            FlowError: A task failed; what was made stays.
        """
        chunks = self.missing(measured)
        if not chunks:
            return
        if run is None:
            from pipelines.engine.flow import run_supervised as run
        for receipt in run(chunks, self.sign):
            on_receipt(receipt)

    def missing(self, measured: Sequence[MeasuredShard]) -> Sequence[Chunk]:
        """Return the samples without a signature, in chunks."""
        listing = layout.list_output(self.root, self.store)
        waiting = partial(failed_positions, store=self.store, waiting_only=True)
        marks = MarkReader(self.store)
        return make_plan(measured, listing, self._configuration, SAMPLES_AT_ONCE, marks, waiting, waiting).chunks

    def sign(self, chunk: Chunk, attempt: Attempt) -> dict[str, Any]:
        """Make and publish the signatures of a chunk, and return its receipt."""
        rows: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for sample in self._images.read(chunk):
            try:
                rows.append(self._row(sample, chunk, attempt))
            except SampleError as error:
                errors.append(error_row(sample.key, sample.position, chunk, error.stage, error.reason))
        files = ChunkFiles(output=self.root, rows_schema=SCHEMA, row_format=PARQUET, store=self.store)
        if not still_waits(chunk, errors):
            files.write(chunk, files.version(chunk, rows, errors))
        return {"chunk": chunk.name, "ok": len(rows), "bad": len(errors)}

    def duplicates(self, measured: Sequence[MeasuredShard]) -> Duplicates:
        """Decide which samples of the input are near duplicates of others, or of rows that are published already."""
        listing = layout.list_output(self.root, self.store)
        versions = [each for each in listing.finished if each.name.configuration == self._configuration]
        return decide(measured, versions, layout.list_output(self.output, self.store).finished, self.store)

    @property
    def _configuration(self) -> str:
        columns = self._images.columns
        named = {"image": columns.image, "key": columns.key, "where": list(columns.where)}
        return configuration_hash({"signatures": RECIPE, "max_pixels": self.max_pixels, **named})

    @property
    def _images(self) -> ImageShards:
        """The source, without what signatures do not need."""
        return replace(self.source, columns=replace(self.source.columns, media=(), caption=None), media_options={})

    def _row(self, sample: Sample, chunk: Chunk, attempt: Attempt) -> dict[str, Any]:
        if sample.problem is not None:
            raise sample.problem
        with attempt.on(sample.position), blaming_sample("read"):
            content = signature(open_small(sample.image, self.max_pixels, DECODED_PX))
        file = chunk.files[sample.position] if chunk.files else None
        return {
            "key": printable(sample.key),
            "shard": printable(chunk.shard_uri),
            "position": sample.position,
            "file": None if file is None else printable(file.uri),
            "version": chunk.shard_fingerprint if file is None else file.fingerprint,
            "signature": content,
        }
