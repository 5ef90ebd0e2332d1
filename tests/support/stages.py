"""Stages for tests of the dataset graph, in a module that workers can import."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.dataset.tar_bytes import TarSample
from pipelines.engine import blocks
from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import new_block
from pipelines.samples import Chunk
from pipelines.stages.task import UNSUPERVISED

PAYLOAD = pa.schema([("payload", pa.large_binary())])


def make_chunk(number: int, rows: int = 16) -> Chunk:
    return Chunk(name=f"chunk-{number}", shard_uri="/x.tar", shard_format="tar", start=number, stop=number + rows)


@dataclass(frozen=True)
class Rows:
    """A read stage: 100 KB a row."""

    size_bytes: int = 100_000

    def __call__(self, chunk: Chunk, attempt: Attempt = UNSUPERVISED) -> pa.Table:
        rows = [{"position": at, "key": str(at), "payload": bytes(self.size_bytes)} for at in chunk.positions]
        return new_block(chunk, rows, PAYLOAD)


@dataclass(frozen=True)
class Measure:
    """A model that returns the length of the payload, and drops a row or fails in the named chunks."""

    loses_in: str = ""
    fails_in: str = ""

    def build(self) -> "Measure":
        return self

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt) -> pa.Table:
        if chunk.name == self.fails_in:
            raise RuntimeError("the device fell off the bus")
        lengths = pa.array([len(value) for value in block.column("payload").to_pylist()])
        result = blocks.set_columns(block, {"length": lengths}, drop=["payload"])
        return result.slice(1) if chunk.name == self.loses_in else result


@dataclass(frozen=True)
class Triple:
    """A second model: multiplies the lengths of the first by three."""

    def build(self) -> "Triple":
        return self

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt) -> pa.Table:
        assert attempt.stage == "triple"
        lengths = pa.array([3 * value for value in block.column("length").to_pylist()])
        return blocks.set_columns(block, {"length": lengths})


@dataclass(frozen=True)
class Slow:
    """A model that takes some time for each block and records the process that ran it."""

    seconds: float

    def build(self) -> "Slow":
        return self

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt) -> pa.Table:
        time.sleep(self.seconds)
        return blocks.set_columns(block, {"process": pa.array([os.getpid()] * block.num_rows)}, drop=["payload"])


def processes(chunk: Chunk, block: pa.Table, attempt: Attempt) -> Mapping[str, Any]:
    return {"chunk": chunk.name, "processes": block.column("process").unique().to_pylist()}


def count(chunk: Chunk, block: pa.Table, attempt: Attempt) -> Mapping[str, Any]:
    return {"chunk": chunk.name, "ok": block.num_rows, "bytes": sum(block.column("length").to_pylist())}


def double(task: int) -> Mapping[str, Any]:
    return {"task": task, "double": 2 * task}


def numbers(first: int, count: int) -> Iterator[TarSample]:
    for number in range(first, first + count):
        yield f"{number:06d}", {"txt": str(number).encode(), "json": b"{}"}
