"""The filters of a corpus, each with the reason that is counted."""

import pytest

from pipelines.dataset.failures import Counter, reason_kinds
from pipelines.errors import FILTER, SampleError
from pipelines.tasks.corpus_filters import Filters, MinAgreement
from pipelines.tasks.expressions import Expression

FILTERS = Filters(
    min_size_px=64, max_aspect=2.0, min_entropy=3.0, min_sharpness=10.0, min_caption_words=2, max_caption_words=4,
    agreements=(MinAgreement(first="depth", second="depth2", least=0.9),), keep=(Expression("width > 70"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        (lambda: FILTERS.check_size((200, 63)), "filter: shorter side below 64 px"),
        (lambda: FILTERS.check_size((129, 64)), "filter: aspect above 2"),
        (lambda: FILTERS.check_scores({"entropy": 2.9, "sharpness": 20}), "filter: entropy below 3"),
        (lambda: FILTERS.check_scores({"entropy": 5, "sharpness": float("nan")}), "filter: sharpness below 10"),
        (lambda: FILTERS.check_caption(1), "filter: caption of fewer than 2 words"),
        (lambda: FILTERS.check_caption(5), "filter: caption of more than 4 words"),
        (lambda: FILTERS.check_agreements({"agreement_depth_depth2": 0.89}),
         "filter: agreement of depth and depth2 below 0.9"),
        (lambda: FILTERS.check_agreements({"agreement_depth_depth2": None}),
         "filter: agreement of depth and depth2 below 0.9"),
        (lambda: FILTERS.check_columns({"width": 70}, is_complete=False), "filter: not width > 70"),
    ],
)  # fmt: skip
def test_what_is_removed(check, kind: str) -> None:
    with pytest.raises(SampleError) as removed:
        check()
    assert removed.value.stage == FILTER
    assert [*reason_kinds(Counter({str(removed.value): 1}))] == [kind]


def test_what_is_at_a_limit_stays() -> None:
    FILTERS.check_size((128, 64))
    FILTERS.check_scores({"entropy": 3.0, "sharpness": 10.0})
    FILTERS.check_caption(2)
    FILTERS.check_caption(4)
    FILTERS.check_agreements({"agreement_depth_depth2": 0.9})
    FILTERS.check_columns({"height": 1}, is_complete=False)  # the width is not known yet


def test_a_value_of_another_type_is_a_failure() -> None:
    with pytest.raises(SampleError, match="--keep 'width > 70' cannot compare") as failed:
        FILTERS.check_columns({"width": "wide"}, is_complete=True)
    assert failed.value.stage == "read"
