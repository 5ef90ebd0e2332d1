"""Checking the weight files of an engine by what is in their headers, before anything is loaded.

Tested in tests/engines/test_files.py.
"""

from __future__ import annotations

import pickle
from pathlib import Path

from unicon.files.headers import read_header, read_json

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt"})
"""Extensions of weights that torch has pickled."""


def check_file(path: Path) -> None:
    """Check that a file is JSON, safetensors, or a pickle of tensors and nothing else, by its extension.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, something else, or would run code.
    """
    if path.suffix == ".safetensors":
        read_header(path)
    elif path.suffix == ".json":
        read_json(path)
    elif path.suffix in PICKLES:
        _check_pickle(path)


def _check_pickle(path: Path) -> None:
    """Raise ValueError for a pickle that names functions or classes beside those of tensors.

    Pickles in the format before torch 1.6 cannot be examined without reading them; loading refuses those that would
    run code, since it reads tensors only.
    """
    import torch

    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        if _is_old_pickle(path):
            return
        raise ValueError(f"{path} holds no weights: {str(error).splitlines()[0][:200]} Get the file again.") from error
    if unsafe:
        raise ValueError(
            f"weights are tensors and nothing else; {path} names {', '.join(sorted(unsafe)[:3])}, which would run code "
            "when it is loaded. Get the weights from another source, in safetensors if possible."
        )


def _is_old_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"
