"""An autoencoder of another kind or from elsewhere is found, and refused by its header if it does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.model_folders import config, copied
from tests.support.tiny import write_tiny_vae
from unicon.files.autoencoders import TINY_DEFAULTS, vae_scale
from unicon.files.folder import find_vae
from unicon.files.inspection import check_model
from unicon.limits import ModelLimits

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vae(tmp_path_factory.mktemp("vae") / "taesd")


def changed(vae: Path, tmp_path: Path, **values: Any) -> Path:
    """A copy of the autoencoder with other values in its config.json."""
    place = Path(shutil.copytree(vae, tmp_path / "taesd")) / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | values))
    return place.parent


def test_an_autoencoder_is_found_in_its_folder_in_that_of_a_model_and_in_the_model(
    tiny_folder: Path, tiny_vae: Path
) -> None:
    assert find_vae(tiny_folder, None) == tiny_folder / "vae"
    assert find_vae(tiny_folder, tiny_vae) == find_vae(tiny_folder, str(tiny_vae)) == tiny_vae
    assert find_vae(Path("m"), tiny_folder) == tiny_folder / "vae"


def test_no_autoencoder_is_there(tiny_folder: Path, tiny_vae: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"An autoencoder is a folder with config.json .* Correct the path"):
        find_vae(tiny_folder, tmp_path)
    with pytest.raises(ValueError, match="safetensors is a file. Give the folder that holds it"):
        find_vae(tiny_folder, tiny_vae / WEIGHTS)
    with pytest.raises(FileNotFoundError, match="the autoencoder 'owner/nothing' is neither here nor in the hub cache"):
        find_vae(tiny_folder, "owner/nothing")
    with pytest.raises(ValueError, match="got an empty text"):
        find_vae(tiny_folder, " ")


def test_one_that_fits_is_accepted_in_the_folder_and_beside_it(
    tiny_folder: Path, tiny_vae: Path, tmp_path: Path
) -> None:
    check_model(tiny_folder, tiny_vae)
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    shutil.rmtree(folder / "vae")
    check_model(folder, tiny_vae)  # a model without an autoencoder of its own
    shutil.copytree(tiny_vae, folder / "vae")
    check_model(folder)
    assert ModelLimits.of_folder(folder) == ModelLimits.of_folder(tiny_folder)


@pytest.mark.parametrize(
    ("vae", "message"),
    [
        (
            {"latent_channels": 16},
            "Latents have the channels that the UNet takes, 4 in .* have 16. Take an",
        ),
        ({"levels": 4}, "as many pixels per latent pixel as the model's own, 2 in .* has 8"),
    ],
)
def test_latents_of_another_kind(tiny_folder: Path, tmp_path: Path, vae: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_model(tiny_folder, write_tiny_vae(tmp_path / "other", **vae))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder_block_out_channels": [8, 16]}, "encoder_block_out_channels is one width for every number of"),
        ({"num_decoder_blocks": [1, 1, 1], "decoder_block_out_channels": [12] * 3}, "doubles the sides as often"),
        ({"upsampling_scaling_factor": 3}, "doubles the sides as often as the encoder halves them"),
        ({"act_fn": "sine"}, "In taesd/config.json act_fn is one of"),
        ({"upsample_fn": "magic"}, "upsample_fn is one of nearest"),
        ({"scaling_factor": 0}, "scaling_factor is a number above 0, 1 for one that imitates another"),
        ({"num_encoder_blocks": 3}, "has a value of another kind"),
        ({"num_decoder_blocks": [1, 2]}, "holds exactly the tensors of its config.json; .*taesd has .* missing"),
        ({"_class_name": "VQModel"}, "is of class VQModel, not AutoencoderKL or AutoencoderTiny"),
    ],
)
def test_configurations_that_cannot_be_built(
    tiny_folder: Path, tiny_vae: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_model(tiny_folder, changed(tiny_vae, tmp_path, **values))


def test_an_autoencoder_without_weights(tiny_folder: Path, tiny_vae: Path, tmp_path: Path) -> None:
    place = changed(tiny_vae, tmp_path)
    (place / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=f"taesd has no weights \\({WEIGHTS} is wanted\\)|taesd has no weights"):
        check_model(tiny_folder, place)


def test_defaults_and_scale(tiny_folder: Path, tmp_path: Path) -> None:
    assert vae_scale({"_class_name": "AutoencoderTiny"}) == 8 == 2 ** (len(TINY_DEFAULTS["num_encoder_blocks"]) - 1)
    assert vae_scale({"block_out_channels": [8, 16]}) == 2
    folder = copied(tiny_folder, tmp_path, config("vae", norm_num_groups=5))
    with pytest.raises(ValueError, match="In vae/config.json norm_num_groups divides every width of"):
        check_model(folder)
