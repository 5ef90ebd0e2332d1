"""Choosing the device and the data type of a model.

Tested in tests/unicon/test_loading.py and tests/unicon/test_generation.py.
"""

from __future__ import annotations

import torch


def default_device() -> str:
    """Return "cuda" if available, else "mps" if available, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the device, or the default one for None.

    Raises:
        ValueError: The name is no device, or the GPU does not exist.
    """
    try:
        found = torch.device(device or default_device())
    except RuntimeError as error:
        raise ValueError(f"A device is cpu, cuda, cuda:1, mps, ...; got {device!r}. Correct the name.") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"There are {torch.cuda.device_count()} CUDA GPUs here; got device {device!r}. Give cpu.")
    return found


def floating_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a dtype given by its name or itself. Raises ValueError for one that models do not compute in."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"dtype is float16, bfloat16, float32 or float64; got {dtype!r}. Correct it.")
    return found  # type: ignore[return-value]


def training_dtype(device: str) -> str:
    """Return the name of the dtype that trains fastest on a device.

    It is bfloat16 on GPUs that support it, float16 on older ones, float32 on a CPU.
    """
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
