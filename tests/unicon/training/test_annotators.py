"""Real annotators: Canny on a drawn image, and weights that are missing or are more than tensors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs._adapter_training import DEFAULTS as OF_THE_COMMAND
from tests.support.images import square
from unicon.training.annotators import (
    ANNOTATIONS,
    DEFAULTS,
    choose_annotator,
    find_weights,
    make_annotator,
)
from unicon.training.detectors import tensors_only


def test_edges_lie_where_the_square_is() -> None:
    image = square((192, 128), (48, 32, 144, 96))
    edges = make_annotator("edge", detect_px=128)(image)
    assert (edges.mode, edges.size) == ("RGB", (192, 128))
    strong = np.asarray(edges.convert("L")) > 100
    rows, columns = np.nonzero(strong)
    assert abs(rows.min() - 32) <= 1 and abs(rows.max() - 96) <= 1
    assert abs(columns.min() - 48) <= 1 and abs(columns.max() - 144) <= 1
    assert not strong[40:88, 56:136].any()
    assert strong[31:34, 60:130].any(axis=0).all()


def test_soft_edges_are_those_of_the_detector_of_that_name(tmp_path: Path) -> None:
    """controlnet-aux's own HED, with random weights in the file that it reads."""
    from controlnet_aux.hed import ControlNetHED_Apache2

    torch.manual_seed(0)
    torch.save(ControlNetHED_Apache2().state_dict(), tmp_path / "ControlNetHED.pth")
    image = square((64, 64))
    name, weights = choose_annotator("edge", "hed", str(tmp_path))
    soft = np.asarray(make_annotator(name, weights=weights, detect_px=64)(image))
    assert soft.shape == (64, 64, 3) and not np.array_equal(
        soft, np.asarray(make_annotator("edge", detect_px=64)(image))
    )


def test_what_a_name_of_an_annotator_means(tmp_path: Path) -> None:
    assert choose_annotator("edge") == ("canny", None)
    assert choose_annotator("depth", str(tmp_path)) == ("midas", str(tmp_path))  # as earlier versions took it
    assert choose_annotator("pose", "owner/weights") == ("openpose", "owner/weights")
    assert {DEFAULTS[kind] for kind in ANNOTATIONS} == {"canny", "midas", "openpose"} and DEFAULTS == OF_THE_COMMAND
    with pytest.raises(ValueError, match="make edge maps are canny, hed, pidinet, .*; got 'openpose'"):
        choose_annotator("edge", "openpose")


def test_annotations_have_the_size_of_the_image() -> None:
    assert make_annotator("edge")(square((101, 67))).size == (101, 67)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="one of .*'edge'.*; got 'egde'"):
        make_annotator("egde")


@pytest.mark.parametrize("kind", ["depth", "pose"])
def test_missing_weights(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="lacks .*Fetch them from the hub"):
        make_annotator(kind, weights=tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder, is not in the hub cache"):
        find_weights(ANNOTATIONS[kind], "nobody/nothing")
    with pytest.raises(FileNotFoundError, match="is no folder, is not in the hub cache"):
        find_weights(ANNOTATIONS[kind], tmp_path / "absent")


class RunsCode:
    """A pickle of it would call a function when it is read."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("proof-that-code-ran",)


def test_weights_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for name in ANNOTATIONS["pose"].files:
        torch.save({"weight": RunsCode()}, tmp_path / name)
    with pytest.raises(ValueError, match="tensors and nothing else"):
        make_annotator("pose", weights=tmp_path)
    assert not (tmp_path / "proof-that-code-ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def test_the_switch_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    with tensors_only():
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
