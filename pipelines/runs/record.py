"""The record of a run: one JSON file in _chunks/runs/, written at the start, every minute, and at the end.

Names sort by time. A run that was killed leaves the state `running` and the time of its last heartbeat. The plan of a
run is a file of its own in _chunks/plans/, named after its content, so that runs over the same shards share it. No
secrets are written: passwords in addresses, signatures in queries and the values of secret environment variables are
replaced by ***. A run that is refused before it starts (a wrong option, a missing input, other settings) has no record.
"""

import gzip
import json
import os
import platform
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipelines import VERSION, storage
from pipelines.dataset import layout
from pipelines.dataset.failures import reason_kinds
from pipelines.errors import SettingError
from pipelines.planning.plan import Plan
from pipelines.readers.shard_index import MeasuredShard
from pipelines.runs.environment import Environment
from pipelines.runs.model_use import ModelUse
from pipelines.runs.overlap import RUNNING
from pipelines.runs.progress import Progress
from pipelines.storage.errors import redacted, secret_values
from pipelines.storage.store import FILES, Store

FORMAT = 1
PACKAGES = ("ray", "torch", "diffusers", "pyarrow")
ENDED, INTERRUPTED, REFUSED, FAILED = "ended", "interrupted", "refused", "failed"


class RunRecord:
    """The record of a run so far. It only informs people, so a storage that fails does not stop the run."""

    def __init__(self, output: str, about: Mapping[str, Any], environment: Environment | None = None) -> None:
        self._environment = environment or Environment()
        started = self._environment.now()
        self.output = output
        self.name = f"{started:%Y%m%dT%H%M%S}.{started.microsecond // 1000:03d}Z-{self._environment.new_id()}"
        self.exit_code = 1
        self.trouble: str | None = None
        """Why the run stopped early, if it did."""
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._secrets = secret_values()
        self._fields: dict[str, Any] = {
            "format": FORMAT,
            "run": self.name,
            "state": RUNNING,
            "started": time_text(started),
            "heard": time_text(started),
            "ended": None,
            "exit_code": None,
            **about,
            "versions": versions(),
            "host": host(),
        }
        self._environment.store.publish(self.uri, self._content())

    @property
    def uri(self) -> str:
        """The URI of the record."""
        return layout.run_uri(self.output, self.name)

    def planned(self, measured: Sequence[MeasuredShard], plan: Plan, is_whole: bool) -> None:
        """Write the plan. `is_whole` says that it covers the whole input: no option excluded shards or samples."""
        left = sum(len(chunk.positions) for chunk in plan.chunks)
        self._fields["plan"] = {
            "file": write_plan(self.output, measured, self._environment.store),
            "is_whole": is_whole,
            "shards": len(measured),
            "chunks": len(plan.chunks),
            "samples": plan.samples,
            "done_before": plan.samples - left,
        }
        self._write()

    def working(self, cluster: Mapping[str, float], actors: int, gpus_per_actor: float, progress: Progress) -> None:
        """Record the resources when Ray has started; from now on, `progress` holds the numbers."""
        nodes = sum(name.startswith("node:") and name != "node:__internal_head__" for name in cluster)
        self._fields["cluster"] = {
            "nodes": nodes,
            "cpus": cluster.get("CPU", 0.0),
            "gpus": cluster.get("GPU", 0.0),
            "memory_bytes": int(cluster.get("memory", 0)),
            "actors": actors,
            "gpus_per_actor": gpus_per_actor,
        }
        self._progress = progress

    def counted(self, planned: int, ok: int, bad: int, missing_chunks: int) -> None:
        """Record what the output contains of the input of the run."""
        counts = {"planned": planned, "ok": ok, "bad": bad, "missing": max(0, planned - ok - bad)}
        self._fields["counts"] = {**counts, "missing_chunks": missing_chunks}

    def end(self, state: str, exit_code: int, trouble: str | None = None) -> None:
        """Write the final record."""
        now = time_text(self._environment.now())
        self._fields |= {"state": state, "ended": now, "exit_code": exit_code, "trouble": trouble}
        self._write()

    def heartbeat(self) -> AbstractContextManager[None]:
        """Return a context manager in which the record is rewritten regularly with the current numbers."""
        return self._environment.heartbeat(self._write)

    def _write(self) -> None:
        with self._lock:
            try:
                self._environment.store.publish(self.uri, self._content())
            except OSError as error:
                self._environment.say(f"the record of this run cannot be written: {redacted(str(error))}")

    def _content(self) -> bytes:
        self._fields["heard"] = time_text(self._environment.now())
        if self._progress is not None:
            self._fields["done"] = done_so_far(self._progress)
        return json.dumps(without_secrets(dict(self._fields), self._secrets), indent=1).encode()


@contextmanager
def recorded(output: str, about: Mapping[str, Any], environment: Environment | None = None) -> Iterator[RunRecord]:
    """Write the record of a run, however it ends; the body sets its `exit_code` and `trouble`."""
    record = RunRecord(output, about, environment)
    try:
        with record.heartbeat():
            yield record
    except (SystemExit, KeyboardInterrupt) as stop:
        record.end(INTERRUPTED, stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130)
        raise
    except SettingError as error:
        record.end(REFUSED, 2, str(error))
        raise
    except BaseException as error:
        record.end(FAILED, 1, f"{type(error).__name__}: {error}")
        raise
    record.end(ENDED, record.exit_code, record.trouble)


def write_plan(output: str, measured: Sequence[MeasuredShard], store: Store = FILES) -> str:
    """Write (hash of the URI, URI, format, fingerprint, samples) of every shard; return the name of the file."""
    shards = [
        [storage.short_hash(found.shard.uri), redacted(found.shard.uri), found.shard.format, found.shard.fingerprint,
         found.samples]
        for found in measured
    ]  # fmt: skip
    content = gzip.compress(json.dumps(shards, separators=(",", ":")).encode(errors="surrogateescape"), mtime=0)
    name = f"{storage.short_hash(json.dumps(shards))}.json.gz"
    uri = layout.plan_uri(output, name)
    if not store.exists(uri):
        store.publish(uri, content)
    return name


def done_so_far(progress: Progress) -> dict[str, Any]:
    """Return what this run has done: samples, seconds, and reasons of failures."""
    return {
        "ok": progress.ok,
        "bad": progress.bad,
        **({"filtered": progress.filtered} if progress.filtered else {}),
        "elapsed_s": round(progress.elapsed_s, 3),
        "samples_per_s": round(progress.done / progress.elapsed_s, 4) if progress.done else 0.0,
        "seconds": {stage: round(seconds, 3) for stage, seconds in dict(progress.seconds).items()},
        "batch_size": max(use.batch_size for use in (progress.use, *progress.use.engines.values())),
        **model_use(progress),
        "errors": dict(reason_kinds(progress.reasons).most_common(100)),
        "failed_chunks": list(dict.fromkeys(progress.failures))[:20],
    }


def model_use(progress: Progress) -> dict[str, Any]:
    """Return what is known about the models: see `ModelUse` for the shares and rates, and `History` for the points."""
    use = progress.use
    known = {
        "busy_share": use.busy_share,
        "model_samples_per_s": use.rows_per_s,
        "gpu_hours": use.gpu_s / 3600 if use.gpus else None,
    }
    found: dict[str, Any] = {name: round(value, 4) for name, value in known.items() if value is not None}
    compiling = {} if use.compiling is None else {"compile": use.compiling}
    if use.engines:
        compiling["engines"] = {stage: engine_use(each) for stage, each in use.engines.items()}
    return {**found, **compiling, "history": list(progress.history.points)} if found or compiling else {}


def engine_use(use: ModelUse) -> dict[str, Any]:
    """Return what is known about one of several models."""
    known = {"busy_share": use.busy_share, "model_samples_per_s": use.rows_per_s, "device_s": use.device_s}
    found = {name: round(value, 4) for name, value in known.items() if value is not None}
    return {"actors": use.resources.actors, **found, "batch_size": use.batch_size}


def command_line() -> list[str]:
    """Return the command line of this process without secrets."""
    return [redacted(word) for word in sys.argv]


def versions() -> dict[str, str | None]:
    """Return the versions of this project, of Python, and of the packages that influence results."""
    return {
        "unicon-data": VERSION,
        "python": platform.python_version(),
        **{name: _installed(name) for name in PACKAGES},
    }


def host() -> dict[str, Any]:
    """Return a description of the machine of the driver."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "name": socket.gethostname(),
        "pid": os.getpid(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": memory_bytes,
    }


def time_text(moment: datetime) -> str:
    """Format a time as `2026-11-24T01:00:00Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def without_secrets(value: Any, secrets: Sequence[str] | None = None) -> Any:
    """Return the value with secrets replaced in all of its texts."""
    secrets = secret_values() if secrets is None else secrets
    if isinstance(value, str):
        return redacted(value, secrets)
    if isinstance(value, Mapping):
        return {redacted(str(name), secrets): without_secrets(inner, secrets) for name, inner in value.items()}
    return [without_secrets(inner, secrets) for inner in value] if isinstance(value, list | tuple) else value


@cache
def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
