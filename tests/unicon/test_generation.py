from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny import MANY, tiny_model, write_tiny_model
from unicon import Generated, UniCon
from unicon.generation import micro_batches
from unicon.requests import GenerationPlan
from unicon.sampling.step_table import joint

STEPS: dict[str, Any] = {"num_inference_steps": 2}
GENERATOR = np.random.default_rng(0)
DEPTH, OTHER_DEPTH = GENERATOR.random((2, 30, 40), dtype=np.float32)
PIXELS = GENERATOR.random((30, 40, 3), dtype=np.float32)
IMAGE = Image.fromarray((PIXELS * 255).astype(np.uint8))
MASK = np.zeros((30, 40), bool)
MASK[5:20, 10:30] = True


def difference(first: Generated, second: Generated) -> float:
    return float(np.abs(np.asarray(first.image).astype(float) - np.asarray(second.image)).mean())


def test_synthesis_has_the_size_of_its_maps_and_keeps_them() -> None:
    model = tiny_model()
    wide = GENERATOR.random((20, 64), dtype=np.float32)
    first, second = model.synthesize({"depth": [DEPTH, wide]}, ["a cat", "a dog"], seeds=[1, 2], **STEPS)
    assert first.image.mode == "RGB" and first.image.size == (40, 30) and second.image.size == (64, 20)
    assert first.conditions["depth"] is DEPTH and list(second.conditions) == ["depth"]
    assert np.asarray(first.image).std() > 1


def test_everything_given_matters() -> None:
    model = tiny_model()

    def run(**changes: Any) -> Generated:
        options = {"conditions": {"depth": [DEPTH], "id": [PIXELS]}, "prompts": ["a cat"], **STEPS} | changes
        return model.synthesize(**options)[0]

    base = run()
    changes: list[dict[str, Any]] = [
        {"conditions": {"depth": [OTHER_DEPTH], "id": [PIXELS]}},
        {"conditions": {"depth": [DEPTH]}},
        {"prompts": ["a dog"]},
        {"negative_prompts": ["a dog"]},
        {"seeds": 1},
        {"weights": {"id": 0.0}},
        {"weights": {"depth": (0.5, 1.0)}},
        {"weights": {"depth": (1.0, 0.5)}},
        {"guidance_scale": 1.0},
        {"guidance_scale": 1.0, "condition_guidance_scale": 2.0},
        {"condition_guidance_scale": 2.0},
        {"strength": 0.7},
        {"sampler": "euler_ancestral"},
        {"eta": 1.0},
        {"num_inference_steps": 3},
        {"resolution_px": 48},
    ]
    others = [run(**change) for change in changes]
    assert all(difference(base, other) > 0.2 for other in others)
    assert difference(base, run(weights={"depth": 1.0, "id": (1.0, 1.0)})) == 0
    assert difference(base, run(sampler="euler")) == 0  # the same formula


def test_three_conditions_fused_and_separate() -> None:
    conditions = {"depth": [DEPTH], "appearance": [PIXELS], "pose": [PIXELS]}
    (result,) = tiny_model().synthesize(conditions, ["a"], sampler="dpmsolver++", **STEPS)
    assert result.image.size == (40, 30) and list(result.conditions) == list(conditions)


def test_pairs_come_from_noise_together() -> None:
    model = tiny_model()
    first, second = model.generate_pairs(["a cat", "a cat"], seeds=[1, 2], **STEPS)
    assert first.image.size == (32, 32) and first.conditions["depth"].shape == (32, 32)
    assert difference(first, second) > 1
    (several,) = model.generate_pairs(["a cat"], ("edge", "pose"), size=(50, 20), seeds=1, **STEPS)
    assert several.image.size == (50, 20)
    assert {name: values.shape for name, values in several.conditions.items()} == {
        "edge": (20, 50), "pose": (20, 50, 3),
    }  # fmt: skip
    (larger,) = model.generate_pairs(["a cat"], resolution_px=48, **STEPS)
    assert larger.image.size == (48, 48)


def test_refinement_moves_a_condition_less_with_less_strength() -> None:
    model = tiny_model()
    options: dict[str, Any] = {"num_inference_steps": 8, "guidance_scale": 1.0, "weights": {"depth": 0.0}}
    moved = []
    for strength in (0.0, 0.2, 1.0):
        (result,) = model.refine({"depth": [DEPTH]}, ["a"], strength=strength, **options)
        assert result.conditions["depth"].shape == DEPTH.shape
        moved.append(np.abs(result.conditions["depth"] - DEPTH).mean())
    assert moved[0] == 0 < moved[1] and moved[2] > 0
    default = model.refine({"depth": [DEPTH]}, ["a"], **STEPS)[0]
    explicit = model.refine({"depth": [DEPTH]}, ["a"], **STEPS, strength=0.7)[0]
    assert np.array_equal(default.conditions["depth"], explicit.conditions["depth"])


@pytest.mark.parametrize(
    "how", [{}, {"condition": "depth"}, {"conditions": {"pose": [PIXELS]}},
            {"condition": ("depth", "edge"), "conditions": {"pose": [PIXELS]}}],
)  # fmt: skip
def test_inpainting_keeps_pixels_exactly(how: dict[str, Any]) -> None:
    (result,) = tiny_model().inpaint([IMAGE], [MASK], ["a cat"], **how, **STEPS)
    painted, original = np.asarray(result.image), np.asarray(IMAGE)
    assert result.image.size == IMAGE.size
    assert np.array_equal(painted[~MASK], original[~MASK])
    assert np.abs(painted[MASK].astype(int) - original[MASK]).mean() > 1
    if "conditions" in how:
        assert result.conditions["pose"] is PIXELS
    if "condition" in how:
        (estimate,) = tiny_model().estimate([IMAGE], "depth")
        depth = result.conditions["depth"]
        assert np.abs(depth - estimate)[~MASK].max() < 1e-5 < np.abs(depth - estimate)[MASK].max()


def test_soft_masks_mix() -> None:
    soft = np.full((30, 40), 0.5, np.float32)
    (half,) = tiny_model().inpaint([IMAGE], [soft], ["a"], **STEPS)
    (full,) = tiny_model().inpaint([IMAGE], [np.ones_like(soft)], ["a"], **STEPS)
    mixed = (np.asarray(full.image).astype(float) + np.asarray(IMAGE)) / 2
    assert np.abs(np.asarray(half.image) - mixed).max() <= 1


def test_an_image_kind_gives_another_view() -> None:
    (view,) = tiny_model().estimate([IMAGE], "appearance", num_inference_steps=2)
    assert view.shape == (30, 40, 3) and view.dtype == np.float32 and 0 <= view.min() < view.max() <= 1


def test_no_rows_no_results() -> None:
    model = tiny_model()
    assert model.synthesize({"depth": []}, []) == model.generate_pairs([]) == model.inpaint([], [], []) == []
    assert model.estimate_ensemble([], ensemble_size=2) == []


def test_micro_batches() -> None:
    requests = [type("R", (), {"working_size": size}) for size in ["a", "b", "a", "a", "b"]]
    assert list(micro_batches(requests, None)) == [[0, 2, 3], [1, 4]]  # type: ignore[arg-type]
    assert list(micro_batches(requests, 2)) == [[0, 2], [3], [1, 4]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.synthesize({}, ["a"]), "at least one condition"),
        (lambda model: model.synthesize({"scribble": [DEPTH]}, ["a"]), "got 'scribble'"),
        (lambda model: model.synthesize({"depth": [DEPTH]}, ["a", "b"]), "1 maps for 2 prompts"),
        (lambda model: model.synthesize({"depth": [DEPTH]}, "a"), "Give \\['a'\\]"),
        (lambda model: model.synthesize({"depth": [DEPTH * 255]}, ["a"]), r"values in \[0, 1\]"),
        (lambda model: model.synthesize({"depth": [DEPTH], "pose": [PIXELS[:9]]}, ["a"]), "one size.*resize_map"),
        (lambda model: model.synthesize({"depth": [DEPTH]}, ["a"], strength=1.5), "strength"),
        (
            lambda model: model.synthesize({"depth": [DEPTH]}, ["a"], weights={"pose": 1.0}),
            r"got weights for \['pose'\]",
        ),
        (lambda model: model.synthesize({"depth": [DEPTH]}, ["a"], batch_size=0), "batch_size is at least 1"),
        (lambda model: model.synthesize({"depth": [DEPTH]}, ["a"], num_inference_steps=0), "at least 1; got 0"),
        (lambda model: model.synthesize({"depth": [DEPTH]}, ["a"], sampler="plms"), "'plms'"),
        (lambda model: model.generate_pairs(["a"], seeds=[1, 2]), "2 seeds"),
        (lambda model: model.generate_pairs(["a"], negative_prompts=[]), "0 negative prompts"),
        (lambda model: model.generate_pairs(["a"], size=(0, 5)), "positive"),
        (lambda model: model.generate_pairs(["a"], ("depth", "depth")), "A row has each condition once"),
        (lambda model: model.inpaint([IMAGE], [MASK[:5]], ["a"]), "mask .H, W. of its own size"),
        (lambda model: model.inpaint([IMAGE], [MASK * 255], ["a"]), "divide 8-bit"),
        (lambda model: model.inpaint([IMAGE], [], ["a"]), "mask .H, W. of its own size"),
        (lambda model: model.inpaint([IMAGE], [MASK], ["a"], conditions={"depth": [DEPTH[:9]]}), "one size"),
        (lambda model: model.inpaint([IMAGE], [MASK], ["a"], condition="depth", conditions={"depth": [DEPTH]}), "once"),
        (lambda model: model.estimate_ensemble([IMAGE], ensemble_size=0), "ensemble_size=0"),
    ],
)
def test_wrong_calls_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(tiny_model())


def test_weights_have_two_sides() -> None:
    plan = GenerationPlan(adapters=("depth", "pose"), table=joint(1, 2), weights={"pose": (0.2, 0.3)})
    pairs = plan.pairs(2).pairs
    assert [(pair.image_row, pair.condition_row, pair.adapter) for pair in pairs] == [
        (0, 2, "depth"), (1, 3, "depth"), (0, 4, "pose"), (1, 5, "pose"),
    ]  # fmt: skip
    assert (pairs[0].weight_to_image, pairs[3].weight_to_image, pairs[3].weight_to_condition) == (1.0, 0.2, 0.3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(dtype: torch.dtype, tmp_path) -> None:
    folder = write_tiny_model(tmp_path, MANY)
    half, full = (UniCon.from_pretrained(folder, device="cpu", dtype=kind) for kind in (dtype, torch.float32))
    options: dict[str, Any] = {"num_inference_steps": 8, "guidance_scale": 2.0}
    first, second = (model.generate_pairs(["a"], "edge", **options)[0] for model in (half, full))
    limit = {torch.bfloat16: 0.05, torch.float16: 0.008}[dtype]
    assert np.abs(first.conditions["edge"] - second.conditions["edge"]).mean() < limit
    assert difference(first, second) < 255 * limit


def test_spacing_and_zero_terminal_snr(tmp_path) -> None:
    folder = write_tiny_model(tmp_path, MANY, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    trailing, leading = (
        UniCon.from_pretrained(folder, device="cpu", timestep_spacing=spacing) for spacing in ("trailing", "leading")
    )
    results = []
    for model in (trailing, leading):
        for sampler in ("ddim", "euler_ancestral", "dpmsolver++"):
            (result,) = model.generate_pairs(["a"], num_inference_steps=4, guidance_scale=2.0, sampler=sampler)
            assert np.isfinite(result.conditions["depth"]).all() and np.asarray(result.image).std() > 1
            results.append(result)
    assert difference(results[0], results[3]) > 0.2
    with pytest.raises(ValueError, match="timestep_spacing"):
        UniCon.from_pretrained(folder, timestep_spacing="cosine")  # type: ignore[arg-type]


NOT_A_NUMBER = float("nan")
NUMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "guidance nan": ({"guidance_scale": NOT_A_NUMBER}, "guidance_scale is a number from 0 to 100; got nan"),
    "guidance inf": ({"guidance_scale": float("inf")}, "guidance_scale is a number"),
    "guidance -1": ({"guidance_scale": -1.0}, "guidance_scale is a number"),
    "guidance 1e30": ({"guidance_scale": 1e30}, "guidance_scale is a number"),
    "condition guidance": ({"condition_guidance_scale": NOT_A_NUMBER}, "condition_guidance_scale is a number"),
    "resolution 100000": ({"resolution_px": 100_000}, "resolution_px is at most 8192; got 100000"),
    "resolution of another model": ({"resolution_px": 512}, "trained for 32 pixels, is 4 to 256; got 512"),
    "resolution 8": ({"resolution_px": 8}, "resolution_px is at least 16; got 8"),
    "resolution 33.5": ({"resolution_px": 33.5}, "resolution_px is a whole number; got 33.5"),
    "steps 1001": ({"num_inference_steps": 1001}, "num_inference_steps is at most 1000; got 1001"),
    "steps 2.5": ({"num_inference_steps": 2.5}, "num_inference_steps is a whole number; got 2.5"),
    "eta": ({"eta": 1.5}, "eta is a number from 0 to 1; got 1.5"),
    "seed -1": ({"seeds": [-1]}, "seeds is at least 0; got -1"),
    "seed 2**63": ({"seeds": 2**63}, "seeds is at most 9223372036854775807; got 9223372036854775808"),
    "seed 1.5": ({"seeds": [1.5]}, "seeds is a whole number; got 1.5"),
    "batch size": ({"batch_size": 10**9}, "batch_size is at most 65536"),
    "spacing": ({"timestep_spacing": "cosine"}, "timestep_spacing is one of"),
    "start": ({"given_at": "middle"}, "given_at is one of"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_out_of_range_are_refused_by_every_method(case: str) -> None:
    settings, message = NUMBERS[case]
    model = tiny_model()
    for call in (
        lambda **options: model.estimate([IMAGE], "depth", **options),
        lambda **options: model.synthesize({"depth": [DEPTH]}, ["a"], **options),
        lambda **options: model.refine({"depth": [DEPTH]}, ["a"], **options),
        lambda **options: model.generate_pairs(["a"], **options),
        lambda **options: model.inpaint([IMAGE], [MASK], ["a"], **options),
    ):
        with pytest.raises(ValueError, match=message):
            call(**settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.refine({"depth": [DEPTH]}, ["a"], strength=NOT_A_NUMBER), "strength is a number from 0"),
        (lambda model: model.refine({"depth": [DEPTH]}, ["a"], strength=-0.1), "strength is a number from 0"),
        (
            lambda model: model.generate_pairs(["a"], weights={"depth": NOT_A_NUMBER}),
            "'depth' has nan. 1 is as",
        ),
        (lambda model: model.generate_pairs(["a"], weights={"depth": (1.0, 1e30)}), "A weight is a number from -10"),
        (lambda model: model.generate_pairs(["a"], size=(100_000, 5)), "size is at most 8192"),
        (lambda model: model.estimate_ensemble([IMAGE], ensemble_size=10**9), "ensemble_size is at most 100"),
        (lambda model: model.estimate([IMAGE], sampler="lcm", timestep_spacing="leading"), "timesteps of its own"),
        (lambda model: model.estimate([IMAGE], num_inference_steps=1, given_at="last_index"), "pure noise"),
    ],
)
def test_other_numbers_out_of_range_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(tiny_model())


def test_lcm_has_defaults_of_its_own_and_gives_finite_results() -> None:
    model = tiny_model()
    plain, said = (
        model.generate_pairs(["a cat"], sampler="lcm", **options)[0]
        for options in ({}, {"num_inference_steps": 4, "guidance_scale": 1.0})
    )
    assert difference(plain, said) == 0 and np.asarray(plain.image).std() > 1
    assert difference(plain, model.generate_pairs(["a cat"], sampler="lcm", guidance_scale=2.0)[0]) > 0
    together = model.generate_pairs(["a cat", "a dog"], sampler="lcm", seeds=[0, 1])
    assert difference(plain, together[0]) <= 1


def test_given_conditions_come_back_as_they_were_given() -> None:
    (result,) = tiny_model().synthesize({"depth": [DEPTH]}, ["a"], given_at="last_index", **STEPS)
    assert result.conditions["depth"] is DEPTH
    (other,) = tiny_model().synthesize({"depth": [DEPTH]}, ["a"], **STEPS)
    assert difference(result, other) > 0.2
