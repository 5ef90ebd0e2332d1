"""The batch size that finds itself: grows while it pays, shrinks when memory is short, is remembered."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.stages.batch_sizes import (
    FIRST_SIZE,
    MAX_SIZE,
    TRIALS,
    BatchSizes,
    GrowingBatchSizes,
    Growth,
    RememberedSizes,
    found_sizes,
)


def grow(growth: Growth, seconds_of: dict[int, float]) -> list[int]:
    """Run batches until the search ends, and return the sizes that were tried."""
    tried = []
    while not growth.has_ended:
        tried.append(growth.size)
        for _ in range(TRIALS):
            growth.took(growth.size, seconds_of[growth.size])
    return tried


def test_the_size_doubles_while_rows_per_second_grow() -> None:
    growth = Growth(size=8, most=64)
    assert grow(growth, {8: 1.0, 16: 1.6, 32: 2.8, 64: 5.6}) == [8, 16, 32, 64]
    assert growth.size == 32, "64 at once are no faster"
    growth = Growth(size=8, most=64)
    assert (grow(growth, {8: 1.0, 16: 1.99}), growth.size) == ([8, 16], 8)
    growth = Growth(size=8, most=32)
    assert (grow(growth, {8: 1.0, 16: 1.0, 32: 1.0}), growth.size) == ([8, 16, 32], 32)


def test_the_first_batch_of_a_size_and_incomplete_ones_do_not_mislead() -> None:
    growth = Growth(size=8, most=64)
    for seconds in (90.0, 1.0, 1.0):  # compiling
        growth.took(8, seconds)
        growth.took(5, 0.001)
    assert (growth.size, growth.best, growth.rate) == (16, 8, 8.0)


def test_memory_ends_the_search() -> None:
    growth = Growth(size=8, most=64)
    for _ in range(TRIALS):
        growth.took(8, 1.0)
    growth.did_not_fit(16)
    assert (growth.size, growth.has_ended) == (8, True)
    growth.did_not_fit(8)
    assert growth.size == 4
    growth.did_not_fit(8)
    assert growth.size == 4, "a batch that was started before"


def test_sizes_are_found_by_area_and_remembered(tmp_path: Path) -> None:
    remembered = RememberedSizes(tmp_path / "cache" / "sizes.json")
    sizes = GrowingBatchSizes(remembered, lambda area_px: f"model, {area_px}")
    for _ in range(TRIALS):
        sizes.took(100, FIRST_SIZE, 1.0)
    sizes.did_not_fit(100, 2 * FIRST_SIZE)
    assert (sizes.limit(100), sizes.limit(50)) == (FIRST_SIZE, FIRST_SIZE)
    assert remembered.read("model, 100") == FIRST_SIZE
    for size in (8, 16, 32, 64):
        for _ in range(TRIALS):
            sizes.took(50, size, 1.0)
    assert sizes.limit(50) == MAX_SIZE
    again = GrowingBatchSizes(remembered, lambda area_px: f"model, {area_px}")
    assert (again.limit(50), again.limit(100), again.limit(70)) == (MAX_SIZE, FIRST_SIZE, FIRST_SIZE)


@pytest.mark.parametrize("content", ["", "[1]", '{"key": "many"}', '{"key": 0}', '{"key": 100000}', "\udcff"])
def test_a_damaged_memory_is_no_memory(content: str, tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text(content, errors="surrogateescape")
    remembered = RememberedSizes(tmp_path / "sizes.json")
    assert remembered.read("key") is None
    remembered.write("key", 16)
    assert remembered.read("key") == 16
    assert [path.name for path in tmp_path.iterdir()] == ["sizes.json"]


def test_a_memory_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    RememberedSizes(tmp_path / "file" / "sizes.json").write("key", 8)
    assert RememberedSizes(tmp_path / "file" / "sizes.json").read("key") is None


def test_a_cpu_has_a_fixed_size_and_other_devices_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @dataclass
    class Model:
        device_name: str = "cpu"
        dtype: str = "torch.float16"
        weights_sha256: str = "0" * 64

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert type(found_sizes(Model(), "task")) is BatchSizes
    sizes = found_sizes(Model("NVIDIA H200"), "task")
    for _ in range(TRIALS):
        sizes.took(64, FIRST_SIZE, 1.0)
    assert sizes.limit(64) == 2 * FIRST_SIZE
    sizes.did_not_fit(64, 2 * FIRST_SIZE)
    other_task, other_device = found_sizes(Model("NVIDIA H200"), "other"), found_sizes(Model("NVIDIA A100"), "task")
    for other in (other_task, other_device):
        assert other.limit(64) == FIRST_SIZE
        other.took(64, FIRST_SIZE, 1.0)
    same = found_sizes(Model("NVIDIA H200"), "task")
    for _ in range(TRIALS):
        same.took(64, FIRST_SIZE, 1.0)
    assert same.limit(64) == FIRST_SIZE, "it was found before"
