"""What the tasks that generate images share: prompts, arguments of the model's calls, and the packing of results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.dataset import schema
from pipelines.errors import SampleError
from pipelines.images.codec import PACKED, pack, resize_map, stored, unpack
from pipelines.samples import Sample
from pipelines.stages.task import TOKENS_CUT, Row
from pipelines.tasks.condition_columns import ConditionColumn, encoding_notes
from pipelines.tasks.outcomes import by_row
from unicon.options import SamplingOptions

TRANSPORT_AREA_PX = 1024 * 1024
"""Images and maps are scaled down to this area before they are sent to the actor."""
GENERATED = "generated"
"""Column that carries the new image from the actor to publication."""
TOKENS_CUT_TEXT = "number of tokens of the prompt that were cut off at the limit of the text encoder; 0 for most rows"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The common part of all tasks that generate images, with or without conditions."""

    conditions: tuple[ConditionColumn, ...]
    """Conditions that the model returns with the image."""
    sampling: SamplingOptions = SamplingOptions()
    weights: Mapping[str, float] = field(default_factory=dict)
    """Condition -> weight of its joint attention, if it is not 1."""
    prompt: str = ""
    """The prompt of rows without a caption."""
    negative_prompt: str = ""

    @property
    def resolution_px(self) -> int | None:
        """Side of the square whose area the model works at; None: its native resolution."""
        return self.sampling.resolution_px

    @property
    def rows_per_sample(self) -> int:
        """Rows of micro-batches that the model processes for a sample."""
        return 1

    @property
    def seeds_by_shard(self) -> bool:
        return True

    @property
    def results(self) -> pa.Schema:
        maps = ((_map(name), PACKED) for name in self.returned)
        return pa.schema([(GENERATED, PACKED), *maps, (TOKENS_CUT, pa.int32())])

    @property
    def schema_metadata(self) -> Mapping[str, str]:
        return encoding_notes(self.conditions)

    @property
    def returned(self) -> tuple[str, ...]:
        """Names of the conditions whose maps the model returns."""
        return tuple(condition.name for condition in self.conditions)

    def caption(self, sample: Sample) -> str:
        """Return the prompt of a row.

        Raises:
            SampleError: The stored caption is unusable, and there is no `prompt` to use instead.
        """
        if not sample.caption and sample.caption_note and not self.prompt:
            raise SampleError("read", f"the caption cannot be used as a prompt: {sample.caption_note}")
        return sample.caption or self.prompt

    def options(self, rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, Any]:
        """Return the keyword arguments of the model's call for a micro-batch."""
        return {
            "negative_prompts": [self.negative_prompt] * len(rows),
            "seeds": seeds,
            "options": self.sampling,
            **({"weights": self.weights} if self.weights else {}),
        }

    def packed_results(self, model: Any, generate: Callable[[], Sequence[Any]]) -> list[Row | SampleError]:
        """Call the model and return its results as values of the `results` columns."""
        kinds = {name: model.adapter_kind(name) for name in self.returned}
        return [each if isinstance(each, SampleError) else _packed(each, kinds) for each in by_row(generate)]

    def written(self, row: Row, size_px: tuple[int, int]) -> dict[str, Any]:
        """Return the media columns of the new image and the returned maps, resized to (width, height)."""
        stem = schema.stem_of(row["key"])
        image = unpack(row[GENERATED])
        if image.size != size_px:
            image = image.resize(size_px, Image.Resampling.LANCZOS)
        maps = {name: resize_map(unpack(row[_map(name)]), size_px) for name in self.returned}
        return {
            "image": stored(image, stem),
            **{name: stored(values, f"{stem}.{name}") for name, values in maps.items()},
            TOKENS_CUT: row[TOKENS_CUT],
        }


def _packed(generated: Any, kinds: Mapping[str, Any]) -> Row | SampleError:
    if not all(np.isfinite(generated.conditions[name]).all() for name in kinds):
        return SampleError("model", "it returned values that are not finite")
    maps = {_map(name): pack(kind.encode(generated.conditions[name])) for name, kind in kinds.items()}
    return {GENERATED: pack(generated.image), **maps, TOKENS_CUT: generated.prompt_tokens_cut}


def _map(name: str) -> str:
    """Return the column that carries the map of a condition from the actor to publication."""
    return f"{name}_generated"
