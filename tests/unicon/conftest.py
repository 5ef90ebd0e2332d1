"""Fixtures of the model library's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.tiny import write_tiny_model

torch.set_num_threads(1)  # tiny models are slower on several threads, much slower beside other work
torch.backends.cudnn.allow_tf32 = False  # float32 means float32; PyTorch lets convolutions of a GPU round to 10 bits


def pytest_configure(config: pytest.Config) -> None:
    """Diffusers' Euler scheduler builds a NumPy array from a tensor in a way that NumPy 2 deprecates."""
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion folder with a random depth adapter."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))
