"""A played scenario as text: commands and input, random decisions, and a line per storage operation."""

import re
from collections.abc import Iterable, Iterator

from tests.simulation.chance import Decisions
from tests.simulation.play import Played
from tests.simulation.scenario import Round, Scenario
from tests.simulation.world import Step

_NAME = re.compile(
    r"(?P<stem>[^/-]+)-[0-9a-f]{16}-(?P<fingerprint>[0-9a-f]{16})-(?P<start>\d+)-(?P<stop>\d+)-(?P<configuration>[0-9a-f]{16})"
    r"(-(?P<outcome>[0-9a-f]{16}))?"
)
QUIET = re.compile(r"_chunks/(runs|plans)/|/probe")
"""Files for human readers, which no invariant covers."""


def story(scenario: Scenario, played: Played) -> Iterator[str]:
    """Yield the whole story, line by line."""
    for name, samples in scenario.shards:
        yield f"input   {scenario.form} {name}: {' '.join(key for key, _ in samples)}"
    yield f"storage {'a disk' if scenario.is_disk else 'objects'}, {scenario.page_files} files a page of a listing"
    for number, each in enumerate((*scenario.rounds, *scenario.afterwards), 1):
        yield f"round {number} {_round(each)}"
    yield f"then    {scenario.healer.words}, alone, until its exit code is 0"
    yield from (f"chance  {line}" for line in decided(played.decisions))
    yield from (f"broken  {detail}" for detail in played.details)
    yield ""
    yield from lines(played.trace)


def decided(decisions: Decisions) -> Iterator[str]:
    """Yield the random decisions."""
    for place, decision in decisions.items():
        what = "" if place.what == "point" else f" {place.what}:"
        yield f"{place.who} at its point {place.number}:{what} {decision}"


def lines(trace: Iterable[Step]) -> Iterator[str]:
    """Yield the steps, merging equal ones in a row and skipping reads of what the thread has just created."""
    last, times = "", 0
    created: dict[str, str] = {}
    for step in trace:
        is_empty = step.uri.endswith("/_chunks/removed") and step.result == "0 files"
        is_own = step.what == "get" and step.uri == created.get(step.who)
        created[step.who] = step.uri if step.what == "create" else ""
        if is_empty or is_own or QUIET.search(step.uri):
            continue
        line = f"{step.who:8} {step.what:12} {short(step.uri)}{'  ' if step.result else ''}{short(step.result)}"
        if line == last:
            times += 1
            continue
        if times:
            yield f"{'':8} ({times} more times)"
        yield line
        last, times = line, 0


def short(text: str) -> str:
    """Shorten names for readers: keep three digits of each hash and drop common prefixes."""
    text = _NAME.sub(_short_name, text)
    text = re.sub(r"\b([0-9a-f]{3})[0-9a-f]{13}\b", r"\1", text)
    return text.replace("sim://bucket/", "").replace("_chunks/", "")


def _short_name(match: re.Match[str]) -> str:
    outcome = f" outcome {match['outcome'][:3]}" if match["outcome"] else ""
    span = f"[{int(match['start'])}:{int(match['stop'])}]"
    return f"{match['stem']}{span} content {match['fingerprint'][:3]}{outcome}"


def _round(each: Round) -> str:
    commands = "; ".join(f"{spec.words}" for spec in each.commands)
    actions = ", ".join(action.kind for action in each.actions)
    renamed = "the output is renamed, then " if each.renames else ""
    return f"{renamed}{commands}{f'; the user: {actions}' if actions else ''}"
