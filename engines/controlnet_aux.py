"""The annotators of controlnet-aux: edges, lines, depth, normals and poses. `unicon.annotations` lists them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from engines.annotator import DETECT_PX, OPTIONS, Annotating
from engines.estimator import MapEngine
from engines.family import Family
from engines.interfaces import Made, Target
from engines.options import EngineOption, Value
from unicon.annotations import ANNOTATORS
from unicon.working_sizes import MAX_ASPECT


class ControlNetAux(Family):
    """See `Family`."""

    name, place, package, has_dtype = "controlnet-aux", "NAME", "controlnet-aux", False
    help = f"annotators: {', '.join(ANNOTATORS)}"

    def check(self, name: str) -> None:
        if name not in ANNOTATORS:
            raise ValueError(f"the annotators of controlnet-aux are {', '.join(ANNOTATORS)}; got {name[:60]!r}.")

    def modules(self, name: str) -> Sequence[str]:
        return ("controlnet_aux", *ANNOTATORS[name].modules)

    def options(self, name: str) -> Sequence[EngineOption]:
        return (DETECT_PX, *OPTIONS.get(name, ()))

    def weights(self, name: str, given: str | None) -> str | None:
        annotation = ANNOTATORS[name]
        if given is not None and not annotation.files:
            raise ValueError(f"the annotator {name} has no weights; got {given!r}. Leave them out.")
        if annotation.files and not (given or annotation.repository):
            raise ValueError(f"the annotator {name} needs a folder with {', '.join(annotation.files)}. Name it.")
        return given or (annotation.repository if annotation.files else None)

    def choose(self, name: str, names: Collection[str]) -> Collection[str]:
        annotation = ANNOTATORS[name]
        if missing := [file for file in annotation.files if file not in names]:
            source = f" They are in the hub repository {annotation.repository}." if annotation.repository else ""
            raise FileNotFoundError(f"the annotator {name} needs {', '.join(missing)}, which are absent.{source}")
        return annotation.files

    def makes(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Made:
        kind = ANNOTATORS[name].kind
        return Made(name if kind == "edge" else kind, kind)

    def area_px(self, name: str, options: Mapping[str, Value], folder: Path | None) -> int:
        return int(MAX_ASPECT * int(options.get("detect_px", 0)) ** 2)

    def license_note(self, name: str) -> str:
        return ANNOTATORS[name].license_note

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> MapEngine:
        return Annotating(name, options, target)
