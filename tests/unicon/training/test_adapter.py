"""The training loop resumes exactly, losses look at the right rows, and every stage of the recipe runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from safetensors.torch import load_file
from torch import nn

from tests.support.tiny import tiny_unet
from unicon import UniCon
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import add_adapter
from unicon.training.fit import FitConfig, fit
from unicon.training.joint_alignment import attention_inputs, joint_alignment
from unicon.training.mini.models import install_adapters, read_models, save
from unicon.training.mini.pretrain import PretrainSampling, SceneLatents
from unicon.training.mini.recipe import SQUARE, MiniRecipe, _pairs, train_mini
from unicon.training.mini.scene_cache import PART_SIZE, SceneArrays, load_cache
from unicon.training.mini.text import train_tokenizer
from unicon.training.mini.vae import new_vae, sample_crops
from unicon.training.optimizer import MatrixOptimizer, orthogonalized
from unicon.training.pairs import LatentGroups, MixedLoss, PairLoss, PairSampling


def _line(folder: Path, steps: int, **options) -> tuple[nn.Linear, dict[str, nn.Parameter]]:
    """Fit a line with noise drawn from the step's generator."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    parameters = dict(model.named_parameters())

    def loss(generator: torch.Generator) -> dict[str, torch.Tensor]:
        inputs = torch.randn(16, 2, generator=generator)
        target = inputs @ torch.tensor([[2.0], [-1.0]]) + 0.5
        return {"loss": (model(inputs) - target).square().mean()}

    config = FitConfig(**{"steps": steps, "learning_rate": 0.05, "warmup_steps": 5, "checkpoint_every": 30, **options})
    fit(parameters, loss, config, folder)
    return model, parameters


def test_fit_learns(tmp_path: Path) -> None:
    model, _ = _line(tmp_path, 300, ema_decay=0.9)
    assert torch.allclose(model.weight, torch.tensor([[2.0, -1.0]]), atol=0.02)
    assert torch.allclose(model.bias, torch.tensor([0.5]), atol=0.02)


def test_float16_scales_the_loss(tmp_path: Path) -> None:
    model, _ = _line(tmp_path, 300, ema_decay=0.9, autocast_dtype="float16")
    assert torch.allclose(model.weight, torch.tensor([[2.0, -1.0]]), atol=0.05)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1
    again, _ = _line(tmp_path, 300, ema_decay=0.9, autocast_dtype="float16")
    assert torch.equal(model.weight, again.weight)


@pytest.mark.parametrize("optimizer", [{}, {"matrix_learning_rate": 0.02}], ids=["adamw", "muon"])
def test_an_interrupted_fit_takes_the_same_steps(tmp_path: Path, optimizer: dict) -> None:
    whole, _ = _line(tmp_path / "whole", 60, **optimizer)
    torch.manual_seed(0)

    class KilledError(Exception):
        pass

    model = nn.Linear(2, 1)
    calls = 0

    def loss(generator: torch.Generator) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 45:
            raise KilledError
        inputs = torch.randn(16, 2, generator=generator)
        target = inputs @ torch.tensor([[2.0], [-1.0]]) + 0.5
        return {"loss": (model(inputs) - target).square().mean()}

    config = FitConfig(steps=60, learning_rate=0.05, warmup_steps=5, checkpoint_every=30, **optimizer)
    with pytest.raises(KilledError):
        fit(dict(model.named_parameters()), loss, config, tmp_path / "killed")
    resumed, _ = _line(tmp_path / "killed", 60, **optimizer)
    assert torch.equal(whole.weight, resumed.weight)


def _newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """Muon's iteration as it is written down, on a wide matrix."""
    matrix = matrix / matrix.norm()
    for _ in range(5):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * gram + 2.0315 * gram @ gram) @ matrix
    return matrix


def test_orthogonalized_is_muons_iteration_for_every_size_at_once() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(size) for size in ((4, 12), (4, 4), (12, 4), (6, 7), (1, 5))]
    for matrix, found in zip(matrices, orthogonalized(matrices), strict=True):
        tall = matrix.shape[0] > matrix.shape[1]
        expected = _newton_schulz(matrix.T).T if tall else _newton_schulz(matrix)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.4


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_trained_as_a_matrix(memory_format: torch.memory_format) -> None:
    """The same steps as torch's Muon on the kernel as a matrix, to the precision of its bfloat16."""
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=memory_format))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    start = matrix.detach().clone()
    ours = MatrixOptimizer({"kernel": kernel}, matrix_lr=0.1, lr=0.1)
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.0, adjust_lr_fn="original")
    for _ in range(3):
        gradient = torch.randn(4, 3, 2, 2)
        kernel.grad, matrix.grad = gradient.to(memory_format=memory_format), gradient.flatten(1)
        ours.step()
        theirs.step()
    moved = (matrix - start).norm()
    assert (kernel.flatten(1) - matrix).norm() < 0.03 * moved


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    _line(tmp_path, 30)
    other = {"elsewhere": nn.Parameter(torch.zeros(1))}
    config = FitConfig(steps=40, learning_rate=0.1)
    with pytest.raises(ValueError, match="another recipe"):
        fit(other, lambda generator: {"loss": other["elsewhere"].sum()}, config, tmp_path)


def test_learning_rate_warms_up_and_decays() -> None:
    config = FitConfig(steps=100, learning_rate=1.0, warmup_steps=10, final_learning_rate_fraction=0.1)
    rates = [config.learning_rate_factor(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("options", [{"steps": 0}, {"ema_decay": 1.0}, {"autocast_dtype": "float8"}])
def test_fit_refuses_nonsense(options: dict) -> None:
    with pytest.raises(ValueError):
        FitConfig(**{"steps": 1, "learning_rate": 0.1, **options})


def test_pair_sampling_refuses_fractions_beyond_one() -> None:
    with pytest.raises(ValueError, match="fractions"):
        PairSampling(clean_image_fraction=0.7, clean_condition_fraction=0.6)


def _sampler(**options) -> PairLoss:
    models = SimpleNamespace(scheduler=DDPMScheduler(num_train_timesteps=1000))
    return PairLoss(models, "depth", "depth_map, ", LatentGroups([]), PairSampling(batch_size=2000, **options))  # type: ignore[arg-type]


def test_clean_rows_are_not_learned_and_unjoined_pairs_have_no_weight() -> None:
    loss = _sampler(
        clean_image_fraction=0.5, clean_condition_fraction=0.2, unjoined_fraction=0.3, noisy_condition_fraction=0.4
    )
    timesteps, learned, pairs = loss._timesteps_and_pairs(torch.Generator().manual_seed(0))
    assert (timesteps[~learned] == 0).all()
    assert (~learned[:2000]).float().mean() == pytest.approx(0.5 * 0.7, abs=0.03)
    assert (~learned[2000:]).float().mean() == pytest.approx(0.2 * 0.7, abs=0.03)
    weights = np.array([pair.weight_to_condition for pair in pairs.pairs])
    assert (weights == 0).mean() == pytest.approx(0.3, abs=0.03)
    noisy = timesteps[2000:][~learned[:2000]] >= 950
    assert noisy.float().mean() == pytest.approx(0.4 + 0.6 * 0.05, abs=0.04)
    partners_of_clean_conditions = timesteps[:2000][~learned[2000:]]
    assert (partners_of_clean_conditions >= 950).float().mean() == pytest.approx(0.05, abs=0.04)
    both = ~learned[:2000] & ~learned[2000:]
    assert not both.any()


def test_published_text_dropout_rule() -> None:
    loss = _sampler(text_dropout=0.1)
    prompts = loss._prompts(["a"] * 2000, torch.Generator().manual_seed(0))
    images, conditions = np.array(prompts[:2000]) == "", np.array(prompts[2000:]) == ""
    assert images.mean() == pytest.approx(0.2, abs=0.03)
    assert conditions.mean() == pytest.approx(0.2, abs=0.03)
    assert (images & conditions).mean() == pytest.approx(0.1, abs=0.03)
    assert set(prompts[2000:]) == {"", "depth_map, a"}


def test_alignment_finds_its_place_when_places_differ() -> None:
    """Tokens that are far apart find their own place, equal ones are at chance; no hook stays behind."""
    unet = tiny_unet()
    add_adapter(unet, AdapterConfig(name="depth", rank=2))
    attn = next(module for name, module in unet.named_modules() if name.endswith("attn1"))
    attn.to_k.get_base_layer().weight.data.copy_(attn.to_q.get_base_layer().weight.data)
    width = attn.to_q.in_features
    far_apart = 30 * torch.eye(width)[None, :8].repeat(4, 1, 1)
    assert joint_alignment([(attn, far_apart)], "depth", 1).item() < 0.5
    assert joint_alignment([(attn, torch.ones(4, 8, width))], "depth", 1).item() == pytest.approx(1.0, abs=1e-3)
    with attention_inputs(unet):
        assert any(module._forward_pre_hooks for module in unet.modules())
    assert not any(module._forward_pre_hooks for module in unet.modules())


def test_tokenizer_encodes_any_text(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["depth_map, a red box in a room with green walls"] * 3, tmp_path)
    text = "a zürich 猫 in a room!"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).replace(" ", "") == text.replace(
        " ", ""
    )
    assert len(tokenizer("a red box").input_ids) == 5


def _gradients(count: int = 12, size: int = 64) -> SceneArrays:
    """Pictures of one colour each, with ramps for maps."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    ramp = np.linspace(0, 65535, size).astype(np.uint16)
    return SceneArrays(
        images=np.broadcast_to(colors, (count, size, size, 3)).copy(),
        inverse_depths=np.broadcast_to(ramp[:, None], (count, size, size)).copy(),
        edges=np.zeros((count, size, size), bool),
        poses=np.zeros((count, size, size, 3), np.uint8),
        captions=("a",) * count,
    )


def test_an_untrained_autoencoder_already_carries_colors() -> None:
    torch.manual_seed(0)
    vae = new_vae()
    crops = sample_crops(_gradients(), 48, 64, torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = vae.encode(crops).latent_dist.mean[:, :3].mean((2, 3))
    for channel in range(3):
        found = np.corrcoef(latents[:, channel].numpy(), crops[:, channel].mean((1, 2)).numpy())[0, 1]
        assert found > 0.8


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The whole recipe on next to nothing: two steps a stage on scenes of 32 x 32 pixels."""
    work, output = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("model")
    short = FitConfig(steps=2, learning_rate=1e-3, checkpoint_every=2, log_every=1, autocast_dtype="bfloat16")
    recipe = MiniRecipe(
        scenes={(32, 32): PART_SIZE},
        vae=short,
        vae_batch_size=2,
        pretrain=short,
        pretrain_sampling=PretrainSampling(batch_size=4),
        seeing={"depth": 1.0, "pose": 0.5},
        align=short,
        aligning=PairSampling(batch_size=2, clean_image_fraction=0.5, min_snr_gamma=None, alignment_weight=1.0),
        together=short,
        sampling=PairSampling(
            batch_size=2, clean_image_fraction=0.5, min_snr_gamma=None, alignment_weight=0.1, seeing_weight=0.5
        ),
        appearance=short,
        appearance_scenes=PART_SIZE,
        validation_scenes=2,
        vae_crop_px=32,
    )
    train_mini(work, output, recipe)
    return work, output


@pytest.mark.slow
def test_recipe_makes_a_model_that_loads(tiny_run: tuple[Path, Path]) -> None:
    work, output = tiny_run
    model = UniCon.from_pretrained(output)
    assert set(model.adapters) == {"appearance", "depth", "edge", "pose"}
    assert model.adapters["appearance"].projection == "separate"
    assert model.working_size(SQUARE) == SQUARE
    assert len(load_cache(work / "scenes-1-32x32").captions) == PART_SIZE
    assert (work / "latents-1-32x32.pt").exists()  # by seed and size: another seed's scenes are encoded anew
    steps = [json.loads(line)["step"] for line in (work / "together" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    assert {path.name for path in (work / "together").glob("*.png")} == {
        f"{kind}-000002.png" for kind in ("depth", "edge", "pose")
    }
    assert (work / "appearance" / "000002.png").exists()


@pytest.mark.slow
def test_training_goes_on_from_a_saved_model(tiny_run: tuple[Path, Path], tmp_path: Path) -> None:
    work, output = tiny_run
    models = read_models(output)
    kept_adapters = ["appearance", "depth", "edge", "pose"]
    install_adapters(models.unet, [*kept_adapters, "fresh"], 4, output)
    save(models, AutoencoderKL.from_pretrained(output / "vae"), kept_adapters, tmp_path)
    for path in sorted(output.rglob("*.safetensors")):
        kept = load_file(tmp_path / path.relative_to(output))
        assert all(torch.equal(tensor, kept[name]) for name, tensor in load_file(path).items())
    assert "_name_or_path" not in json.loads((tmp_path / "unet" / "config.json").read_text())


def test_mixed_losses_are_drawn_by_their_shares() -> None:
    losses = [lambda generator, value=value: {"loss": torch.tensor(value)} for value in (0.0, 1.0)]
    mixed = MixedLoss(losses, [0.25, 0.75])
    generator = torch.Generator().manual_seed(0)
    drawn = [mixed(generator)["loss"].item() for _ in range(1000)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.04)
    with pytest.raises(ValueError, match="share"):
        MixedLoss(losses, [1.0])


def test_poses_are_taught_where_somebody_is_in_view() -> None:
    captions = tuple("a mannequin" if row % 3 == 0 else "a box" for row in range(24))
    maps = {name: torch.arange(24.0).reshape(24, 1, 1, 1) + at for at, name in enumerate(("image", "depth", "pose"))}
    scenes = SceneLatents(maps, captions)
    rows = sorted({*range(0, 24, 3), 0, 8, 16})
    poses = _pairs(scenes, "pose", ["depth"])
    assert poses.images.flatten().tolist() == rows
    assert poses.conditions.flatten().tolist() == [row + 2 for row in rows]
    assert poses.seen["depth"].flatten().tolist() == [row + 1 for row in rows]
    assert poses.captions == tuple(captions[row] for row in rows)
    assert _pairs(scenes, "depth", ["pose"]).images is maps["image"]
