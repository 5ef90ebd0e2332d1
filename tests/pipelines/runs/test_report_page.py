"""report.html is self-contained, and no data becomes markup."""

from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser

from pipelines.dataset.failures import Reasons
from pipelines.runs.chart import rate_chart
from pipelines.runs.report_page import REASONS_SHOWN, report_page
from pipelines.runs.status import ShardStatus, Status
from tests.support.inputs import encoded_image

RUN = {
    "run": "x", "state": "ended", "job": "estimate_depth", "started": "2026-11-24T01:00:00Z", "exit_code": 1,
    "ended": "2026-11-24T01:12:30Z", "heard": "2026-11-24T01:12:30Z", "settings": {"model": "mini", "where": ["a<b"]},
    "versions": {"ray": "2.60.0"}, "options": {"limit": None, "since": None, "retry_errors": False},
    "plan": {"samples": 10, "done_before": 2},
    "done": {"ok": 6, "bad": 1, "samples_per_s": 0.5, "batch_size": 4, "seconds": {"read": 1.5, "model": 9.0},
             "errors": {}},
}  # fmt: skip


class Page(HTMLParser):
    """The texts and sources of a page, in which every opened tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_one_page_with_everything() -> None:
    shards = (ShardStatus(uri="s3://b/<a>.tar", planned=10, ok=8, bad=1),)
    reasons = Reasons(counts=Counter({"decode: <script>alert(1)</script>": 1}), unread=3)
    status = Status(output="s3://b/out", shards=shards, others=0, runs=(RUN,), changes=None, reasons=reasons)
    page = Page(report_page(status, encoded_image(kind="PNG"), datetime(2026, 11, 25, tzinfo=UTC)))
    assert {"8", "1", "decode: <script>alert(1)</script>", "12:30", "ended, exit code 1"} <= {*page.texts}
    assert any(text.startswith("and 3 more, in files of errors/") for text in page.texts)
    assert '["a<b"]' in page.texts and "9.0" in page.texts and "2.60.0" in page.texts
    (source,) = page.sources
    assert source.startswith("data:image/png;base64,")


def test_the_use_of_the_models_and_its_chart() -> None:
    compiling = {"mode": "auto", "shapes": 3, "compiled": 2, "from_cache": 1, "seconds": 94.0, "failure": "no <gcc>"}
    history = [[1.0, 4, None], [2.0, 8, 0.5], [4.0, 20, 0.9]]
    used = {"busy_share": 0.93, "model_samples_per_s": 13.1, "gpu_hours": 2.5, "compile": compiling, "history": history}
    run = {**RUN, "done": {**RUN["done"], **used}}
    status = Status(output="out", shards=(), others=0, runs=(run,), changes=None)
    text = report_page(status, b"", datetime(2026, 11, 25, tzinfo=UTC))
    texts = Page(text).texts
    assert {"93%", "13.10", "2.50", "0.93", "13.1", "2.5"} <= {*texts}
    assert any("2 of 3 shapes, 1 of them from the cache, in 94.0 s of all actors; it failed: no <gcc>" in each
               for each in texts)  # fmt: skip
    assert text.count("<polyline") == 2 and "samples/s, up to 6, 0.5 on average" in texts
    assert 'points="320.0,42.7 632.0,8.0"' in text, "4 and 6 samples/s in the middle and at the end"


def test_a_chart_needs_two_rates() -> None:
    assert rate_chart([], 0.0) == rate_chart([[1.0, 4, 0.5], [2.0, 8, 0.5]], 4.0) == ""
    assert rate_chart([[1.0, 4, None], [2.0, 4, None], [3.0, 4, None]], 1.0).count("<polyline") == 1


def test_without_images_and_errors_their_sections_are_left_out() -> None:
    run = {name: value for name, value in RUN.items() if name not in ("done", "plan")}
    status = Status(output="out", shards=(), others=0, runs=(run,), changes=None)
    page = Page(report_page(status, b"", datetime(2026, 11, 25, tzinfo=UTC)))
    assert not page.sources and "Preview" not in page.texts and "Why samples failed" not in page.texts
    assert "Last runs" in page.texts


def test_rare_reasons_are_added_up() -> None:
    reasons = Reasons(counts=Counter({f"read: reason {number}": 1 + number for number in range(REASONS_SHOWN + 2)}))
    status = Status(output="out", shards=(), others=0, runs=(RUN,), changes=None, reasons=reasons)
    texts = Page(report_page(status, b"", datetime(2026, 11, 25, tzinfo=UTC))).texts
    assert "read: reason 2" in texts and "read: reason 1" not in texts
    assert texts[texts.index("2 other reasons") - 1] == "3"
