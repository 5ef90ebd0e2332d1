"""Deliberate bugs, and the number of schedules after which the simulation finds each: a test of the simulation.

python -m tests.simulation.planted
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest import MonkeyPatch

from pipelines.dataset import layout, schema
from pipelines.dataset.chunk_files import ChunkFiles
from pipelines.dataset.row_formats import PARQUET
from pipelines.planning import finished, plan
from pipelines.readers import chunks
from pipelines.readers.shard_index import MeasuredShard
from pipelines.runs import rounds
from pipelines.samples import Chunk, version_stem
from tests.simulation.campaign import Kind, play_seed
from tests.simulation.disk import SimulatedDisk
from tests.simulation.store import SimulatedStore

MOST_SCHEDULES = 10_000
Rows = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A deliberate bug and the kind of schedule that should reveal it."""

    name: str
    kind: Kind
    plant: Callable[[MonkeyPatch], None]


def schedules_to_find(fault: Fault, most: int = MOST_SCHEDULES) -> int | None:
    """Return how many schedules it takes until one is broken by the fault alone, or None if more than `most`."""
    for number in range(most):
        with MonkeyPatch.context() as patch:
            fault.plant(patch)
            is_broken = bool(play_seed(fault.kind, number).broken)
        if is_broken and not play_seed(fault.kind, number).broken:
            return number + 1
    return None


def _mark_first(patch: MonkeyPatch) -> None:
    def write(files: Any, chunk: Chunk, rows: Rows, errors: Rows) -> None:
        stem = version_stem(chunk.name, len(rows), (error["position"] for error in errors))
        mark = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
        files.store.publish(layout.mark_uri(files.output, stem), json.dumps(mark).encode())
        if errors:
            files.store.publish(layout.errors_uri(files.output, stem), PARQUET.encode(errors, schema.ERRORS))
        if rows:
            uri = layout.data_uri(files.output, stem, files.row_format.extension)
            files.store.publish(uri, files.row_format.encode(rows, files.rows_schema))

    patch.setattr(ChunkFiles, "write", write)
    _files_are_not_looked_at(patch)


def _files_are_not_looked_at(patch: MonkeyPatch) -> None:
    def version(found: Any, stem: str) -> layout.Version | None:
        if len(found.marks) != 1:
            return None
        ((uri, ok, bad),) = found.marks
        return layout.Version(name=found.name, stem=stem, ok=ok, bad=bad, mark_uri=uri, files=tuple(found.files))

    patch.setattr(layout._Found, "version", version)


def _counts_are_not_compared(patch: MonkeyPatch) -> None:
    """Accept any counts in marks, as long as the files exist."""

    def version(found: Any, stem: str) -> layout.Version | None:
        if len(found.marks) != 1:
            return None
        ((uri, ok, bad),) = found.marks
        folders = sorted(file.rsplit("/", 2)[1] for file in found.files)
        if folders != [folder for folder, count in (("data", ok), ("errors", bad)) if count]:
            return None
        return layout.Version(name=found.name, stem=stem, ok=ok, bad=bad, mark_uri=uri, files=tuple(found.files))

    patch.setattr(layout._Found, "version", version)


def _nothing_is_synced(patch: MonkeyPatch) -> None:
    patch.setattr(SimulatedDisk, "sync", lambda disk, path: None)


def _folders_are_not_synced(patch: MonkeyPatch) -> None:
    patch.setattr(SimulatedDisk, "sync_folder", lambda disk, folder: None)


def _marks_are_not_rechecked(patch: MonkeyPatch) -> None:
    """Remove versions that have no mark in a listing even if they have one by now."""
    real = rounds.Rounds._remove

    def remove(run: Any, superseded: Iterable[plan.Removal]) -> None:
        real(run, [dataclasses.replace(removal, mark_uri="") for removal in superseded])

    patch.setattr(rounds.Rounds, "_remove", remove)


def _no_plan_after_a_removal(patch: MonkeyPatch) -> None:
    """Do not plan again after a removal, and remove by the first plan, as the former alone is hardly ever detected."""
    real_plan, real_again = rounds.Rounds._first_plan, rounds.Rounds._plan_again

    def first_plan(run: Any, *arguments: Any) -> plan.Plan:
        run.first = real_plan(run, *arguments)
        return run.first

    def plan_again(run: Any, before: plan.Plan) -> plan.Plan:
        if not before.chunks:
            return dataclasses.replace(before, superseded=())
        again = real_again(run, before)
        return dataclasses.replace(again, superseded=run.first.superseded)

    patch.setattr(rounds.Rounds, "_first_plan", first_plan)
    patch.setattr(rounds.Rounds, "_plan_again", plan_again)


def _limits_remove_what_is_beyond(patch: MonkeyPatch) -> None:
    patch.setattr(MeasuredShard, "is_whole", True)


def _claims_are_not_exclusive(patch: MonkeyPatch) -> None:
    """Let two commands claim one output for different configurations at the same time."""
    patch.setattr(SimulatedStore, "create_once", SimulatedStore.publish)


def _no_final_plan(patch: MonkeyPatch) -> None:
    """End a run when its planned chunks are done, without planning again."""
    real = rounds.Rounds._plan_again

    def plan_again(run: Any, before: plan.Plan) -> plan.Plan:
        if {chunk.name for chunk in before.chunks} <= run._done and before.chunks:
            return dataclasses.replace(before, chunks=(), superseded=(), samples=0, finished=())
        return real(run, before)

    patch.setattr(rounds.Rounds, "_plan_again", plan_again)


def _content_is_not_checked(patch: MonkeyPatch) -> None:
    patch.setattr(SimulatedStore, "pinned", lambda store, fingerprints: store)
    patch.setattr(chunks, "checked", lambda samples, chunk, store: samples)


def _retry_trusts_what_it_finds(patch: MonkeyPatch) -> None:
    def merged(files: Any, chunk: Chunk, rows: Rows, errors: Rows) -> tuple[Rows, Rows]:
        def published(uri: str, row_format: Any) -> Rows:
            try:
                return list(row_format.read(uri, store=files.store)) if uri else []
            except FileNotFoundError:
                return []

        before = published(chunk.base_data, files.row_format), published(chunk.base_errors, PARQUET)
        all_rows, all_errors = (
            [*(row for row in old if row["position"] not in chunk.only), *new]
            for old, new in zip(before, (rows, errors), strict=True)
        )
        return all_rows, all_errors

    patch.setattr(ChunkFiles, "merged", merged)
    _counts_are_not_compared(patch)


def _overlaps_count_twice(patch: MonkeyPatch) -> None:
    patch.setattr(finished, "disjoint", lambda versions: sorted(versions, key=finished._range_order))


def _older_content_counts(patch: MonkeyPatch) -> None:
    """Do not compare finished versions with the current content of the shard."""

    def current(versions: Iterable[layout.Version], fingerprint: str, configuration: str) -> list[layout.Version]:
        return finished.disjoint(versions)

    patch.setattr(plan, "disjoint_ranges", current)


FAULTS = (
    Fault(name="the mark before its data", kind=Kind(features="kill", form="tar"), plant=_mark_first),
    Fault(
        name="incomplete versions count as finished",
        kind=Kind(features="hand-deletion", form="tar"),
        plant=_files_are_not_looked_at,
    ),
    Fault(name="no fsync of files", kind=Kind(features="torn-disk", form="folder"), plant=_nothing_is_synced),
    Fault(name="no fsync of folders", kind=Kind(features="torn-disk", form="tar"), plant=_folders_are_not_synced),
    Fault(
        name="stale listings trusted for removal",
        kind=Kind(features="retry+stale-listing", form="tar"),
        plant=_marks_are_not_rechecked,
    ),
    Fault(
        name="removal by an old plan, no new plan after it",
        kind=Kind(features="flaky+same", form="tar"),
        plant=_no_plan_after_a_removal,
    ),
    Fault(
        name="a limit removes what lies beyond it",
        kind=Kind(features="limit", form="tar"),
        plant=_limits_remove_what_is_beyond,
    ),
    Fault(
        name="claims are not exclusive",
        kind=Kind(features="settings", form="folder"),
        plant=_claims_are_not_exclusive,
    ),
    Fault(name="no final plan", kind=Kind(features="change", form="folder"), plant=_no_final_plan),
    Fault(name="content not checked", kind=Kind(features="rollback", form="tar"), plant=_content_is_not_checked),
    Fault(
        name="a retry trusts incomplete files",
        kind=Kind(features="retry", form="tar"),
        plant=_retry_trusts_what_it_finds,
    ),
    Fault(name="overlaps count twice", kind=Kind(features="flaky+same", form="tar"), plant=_overlaps_count_twice),
    Fault(name="older content counts", kind=Kind(features="change", form="tar"), plant=_older_content_counts),
)


def main() -> int:
    """Print a line for each fault; returns 1 if one is not found."""
    missed = 0
    for fault in FAULTS:
        started = time.monotonic()
        found = schedules_to_find(fault)
        missed += found is None
        outcome = "not found" if found is None else f"found after {found} schedules"
        seconds = time.monotonic() - started
        print(f"{fault.name:40} {fault.kind.features:22} {fault.kind.form:7} {outcome}, {seconds:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
