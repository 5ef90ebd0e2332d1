"""The UNet before its adapters: what a step looks at, and that the growth afterwards changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from unicon.adapter import AdapterConfig, add_adapter
from unicon.training.fit import FitConfig, fit
from unicon.training.mini_model import new_models, with_finest_attention
from unicon.training.pairs import LatentGroups, PairLatents, PairLoss, PairSampling, TrainingModels, encode_prompts
from unicon.training.pretrain import PretrainLoss, PretrainSampling, SceneLatents, last_features, new_heads
from unicon.training.vae import new_vae

SAMPLING = PretrainSampling(batch_size=8, seeing_fraction=0.75, weights={"depth": 1.0, "edge": 0.5})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TrainingModels:
    torch.manual_seed(0)
    return new_models(tmp_path_factory.mktemp("tokenizer"), new_vae(), ["a red box"], (16, 32, 32), 64)


def _scenes(count: int = 4) -> SceneLatents:
    """Images of noise; depth is the image, edges are its opposite."""
    images = torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = {"image": images.half(), "depth": images.half(), "edge": -images.half()}
    return SceneLatents(latents, tuple("a red box" for _ in range(count)))


@torch.no_grad()
def _mean_losses(loss: PretrainLoss) -> dict[str, float]:
    """Over eight steps' rows."""
    steps = [loss(torch.Generator().manual_seed(1000 + number)) for number in range(8)]
    return {name: float(np.mean([step[name].item() for step in steps])) for name in steps[0]}


def test_losses_are_the_mean_errors_of_what_each_part_predicts(models: TrainingModels) -> None:
    torch.manual_seed(0)
    heads = new_heads(models.unet, SAMPLING)
    assert list(heads) == ["edge"]  # the first condition is the UNet's own
    scenes = _scenes(1)
    losses = PretrainLoss(models, heads, [scenes], SAMPLING)(torch.Generator().manual_seed(0))
    image = scenes.latents["image"].float()
    with torch.no_grad(), last_features(models.unet) as features:
        seen = models.unet(image, torch.zeros(1), encode_prompts(models, [""])).sample
        edges = heads["edge"](features[0])
    assert losses["depth"].item() == pytest.approx((seen + image).square().mean().item(), rel=1e-3)
    assert losses["edge"].item() == pytest.approx((edges - image).square().mean().item(), rel=1e-3)
    whole = 0.75 * (losses["depth"] + 0.5 * losses["edge"]) + 0.25 * losses["drawing"]
    assert losses["loss"].item() == pytest.approx(whole.item(), rel=1e-5)
    assert not models.unet.conv_out._forward_pre_hooks


def test_pretraining_learns_both_tasks(models: TrainingModels, tmp_path: Path) -> None:
    torch.manual_seed(0)
    heads = new_heads(models.unet, SAMPLING)
    loss = PretrainLoss(models, heads, [_scenes()], SAMPLING)
    before = _mean_losses(loss)
    config = FitConfig(steps=60, learning_rate=2e-3, matrix_learning_rate=0.02, warmup_steps=5, ema_decay=0.5)
    fit({**models.named_parameters(), **dict(heads.named_parameters())}, loss, config, tmp_path)
    after = _mean_losses(loss)
    for name, share in {"depth": 0.5, "edge": 0.5, "drawing": 0.9}.items():
        assert after[name] < share * before[name], name


def test_growing_attention_changes_no_result(models: TrainingModels) -> None:
    grown = with_finest_attention(models.unet)
    assert grown.config.up_block_types[-1] == "CrossAttnUpBlock2D"
    latents, text = torch.randn(2, 8, 8, 8), encode_prompts(models, ["", "a red box"])
    steps = torch.tensor([0, 500])
    with torch.no_grad():
        expected, found = (unet(latents, steps, text).sample for unet in (models.unet, grown))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    reloaded = UNet2DConditionModel.from_config(grown.config)
    assert reloaded.load_state_dict(grown.state_dict()).missing_keys == []


@pytest.mark.parametrize("options", [{"seeing_fraction": 1.5}, {"text_dropout": -1}, {"weights": {}}])
def test_sampling_refuses_nonsense(options: dict) -> None:
    with pytest.raises(ValueError, match="fractions"):
        PretrainSampling(**{"weights": {"depth": 1.0}, **options})


def test_a_clean_image_shows_what_its_source_says(models: TrainingModels) -> None:
    """The mean of (output + s)^2 is a parabola in a constant s, whatever the output: 1, 0 and -1 give it away."""
    unet = copy.deepcopy(models.unet)
    add_adapter(unet, AdapterConfig(name="edge", rank=2))
    sampling = PairSampling(batch_size=4, clean_image_fraction=1.0, min_snr_gamma=None, partner_weight=0.5)
    images = torch.randn(4, 8, 8, 8)

    def losses(seen: float) -> dict[str, torch.Tensor]:
        group = PairLatents(images, images, ("a red box",) * 4, torch.full_like(images, seen))
        source = LatentGroups([group])
        loss = PairLoss(replace(models, unet=unet), "edge", "edge_map, ", source, sampling)
        return loss(torch.Generator().manual_seed(0))

    above, none, below = (losses(seen) for seen in (1.0, 0.0, -1.0))
    assert (above["partner"] + below["partner"] - 2 * none["partner"]).item() == pytest.approx(2.0, rel=1e-3)
    assert (above["loss"] - none["loss"]).item() == pytest.approx(
        0.5 * (above["partner"] - none["partner"]).item(), rel=1e-3
    )
