"""The train_adapter command on a tiny model: a few steps, use of the adapter, resuming, and wrong settings."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from jobs import _cli, train_adapter
from pipelines.errors import SettingError
from tests.support.images import square, write_squares
from tests.support.tiny import write_tiny_model
from unicon import UniCon
from unicon.adapters.config import AdapterConfig, read_config
from unicon.adapters.unet import named_adapter_parameters
from unicon.training.adapter import load_adapters
from unicon.training.batch_loss import BatchLoss
from unicon.training.batches import RowBatches, collate
from unicon.training.fit_config import FitConfig
from unicon.training.pair_rows import PairSampling
from unicon.training.photograph_rows import PhotographRows, split_photographs
from unicon.training.photographs import Photograph, prepare_photographs
from unicon.training.recipe import AdapterRecipe, TrainedAdapter, epochs_to_steps
from unicon.training.sheets import SHEET_HEIGHT_PX
from unicon.training.validation import validate
from unicon.training.views import View, view_row


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("pictures") / "squares", 12)


def command(tiny: Path, images: Path, root: Path, *more: str) -> list[str]:
    return [
        *("--model", str(tiny), "--images", str(images), "--device", "cpu"),
        *(() if "--condition" in more else ("--condition", "edge")),
        *("--output", str(root / "adapters" / "edge.safetensors"), "--work", str(root / "work")),
        *("--rank", "4", "--batch-size", "2", "--checkpoint-every", "2", "--learning-rate", "0.01", *more),
    ]


@pytest.fixture(scope="module")
def trained(tiny: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of three steps without interruption."""
    root = tmp_path_factory.mktemp("trained")
    assert train_adapter.main(command(tiny, images, root, "--steps", "3")) == 0
    return root


def test_the_adapter_estimates(tiny: Path, trained: Path) -> None:
    model = UniCon.from_pretrained(tiny, adapters={"edge": trained / "adapters" / "edge.safetensors"}, device="cpu")
    config = model.adapters["edge"]
    assert (config.kind, config.rank, config.trigger) == ("edge", 4, "edge_map, ")
    (edges,) = model.estimate([square((90, 60))], "edge", num_inference_steps=2)
    assert edges.shape == (60, 90) and edges.dtype == np.float32 and np.isfinite(edges).all()
    tensors = load_file(trained / "adapters" / "edge.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert any(tensor.any() for name, tensor in tensors.items() if "joint_out" in name)


def test_the_work_folder_tells_what_happened(trained: Path) -> None:
    work = trained / "work"
    steps = [json.loads(line)["step"] for line in (work / "training" / "log.jsonl").read_text().splitlines()]
    looks = [json.loads(line)["step"] for line in (work / "training" / "validation.jsonl").read_text().splitlines()]
    assert (steps, looks) == ([2], [2, 3])
    assert (work / "training" / "validation-000003.png").exists()
    assert len(list(work.glob("conditions-*/*.png"))) == 12


def test_a_stopped_training_goes_on(tiny: Path, images: Path, trained: Path, tmp_path: Path) -> None:
    """After a kill at the checkpoint of step 2, the third step equals that of the uninterrupted training."""

    class Killed(BaseException):
        pass

    calls = []
    batch = RowBatches.batch

    def draw_twice(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return batch(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RowBatches, "batch", draw_twice)
        train_adapter.main(command(tiny, images, tmp_path, "--steps", "3"))
    assert train_adapter.main(command(tiny, images, tmp_path, "--steps", "3")) == 0
    one, other = (load_file(root / "adapters" / "edge.safetensors") for root in (trained, tmp_path))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_training_in_the_same_folder_is_refused(
    tiny: Path, images: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "differs in (its, this run's) {'rank': (4, 8)}" in told(
        capsys, command(tiny, images, trained, "--rank", "8")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "2"], "'steps': (3, 2)"),
        (["--batch-size", "3"], "'batch_size': (2, 3)"),
        (["--learning-rate", "0.02"], "'learning_rate': (0.01, 0.02)"),
        (["--seed", "1"], "'seed': (0, 1)"),
    ],
)
def test_going_on_with_other_settings_is_refused(
    tiny: Path, images: Path, trained: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(capsys, command(tiny, images, trained, "--steps", "3", *options))


def test_going_on_with_other_pictures_is_refused(
    tiny: Path, images: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads((trained / "work" / "settings.json").read_text())
    assert settings["pictures"].startswith("12 of names")
    changed = copytree(trained / "work", tmp_path / "work") / "settings.json"
    changed.write_text(json.dumps({**settings, "pictures": "11 of names 00000000"}))
    words = command(tiny, images, tmp_path, "--steps", "3")
    assert "'pictures': ('11 of names 00000000', '12 of names" in told(capsys, words)


def test_more_steps_are_explained_and_a_training_of_an_earlier_version_goes_on(
    tiny: Path, images: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = copytree(trained / "work", tmp_path / "work")
    assert train_adapter.main(command(tiny, images, tmp_path, "--steps", "4")) == 0
    assert "training continues to 4 steps instead of 3: from here on the learning rate" in capsys.readouterr().err
    state = torch.load(work / "training" / "state.pt", weights_only=True)
    assert state["step"] == 4 and state["config"]["learning_rate"] == 0.01
    known = json.loads((work / "settings.json").read_text())
    old = {key: known[key] for key in ("condition", "images", "conditions", "resolution", "rank", "model_sha256")}
    (work / "settings.json").write_text(json.dumps(old))
    torch.save({key: value for key, value in state.items() if key != "config"}, work / "training" / "state.pt")
    assert train_adapter.main(command(tiny, images, tmp_path, "--steps", "5", "--seed", "3")) == 0


def test_checkpoints_are_looked_at_with_the_model_in_memory(
    tiny: Path, images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimates equal those of the written file, and nothing is loaded for them."""
    training = load_adapters(tiny, recipe(), "cpu")
    tensors = load_file(trained / "adapters" / "edge.safetensors")
    with torch.no_grad():
        for name, parameter in named_adapter_parameters(training.models.unet, "edge").items():
            parameter.copy_(tensors[name].float())
    photographs = prepare_photographs(images, tmp_path / "kept", images, side_px=48)[:2]
    loaded = UniCon.from_pretrained(tiny, adapters={"edge": trained / "adapters" / "edge.safetensors"}, device="cpu")
    side_px = training.views.resolution_px
    rows = list(PhotographRows(photographs, "edge", side_px))
    originals = [row.image for row in rows]
    expected = loaded.estimate(originals, "edge", resolution_px=side_px)

    monkeypatch.setattr(UniCon, "from_pretrained", None)
    found = training.model().estimate(originals, "edge", resolution_px=side_px)
    assert max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True)) < 1e-4
    numbers, sheets = validate(training, rows, {"edge": "edge"})
    assert numbers.keys() == {"edge_difference", "edge_f1"} and sheets["edge"].height == 2 * SHEET_HEIGHT_PX


def test_a_share_of_the_steps_trains_for_a_single_step(tiny: Path, images: Path, tmp_path: Path) -> None:
    for share in ("0.5", "1"):
        root = tmp_path / share
        assert train_adapter.main(command(tiny, images, root, "--steps", "2", "--single-step-share", share)) == 0
        config, _ = read_config(root / "adapters" / "edge.safetensors")
        assert config.single_step and config.estimation_steps == 1
    log = [json.loads(line) for line in (tmp_path / "1" / "work" / "training" / "log.jsonl").read_text().splitlines()]
    assert "edge_maps" in log[-1] and log[-1]["pairs_a_second"] > 0
    with pytest.raises(SettingError, match="single_step_share"):
        train_adapter.main(command(tiny, images, tmp_path / "1", "--steps", "2"))


def test_an_adapter_says_what_made_its_conditions(tiny: Path, images: Path, trained: Path) -> None:
    assert read_config(trained / "adapters" / "edge.safetensors")[0].annotator == "canny"
    assert load_adapters(tiny, recipe(annotator="hed"), "cpu").configs["edge"].annotator == "hed"


def recipe(**options) -> AdapterRecipe:
    fit = FitConfig(steps=1, learning_rate=1e-3, autocast_dtype=options.pop("autocast_dtype", None))
    config = AdapterConfig(name="edge", rank=4, annotator=options.pop("annotator", ""))
    adapters = (TrainedAdapter(config=config),)
    return AdapterRecipe(adapters=adapters, fit=fit, sampling=PairSampling(batch_size=2), **options)


def gradients(tiny: Path, images: Path, kept: Path, choice: AdapterRecipe) -> dict[str, torch.Tensor]:
    training = load_adapters(tiny, choice, "cpu")
    parameters = training.parameters()
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in parameters.values())
    trainable = [parameter for parameter in training.models.unet.parameters() if parameter.requires_grad]
    assert len(trainable) == len(parameters)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    rows = PhotographRows(prepare_photographs(images, kept, images, side_px=48), "edge", 48)
    batch = collate([view_row(rows[index], View((32, 32)), choice.kinds) for index in range(2)])
    dtype = getattr(torch, choice.fit.autocast_dtype or "float32")
    with torch.autocast("cpu", dtype, enabled=choice.fit.autocast_dtype is not None):
        losses = BatchLoss(training.models, training.vae, choice)(batch, [0, 1], 0)
    losses["loss"].total.backward()
    return {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}


def test_checkpointing_and_lower_precision_keep_the_gradients(tiny: Path, images: Path, tmp_path: Path) -> None:
    plain = gradients(tiny, images, tmp_path, recipe())
    checkpointed = gradients(tiny, images, tmp_path, recipe(gradient_checkpointing=True))
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)
    low = gradients(tiny, images, tmp_path, recipe(autocast_dtype="bfloat16"))
    one, other = (torch.cat([found[name].flatten() for name in plain]) for found in (plain, low))
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


def test_published_epochs_and_held_out_pictures() -> None:
    assert epochs_to_steps(17125, 16) == 21407
    photographs = [Photograph(Path(str(index)), Path(), "") for index in range(40)]
    learned, held_out = split_photographs(photographs)
    assert (len(learned), len(held_out)) == (36, 4)
    assert {*learned, *held_out} == {*photographs}
    assert [len(part) for part in split_photographs(photographs[:2])] == [1, 1]
    with pytest.raises(ValueError, match="at least two images"):
        split_photographs(photographs[:1])


def told(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: train_adapter.main(arguments))
    assert exit_.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stpes", "3"], "unknown option --stpes. Did you mean --steps?"),
        (["--condition", "depht"], "invalid choice: 'depht'"),
        (["--condition", "edge", "--condition", "depth"], "Others, and several together, are trained on a corpus"),
        (["--weight-column", "rating"], "--weight-column needs --corpus; a folder of images is trained in one process"),
        (["--images", "absent"], "--images: Images are given as a folder; absent is none"),
        (["--conditions", "absent"], "--conditions: Images are given as a folder; absent is none"),
        (["--model", "absent/model/here"], "--model: A model is"),
        (["--model", "nobody/nothing"], "--model: the hub model 'nobody/nothing' is neither"),
        (["--output", "edge.pt"], "--output must be a .safetensors file; got edge.pt"),
        (["--device", "tpu"], "--device tpu is not available"),
        (["--condition", "depth", "--annotator", "."], "--annotator: MidasDetector needs dpt_hybrid"),
    ],
)
def test_wrong_settings(
    tiny: Path, images: Path, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(capsys, command(tiny, images, tmp_path, *options))


def test_wrong_places(tiny: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    arguments = command(tiny, images, tmp_path)
    blocked = str(tmp_path / "file" / "edge.safetensors")
    assert "cannot be written" in told(capsys, [*arguments, "--output", blocked])
    assert "cannot be written" in told(capsys, [*arguments, "--work", str(tmp_path / "file")])
    assert "there are none in" in told(capsys, [*arguments, "--images", str(tmp_path)])
    write_squares(tmp_path / "one", 1)
    assert "at least two images" in told(capsys, [*arguments, "--images", str(tmp_path / "one")])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_adapter.main(["--help"])
    text = capsys.readouterr().out
    assert "--condition edge" in text and "UniCon.from_pretrained" in text
