"""Runs that work on the same output at the same time, and how they share the work.

Correctness does not depend on this module: if two runs do the same work, their files have the same names, or planning
keeps one of the versions. But if a run starts at another position in the list of chunks than the run that is already
working, it can skip the chunks that the other has published.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from pipelines import storage
from pipelines.dataset import layout
from pipelines.storage.store import Store

RUNNING, NEVER_ENDED = "running", "never ended"
HEARTBEAT_S = 60.0
SILENCE_S = 5 * HEARTBEAT_S
"""A run whose record says `running` but is older than this has been killed."""
RECORDS_READ = 5
"""Number of latest records that are checked for running runs."""
Item = TypeVar("Item")


def state_of(run: Mapping[str, Any], now: datetime) -> str:
    """Return the state of a run; a running one without a recent heartbeat is `never ended`."""
    if run["state"] != RUNNING:
        return run["state"]
    silence_s = (now - datetime.fromisoformat(run["heard"])).total_seconds()
    return RUNNING if silence_s < SILENCE_S else NEVER_ENDED


def runs_at_work(store: Store, output: str, now: datetime) -> list[str]:
    """Return the names of those of the last few runs that, by their records, are still working on an output."""
    uris = store.list_uris(storage.join(output, "_chunks", "runs"))[-RECORDS_READ:]
    names = [uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in uris]
    return [name for name in names if _is_running(store, layout.run_uri(output, name), now)]


def rotated(items: Sequence[Item], name: str) -> list[Item]:
    """Return the items rotated, so that they start at a position that depends on a name."""
    start = int(storage.short_hash(name), 16) % max(1, len(items))
    return [*items[start:], *items[:start]]


def _is_running(store: Store, uri: str, now: datetime) -> bool:
    try:
        return state_of(json.loads(store.read_bytes(uri)), now) == RUNNING
    except (OSError, ValueError, KeyError, TypeError):  # from another version, damaged, or removed
        return False
