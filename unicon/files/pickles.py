"""The names in a file of `torch.save`, read from the opcodes of its pickle without running it. Imports no torch.

Tested in tests/unicon/files/test_adapter_inspection.py.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import NamedTuple

HARMLESS_MODULES = frozenset({"collections", "torch", "torch._utils", "torch.storage", "torch._tensor"})
"""Modules that pickled dicts of tensors import. Anything else that a pickle imports could run code."""
_LEGACY_PICKLES = 4
"""Files written before PyTorch 1.6 consist of a magic number, a version, system information and the object."""


class Pickled(NamedTuple):
    """The names in a pickle."""

    texts: frozenset[str]
    """All strings, such as the keys of a dict."""
    imports: frozenset[str]
    """Functions and classes that loading it would call, as module.name."""

    @property
    def foreign(self) -> list[str]:
        """Imports that dicts of tensors do not need."""
        return sorted(name for name in self.imports if name.rpartition(".")[0] not in HARMLESS_MODULES)


def read_pickle_names(path: Path) -> Pickled:
    """Read the names in a file of `torch.save`.

    Raises:
        ValueError: It is no such file, or damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if not inside:
                    raise ValueError(f"{path} is a zip archive of something else ({archive.namelist()[:3]}).")
                return _names(io.BytesIO(archive.read(inside[0])), 1)
        with path.open("rb") as file:
            if file.read(2) == b"PK":  # a zip archive whose directory, at its end, is missing
                raise EOFError("the end is absent")
            file.seek(0)
            return _names(file, _LEGACY_PICKLES)
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is cut short or damaged ({error}). Get it again.") from error


def _names(stream: object, count: int) -> Pickled:
    texts: list[str] = []
    imports: set[str] = set()
    for _ in range(count):
        try:
            for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
                if opcode.name == "GLOBAL":
                    imports.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    imports.add(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
        except ValueError:  # the data after the pickles of an old file, or damage that loading will report
            break
    return Pickled(frozenset(texts), frozenset(imports))
