"""The condition columns of published rows, and a description of how their maps are encoded.

Tested in tests/pipelines/tasks/test_estimation.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.errors import SettingError
from unicon.condition_kinds import CONDITION_KINDS
from unicon.options import SamplingOptions

MIRRORING_VIEWS = 4
"""Smallest number of views that includes mirrored ones, see `unicon.views`."""


@dataclass(frozen=True, kw_only=True)
class ConditionColumn:
    """A condition of a dataset: the name of its adapter and column, and the kind of its maps."""

    name: str
    kind: str
    records_kind: bool = False
    """Whether the metadata of a schema also names the kind. It does for other engines, whose columns may have names
    like `canny`; outputs of UniCon keep the metadata of earlier versions."""

    @property
    def encoding(self) -> str:
        """The meaning of the pixels."""
        return CONDITION_KINDS[self.kind].encoding or f"PNG, an image of kind {self.kind}"


def check_views(condition: ConditionColumn, views: int) -> None:
    """Check that a kind of condition can be estimated from this many views. Raises SettingError."""
    if views >= MIRRORING_VIEWS and not CONDITION_KINDS[condition.kind].mirrors:
        raise SettingError(
            f"--views {views}: {MIRRORING_VIEWS} views include mirrored ones, and a {condition.kind} distinguishes "
            "left from right. Use --views 2 or 1."
        )


def check_guidance(condition: ConditionColumn, sampling: SamplingOptions) -> None:
    """Check that an estimate with text guidance has a text. Raises SettingError."""
    if sampling.guidance_scale != 1 and not CONDITION_KINDS[condition.kind].trigger:
        raise SettingError(
            f"--guidance-scale {sampling.guidance_scale:g}: estimates have no prompts, and {condition.kind} adapters "
            "have no trigger text, so text guidance would double the time and change nothing. Remove the option."
        )


def encoding_notes(conditions: Iterable[ConditionColumn]) -> dict[str, str]:
    """Return the encodings of conditions, and kinds that are to be recorded, as metadata of a schema."""
    notes = {}
    for condition in conditions:
        notes[f"{condition.name}_encoding"] = condition.encoding
        if condition.records_kind:
            notes[f"{condition.name}_kind"] = condition.kind
    return notes
