"""A small decoder of maps in a model folder is checked by its header, and never written over something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import write_map_decoder
from unicon.files.decoders import foreign_content, map_decoder_folder
from unicon.files.folder import weight_files
from unicon.files.inspection import check_model
from unicon.files.model_config import model_config
from unicon.files.weights import MAP_DECODER, files_to_load
from unicon.limits import ModelLimits
from unicon.options import SamplingOptions

SMALL = SamplingOptions(map_decoder="small")
WEIGHTS = f"{MAP_DECODER}/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model with a small decoder."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    write_map_decoder(folder / MAP_DECODER)
    return folder


def test_it_counts_only_where_it_is_used(folder: Path, tiny_folder: Path) -> None:
    check_model(folder)
    place = map_decoder_folder(folder)
    assert place == folder / MAP_DECODER and map_decoder_folder(tiny_folder) is None
    assert model_config(folder) == model_config(tiny_folder)
    assert model_config(folder, map_decoder=place).keys() - model_config(folder) == {"map_decoder"}
    plain, used = ([name for name, _ in weight_files(folder, [], map_decoder=each)] for each in (None, place))
    assert [name for name in used if name not in plain] == [WEIGHTS]
    assert {WEIGHTS, f"{MAP_DECODER}/config.json"} <= files_to_load(
        [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    )


def test_a_model_without_one_says_so_before_any_work(folder: Path, tiny_folder: Path) -> None:
    ModelLimits.of_folder(folder).check(SMALL)
    with pytest.raises(ValueError, match=r"map_decoder small needs .* this model has none. Train one with jobs/train"):
        ModelLimits.of_folder(tiny_folder).check(SMALL)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"_class_name": "AutoencoderTiny"},
            "is a MapDecoder, as jobs/train_decoder.py writes it; .* AutoencoderTiny",
        ),
        ({"latent_channels": 8}, "here 4 channels and 2 pixels per latent pixel; .* takes 8 channels and makes 2"),
        ({"block_out_channels": [8, 8]}, "takes 4 channels and makes 4 pixels. It is another model's: train one"),
        ({"block_out_channels": 8}, "block_out_channels is a list of widths"),
        ({"layers_per_block": 0}, "layers_per_block is of whole numbers from 1"),
        ({"layers_per_block": 2}, "exactly the tensors of its config.json; .*maps has 4 missing"),
    ],
)
def test_another_decoder_is_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    path = folder / MAP_DECODER / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ValueError, match=message):
        check_model(folder)


def test_what_may_be_written_over(folder: Path, tmp_path: Path) -> None:
    assert foreign_content(folder / MAP_DECODER) is None and foreign_content(tmp_path / "new") is None
    (folder / MAP_DECODER / "notes.txt").write_text("mine")
    assert foreign_content(folder / MAP_DECODER) == "notes.txt"
    assert foreign_content(folder / "vae") == "config.json"
    assert foreign_content(folder / "model_index.json") == "model_index.json"
