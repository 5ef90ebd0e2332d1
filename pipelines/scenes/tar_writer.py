"""Writing many WebDataset tars at once: one task a shard, published whole, finished ones skipped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines import storage
from pipelines.dataset.tar_bytes import TarSample, tar_bytes
from pipelines.storage.store import FILES, Store


@dataclass(frozen=True, kw_only=True)
class TarTask:
    """One shard to write."""

    uri: str
    make: Callable[[], Iterable[TarSample]]
    """Yields the samples; runs in a worker, so it must be picklable (`functools.partial` of a module's function)."""


def write_tar_shards(
    tasks: Sequence[TarTask], cpus_per_task: float = 1.0, store: Store = FILES
) -> Iterator[dict[str, Any]]:
    """Write the shards that do not exist yet, with Ray Data; yields a receipt (uri, samples, size_bytes) for each.

    A shard exists only when it is whole, so the same call after a kill does what is left. Needs a running Ray, see
    `pipelines.engine.cluster.ray_session`.
    """
    from pipelines.engine.flow import run_tasks

    yield from run_tasks(unwritten(tasks, store), partial(write_tar_shard, store=store), cpus_per_task)


def unwritten(tasks: Sequence[TarTask], store: Store = FILES) -> list[TarTask]:
    """The tasks whose shard is not there; each folder is listed once."""
    folders = {task.uri.rsplit("/", 1)[0] for task in tasks}
    there = {uri for folder in folders for uri in store.list_uris(folder)}
    return [task for task in tasks if storage.normalise(task.uri) not in there]


def write_tar_shard(task: TarTask, store: Store = FILES) -> dict[str, Any]:
    """Make and publish one shard."""
    count = 0

    def counted() -> Iterator[TarSample]:
        nonlocal count
        for sample in task.make():
            count += 1
            yield sample

    content = tar_bytes(counted())
    store.publish(storage.normalise(task.uri), content)
    return {"uri": task.uri, "samples": count, "size_bytes": len(content)}
