"""Losses on pairs learn from the right rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from unicon.training.pairs import LatentGroups, MixedLoss, PairLoss, PairSampling


def test_pair_sampling_refuses_fractions_beyond_one() -> None:
    with pytest.raises(ValueError, match="fractions"):
        PairSampling(clean_image_fraction=0.7, clean_condition_fraction=0.6)


def _sampler(**options) -> PairLoss:
    unet = SimpleNamespace(device=torch.device("cpu"))
    models = SimpleNamespace(unet=unet, scheduler=DDPMScheduler(num_train_timesteps=1000))
    return PairLoss(models, "depth", "depth_map, ", LatentGroups([]), PairSampling(batch_size=2000, **options))  # type: ignore[arg-type]


def test_clean_rows_are_not_learned_and_unjoined_pairs_have_no_weight() -> None:
    loss = _sampler(
        clean_image_fraction=0.5, clean_condition_fraction=0.2, unjoined_fraction=0.3, noisy_condition_fraction=0.4
    )
    timesteps, learned, joint = loss.draw_timesteps(torch.Generator().manual_seed(0))
    assert (timesteps[~learned] == 0).all()
    assert (~learned[:2000]).float().mean() == pytest.approx(0.5 * 0.7, abs=0.03)
    assert (~learned[2000:]).float().mean() == pytest.approx(0.2 * 0.7, abs=0.03)
    assert (joint == 0).float().mean() == pytest.approx(0.3, abs=0.03)
    noisy = timesteps[2000:][~learned[:2000]] >= 950
    assert noisy.float().mean() == pytest.approx(0.4 + 0.6 * 0.05, abs=0.04)
    partners_of_clean_conditions = timesteps[:2000][~learned[2000:]]
    assert (partners_of_clean_conditions >= 950).float().mean() == pytest.approx(0.05, abs=0.04)
    both = ~learned[:2000] & ~learned[2000:]
    assert not both.any()


def test_published_text_dropout_rule() -> None:
    loss = _sampler(text_dropout=0.1)
    prompts = loss.prompts(["a"] * 2000, torch.rand(2, 2000, generator=torch.Generator().manual_seed(0)))
    images, conditions = np.array(prompts[:2000]) == "", np.array(prompts[2000:]) == ""
    assert images.mean() == pytest.approx(0.2, abs=0.03)
    assert conditions.mean() == pytest.approx(0.2, abs=0.03)
    assert (images & conditions).mean() == pytest.approx(0.1, abs=0.03)
    assert set(prompts[2000:]) == {"", "depth_map, a"}


def test_mixed_losses_are_drawn_by_their_shares() -> None:
    losses = [lambda generator, value=value: {"loss": torch.tensor(value)} for value in (0.0, 1.0)]
    mixed = MixedLoss(losses, [0.25, 0.75])  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    drawn = [mixed(generator)["loss"].item() for _ in range(1000)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.04)
    with pytest.raises(ValueError, match="share"):
        MixedLoss(losses, [1.0])  # type: ignore[arg-type]
