"""`train_decoder.py` writes a decoder that the model then uses, goes on after a kill, and refuses wrong settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from jobs import train_decoder
from pipelines.errors import SettingError
from tests.support.tiny import write_tiny_model
from unicon import UniCon
from unicon.conditions import CONDITIONS
from unicon.files.weights import MAP_DECODER
from unicon.training import decoder as training

WEIGHTS = "diffusion_pytorch_model.safetensors"
IMAGE = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen depth maps."""
    folder = tmp_path_factory.mktemp("maps")
    for index in range(16):
        values = np.linspace(0, (index + 1) / 16, 32 * 32, dtype=np.float32).reshape(32, 32)
        CONDITIONS["depth"].encode(values).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def command(model: Path, maps: Path, root: Path, *options: str) -> list[str]:
    return [
        "--model", str(model), "--maps", f"depth={maps}", "--work", str(root / "work"), "--steps", "3",
        "--batch-size", "2", "--checkpoint-every", "2", "--width", "8", "--device", "cpu", *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(model: Path, maps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with its decoder in `decoder`."""
    root = tmp_path_factory.mktemp("trained")
    assert train_decoder.main(command(model, maps, root, "--output", str(root / "decoder"))) == 0
    return root


def test_the_decoder_is_written_into_the_model_and_used(
    model: Path, maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    assert train_decoder.main(command(folder, maps, tmp_path)) == 0
    out = capsys.readouterr().out
    assert "depth: mean difference 0." in out and ", AbsRel " in out and "GFLOP instead of" in out
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert 0 < report["difference"]["depth"] < 1 and report["tflop"] < report["full_tflop"]
    loaded = UniCon.from_pretrained(folder, device="cpu")
    assert loaded.map_decoder is not None and loaded.map_decoder.config["block_out_channels"] == [8]
    small, full = (loaded.estimate([IMAGE], map_decoder=name)[0] for name in ("small", "vae"))  # type: ignore[arg-type]
    assert small.shape == full.shape and not np.array_equal(small, full)
    assert train_decoder.main(command(folder, maps, tmp_path)) == 0  # complete, and written over its own


def test_a_killed_training_goes_on(model: Path, maps: Path, trained: Path, tmp_path: Path) -> None:
    """After a kill in the third step, the result equals that of the uninterrupted training."""

    class Killed(BaseException):
        pass

    calls: list[int] = []
    compute = training.reconstruction_loss

    def compute_twice(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return compute(*arguments)

    words = command(model, maps, tmp_path, "--output", str(tmp_path / "decoder"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "reconstruction_loss", compute_twice)
        train_decoder.main(words)
    assert not (tmp_path / "decoder" / WEIGHTS).exists()
    assert train_decoder.main(words) == 0
    one, other = (load_file(root / "decoder" / WEIGHTS) for root in (trained, tmp_path))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "16"], r"--work: .*differs in .*'width': \(8, 16\)"),
        (["--steps", "2"], r"'steps': \(3, 2\)"),
        (["--seed", "1"], r"'seed': \(0, 1\)"),
    ],
)
def test_going_on_with_other_settings_is_refused(
    model: Path, maps: Path, trained: Path, options: list[str], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        train_decoder.main([*command(model, maps, trained, "--output", str(trained / "decoder")), *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nothing"], "--model: A model is mini, an existing folder"),
        (["--maps", "edge=nothing"], "--maps: Images are given as a folder; nothing is none"),
        (["--maps", "depth=other"], "--maps is given twice for a kind"),
        (["--scenes", "20"], "--scenes 20 are rendered where there is no --maps"),
        (["--output", "{model}/vae"], r"--output .*vae has content that this command did not write .*\(config.json\)"),
        (["--device", "foo"], "--device foo is not available"),
    ],
)
def test_wrong_settings_are_refused_before_the_training(
    model: Path, maps: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    words = [word.format(model=model) for word in options]
    with pytest.raises(SettingError, match=message):
        train_decoder.main([*command(model, maps, tmp_path, "--output", str(tmp_path / "decoder")), *words])
    assert not (tmp_path / "work" / "training").exists()


@pytest.mark.parametrize("text", ["depth", "normal=maps", "depth="])
def test_maps_name_their_kind(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_decoder.parse(["--model", "m", "--work", "w", "--maps", text])
    assert "expected KIND=DIR with a kind of depth, edge, pose" in capsys.readouterr().err


def test_the_default_is_the_model_folder_unless_it_is_the_cache_of_the_hub(tmp_path: Path) -> None:
    options = train_decoder.parse(["--model", "owner/name", "--work", "w"])
    assert train_decoder.output_of(options, tmp_path) == tmp_path / MAP_DECODER
    with pytest.raises(SettingError, match="is in the cache of the hub, where nothing is written"):
        train_decoder.output_of(options, tmp_path / "snapshots" / ("0" * 40))
