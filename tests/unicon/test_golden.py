# diffusers declares the arguments of `to` and of its schedulers too narrowly.
# pyright: reportArgumentType=false
"""UniCon reproduces the golden tensors, in the training form and in the inference form.

Everything is read from the golden directory (format: tests/golden/README.md); UNICON_GOLDEN_DIR names another one.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from tests.support.paths import PROJECT_ROOT
from unicon.adapters.merge import merge_adapters
from unicon.adapters.official import load_official, official_parameter_key
from unicon.adapters.unet import named_adapter_parameters
from unicon.pairs import Pair, Pairs
from unicon.sampling.guidance import Denoiser
from unicon.sampling.loop import sample, starting_latents, with_timesteps
from unicon.sampling.step_table import StepTable
from unicon.training.loss import diffusion_loss

GOLDEN = Path(os.environ.get("UNICON_GOLDEN_DIR", PROJECT_ROOT / "tests" / "golden"))
TOLERANCE = 1e-4
FORMS = ("training", "inference")
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def relative_error(ours: torch.Tensor, golden: torch.Tensor) -> float:
    return float((ours.double() - golden.double()).norm() / golden.double().norm())


def case_names(folder: str) -> list[str]:
    return sorted(path.stem for path in (GOLDEN / folder).glob("*.json"))


def read_case(folder: str, name: str, device: str) -> tuple[dict, dict[str, torch.Tensor]]:
    path = GOLDEN / folder / name
    return json.loads(path.with_suffix(".json").read_text()), load_file(path.with_suffix(".safetensors"), device=device)


@cache
def golden_unet(adapters: tuple[str, ...], form: str, device: str) -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "unet").eval()
    for adapter in adapters:
        load_official(unet, GOLDEN / "checkpoints" / adapter, name=adapter)
    return (merge_adapters(unet) if form == "inference" else unet).to(device)


def forward_pairs(case: dict) -> Pairs:
    pairs = tuple(Pair(image, condition, model, to_image, to_condition)
                  for image, condition, to_image, to_condition, model in case["pairs"])  # fmt: skip
    batch = Pairs(pairs, case["inputs"])
    if not case["joint_attention"]:
        batch = batch.without_joint()
    return batch.repeat(2) if case["classifier_free_guidance"] else batch


@pytest.mark.parametrize("name", case_names("forward"))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_forward(name: str, form: str, device: str) -> None:
    case, tensors = read_case("forward", name, device)
    unet = golden_unet(tuple(case["models"]), form, device)
    noise_pred = unet(
        tensors["latents"],
        tensors["timesteps"],
        tensors["prompt_embeds"],
        cross_attention_kwargs={"pairs": forward_pairs(case)},
    ).sample
    assert relative_error(noise_pred, tensors["noise_pred"]) <= TOLERANCE


@pytest.mark.parametrize("name", [path.stem for path in sorted((GOLDEN / "training").glob("*.safetensors"))])
@pytest.mark.parametrize("device", DEVICES)
def test_training(name: str, device: str) -> None:
    tensors = load_file(GOLDEN / "training" / f"{name}.safetensors", device=device)
    unet = golden_unet((name,), "training", device)
    pairs = Pairs.one_to_one(len(tensors["latents"]) // 2, name)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    timesteps = tensors["timesteps"].long()
    noise_pred = unet(
        scheduler.add_noise(tensors["latents"], tensors["noise"], timesteps),
        timesteps,
        tensors["prompt_embeds"],
        cross_attention_kwargs={"pairs": pairs},
    ).sample
    loss_arguments = {"noise": tensors["noise"], "timesteps": timesteps, "scheduler": scheduler}
    loss = diffusion_loss(noise_pred, **loss_arguments, min_snr_gamma=5.0)
    loss_plain = diffusion_loss(noise_pred, **loss_arguments, min_snr_gamma=None)
    parameters = named_adapter_parameters(unet, name)
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    assert relative_error(noise_pred.detach(), tensors["noise_pred"]) <= TOLERANCE
    assert relative_error(loss.detach().reshape(1), tensors["loss"]) <= TOLERANCE
    assert relative_error(loss_plain.detach().reshape(1), tensors["loss_plain"]) <= TOLERANCE
    golden_names = {key for key in tensors if key.startswith("grad.")}
    assert golden_names == {f"grad.{official_parameter_key(key)}" for key in gradients}
    errors = {
        key: relative_error(gradient, tensors[f"grad.{official_parameter_key(key)}"])
        for key, gradient in gradients.items()
    }
    assert max(errors.values()) <= TOLERANCE, max(errors, key=errors.__getitem__)


def sampled(case: dict, tensors: dict[str, torch.Tensor], unet: UNet2DConditionModel) -> torch.Tensor:
    size = case["batch_size"]
    pairs = Pairs(
        tuple(
            Pair(image * size + row, condition * size + row, model, to_image, to_condition)
            for image, condition, to_image, to_condition, model in case["pairs"]
            for row in range(size)
        ),
        case["inputs"] * size,
    )
    roles = [slice(role * size, (role + 1) * size) for role in range(case["inputs"])]
    options = dict(case["scheduler"])
    scheduler_class = getattr(diffusers, options.pop("class"))
    scheduler = with_timesteps(scheduler_class(**options), case["steps"])
    table = StepTable(tuple(tuple(row[:-1]) for row in case["step_table"]), case["steps"])
    denoise = Denoiser(
        unet=unet,
        pairs=pairs,
        prompt_embeds=tensors["prompt_embeds"],
        negative_prompt_embeds=tensors["negative_prompt_embeds"],
        guidance_scale=case["guidance_scale"],
        condition_guidance_scale=case["condition_guidance_scale"],
    )
    clean, noise = tensors["image_latents"], tensors["noise"]
    start = starting_latents(scheduler, table, roles, clean, noise)
    return sample(denoise, start, scheduler, table, roles, clean=clean, noise=noise, mask=tensors["mask"])


@pytest.mark.parametrize("name", case_names("sampling"))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("device", DEVICES)
def test_sampling(name: str, form: str, device: str) -> None:
    case, tensors = read_case("sampling", name, device)
    final_latents = sampled(case, tensors, golden_unet(tuple(case["models"]), form, device))
    assert relative_error(final_latents, tensors["final_latents"]) <= TOLERANCE
