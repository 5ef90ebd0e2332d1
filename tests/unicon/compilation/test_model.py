"""A whole model, compiled: no shape is compiled twice, results stay, and a machine without a compiler does its work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.compiling import smallest_model
from tests.support.paths import PROJECT_ROOT
from unicon import UniCon
from unicon.compilation.compiled import Compilation
from unicon.compilation.policy import CompileSettings

pytestmark = pytest.mark.slow

BATCH_SIZE = 4
ASPECTS = ((16, 16), (32, 12), (12, 32), (24, 16), (16, 24))
"""Sizes of images, each of another working size."""


def estimates(model: UniCon, rows: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Estimates of `rows` images of a size, the same for every call."""
    pixels = np.random.default_rng(7).integers(0, 256, (rows, size[1], size[0], 3), dtype=np.uint8)
    images = [Image.fromarray(each) for each in pixels]
    return model.estimate(images, seeds=[*range(rows)], batch_size=BATCH_SIZE, num_views=1)


def test_nothing_is_compiled_after_five_sizes_and_every_remainder_have_been_seen(tmp_path: Path) -> None:
    compilation = Compilation(CompileSettings(mode="always"), backend="eager")
    model = smallest_model(tmp_path / "model", compilation)
    plain = smallest_model(tmp_path / "plain", Compilation())
    assert len({model.working_size(size) for size in ASPECTS}) == 5
    for size in ASPECTS:
        for rows in (1, 2, 4):
            estimates(model, rows, size)
    compiled = len(compilation.compiled)
    with torch.compiler.set_stance("fail_on_recompile"):
        for size in ASPECTS:
            for rows in range(1, 2 * BATCH_SIZE):
                found, expected = estimates(model, rows, size), estimates(plain, rows, size)
                assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) <= 1e-4
    assert compilation.failure == ""
    assert len(compilation.compiled) == compiled == 5 * 3 * 3  # sizes, numbers of rows, {encoder, UNet, decoder}


WITHOUT_COMPILER = """
import logging, sys, torch
from pathlib import Path
logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
torch.set_num_threads(1)
from tests.support.compiling import smallest_model
from tests.unicon.compilation.test_model import estimates
from unicon.compilation.compiled import Compilation
from unicon.compilation.policy import CompileSettings
folder = Path(sys.argv[1])
compiled = smallest_model(folder / "compiled", Compilation(CompileSettings(mode="always")))
plain = smallest_model(folder / "plain", Compilation())
for _ in range(2):
    assert (estimates(compiled, 3, (16, 16))[2] == estimates(plain, 3, (16, 16))[2]).all()
print(compiled.compilation.describe())
"""


def test_without_a_compiler_the_model_runs_uncompiled(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/nonexistent/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(tmp_path)],
        cwd=PROJECT_ROOT, env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'compiled': 0" in done.stdout and "'failure': " in done.stdout
    said = [line for line in done.stderr.splitlines() if line.startswith("unicon.compilation")]
    assert len(said) == 1 and "Compiling failed" in said[0] and "/nonexistent/compiler" in said[0], said
