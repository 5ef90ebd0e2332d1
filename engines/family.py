"""What all families of engines have: the defaults of a family that is one place with weights.

Tested in tests/engines/, with the families.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from engines.interfaces import Made, Target
from engines.options import EngineOption, Value


@dataclass(frozen=True)
class Family:
    """Engines that are loaded in the same way: one file of this package, and one entry of `families.py`.

    Its attributes and methods import neither torch nor the package that they describe, except for `load`. `name` is the
    text after the colon, and `options` are the values that are not at their defaults. All methods raise ValueError for
    what does not fit.
    """

    name: ClassVar[str]
    """What stands before the colon."""
    place: ClassVar[str] = "DIR"
    """What stands after the colon, for people."""
    help: ClassVar[str]
    """What it makes, in a few words."""
    package: ClassVar[str]
    """The distribution whose version is recorded."""
    makes_images: ClassVar[bool] = False
    """Whether it makes images that follow conditions, on a base model; else it estimates a condition of images."""
    has_dtype: ClassVar[bool] = True
    """Whether the data type of weights and computation can be chosen."""
    known: ClassVar[tuple[EngineOption, ...]] = ()
    """The options of every engine of the family."""

    def check(self, name: str) -> None:
        """Check the text after the colon."""

    def modules(self, name: str) -> Sequence[str]:
        """Return the modules that loading imports."""
        return (self.package.replace("-", "_"),)

    def options(self, name: str) -> Sequence[EngineOption]:
        """Return the options of an engine."""
        return self.known

    def weights(self, name: str, given: str | None) -> str | None:
        """Return where the weights are: a folder, URI or hub id; None for an engine without weights."""
        if given is not None:
            raise ValueError(f"the weights of {self.name}:{name} are named after the colon; got also {given!r}.")
        return name

    def choose(self, name: str, names: Collection[str]) -> Collection[str]:
        """Choose the files to load among the paths of all files in the folder of the weights.

        Raises:
            FileNotFoundError: A file that is needed is absent.
        """
        raise NotImplementedError

    def makes(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Made | None:
        """Return the condition that the engine estimates or follows; None if that is left to the user."""
        raise NotImplementedError

    def area_px(self, name: str, options: Mapping[str, Value], folder: Path | None) -> int:
        """Return the number of pixels of an image that the engine can use; 0: no more than usual."""
        return 0

    def license_note(self, name: str) -> str:
        """Return what users must know about the license of the weights, if anything."""
        return ""

    def check_base(self, folder: Path, base: Path) -> None:
        """Check that the weights fit the base model, for a family that makes images."""

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> Any:
        """Load the model: a `MapEngine`, or what the jobs call (`Estimator` or `Synthesizer`)."""
        raise NotImplementedError
