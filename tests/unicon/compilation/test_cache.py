"""The file of compiled code: complete, trusted, and of use to the next process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from unicon.compilation import cache
from unicon.compilation.compiled import Compilation
from unicon.compilation.policy import CompileSettings

ALWAYS = CompileSettings(mode="always")
CPU = torch.device("cpu")


@pytest.fixture
def new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what torch has compiled in this process and kept on this machine."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "of-this-process"))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Product(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows * 2 + 1


def product(module: Product, rows: Tensor) -> Tensor:
    return module(rows)


@torch.no_grad()
def test_the_next_process_starts_from_the_code_of_the_first(
    tmp_path: Path, new_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = tmp_path / "kept" / "a.compiled", torch.ones(2, 3)
    first = Compilation(ALWAYS, path=path)
    assert torch.equal(first.run(product, Product(), rows), torch.full((2, 3), 3.0))
    assert first.describe()["from_cache"] == 0
    assert path.is_file() and cache.is_own(path)
    assert counters["inductor"]["fxgraph_cache_miss"] == 1

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "of-the-next-process"))
    torch.compiler.reset()
    counters.clear()
    second = Compilation(ALWAYS, path=path)
    assert torch.equal(second.run(product, Product(), rows), torch.full((2, 3), 3.0))
    assert second.describe()["from_cache"] == 1
    assert counters["inductor"]["fxgraph_cache_miss"] == 0

    written = path.read_bytes()
    assert not cache.save(path, second.compiled)
    path.write_bytes(written[: len(written) // 2])
    assert cache.load(path) == {}


def test_only_own_files_are_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.compiled"
    assert cache.load(path) == {}
    path.write_bytes(b"no JSON\ncode")
    path.chmod(0o666)
    with caplog.at_level(logging.WARNING, "unicon"):
        assert cache.load(path) == {}
        path.chmod(0o600)
        assert cache.load(path) == {}
    reasons = [record.getMessage().partition("because ")[2] for record in caplog.records]
    assert reasons[0].startswith("others may have written it")
    assert reasons[1].startswith("it is damaged")
    tmp_path.chmod(0o777)
    assert not cache.is_own(path)


def test_files_are_named_after_everything_that_the_code_depends_on(tmp_path: Path) -> None:
    paths = {
        cache.cache_path(weights, torch.device(device), dtype, tmp_path)
        for weights in ("a", "b") for device in ("cpu", "mps") for dtype in (torch.float16, torch.float32)
    }  # fmt: skip
    assert len(paths) == 8
    assert cache.cache_path("a", CPU, torch.float16, tmp_path) in paths
    assert cache.cache_path("a", CPU, torch.float16).parent.name == "compiled"
