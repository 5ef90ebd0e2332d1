"""Concurrent writing of WebDataset tars: one task for each shard, published atomically; finished shards are skipped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines import storage
from pipelines.dataset.tar_bytes import TarSample, tar_bytes
from pipelines.storage.store import FILES, Store


@dataclass(frozen=True, kw_only=True)
class TarTask:
    """A shard to write."""

    uri: str
    make: Callable[[], Iterable[TarSample]]
    """Yields the samples. It runs in a worker, so it must be picklable (`functools.partial` of a function)."""


def write_tar_shards(
    tasks: Sequence[TarTask], cpus_per_task: float = 1.0, store: Store = FILES
) -> Iterator[dict[str, Any]]:
    """Write the shards that do not exist yet with Ray Data; yield a receipt (uri, samples, size_bytes) for each.

    Shards are complete or absent, so the same call after a kill writes what is left. Ray must be running, see
    `pipelines.engine.cluster.ray_session`.
    """
    from pipelines.engine.flow import run_tasks

    yield from run_tasks(unwritten(tasks, store), partial(write_tar_shard, store=store), cpus_per_task)


def unwritten(tasks: Sequence[TarTask], store: Store = FILES) -> list[TarTask]:
    """Return the tasks whose shard does not exist; each folder is listed once."""
    folders = {task.uri.rsplit("/", 1)[0] for task in tasks}
    there = {uri for folder in folders for uri in store.list_uris(folder)}
    return [task for task in tasks if storage.normalize(task.uri) not in there]


def write_tar_shard(task: TarTask, store: Store = FILES) -> dict[str, Any]:
    """Create and publish one shard."""
    count = 0

    def counted() -> Iterator[TarSample]:
        nonlocal count
        for sample in task.make():
            count += 1
            yield sample

    content = tar_bytes(counted())
    store.publish(storage.normalize(task.uri), content)
    return {"uri": task.uri, "samples": count, "size_bytes": len(content)}
