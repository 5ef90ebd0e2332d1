"""Descriptions of engines: names, options, packages; light and picklable."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from engines import FAMILIES, EngineSpec, parse_engine
from tests.support.paths import PROJECT_ROOT
from unicon.annotations import ANNOTATORS
from unicon.condition_kinds import CONDITION_KINDS

HUB = "lllyasviel/Annotators"


def test_a_description_travels_and_stays_equal() -> None:
    for text in ("controlnet-aux:canny", "transformers:/models/x", "marigold:owner/name"):
        spec = parse_engine(text)
        assert spec.text == text and pickle.loads(pickle.dumps(spec)) == spec
    assert parse_engine("controlnet-aux:hed").weights == HUB
    assert parse_engine("controlnet-aux:hed", weights="s3://bucket/hed").weights == "s3://bucket/hed"
    assert parse_engine("controlnet-aux:canny", base="mini").base is None
    assert parse_engine("controlnet:/models/x", base="mini").base == "mini"
    assert len(pickle.dumps(parse_engine("controlnet-aux:canny"))) < 1000


def test_options_are_kept_where_they_are_not_the_default() -> None:
    given = ["high_threshold=200", "low_threshold=50", "detect_px=64"]
    assert dict(parse_engine("controlnet-aux:canny", given).options) == {"detect_px": 64, "low_threshold": 50}
    assert dict(parse_engine("controlnet-aux:openpose", ["include_hand=True"]).options) == {"include_hand": True}
    assert dict(parse_engine("controlnet:x", ["kind=edge", "guidance_scale=3"]).options) == {
        "kind": "edge", "guidance_scale": 3.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options", "weights", "message"),
    [
        ("canny", [], None, "an engine is unicon, or one of controlnet-aux:NAME, .*; got 'canny'"),
        ("controlnet-aux:", [], None, "an engine is unicon, or one of"),
        ("controlnet-aux:caney", [], None, "annotators of controlnet-aux are canny, .*; got 'caney'"),
        ("controlnet-aux:canny", ["low=1"], None, "no option 'low'; its options are detect_px, low_threshold"),
        ("controlnet-aux:canny", ["low_threshold"], None, "write NAME=VALUE, such as low_threshold=100"),
        ("controlnet-aux:canny", ["low_threshold=x"], None, "low_threshold='x': the value is an integer from 0 to"),
        ("controlnet-aux:mlsd", ["thr_v=nan"], None, "thr_v='nan': the value is a number from 0 to 2"),
        ("controlnet-aux:canny", ["detect_px=9", "detect_px=8"], None, "the value is an integer from 64 to 4096"),
        ("controlnet-aux:canny", ["detect_px=64", "detect_px=128"], None, "detect_px .* is given twice"),
        ("controlnet-aux:lineart", ["coarse=1"], None, "the value is true or false"),
        ("transformers:x", ["predicts=meters"], None, "the value is depth or disparity"),
        ("controlnet-aux:canny", [], "x", "canny has no weights; got 'x'"),
        ("transformers:x", [], "y", "named after the colon; got also 'y'"),
        ("controlnet-aux:dwpose", [], None, "needs a folder with yolox"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, options: list[str], weights: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_engine(text, options, weights=weights)


def test_a_missing_package_is_named() -> None:
    spec = parse_engine("controlnet-aux:dwpose", weights="x")
    with pytest.raises(ImportError, match=r"not installed here: mmcv, mmdet, mmpose. Install them \(pip install mmcv"):
        spec.check_package()
    for text in ("controlnet-aux:canny", "transformers:x", "marigold:x", "controlnet:x"):
        spec = parse_engine(text)
        spec.check_package()
        assert spec.package == f"{spec.family.package} {version(spec.family.package)}"


def test_every_annotator_makes_a_known_kind() -> None:
    for name, annotation in ANNOTATORS.items():
        spec = parse_engine(f"controlnet-aux:{name}", weights="x" if name == "dwpose" else None)
        made = spec.makes(None)
        assert made is not None and made.kind == annotation.kind and made.kind in CONDITION_KINDS
        assert made.column == (name if made.kind == "edge" else made.kind)


def test_licenses_that_need_a_word() -> None:
    family = FAMILIES["controlnet-aux"]
    assert "non-commercial" in family.license_note("openpose") and not family.license_note("canny")


def test_importing_the_registry_imports_no_framework() -> None:
    code = "import sys, engines\nassert not {'torch', 'diffusers', 'transformers', 'ray'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)


def test_the_page_lists_every_engine_and_option() -> None:
    page = Path(PROJECT_ROOT, "docs", "engines.md").read_text()
    names = [
        *FAMILIES,
        *ANNOTATORS,
        *(option.name for spec in all_specs() for option in spec.family.options(spec.name)),
    ]
    assert [name for name in names if f"`{name}" not in page and f":{name}`" not in page] == []


def all_specs() -> list[EngineSpec]:
    annotators = [parse_engine(f"controlnet-aux:{name}", weights="x" if each.files else None)
                  for name, each in ANNOTATORS.items()]  # fmt: skip
    return [*annotators, *(parse_engine(f"{name}:x") for name in FAMILIES if name != "controlnet-aux")]
