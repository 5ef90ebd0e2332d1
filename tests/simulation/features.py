"""The features of schedules by name, and how a scenario is drawn from a seed."""

import random
from collections.abc import Sequence
from dataclasses import replace

from tests.simulation.commands import Spec
from tests.simulation.contents import Action, Samples
from tests.simulation.events import Rates
from tests.simulation.scenario import Round, Scenario

FEATURES = {
    "same": "the same command two or three times at once",
    "kill": "commands are killed at any moment and restarted; pending writes may take effect later",
    "limit": "commands with --limit alongside one without",
    "sizes": "commands with different --chunk-size",
    "flaky": "rows fail in some attempts and succeed in others",
    "retry": "--retry-errors, with rows that sometimes fail and rows that always fail",
    "waiting": "images are temporarily unavailable; later commands fetch them without an option",
    "change": "samples change while commands run",
    "add": "samples are added while commands run",
    "delete": "samples are deleted while commands run",
    "rollback": "all samples change, and later the old content returns with the old fingerprints",
    "empty-shard": "a shard is replaced by an empty one and possibly restored",
    "several-shards": "more than one shard, and new ones while commands run",
    "outage": "storage calls fail, writes before or after they have taken effect",
    "lost-answers": "writes take effect but their response is lost, or they take effect long after they failed",
    "since": "commands with --since alongside one without",
    "settings": "a command with other settings on the same output",
    "zombies": "workers outlive their killed command and finish their writes",
    "worker-deaths": "workers die in the middle of a stage; results are lost after they were published",
    "hand-deletion": "the user deletes a published file or a mark",
    "rename": "the output is renamed between runs",
    "stale-listing": "listings do not yet show the latest changes",
    "torn-disk": "a local disk loses power: data that is not synced is torn or lost",
    "no-conditional-writes": "the storage ignores the conditions of writes; a warning must say so",
}
COMBINATIONS = (
    "kill+limit",
    "kill+retry",
    "waiting+kill",
    "waiting+retry",
    "waiting+limit+sizes",
    "waiting+change+delete",
    "waiting+outage+zombies",
    "outage+retry",
    "change+delete+kill",
    "kill+rollback",
    "flaky+kill+limit",
    "kill+sizes",
    "kill+settings",
    "change+since",
    "add+kill+zombies",
    "retry+zombies",
    "rollback+zombies",
    "change+worker-deaths",
    "retry+worker-deaths",
    "kill+several-shards",
    "empty-shard+kill",
    "hand-deletion+kill",
    "hand-deletion+retry",
    "limit+several-shards",
    "flaky+lost-answers+zombies",
    "flaky+torn-disk",
    "retry+stale-listing",
)
SWITCHING = ((0.03, 0.03), (0.1, 0.1), (0.3, 0.3), (0.9, 0.9), (0.01, 0.2), (0.02, 0.5), (0.0, 0.9))
"""Probabilities of a thread switch, elsewhere and at writes; bugs need few switches, at the right points."""
CHANGES = {
    "change": ("change",),
    "add": ("add",),
    "delete": ("delete",),
    "rollback": ("change-all", "restore", "restore"),
    "empty-shard": ("empty", "restore"),
    "several-shards": ("new-shard",),
    "hand-deletion": ("delete-data", "delete-errors", "delete-mark"),
}
"""Actions of the user, by feature."""


def parse(text: str) -> frozenset[str]:
    """Split a text such as `kill+limit` into its features.

    Raises:
        ValueError: A feature is unknown.
    """
    names = frozenset(text.split("+"))
    unknown = sorted(names - FEATURES.keys())
    if unknown:
        raise ValueError(f"unknown feature {', '.join(unknown)}; there are {', '.join(FEATURES)}")
    return names


def make_scenario(seed: str, features: frozenset[str], form: str) -> Scenario:
    """Draw the scenario of a seed."""
    rng = random.Random(f"scenario {seed}")
    rates = _rates(rng, features)
    retries = "retry" in features
    rounds: list[Round] = []
    if rng.random() < 0.5 or features & {"retry", "hand-deletion"}:  # the output is not empty
        first = Spec(name="0", workers=1, limit=_limit(rng, features, 0.5))
        rounds.append(Round(commands=(first,), rates=_healing(rates, features)))
    for number in range(rng.choice((1, 1, 2))):
        commands = _commands(rng, features, "ABC" if number == 0 else "DEF")
        renames = "rename" in features and bool(rounds)
        rounds.append(Round(commands=commands, actions=_actions(rng, features), rates=rates, renames=renames))
    afterwards: tuple[Round, ...] = ()
    if rng.random() < 0.25 and not features & {"torn-disk", "no-conditional-writes", "hand-deletion"}:
        commands = _commands(rng, features - {"settings"}, "XYZ")
        afterwards = (Round(commands=commands, rates=replace(rates, kill=0.01, kills=3)),)
    healer = Spec(name="H", workers=1, retry_errors=retries and rng.random() < 0.7, chunk_size=rng.choice((4, 4, 3)))
    return Scenario(
        form=form,
        shards=_shards(rng, features),
        rounds=tuple(rounds),
        healer=healer,
        healing=_healing(rates, features),
        afterwards=afterwards,
        page_files=rng.choice((2, 4, 4, 100)),
        knows_conditions="no-conditional-writes" not in features,
        is_disk="torn-disk" in features,
    )


def _rates(rng: random.Random, features: frozenset[str]) -> Rates:
    kills = bool(features & {"kill", "zombies"})
    switch, switch_at_writes = rng.choice(SWITCHING)
    return Rates(
        switch=switch,
        switch_at_writes=switch_at_writes,
        kill=0.012 if kills else 0.0,
        kills=rng.randint(1, 3) if features & {"kill", "zombies", "torn-disk"} else 0,
        power=0.012 if "torn-disk" in features else 0.0,
        late=0.3 if features & {"kill", "zombies", "lost-answers"} else 0.0,
        zombies=0.7 if "zombies" in features else 0.0,
        die=0.02 if "worker-deaths" in features else 0.0,
        forget=0.1 if "worker-deaths" in features else 0.0,
        fail=0.02 if features & {"outage", "lost-answers"} else 0.0,
        lost=0.7 if "lost-answers" in features else 0.3,
        stale=0.1 if "stale-listing" in features else 0.0,
        act=0.02 if any(feature in features for feature in CHANGES) else 0.0,
        away=0.3 if "waiting" in features else 0.0,
        flaky=0.15 if features & {"flaky", "retry"} else 0.0,
    )


def _healing(rates: Rates, features: frozenset[str]) -> Rates:
    return Rates(flaky=rates.flaky)


def _limit(rng: random.Random, features: frozenset[str], share: float) -> int | None:
    return rng.choice((1, 2, 3, 5, 6, 7)) if "limit" in features and rng.random() < share else None


def _commands(rng: random.Random, features: frozenset[str], names: str) -> tuple[Spec, ...]:
    """Draw commands, of which the first covers the whole input."""
    count = 1 if features <= {"kill", "outage", "worker-deaths"} and rng.random() < 0.5 else rng.randint(1, 3)
    if features & {"same", "limit", "sizes", "settings", "since"}:
        count = max(count, 2)
    return tuple(
        Spec(
            name=name,
            limit=_limit(rng, features, 0.8) if number else None,
            since=rng.randint(0, 120) if "since" in features and number and rng.random() < 0.8 else None,
            retry_errors="retry" in features and rng.random() < 0.6,
            chunk_size=rng.choice((2, 3, 4, 5)) if "sizes" in features else 4,
            settings=2 if "settings" in features and number and rng.random() < 0.7 else 1,
            workers=rng.choice((1, 2, 2, 3)),
            restarts=rng.choice((0, 2)),
        )
        for number, name in enumerate(names[:count])
    )


def _actions(rng: random.Random, features: frozenset[str]) -> tuple[Action, ...]:
    kinds: list[Sequence[str]] = [kinds for feature, kinds in CHANGES.items() if feature in features]
    if not kinds:
        return ()
    chosen: list[str] = []
    for _ in range(rng.randint(1, 3)):
        of = rng.choice(kinds)
        chosen += of if of[-1] == "restore" else [rng.choice(of)]
    return tuple(Action(kind=kind, shard=rng.randrange(3), at=rng.randrange(60)) for kind in chosen)


def _shards(rng: random.Random, features: frozenset[str]) -> tuple[tuple[str, Samples], ...]:
    many = bool(features & {"several-shards", "empty-shard", "since"}) or rng.random() < 0.15
    names = "abc"[: rng.randint(2, 3)] if many else "a"
    always = bool(features & {"retry", "flaky"}) or rng.random() < 0.3
    kills = "worker-deaths" in features
    return tuple((name, _samples(rng, 7 if many else 11, always, kills)) for name in names)


def _samples(rng: random.Random, most: int, some_always_fail: bool, some_kill: bool) -> Samples:
    keys = [f"{number:02d}" for number in range(rng.randint(3, most))]
    if some_always_fail:
        keys = [f"x{key}" if rng.random() < 0.2 else key for key in keys]
    if some_kill and rng.random() < 0.3:
        at = rng.randrange(len(keys))
        keys[at] = f"k{keys[at]}"
    return tuple((key, 0) for key in sorted(keys))
