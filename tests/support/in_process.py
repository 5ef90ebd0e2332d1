"""Real runs in this process, without Ray: chunks are read, computed and published one after the other.

The data plane is the real one, on a real disk. Tests can intervene between two chunks or between two writes.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.dataset import layout
from pipelines.engine.blocks import Flow, ModelStage
from pipelines.engine.resources import Resources
from pipelines.readers.sources import ImageShards
from pipelines.runs.environment import Environment
from pipelines.runs.request import Job, RunRequest
from pipelines.runs.runner import run_job
from pipelines.samples import Chunk, Columns
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.stages.task import UNSUPERVISED
from pipelines.storage.store import FILES, FsspecStore, Store
from tests.simulation.job import CopyText, Model
from tests.support.inputs import write_folder, write_tar

Do = Callable[[Chunk], None]
"""Processes one chunk."""
During = Callable[[Sequence[Chunk], Do], None]
"""Replaces the processing of the first list of chunks of a run."""


class KilledError(BaseException):
    """Ends a run as SIGKILL does: no code of the run is executed afterwards."""


@dataclass(frozen=True)
class HookedStore(FsspecStore):
    """The real store with a hook that is called before every change."""

    before: Callable[[str, str], None] = lambda operation, uri: None
    """Receives the operation and the URI; may raise."""

    def publish(self, uri: str, content: bytes) -> None:
        self.before("publish", uri)
        super().publish(uri, content)

    def create_once(self, uri: str, content: bytes) -> None:
        self.before("create", uri)
        super().create_once(uri, content)

    def remove(self, uri: str) -> None:
        self.before("remove", uri)
        super().remove(uri)


@dataclass(frozen=True)
class InProcess:
    """An executor with one worker, in the driver process."""

    during: During | None = None

    @contextmanager
    def open(
        self, job: Job, request: RunRequest, output: str, working: Any, on_failure: Callable[[str], None]
    ) -> Iterator[Callable[[Sequence[Chunk]], Iterator[dict[str, Any]]]]:
        working({"CPU": 1.0}, Resources())
        flow = job.make_flow(output, Resources())
        models: Any = [stage.model.build() for stage in flow.models]
        steps = [self.during] if self.during is not None else []

        def process(chunks: Sequence[Chunk]) -> Iterator[dict[str, Any]]:
            receipts: list[dict[str, Any]] = []

            def do(chunk: Chunk) -> None:
                try:
                    block = flow.read(chunk, UNSUPERVISED)
                    for model in models:
                        block = model(chunk, block, UNSUPERVISED)
                    receipts.append(dict(flow.publish(chunk, block, UNSUPERVISED)))
                except OSError as error:
                    on_failure(str(error))

            during = steps.pop() if steps else lambda chunks, do: [do(chunk) for chunk in chunks]
            during(chunks, do)
            yield from receipts

        yield process


@dataclass
class World:
    """An input folder, an output, and runs of one command on them."""

    root: Path
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs, self.output = self.root / "in", self.root / "out"
        self.inputs.mkdir()

    def run(
        self,
        *,
        fails: Collection[str] = (),
        during: During | None = None,
        store: Store = FILES,
        settings: Mapping[str, Any] | None = None,
        inputs: Sequence[Path | str] | None = None,
        filtered: Collection[int] = (),
        **request: Any,
    ) -> int:
        """Run once with a model that fails for the given keys, without the filtered positions; return the exit code."""
        source = ImageShards(columns=Columns(), store=store)
        task = CopyText()

        def make_flow(output: str, resources: Resources) -> Flow:
            compute = ComputeRows(task=task, model=Model(lambda key: key in fails), run_seed=0, batch_size=4)
            publish = PublishRows(output=output, task=task, provenance={"seed": 0}, store=store)
            published = partial(layout.is_published, output, extension="parquet", store=store)
            gives_up = bool(request.get("give_up"))
            read = ReadRows(task=task, source=source, published=published, gives_up=gives_up)  # type: ignore[arg-type]
            return Flow(read=read, models=(ModelStage(model=compute),), publish=publish)

        job = Job(
            name="copy",
            settings=settings or {"a": 1},
            source=source,
            make_flow=make_flow,
            finish=lambda *counts: None,
            prepare=lambda output, shards, chunks: [without(chunk, filtered) for chunk in chunks],
        )
        environment = Environment(
            store=store,
            executor=InProcess(during),
            say=self.said.append,
            heartbeat=lambda beat: nullcontext(),
            afterwards=lambda output: None,
        )
        words = [str(each) for each in inputs or [self.inputs]]
        return run_job(
            job, RunRequest(inputs=words, output=str(self.output), **{"chunk_size": 10, **request}), environment
        )

    def until_done(self, **options: Any) -> list[int]:
        """Run the same command until its exit code is 0, at most four times, and return the exit codes."""
        codes = [self.run(**options)]
        while codes[-1] != 0 and len(codes) < 4:
            codes.append(self.run(**options))
        return codes

    def rows(self) -> Counter[str]:
        """Count how often each key occurs in data/ and errors/ together, over all shards."""
        found: Counter[str] = Counter()
        for folder in ("data", "errors"):
            for path in sorted((self.output / folder).glob("*.parquet")):
                found.update(pq.ParquetFile(path).read(["key"]).column("key").to_pylist())
        return found

    def values(self) -> dict[str, str]:
        """Map the key of each row in data/ to its value."""
        tables = [pq.ParquetFile(path).read() for path in sorted((self.output / "data").glob("*.parquet"))]
        return {row["key"]: row["value"] for table in tables for row in table.to_pylist()}

    def failed(self) -> set[str]:
        """Return the keys in errors/."""
        paths = sorted((self.output / "errors").glob("*.parquet"))
        return {key for path in paths for key in pq.ParquetFile(path).read(["key"]).column("key").to_pylist()}

    def stems(self) -> set[str]:
        """Return the stems of the finished versions."""
        return {version.stem for version in layout.list_output(str(self.output)).finished}


def without(chunk: Chunk, filtered: Collection[int]) -> Chunk:
    """Return the chunk with the reason why those of its positions are filtered."""
    reasons = tuple((at, "near-duplicate (of another)") for at in chunk.positions if at in filtered)
    return replace(chunk, filtered=reasons)


def once(keys: Collection[str]) -> Counter[str]:
    """Return the expected result of `World.rows`: every key once."""
    return Counter(dict.fromkeys(keys, 1))


def keys(count: int, first: int = 0) -> list[str]:
    return [f"{number:05d}" for number in range(first, first + count)]


def tar(world: World, names: Sequence[str], version: int = 1, name: str = "a.tar") -> Path:
    """Write a tar whose samples contain their key and version; each version has its own modification time."""
    path = write_tar(world.inputs / name, [(f"{key}.jpg", f"{key} v{version}".encode()) for key in names])
    os.utime(path, (version, version))
    return path


def images(world: World, names: Sequence[str], version: int = 1) -> None:
    """Write loose files with the same contents and times as `tar`."""
    for name, content in {f"{key}.jpg": f"{key} v{version}".encode() for key in names}.items():
        write_folder(world.inputs, {name: content})
        os.utime(world.inputs / name, (version, version))


def files(names: Sequence[str]) -> list[str]:
    return [f"{key}.jpg" for key in names]


def dies_at(number: int, error: type[BaseException] = KilledError) -> HookedStore:
    """Return a store that raises before its n-th change of rows, errors or marks."""
    changes = iter(range(1, 1_000_000))

    def before(operation: str, uri: str) -> None:
        if any(f"/{folder}/" in uri for folder in ("data", "errors", "done")) and next(changes) == number:
            raise error(28, f"{operation} {uri}")

    return HookedStore(before=before)


def interrupted_everywhere(
    world_of: Callable[[], World], run: Callable[[World, HookedStore], int], check: Callable[[World], None]
) -> None:
    """Stop a run before each of its changes, once by a kill and once by a storage error, and check the result."""
    for error in (KilledError, OSError):
        for number in range(1, 60):
            world = world_of()
            try:
                code = run(world, dies_at(number, error))
            except KilledError:
                code = -9
            check(world)
            if code == 0:
                break
        else:
            raise AssertionError("a run of so few samples has fewer changes")
    assert number > 3


def worlds(tmp_path: Path, prepare: Callable[[World], None]) -> Callable[[], World]:
    """Return a factory of new worlds that are all prepared in the same way."""
    numbers = iter(range(1_000))

    def new() -> World:
        folder = tmp_path / f"world{next(numbers)}"
        folder.mkdir()
        world = World(folder)
        prepare(world)
        return world

    return new
