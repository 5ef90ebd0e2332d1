"""Charts as SVG without scripts: for report.html the rate of a run and the busy share of its models; curves of values.

Tested in tests/pipelines/runs/test_report_page.py.
"""

from collections.abc import Sequence
from typing import Any

WIDTH_PX, HEIGHT_PX = 640, 120
MARGIN_PX = 8
RATE_COLOR, SHARE_COLOR = "#1f6feb", "#c2410c"


def rate_chart(history: Sequence[Sequence[Any]], samples_per_s: float) -> str:
    """Return the chart of a run, or nothing if it has fewer than two rates.

    Args:
        history: The points of `pipelines.runs.model_use.History`. The rate at a point is that since the point before.
        samples_per_s: The mean rate of the run, for the caption.
    """
    rates = _rates(history)
    if len(rates) < 2:
        return ""
    end_s, most = history[-1][0], max(rate for _, rate in rates) or 1.0
    shares = [(at_s, share) for at_s, _, share in history if share is not None]
    lines = _line([(at_s / end_s, rate / most) for at_s, rate in rates], RATE_COLOR)
    lines += _line([(at_s / end_s, min(1.0, share)) for at_s, share in shares], SHARE_COLOR)
    caption = (
        f'<span style="color:{RATE_COLOR}">samples/s, up to {most:.3g}, {samples_per_s:.3g} on average</span>; '
        f'<span style="color:{SHARE_COLOR}">busy share of the models since their start, 0 to 1</span>'
    )
    box = f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" width="{WIDTH_PX}" height="{HEIGHT_PX}"'
    frame = f'<rect width="{WIDTH_PX}" height="{HEIGHT_PX}" fill="none" stroke="#ddd"/>'
    return f'<svg role="img" {box}>{frame}{lines}</svg>\n<p>{caption}</p>\n'


def curve_chart(points: Sequence[tuple[float, float]]) -> str:
    """Return a curve through points (place, value) as an SVG file, with the range of the values as text."""
    known = [(at, value) for at, value in points if value is not None]
    if not known:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{HEIGHT_PX}"></svg>\n'
    (least, most), end = (min(value for _, value in known), max(value for _, value in known)), known[-1][0] or 1
    line = _line([(at / end, (value - least) / ((most - least) or 1)) for at, value in known], RATE_COLOR)
    box = f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" width="{WIDTH_PX}" height="{HEIGHT_PX}"'
    frame = f'<rect width="{WIDTH_PX}" height="{HEIGHT_PX}" fill="none" stroke="#ddd"/>'
    labels = "".join(
        f'<text x="{MARGIN_PX}" y="{y}" font-size="11" fill="#666">{value:.4g}</text>'
        for y, value in ((MARGIN_PX + 6, most), (HEIGHT_PX - 3, least))
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box}>{frame}{line}{labels}</svg>\n'


def _rates(history: Sequence[Sequence[Any]]) -> list[tuple[float, float]]:
    """Return (elapsed seconds, samples per second since the point before)."""
    pairs = zip(history, history[1:], strict=False)
    return [(b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in pairs if b[0] > a[0]]


def _line(points: Sequence[tuple[float, float]], color: str) -> str:
    """Return a line through points of the unit square."""
    width, height = WIDTH_PX - 2 * MARGIN_PX, HEIGHT_PX - 2 * MARGIN_PX
    places = " ".join(f"{MARGIN_PX + x * width:.1f},{MARGIN_PX + (1 - y) * height:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>' if places else ""
