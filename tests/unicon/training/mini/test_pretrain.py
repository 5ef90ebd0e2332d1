# diffusers declares its configurations as plain dictionaries, and `from_config` as returning a tuple.
# pyright: reportAttributeAccessIssue=false
"""Pretraining of the UNet: its losses use the right rows, and adding attention afterwards changes no result."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import add_adapter
from unicon.training.auxiliary_heads import ConditionHeads, last_features
from unicon.training.fit import FitConfig, fit
from unicon.training.mini.models import new_models, with_finest_attention
from unicon.training.mini.pretrain import PretrainLoss, PretrainSampling, SceneLatents
from unicon.training.mini.vae import new_vae
from unicon.training.models import TrainingModels
from unicon.training.pairs import LatentGroups, PairLatents, PairLoss, PairSampling

SAMPLING = PretrainSampling(batch_size=8, heads_fraction=0.75)
WEIGHTS = {"depth": 1.0, "edge": 0.5}


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
    heads = ConditionHeads(models.unet, WEIGHTS)
    assert list(heads.heads) == ["edge"]  # the first condition is the UNet's own
    scenes = _scenes(1)
    losses = PretrainLoss(models, heads, [scenes], SAMPLING)(torch.Generator().manual_seed(0))
    image = scenes.latents["image"].float()
    with torch.no_grad(), last_features(models.unet) as features:
        seen = models.unet(image, torch.zeros(1), models.encode_prompts([""])).sample
        edges = heads.heads["edge"](features[0])
    assert losses["depth"].item() == pytest.approx((seen + image).square().mean().item(), rel=1e-3)
    assert losses["edge"].item() == pytest.approx((edges - image).square().mean().item(), rel=1e-3)
    whole = 0.75 * (losses["depth"] + 0.5 * losses["edge"]) + 0.25 * losses["denoising"]
    assert losses["loss"].item() == pytest.approx(whole.item(), rel=1e-5)
    assert not models.unet.conv_out._forward_pre_hooks


@pytest.mark.slow
def test_pretraining_learns_both_tasks(models: TrainingModels, tmp_path: Path) -> None:
    torch.manual_seed(0)
    heads = ConditionHeads(models.unet, WEIGHTS)
    loss = PretrainLoss(models, heads, [_scenes()], SAMPLING)
    before = _mean_losses(loss)
    config = FitConfig(steps=60, learning_rate=2e-3, matrix_learning_rate=0.02, warmup_steps=5, ema_decay=0.5)
    fit({**models.named_parameters(), **dict(heads.named_parameters())}, loss, config, tmp_path)
    after = _mean_losses(loss)
    for name, share in {"depth": 0.5, "edge": 0.5, "denoising": 0.9}.items():
        assert after[name] < share * before[name], name


def test_growing_attention_changes_no_result(models: TrainingModels) -> None:
    grown = with_finest_attention(models.unet)
    assert grown.config.up_block_types[-1] == "CrossAttnUpBlock2D"
    latents, text = torch.randn(2, 8, 8, 8), models.encode_prompts(["", "a red box"])
    steps = torch.tensor([0, 500])
    with torch.no_grad():
        expected, found = (unet(latents, steps, text).sample for unet in (models.unet, grown))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    reloaded = UNet2DConditionModel.from_config(grown.config)
    assert reloaded.load_state_dict(grown.state_dict()).missing_keys == []


@pytest.mark.parametrize("options", [{"heads_fraction": 1.5}, {"text_dropout": -1}])
def test_sampling_refuses_nonsense(options: dict) -> None:
    with pytest.raises(ValueError, match="fractions"):
        PretrainSampling(**options)


def test_seeing_needs_something_to_see(models: TrainingModels) -> None:
    with pytest.raises(ValueError, match="weight"):
        ConditionHeads(models.unet, {})


def test_clean_images_show_what_their_source_says(models: TrainingModels) -> None:
    """The mean of (output + s)^2 is a parabola in a constant s, whatever the output: 1, 0 and -1 give it away."""
    unet = copy.deepcopy(models.unet)
    add_adapter(unet, AdapterConfig(name="edge", rank=2))
    sampling = PairSampling(batch_size=4, clean_image_fraction=1.0, min_snr_gamma=None, heads_weight=0.5)
    images = torch.randn(4, 8, 8, 8)

    def losses(seen: float) -> dict[str, torch.Tensor]:
        constant = torch.full_like(images, seen)
        group = PairLatents(images, images, ("a red box",) * 4, {"depth": constant, "pose": -constant})
        source = LatentGroups([group])
        torch.manual_seed(0)
        heads = ConditionHeads(unet, {"depth": 1.0, "pose": 0.5})
        loss = PairLoss(replace(models, unet=unet), "edge", "edge_map, ", source, sampling, heads)
        return loss(torch.Generator().manual_seed(0))

    above, none, below = (losses(seen) for seen in (1.0, 0.0, -1.0))
    for kind in ("depth", "pose"):
        curvature = above[f"head_{kind}"] + below[f"head_{kind}"] - 2 * none[f"head_{kind}"]
        assert curvature.item() == pytest.approx(2.0, rel=1e-3)
    assert none["heads"].item() == pytest.approx((none["head_depth"] + 0.5 * none["head_pose"]).item(), rel=1e-5)
    added = 0.5 * (above["heads"] - none["heads"]).item()
    assert (above["loss"] - none["loss"]).item() == pytest.approx(added, rel=1e-3)
