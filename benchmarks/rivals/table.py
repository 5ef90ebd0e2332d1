"""The tables of docs/rivals.md, from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
COST_HEAD = (
    "", "steps", "trained parameters", "of the base", "training, s", "peak memory, MB", "depth, s", "image, s",
    "both ways with one set of weights",
)  # fmt: skip
ACCURACY_HEAD = (
    "", "AbsRel, 1 step", "delta1", "AbsRel, 10 steps", "delta1", "image from depth", "with guidance 3", "both",
    "with guidance 3",
)  # fmt: skip
ACCURACY = (
    ("depth, 1 steps", "abs_rel"), ("depth, 1 steps", "delta1"), ("depth, 10 steps", "abs_rel"),
    ("depth, 10 steps", "delta1"), ("image, guidance 0", "matched"), ("image, guidance 3", "matched"),
    ("both, guidance 0", "matched"), ("both, guidance 3", "matched"),
)  # fmt: skip
NONE = "-"
BEGIN, END = "<!-- tables: python -m benchmarks.rivals --page -->", "<!-- end of tables -->"
"""Lines of a page between which `write_into` puts the tables."""


def tables(results: Mapping[str, Any]) -> str:
    """Costs of the rivals, then accuracy of rivals and references, both in Markdown."""
    rivals = list(results["rivals"].values())
    costs = [_costs(rival, results["base_parameters"]) for rival in rivals]
    named = [(rival["title"], rival) for rival in rivals] + list(results["references"].items())
    accuracy = [(title, *(_value(result, *place) for place in ACCURACY)) for title, result in named]
    return f"{_markdown(COST_HEAD, costs)}\n\n{_markdown(ACCURACY_HEAD, accuracy)}"


def write_into(page: Path, written: str) -> None:
    """Replace what is between `BEGIN` and `END` in a page.

    Raises:
        ValueError: The page lacks one of them.
    """
    text = page.read_text()
    head, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(f"{END}\n")
    if not (begin and end):
        raise ValueError(f"A page with tables has the lines {BEGIN!r} and {END!r}; {page} does not. Add them.")
    page.write_text(f"{head}{begin}\n{written}\n\n{end}{tail}")


def _costs(rival: Result, base_parameters: int) -> tuple[str, ...]:
    serves_all = "both, guidance 0" in rival
    return (
        rival["title"],
        str(rival["steps"]),
        f"{rival['parameters'] / 1e6:.2f} M",
        f"{rival['parameters'] / base_parameters:.0%}",
        f"{rival['processor_s']:.0f}",
        str(rival["peak_mb"]),
        _value(rival, "depth, 1 steps", "seconds"),
        _value(rival, "image, guidance 0", "seconds"),
        "yes" if serves_all else "no",
    )


def _value(result: Result, group: str, name: str) -> str:
    """A number; for a correlation also that with another row's map."""
    if group not in result or name not in result[group]:
        return NONE
    value = f"{result[group][name]:.3f}"
    return f"{value} ({result[group]['shuffled']:.3f})" if name == "matched" else value


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
