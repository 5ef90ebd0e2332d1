"""What the tasks share that make pictures: prompts, the arguments of the model's calls, results that travel."""

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
"""Pictures and maps travel to the actor no larger than this."""
PICTURE = "generated"
"""Column in which the new picture travels."""
TOKENS_CUT_TEXT = "tokens of the prompt that the text encoder did not get because it takes no more; 0 for most"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The part of a task that is the same for all that make pictures, with conditions beside them or without."""

    conditions: tuple[ConditionColumn, ...]
    """Conditions that the model returns with the picture."""
    sampling: SamplingOptions = SamplingOptions()
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the conditions, where not 1."""
    prompt: str = ""
    """Of rows without a caption."""
    negative_prompt: str = ""

    @property
    def resolution_px(self) -> int | None:
        """Side of the square whose area the model works at."""
        return self.sampling.resolution_px

    @property
    def seeds_by_shard(self) -> bool:
        return True

    @property
    def results(self) -> pa.Schema:
        maps = ((_map(name), PACKED) for name in self.returned)
        return pa.schema([(PICTURE, PACKED), *maps, (TOKENS_CUT, pa.int32())])

    @property
    def notes(self) -> Mapping[str, str]:
        return encoding_notes(self.conditions)

    @property
    def returned(self) -> tuple[str, ...]:
        """Names of the conditions whose maps travel back from the model."""
        return tuple(condition.name for condition in self.conditions)

    def caption(self, sample: Sample) -> str:
        """The prompt of a row. Raises SampleError where the stored caption is none and no other prompt is given."""
        if not sample.caption and sample.caption_note and not self.prompt:
            raise SampleError("read", f"the caption cannot be used as a prompt: {sample.caption_note}")
        return sample.caption or self.prompt

    def options(self, rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, Any]:
        """Keyword arguments of the model's call for a micro-batch."""
        return {
            "negative_prompts": [self.negative_prompt] * len(rows),
            "seeds": seeds,
            "options": self.sampling,
            **({"weights": self.weights} if self.weights else {}),
        }

    def travelling(self, model: Any, generate: Callable[[], Sequence[Any]]) -> list[Row | SampleError]:
        """The results of a call of the model as values of `results`."""
        kinds = {name: model.adapter_kind(name) for name in self.returned}
        return [each if isinstance(each, SampleError) else _packed(each, kinds) for each in by_row(generate)]

    def written(self, row: Row, size_px: tuple[int, int]) -> dict[str, Any]:
        """Media columns of the new picture and the returned maps, at (width, height)."""
        stem = schema.stem_of(row["key"])
        picture = unpack(row[PICTURE])
        if picture.size != size_px:
            picture = picture.resize(size_px, Image.Resampling.LANCZOS)
        maps = {name: resize_map(unpack(row[_map(name)]), size_px) for name in self.returned}
        return {
            "image": stored(picture, stem),
            **{name: stored(values, f"{stem}.{name}") for name, values in maps.items()},
            TOKENS_CUT: row[TOKENS_CUT],
        }


def _packed(generated: Any, kinds: Mapping[str, Any]) -> Row | SampleError:
    if not all(np.isfinite(generated.conditions[name]).all() for name in kinds):
        return SampleError("model", "it returned values that are not finite")
    maps = {_map(name): pack(kind.encode(generated.conditions[name])) for name, kind in kinds.items()}
    return {PICTURE: pack(generated.image), **maps, TOKENS_CUT: generated.prompt_tokens_cut}


def _map(name: str) -> str:
    """Column in which the map of a condition travels back."""
    return f"{name}_generated"
