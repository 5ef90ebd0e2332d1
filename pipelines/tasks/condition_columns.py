"""Condition columns of published rows, and how `unicon.conditions` encodes their pictures, in words."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.errors import SettingError
from unicon.options import SamplingOptions

ENCODINGS = {
    "depth": "16-bit PNG, relative inverse depth, 0 = far, 65535 = near; its scale differs from row to row",
    "edge": "8-bit grey PNG, strength of the edge at a pixel, 0 = none, 255 = full",
    "pose": "RGB PNG, the drawing of the skeletons in OpenPose colours on black",
}
"""By kind of condition; of others it is said that they are pictures."""

NOT_MIRRORED = frozenset({"pose"})
"""Kinds that tell left from right: `unicon.conditions` says so, which the driver does without, for it imports torch."""
WITHOUT_TRIGGER = frozenset({"appearance", "identity", "id"})
"""Kinds whose adapters have no trigger text, likewise."""
MIRRORING_VIEWS = 4
"""From this number of views on some are mirrored, see `unicon.views`."""


@dataclass(frozen=True, kw_only=True)
class ConditionColumn:
    """A condition of a dataset: the name of its adapter and its column, and the kind of map it is."""

    name: str
    kind: str

    @property
    def encoding(self) -> str:
        """What the pixels mean."""
        return ENCODINGS.get(self.kind, f"PNG, a picture of kind {self.kind}")


def check_views(condition: ConditionColumn, views: int) -> None:
    """Raises SettingError for views that a kind of condition cannot be estimated from."""
    if views >= MIRRORING_VIEWS and condition.kind in NOT_MIRRORED:
        raise SettingError(
            f"--views {views}: from {MIRRORING_VIEWS} on views are mirrored, and a {condition.kind} tells left from "
            "right. Give --views 2 or 1."
        )


def check_guidance(condition: ConditionColumn, sampling: SamplingOptions) -> None:
    """Raises SettingError for text guidance of an estimate that has no text."""
    if sampling.guidance_scale != 1 and condition.kind in WITHOUT_TRIGGER:
        raise SettingError(
            f"--guidance-scale {sampling.guidance_scale:g}: estimates have no prompts, and of kind {condition.kind} no "
            "trigger text either, so text guidance would change nothing at twice the time. Leave it out."
        )


def encoding_notes(conditions: Iterable[ConditionColumn]) -> dict[str, str]:
    """For the metadata of a schema."""
    return {f"{condition.name}_encoding": condition.encoding for condition in conditions}
