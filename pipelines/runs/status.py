"""The status of an output: its marks compared with the plans of the last runs. Reads records and errors, no data."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipelines import storage
from pipelines.dataset import layout
from pipelines.dataset.failures import READING_THREADS, Reasons, read_reasons
from pipelines.errors import SettingError
from pipelines.planning.finished import disjoint
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.shard_index import FOLDER_FORMAT, Shard
from pipelines.readers.shards import find_shards
from pipelines.runs.outcome import has_failed
from pipelines.runs.overlap import state_of
from pipelines.runs.request import MAX_ERROR_RATE

RUNS_SHOWN = 10
SHARD_COUNTS = ("planned", "ok", "bad", "waiting", "filtered", "pending")
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ShardStatus:
    """The status of a planned shard."""

    uri: str
    planned: int
    """Samples of the shard."""
    ok: int
    """Rows in data/."""
    bad: int
    """Samples in errors/."""
    waiting: int = 0
    """Number of `bad` samples that the same command tries again."""
    filtered: int = 0
    """Number of `bad` samples that a filter has removed."""

    @property
    def failed(self) -> int:
        """Samples in errors/ that no filter has removed."""
        return self.bad - self.filtered

    @property
    def pending(self) -> int:
        """Samples that no finished chunk contains."""
        return max(0, self.planned - self.ok - self.bad)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes of the input since the plan, by URI; a listing does not say how many samples the files contain."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of an output root."""

    output: str
    shards: tuple[ShardStatus, ...]
    others: int
    """Finished samples of shards that are in no plan: of other inputs, or of shards that were removed."""
    runs: tuple[Record, ...]
    """The last runs, newest first, see `pipelines.runs.record`."""
    changes: Changes | None
    """Changes of the input, if it was given."""
    is_planned: bool = True
    """Whether any run has made a plan."""
    reasons: Reasons = field(default_factory=Reasons)
    """Why the `bad` samples failed or were removed."""

    @property
    def planned(self) -> int:
        """Samples in the plans."""
        return sum(shard.planned for shard in self.shards)

    @property
    def ok(self) -> int:
        """Rows in data/."""
        return sum(shard.ok for shard in self.shards)

    @property
    def bad(self) -> int:
        """Samples in errors/."""
        return sum(shard.bad for shard in self.shards)

    @property
    def waiting(self) -> int:
        """Samples in errors/ that the same command tries again."""
        return sum(shard.waiting for shard in self.shards)

    @property
    def filtered(self) -> int:
        """Samples in errors/ that a filter has removed."""
        return sum(shard.filtered for shard in self.shards)

    @property
    def failed(self) -> int:
        """Samples in errors/ that no filter has removed."""
        return self.bad - self.filtered

    @property
    def pending(self) -> int:
        """Planned samples that are not processed yet."""
        return sum(shard.pending for shard in self.shards)

    @property
    def exit_code(self) -> int:
        """0: all done; 1: something is left, new or not planned yet; 3: more failures than the last run allowed."""
        is_new = self.changes is not None and bool(self.changes.new or self.changes.changed)
        options = self.runs[0].get("options", {}) if self.runs else {}
        waits = self.waiting and not options.get("give_up", False)
        if is_new or self.pending or waits or not self.is_planned:
            return 1
        return 3 if has_failed(self.ok, self.failed, options.get("max_error_rate", MAX_ERROR_RATE)) else 0


def read_status(output: str, inputs: Sequence[str] = ()) -> Status:
    """Read the status from two listings, the last records, their plans, and files of errors/.

    Raises:
        SettingError: No run has ever written this output, or an input does not exist.
    """
    storage.check_place("--output", output)
    output = storage.normalize(output)
    names = _run_names(output)
    if not names:
        raise SettingError(
            f"--output {output} has no record of a run in _chunks/runs/. Check the path; an output that version 0.1.0 "
            "made gets its first record with the next run."
        )
    runs, plans = _runs_and_plans(_records(output, names))
    planned: dict[str, _Planned] = {}
    for run in reversed(plans):
        planned |= {_short(shard.id): shard for shard in _read_plan(output, run["plan"]["file"])}
    finished = layout.list_output(output).finished
    counting = _counting(finished, planned, (plans or runs)[0]["configuration"])
    return Status(
        output=output,
        shards=tuple(_count(counting, planned)),
        others=sum(version.ok + version.bad for version in finished if _short(version.name.shard) not in planned),
        runs=tuple(runs[:RUNS_SHOWN]),
        changes=_changes(planned, output, inputs, runs[0]["job"]) if inputs else None,
        is_planned=bool(plans),
        reasons=read_reasons(counting),
    )


def as_json(status: Status) -> dict[str, Any]:
    """Return the status as JSON values."""
    now = datetime.now(UTC)
    changes = status.changes
    return {
        "output": status.output,
        **{name: getattr(status, name) for name in (*SHARD_COUNTS, "others", "exit_code")},
        "shards": [
            {"uri": shard.uri, **{name: getattr(shard, name) for name in SHARD_COUNTS}} for shard in status.shards
        ],
        "reasons": dict(status.reasons.counts.most_common()),
        "bad_without_reason": status.reasons.unread,
        "runs": [{**run, "state": state_of(run, now)} for run in status.runs],
        "changes": None if changes is None else {"new": changes.new, "changed": changes.changed, "gone": changes.gone},
    }


@dataclass(frozen=True, kw_only=True)
class _Planned:
    id: str
    """Hash of the URI, as in the names of chunks."""
    uri: str
    format: str
    fingerprint: str
    samples: int


def _run_names(output: str) -> list[str]:
    """Return the names of the runs, newest first."""
    found = storage.list_files(storage.join(output, "_chunks", "runs"))
    return [info.uri.rsplit("/", 1)[-1].removesuffix(".json") for info in reversed(found)]


def _records(output: str, names: Sequence[str]) -> Iterator[Record]:
    """Yield the records in the order of the names, a few requests at a time."""
    uris = [layout.run_uri(output, name) for name in names]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        for at in range(0, len(uris), READING_THREADS):
            for content in pool.map(storage.read_bytes, uris[at : at + READING_THREADS]):
                yield json.loads(content)


def _runs_and_plans(records: Iterator[Record]) -> tuple[list[Record], list[Record]]:
    """Return the last runs, and the runs whose plans count together, both newest first.

    The plans that count are those of the last run that planned its whole input, and of later runs with --since. If no
    run has planned a whole input, only the last plan counts.
    """
    runs: list[Record] = []
    plans: list[Record] = []
    is_known = False
    for run in records:
        runs.append(run)
        if "plan" in run and not is_known:
            is_known = run["plan"]["is_whole"]
            if is_known or run["options"]["limit"] is None:
                plans.append(run)
        if is_known and len(runs) >= RUNS_SHOWN:
            break
    return runs, plans if is_known else [run for run in runs if "plan" in run][:1]


def _read_plan(output: str, name: str) -> list[_Planned]:
    rows = json.loads(gzip.decompress(storage.read_bytes(layout.plan_uri(output, name))))
    fields = ("id", "uri", "format", "fingerprint", "samples")
    return [_Planned(**dict(zip(fields, row, strict=True))) for row in rows]


def _short(id_: str) -> str:
    """Return the digits that current hashes share with those of version 0.1."""
    return id_[: storage.OLD_HASH_DIGITS]


def _counting(
    finished: Sequence[layout.Version], planned: Mapping[str, _Planned], configuration: str
) -> list[layout.Version]:
    """Return the versions of planned shards that count.

    Versions of older content of a shard do not count. For image folders, a listing does not say which images have
    changed: changed images count as done until a run processes them again.
    """
    by_shard: dict[str, list[layout.Version]] = {}
    for version in finished:
        if _short(version.name.shard) in planned and _short(version.name.configuration) == _short(configuration):
            by_shard.setdefault(_short(version.name.shard), []).append(version)
    counting: list[layout.Version] = []
    for id_, versions in by_shard.items():
        if planned[id_].format == FOLDER_FORMAT:
            counting += {
                version.name.text: version for version in sorted(versions, key=lambda each: -each.bad)
            }.values()
        else:
            current = [each for each in versions if _short(each.name.fingerprint) == _short(planned[id_].fingerprint)]
            counting += disjoint(current)
    return counting


def _count(versions: Sequence[layout.Version], planned: Mapping[str, _Planned]) -> list[ShardStatus]:
    """Return every planned shard with the counts of its versions."""
    ok: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    for version in versions:
        ok[_short(version.name.shard)] += version.ok
        bad[_short(version.name.shard)] += version.bad
        waiting[_short(version.name.shard)] += version.wait
        filtered[_short(version.name.shard)] += version.filtered
    return [
        ShardStatus(
            uri=shard.uri,
            planned=shard.samples,
            ok=ok[id_],
            bad=bad[id_],
            waiting=waiting[id_],
            filtered=filtered[id_],
        )
        for id_, shard in planned.items()
    ]


def _changes(planned: Mapping[str, _Planned], output: str, inputs: Sequence[str], job: str) -> Changes:
    found: list[Shard] = PromptFiles().find(inputs, output) if job == "generate_pairs" else find_shards(inputs, output)
    now = {_short(storage.short_hash(shard.uri)): shard for shard in found}
    before = {id_: _short(planned[id_].fingerprint) for id_ in now if id_ in planned}
    return Changes(
        new=tuple(shard.uri for id_, shard in now.items() if id_ not in planned),
        changed=tuple(now[id_].uri for id_, known in before.items() if _short(now[id_].fingerprint) != known),
        gone=tuple(shard.uri for id_, shard in planned.items() if id_ not in now),
    )
