from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny import tiny_model
from unicon.ensemble import Estimate, align, combine, member_seeds

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.random((20, 30)).astype(np.float32) * 0.5 + 0.2


def test_member_seeds_belong_to_the_row() -> None:
    seeds = member_seeds(7, 5)
    assert seeds[0] == 7 and len(set(seeds)) == 5
    assert member_seeds(7, 3) == seeds[:3]
    assert not set(member_seeds(8, 5)) & set(seeds)
    with pytest.raises(ValueError, match="ensemble_size=0"):
        member_seeds(7, 0)


def test_scale_and_shift_are_no_disagreement() -> None:
    members = [TRUTH, TRUTH * 0.5 + 0.2, TRUTH * 0.8 - 0.1, TRUTH * 1.1]
    estimate = combine(members, affine=True)
    assert estimate.spread.max() < 1e-5 and estimate.confidence > 1 - 1e-5
    assert np.corrcoef(estimate.map.ravel(), TRUTH.ravel())[0, 1] > 0.99999
    assert abs(estimate.map.std() - np.mean([member.std() for member in members])) < 0.02
    plain = combine(members, affine=False)
    assert plain.spread.mean() > 0.02 and plain.confidence < 0.96
    assert np.array_equal(plain.map, np.median(members, axis=0))


def test_alignment_does_not_flatten_noisy_members() -> None:
    noisy = [TRUTH * scale + GENERATOR.normal(0, 0.1, TRUTH.shape) for scale in (0.8, 0.9, 1.0, 1.1, 1.2)]
    median = np.median(align(np.stack(noisy)), axis=0)
    slope = np.polyfit(TRUTH.ravel(), median.ravel(), 1)[0]
    assert 0.9 < slope < 1.1
    assert np.abs(median - TRUTH).mean() < 0.5 * np.mean([np.abs(member - TRUTH).mean() for member in noisy])


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_disagreement_is_not_aligned_away(count: int) -> None:
    noise = combine(list(GENERATOR.random((count, 20, 30), dtype=np.float32)), affine=True)
    agreeing = combine([TRUTH + GENERATOR.normal(0, 0.02, TRUTH.shape) for _ in range(count)], affine=True)
    assert noise.confidence < 0.85 and agreeing.confidence > 0.95
    upside_down = combine([TRUTH, 1 - TRUTH] * count, affine=True)
    assert np.isfinite(upside_down.map).all() and upside_down.confidence < 0.9


def test_one_bad_member_of_four_is_outvoted() -> None:
    members = [TRUTH, TRUTH * 0.9 + 0.05, 1 - TRUTH, TRUTH * 0.8 + 0.1]
    for order in ([0, 1, 2, 3], [2, 0, 1, 3]):
        estimate = combine([members[place] for place in order], affine=True)
        assert np.corrcoef(estimate.map.ravel(), TRUTH.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("count", [1, 2])
def test_constant_members(count: int) -> None:
    estimate = combine([np.full((4, 4), 0.3, np.float32)] * count, affine=True)
    assert np.allclose(estimate.map, 0.3) and estimate.confidence == 1.0
    mixed = combine([np.full_like(TRUTH, 0.3), *[TRUTH] * count], affine=True)
    assert np.isfinite(mixed.map).all()


def test_confidence_falls_with_the_spread() -> None:
    confidences = [Estimate(TRUTH, np.full_like(TRUTH, spread)).confidence for spread in (0.0, 0.1, 0.3, 0.5)]
    assert np.allclose(confidences, [1.0, 0.8, 0.4, 0.0])


def test_images_have_one_spread_a_pixel() -> None:
    estimate = combine([np.zeros((4, 5, 3), np.float32), np.ones((4, 5, 3), np.float32)], affine=False)
    assert estimate.map.shape == (4, 5, 3) and estimate.spread.shape == (4, 5)
    assert estimate.confidence == 0.0
    assert estimate.resized((10, 8)).map.shape == (8, 10, 3)


def test_ensembles_of_the_model() -> None:
    model = tiny_model()
    image = Image.fromarray((GENERATOR.random((30, 44, 3)) * 255).astype(np.uint8))
    (edge,) = model.estimate_ensemble([image], "edge", ensemble_size=3, seeds=5, num_inference_steps=2)
    assert edge.map.shape == edge.spread.shape == (30, 44) and edge.map.dtype == np.float32
    assert edge.spread.max() > 0 and 0 < edge.confidence < 1
    members = model.estimate([image] * 3, "edge", seeds=member_seeds(5, 3), num_inference_steps=2)
    assert np.abs(edge.map - np.median(members, axis=0)).max() < 0.1  # the median is taken before the maps are resized
    (one,) = model.estimate_ensemble([image], "pose", ensemble_size=1, seeds=5, num_inference_steps=2)
    (plain,) = model.estimate([image], "pose", seeds=5, num_inference_steps=2)
    assert np.abs(one.map - plain).max() < 1e-5 and one.confidence == 1.0


def test_members_share_the_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    sizes, encoded = [], []
    forward, encode = model.unet.forward, model.encode_images
    monkeypatch.setattr(model.unet, "forward", lambda *a, **k: sizes.append(len(a[0])) or forward(*a, **k))
    monkeypatch.setattr(model, "encode_images", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "green")]
    model.estimate_ensemble(images, "depth", ensemble_size=3, num_inference_steps=1, batch_size=4)
    assert sizes == [8, 8, 2]  # an image and a condition row for each of nine estimates
    assert encoded == [2, 1]  # every image once
