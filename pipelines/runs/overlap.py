"""Runs that work on one output at the same time, and how they share the work.

Nothing here is needed for the result: whatever two runs do twice has the same names, or planning keeps one of it. But a
run that begins elsewhere in its list than the one that works already meets it half-way, and passes over what that one
has published.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from pipelines.dataset import layout
from pipelines import storage
from pipelines.storage.store import Store
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from pipelines.runs.placement import choose_resources, describe
from pipelines.runs.progress import Progress
from pipelines.texts import say
from pipelines.runs.request import Job, Request
from pipelines.engine.resources import Resources
from pipelines.samples import Chunk
from pipelines.storage.errors import redacted
from pipelines.storage.store import FILES, Store


RUNNING, NEVER_ENDED = "running", "never ended"
HEARTBEAT_S = 60.0
SILENCE_S = 5 * HEARTBEAT_S
"""A run that says it is running was heard of within this time, or has been killed."""
RECORDS_READ = 5
Item = TypeVar("Item")


def state_of(run: Mapping[str, Any], now: datetime) -> str:
    """The state of a run by its record: one that has not been heard of for long has never ended."""
    if run["state"] != RUNNING:
        return run["state"]
    silence_s = (now - datetime.fromisoformat(run["heard"])).total_seconds()
    return RUNNING if silence_s < SILENCE_S else NEVER_ENDED


def runs_at_work(store: Store, output: str, now: datetime) -> list[str]:
    """The names of the last few runs that seem to work on an output, by their records."""
    uris = store.list_uris(storage.join(output, "_chunks", "runs"))[-RECORDS_READ:]
    names = [uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in uris]
    return [name for name in names if _is_running(store, layout.run_uri(output, name), now)]


def rotated(items: Sequence[Item], name: str) -> list[Item]:
    """The items from a place on that a name decides, then those before it."""
    start = int(storage.short_hash(name), 16) % max(1, len(items))
    return [*items[start:], *items[:start]]


def _is_running(store: Store, uri: str, now: datetime) -> bool:
    try:
        return state_of(json.loads(store.read_bytes(uri)), now) == RUNNING
    except (OSError, ValueError, KeyError, TypeError):  # of another version, damaged, or gone
        return False


