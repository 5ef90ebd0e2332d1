"""The filters of a corpus. A sample that one of them removes becomes an error row of the stage FILTER, with the reason.

Filters on the image and its caption are applied before any model runs on it, filters on results at the end.

Tested in tests/pipelines/tasks/test_corpus_filters.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import FILTER, SampleError
from pipelines.tasks.expressions import Expression


@dataclass(frozen=True, kw_only=True)
class MinAgreement:
    """The smallest agreement of two columns with maps of one kind; see `pipelines.quality.agreement`."""

    first: str
    second: str
    least: float

    @property
    def column(self) -> str:
        """The column with the agreement."""
        return f"agreement_{self.first}_{self.second}"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a row must fulfill. None: there is no such filter."""

    min_size_px: int | None = None
    """Smallest length of the shorter side."""
    max_aspect: float | None = None
    """Largest ratio of the longer side to the shorter one."""
    min_entropy: float | None = None
    """Smallest entropy of the gray levels, 0 to 8 bits."""
    min_sharpness: float | None = None
    """Smallest variance of the Laplacian."""
    min_caption_words: int | None = None
    max_caption_words: int | None = None
    agreements: tuple[MinAgreement, ...] = ()
    keep: tuple[Expression, ...] = ()
    """Conditions on columns that must all hold."""

    def check_size(self, size_px: tuple[int, int]) -> None:
        """Raise SampleError for an image that is too small or too long."""
        shorter, longer = sorted(size_px)
        if self.min_size_px is not None and shorter < self.min_size_px:
            raise _removed(f"shorter side below {self.min_size_px} px ({shorter})")
        if self.max_aspect is not None and longer > self.max_aspect * shorter:
            raise _removed(f"aspect above {self.max_aspect:g} ({longer / shorter:.2f})")

    def check_scores(self, scores: Mapping[str, Any]) -> None:
        """Raise SampleError for an image with too little content or sharpness."""
        for name, least in (("entropy", self.min_entropy), ("sharpness", self.min_sharpness)):
            if least is not None and not scores[name] >= least:
                raise _removed(f"{name} below {least:g} ({scores[name]:.3g})")

    def check_caption(self, words: int) -> None:
        """Raise SampleError for a caption with too few or too many words."""
        if self.min_caption_words is not None and words < self.min_caption_words:
            raise _removed(f"caption of fewer than {self.min_caption_words} words ({words})")
        if self.max_caption_words is not None and words > self.max_caption_words:
            raise _removed(f"caption of more than {self.max_caption_words} words ({words})")

    def check_agreements(self, found: Mapping[str, float | None]) -> None:
        """Raise SampleError for maps that agree too little, or whose agreement is undefined."""
        for each in self.agreements:
            value = found[each.column]
            if value is None or not value >= each.least:
                shown = "undefined" if value is None else f"{value:.3f}"
                raise _removed(f"agreement of {each.first} and {each.second} below {each.least:g} ({shown})")

    def check_columns(self, row: Mapping[str, Any], is_complete: bool) -> None:
        """Raise SampleError for a row that an expression does not keep.

        Args:
            row: The values of columns.
            is_complete: Whether all columns are known; if not, only expressions on these columns are applied.
        """
        for expression in self.keep:
            if is_complete or expression.names <= row.keys():
                self._check_column(expression, row)

    @staticmethod
    def _check_column(expression: Expression, row: Mapping[str, Any]) -> None:
        try:
            is_kept = expression.holds(row)
        except TypeError as error:
            raise SampleError("read", f"--keep {expression.text!r} cannot compare: {error}") from error
        if not is_kept:
            raise _removed(f"not {expression.text.strip()}")


def _removed(reason: str) -> SampleError:
    return SampleError(FILTER, reason)
