"""The second stage: the device works while rows are prepared and finished; each row gets its own result or error."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from pipelines.engine import blocks
from pipelines.engine.attempts import Attempt
from pipelines.engine.ledger import AttemptPlan
from pipelines.errors import SampleError
from pipelines.samples import Chunk
from pipelines.stages.compute import BlockModel, ComputeRows
from pipelines.stages.rows import BlockRows
from pipelines.stages.task import COMMON, UNSUPERVISED, row_seed
from tests.support.stages import make_chunk

WAIT_S = 10.0


@dataclass
class Events:
    """What has happened; a thread may wait for an event."""

    seen: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, event: str) -> None:
        with self.changed:
            self.seen.append(event)
            self.changed.notify_all()

    def wait_for(self, event: str) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: event in self.seen, WAIT_S)


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """Task, description and model in one: doubles numbers in batches named after their first row."""

    events: Events = field(default_factory=Events)
    run: Callable[[Callable[[], Any]], Any] = lambda call: call()
    device: Callable[[list[int]], None] = lambda numbers: None
    """What the device does, besides being there."""
    sizes: int = 1
    """Number of working sizes."""
    inputs = pa.schema([("pixels", pa.large_binary())])
    results = pa.schema([("double", pa.large_binary()), ("seed", pa.int64())])
    seeds_by_shard = False

    def build(self) -> "Doubling":
        return self

    def in_turns(self, run: Callable[[Callable[[], Any]], Any]) -> "Doubling":
        return Doubling(events=self.events, run=run, device=self.device, sizes=self.sizes)

    def working_size(self, model: Any, row: Any) -> tuple[int, int]:
        return 8, 8 * (1 + int(row["key"]) % self.sizes)

    def compute(self, model: "Doubling", rows: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        numbers = [int(row["key"]) for row in rows]
        name = f"{numbers[0]}"
        self.events.add(f"prepared {name}")
        model.run(lambda: self._work(numbers))
        results = [{"double": 2 * bytes(row["pixels"]), "seed": seed} for row, seed in zip(rows, seeds, strict=True)]
        self.events.add(f"finished {name}")
        return [
            SampleError("model", "thirteen") if number == 13 else each
            for number, each in zip(numbers, results, strict=True)
        ]

    def _work(self, numbers: list[int]) -> None:
        self.events.add(f"device {numbers[0]}")
        self.device(numbers)


def block_of(chunk: Chunk) -> pa.Table:
    rows = [{"position": at, "key": str(at), "pixels": bytes([at])} for at in chunk.positions]
    rows[2] = {"position": rows[2]["position"], "key": rows[2]["key"], "error_stage": "decode", "error_reason": "odd"}
    return blocks.new_block(chunk, rows, pa.schema([*COMMON, *Doubling.inputs]))


def stage(task: Doubling, batch_size: int = 4) -> BlockModel:
    described: Any = task
    return ComputeRows(task=described, model=described, run_seed=5, batch_size=batch_size).build()


def outcome(table: pa.Table) -> list[Any]:
    return [row["double"] if row["error_stage"] is None else row["error_reason"] for row in table.to_pylist()]


def test_the_next_batch_is_prepared_and_the_last_one_finished_while_one_is_on_the_device() -> None:
    events, missed = Events(), []

    def device(numbers: list[int]) -> None:
        around = {4: ["prepared 9"], 9: ["prepared 13", "finished 4"], 13: ["finished 9"]}[numbers[0]]
        missed.extend(event for event in around if not events.wait_for(event))

    chunk = make_chunk(4, 12)
    table = stage(Doubling(events=events, device=device))(chunk, block_of(chunk))
    assert missed == []
    errors = {6: "odd", 13: "thirteen"}
    assert outcome(table) == [errors.get(at, 2 * bytes([at])) for at in chunk.positions]


def test_two_chunks_share_the_device_and_the_older_one_goes_first() -> None:
    events, missed = Events(), []

    def device(numbers: list[int]) -> None:
        if numbers[0] == 0 and not events.wait_for("prepared 20"):
            missed.append("the second chunk is prepared while the first one computes")

    model = stage(Doubling(events=events, device=device))
    older, younger = make_chunk(0, 12), make_chunk(20, 12)
    tables: dict[int, pa.Table] = {}

    def compute(order: int, chunk: Chunk) -> None:
        tables[order] = model(chunk, block_of(chunk), Attempt(order=order))

    threads = [threading.Thread(target=compute, args=(0, older))]
    threads[0].start()
    assert events.wait_for("device 0")
    threads.append(threading.Thread(target=compute, args=(1, younger)))
    threads[1].start()
    for thread in threads:
        thread.join(WAIT_S)
    assert missed == []
    used = [event for event in events.seen if event.startswith("device")]
    assert used[:3] == ["device 0", "device 5", "device 9"]
    for order, chunk in ((0, older), (1, younger)):
        expected = ["odd" if at == 2 else 2 * bytes([position]) for at, position in enumerate(chunk.positions)]
        assert outcome(tables[order]) == expected
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_results_seeds_and_errors_belong_to_their_rows_whatever_the_batches(batch_size: int) -> None:
    def device(numbers: list[int]) -> None:
        if len(numbers) > 5:
            raise RuntimeError("CUDA out of memory")
        if 9 in numbers:
            raise ValueError("nine")

    chunk = make_chunk(0, 20)
    block = block_of(chunk)
    table = stage(Doubling(device=device, sizes=3), batch_size)(chunk, block)
    errors = {2: "odd", 9: "ValueError: nine", 13: "thirteen"}
    assert outcome(table) == [errors.get(at, 2 * bytes([at])) for at in range(20)]
    seeds = table.column("seed").to_pylist()
    assert seeds == [None if at in errors else row_seed(5, str(at)) for at in range(20)]
    assert table.column_names == ["position", "key", *COMMON.names, "error_stage", "error_reason", "double", "seed"]
    alone = Attempt("model", AttemptPlan(one_by_one=True, first=(7,), given_up={4: "it died"}))
    errors[4] = "it died"
    assert outcome(stage(Doubling(device=device))(chunk, block, alone)) == [
        errors.get(at, 2 * bytes([at])) for at in range(20)
    ]


def test_an_error_of_every_row_is_raised_and_leaves_no_threads() -> None:
    def device(numbers: list[int]) -> None:
        raise ValueError("no such operator")

    chunk = make_chunk(0, 12)
    with pytest.raises(ValueError, match="no such operator"):
        stage(Doubling(device=device))(chunk, block_of(chunk), UNSUPERVISED)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]


def test_what_the_device_did_is_counted_by_chunk() -> None:
    model = stage(Doubling(device=lambda numbers: time.sleep(0.01)))
    chunk = make_chunk(0, 12)
    _, work = model.compute(chunk, block_of(chunk))
    assert (work.largest_batch, len(work.uses)) == (4, 3)
    assert 0.03 <= work.device_s == pytest.approx(model.actor.queue.busy_s)


def test_pixels_of_a_block_are_not_copied() -> None:
    packed = pa.struct([("mode", pa.string()), ("pixels", pa.large_binary())])
    values = [{"mode": "L", "pixels": b"ab"}, None, {"mode": "L", "pixels": b"cde"}, {"mode": "RGB", "pixels": None}]
    block = pa.table({"map": pa.array(values, packed), "key": [*"wxyz"]}).slice(1)
    rows = BlockRows(block, ["key", "map"])
    buffer = rows[1]["map"]["pixels"]
    stored = block.column("map").chunk(0).field("pixels").buffers()[2]
    assert isinstance(buffer, pa.Buffer) and (bytes(buffer), buffer.address) == (b"cde", stored.address + 2)
    assert [rows[at] for at in (0, 2)] == [
        {"key": "x", "map": None}, {"key": "z", "map": {"mode": "RGB", "pixels": None}}
    ]  # fmt: skip
    assert rows.copied(1) == {"key": "y", "map": {"mode": "L", "pixels": b"cde"}}
