"""The description of an engine that travels to the actors: its name, weights and options.

Tested in tests/engines/test_spec.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engines.families import FAMILIES
from engines.family import Family
from engines.files import check_file
from engines.interfaces import Made
from engines.options import Value, parse_options

UNICON = "unicon"
"""The name of this project's own engine, which the jobs build themselves."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine of one of the `FAMILIES`."""

    family: Family
    name: str
    """The text after the colon: an annotator, or where the weights are."""
    weights: str | None = None
    """Folder, URI or hub id of the weights; None for an engine without weights."""
    base: str | None = None
    """The Stable Diffusion model on which the engine makes images; None for estimators."""
    options: Mapping[str, Value] = field(default_factory=dict)
    """Options that are not at their defaults."""

    @property
    def text(self) -> str:
        """The engine as it is written in a command."""
        return f"{self.family.name}:{self.name}"

    @property
    def package(self) -> str:
        """Name and version of the package that the engine runs."""
        return f"{self.family.package} {version(self.family.package)}"

    def check_package(self) -> None:
        """Raise ImportError if a module that the engine imports is not installed."""
        missing = [name for name in self.family.modules(self.name) if importlib.util.find_spec(name) is None]
        try:
            version(self.family.package)
        except PackageNotFoundError:
            missing = missing or [self.family.package]
        if missing:
            raise ImportError(
                f"the engine {self.text} needs packages that are not installed here: {', '.join(missing)}. Install "
                f"them (pip install {' '.join(missing)}), or choose another engine."
            )

    def files(self, folder: Path) -> list[tuple[str, Path]]:
        """Return (name, file) of what is loaded from a folder, after a look at the headers of weights.

        Raises:
            FileNotFoundError, ValueError: A file is absent, damaged, something else, or could run code.
        """
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        chosen = [(name, folder / name) for name in sorted(self.family.choose(self.name, names))]
        for _, path in chosen:
            check_file(path)
        return chosen

    def makes(self, folder: Path | None) -> Made | None:
        """Return the condition that the engine estimates or follows; None if that is left to the user. ValueError."""
        return self.family.makes(self.name, self.options, folder)

    def load(self, folder: Path | None, device: str | None, dtype: str | None = None, base: Path | None = None) -> Any:
        """Load the model on a device, as an `Estimator` or a `Synthesizer` of `engines.interfaces`.

        Args:
            folder: The folder of the weights; None for an engine without weights.
            device: Name of a torch device; None: a GPU if there is one, else the CPU.
            dtype: float16, bfloat16 or float32; by default float16 on a GPU and float32 on a CPU.
            base: The folder of the base model of an engine that makes images.
        """
        from engines.loading import Wanted, load

        return load(self.family, self.name, self.options, Wanted(folder, device, dtype, base))


def parse_engine(
    text: str, options: Iterable[str] = (), *, weights: str | None = None, base: str | None = None
) -> EngineSpec:
    """Parse FAMILY:NAME with options NAME=VALUE.

    Args:
        text: The engine, such as `controlnet-aux:canny` or `transformers:/models/depth-anything`.
        options: Options of the engine, such as `low_threshold=50`.
        weights: Folder, URI or hub id of the weights of an annotator; other engines name theirs after the colon.
        base: The base model of an engine that makes images.

    Raises:
        ValueError: The family, the name, an option or the weights do not fit.
    """
    family_name, colon, name = text.partition(":")
    if family_name not in FAMILIES or not name:
        known = ", ".join(f"{family.name}:{family.place}" for family in FAMILIES.values())
        raise ValueError(f"an engine is {UNICON}, or one of {known}; got {text[:200]!r}. Correct the name.")
    family = FAMILIES[family_name]
    family.check(name)
    found = parse_options(options, family.options(name), text)
    return EngineSpec(
        family=family,
        name=name,
        weights=family.weights(name, weights),
        base=base if family.makes_images else None,
        options=found,
    )
