"""The recipe of ``mini``, the embedded model, from nothing: scenes, autoencoder, text encoder, UNet, adapters.

``mini`` shows that the machinery works and how well; it knows rendered scenes and is no model for photographs.

The UNet, the text encoder and the adapters are first trained together: every step shows images and one kind of their
conditions, a share of them without joint attention, so that the UNet also learns to draw on its own. Then the UNet is
frozen and each adapter alone is trained on, as for any Stable Diffusion (arXiv 2410.11439).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from unicon.adapter import AdapterConfig, add_adapter, named_adapter_parameters
from unicon.checkpoint import save_adapter
from unicon.conditions import CONDITIONS
from unicon.metrics import depth_metrics, mean_metrics
from unicon.model import UniCon
from unicon.scenes import Rendering, render, sample_scene
from unicon.training.fit import FitConfig, fit
from unicon.training.pairs import (
    LatentGroups,
    MixedLoss,
    PairLatents,
    PairLoss,
    PairSampling,
    TrainingModels,
    encode_latents,
)
from unicon.training.scene_cache import SceneArrays, load_cache, render_cache
from unicon.training.text import new_text_encoder, train_tokenizer
from unicon.training.vae import SHARES, map_pixels, new_vae, train_vae

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
}
"""The noisiest step is pure noise (arXiv 2305.08891): the first step of an estimation is then plain regression."""
SQUARE, WIDE, TALL = (128, 128), (160, 96), (96, 160)
VALIDATION_SEED = 2
TRUTHS: dict[str, Callable[[Rendering], np.ndarray]] = {
    "depth": lambda scene: scene.inverse_depth,
    "edge": lambda scene: scene.edges.astype(np.float32),
    "pose": lambda scene: scene.pose.astype(np.float32) / 255,
}
"""The exact condition of a scene, as a map of its kind."""


@dataclass(frozen=True, kw_only=True)
class MiniRecipe:
    """Every number that decides what ``mini`` becomes."""

    scenes: dict[tuple[int, int], int] = field(default_factory=lambda: {SQUARE: 12000, WIDE: 1000, TALL: 1000})
    """Scenes rendered, by (width, height) in pixels."""
    seed: int = 1
    """Seed of the square scenes; other sizes follow with seed + 9, seed + 10."""
    shares: dict[str, float] = field(default_factory=lambda: {"depth": 0.5, "edge": 0.25, "pose": 0.25})
    """Adapters, and the share of the common training's steps that each gets."""
    vae: FitConfig = FitConfig(
        steps=3000, learning_rate=2e-3, warmup_steps=50, ema_decay=0.995, autocast_dtype="bfloat16"
    )
    vae_batch_size: int = 16
    """Crops a step."""
    vae_crop_px: int = 64
    validation_scenes: int = 16
    """Scenes of another seed that every checkpoint is measured on."""
    block_out_channels: tuple[int, ...] = (64, 128, 128)
    rank: int = 12
    """Of the adapters' LoRA."""
    together: FitConfig = FitConfig(
        steps=6000,
        learning_rate=1.5e-3,
        warmup_steps=200,
        ema_decay=0.998,
        autocast_dtype="bfloat16",
        checkpoint_every=300,
    )
    adapter: FitConfig = FitConfig(
        steps=200, learning_rate=3e-4, warmup_steps=20, ema_decay=0.98, autocast_dtype="bfloat16"
    )
    sampling: PairSampling = PairSampling(
        batch_size=32,
        text_dropout=0.05,
        caption_dropout=0.5,
        clean_image_fraction=0.7,
        clean_condition_fraction=0.15,
        noisy_condition_fraction=0.85,
        unjoined_fraction=0.1,
        min_snr_gamma=None,
    )


def new_unet(vae: AutoencoderKL, channels: tuple[int, ...], text_width: int, size_px: int) -> UNet2DConditionModel:
    """An untrained Stable-Diffusion-shaped UNet for the autoencoder's latents, its finest level without attention."""
    attention = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=size_px // 2 ** (len(vae.config.block_out_channels) - 1),
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attention),
        up_block_types=(*["CrossAttnUpBlock2D"] * attention, "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def train_mini(work: Path, output: Path, recipe: MiniRecipe | None = None, device: str = "cpu") -> None:
    """Run the whole recipe; killed and started again, it goes on where it stopped.

    Args:
        work: scenes, checkpoints, logs and validation pictures.
        output: receives the diffusers folder with ``adapters/depth.safetensors``, weights in float16.
        recipe: the numbers.
        device: where to train.
    """
    recipe = recipe or MiniRecipe()
    torch.manual_seed(recipe.seed)
    scenes = list(_scenes(work, recipe))
    vae = _trained_vae(work, scenes[0], recipe, device)
    data = [encoded(work, index, vae, group) for index, group in enumerate(scenes)]
    models = _new_models(work, vae, scenes[0].captions, recipe, device)
    losses = {kind: _loss(models, kind, data, recipe) for kind in recipe.shares}
    everything = dict(nn.ModuleDict({"unet": models.unet, "text_encoder": models.text_encoder}).named_parameters())

    def train(stage: str, kinds: Sequence[str], parameters: dict[str, nn.Parameter], config: FitConfig) -> None:
        def look(step: int) -> None:
            save(models, vae, recipe.shares, output)
            model = UniCon.from_pretrained(output, device=device)
            for kind in kinds:
                validate(model, kind, work / stage, step, recipe.validation_scenes)

        _train_only(everything, parameters)
        loss = MixedLoss([losses[kind] for kind in kinds], [recipe.shares[kind] for kind in kinds])
        with sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext():
            fit(parameters, loss, config, work / stage, look)

    train("together", list(recipe.shares), everything, recipe.together)
    for kind in recipe.shares:
        train(kind, [kind], named_adapter_parameters(models.unet, kind), recipe.adapter)


def _loss(models: TrainingModels, kind: str, data: Sequence[SceneLatents], recipe: MiniRecipe) -> PairLoss:
    """Add an untrained adapter to the UNet in place; returns its loss."""
    trigger = new_adapter(models.unet, kind, recipe.rank)
    groups = [PairLatents(group.latents["image"], group.latents[kind], group.captions) for group in data]
    return PairLoss(models, kind, trigger, LatentGroups(groups), recipe.sampling)


def _train_only(everything: dict[str, nn.Parameter], chosen: dict[str, nn.Parameter]) -> None:
    trained = {id(parameter) for parameter in chosen.values()}
    for parameter in everything.values():
        parameter.requires_grad_(id(parameter) in trained)


def validate(model: UniCon, kind: str, folder: Path, step: int, count: int) -> None:
    """Estimate conditions of scenes never trained on: print the errors, draw image, truth and estimates."""
    scenes = [render(sample_scene(VALIDATION_SEED, index)) for index in range(count)]
    images = [Image.fromarray(scene.image) for scene in scenes]
    truths = [TRUTHS[kind](scene) for scene in scenes]
    rows = [images, [CONDITIONS[kind].preview(truth) for truth in truths]]
    for steps in (1, 4, 10):
        estimates = model.estimate(images, kind, num_inference_steps=steps)
        rows.append([CONDITIONS[kind].preview(estimate) for estimate in estimates])
        error = np.mean([np.abs(e - np.float32(t)).mean() for e, t in zip(estimates, truths, strict=True)])
        record = {"step": step, "condition": kind, "num_inference_steps": steps, "mean_absolute_error": float(error)}
        if kind == "depth":
            found = [depth_metrics(e, s.depth_m) for e, s in zip(estimates, scenes, strict=True)]
            record |= asdict(mean_metrics(found))
        print(json.dumps(record), flush=True)
    sheet = np.concatenate([np.concatenate([np.asarray(picture) for picture in row], 1) for row in rows])
    Image.fromarray(sheet).save(folder / f"{kind}-{step:06d}.png")


def new_adapter(unet: UNet2DConditionModel, kind: str, rank: int) -> str:
    """Add an untrained adapter to a UNet in place; returns its trigger text."""
    config = AdapterConfig(name=kind, rank=rank, estimation_steps=1)
    add_adapter(unet, config)
    return config.trigger or ""


def _scenes(work: Path, recipe: MiniRecipe) -> Iterator[SceneArrays]:
    for place, (size, count) in enumerate(recipe.scenes.items()):
        seed = recipe.seed if place == 0 else recipe.seed + 8 + place
        root = work / f"scenes-{seed}-{size[0]}x{size[1]}"
        render_cache(root, seed, count, size)
        yield load_cache(root, count)


def _trained_vae(work: Path, scenes: SceneArrays, recipe: MiniRecipe, device: str) -> AutoencoderKL:
    folder = work / "vae"
    if not (folder / "config.json").exists():
        vae = new_vae().to(device)
        train_vae(vae, scenes, recipe.vae, work / "vae-training", recipe.vae_batch_size, recipe.vae_crop_px)
        vae.save_pretrained(folder)
    vae = AutoencoderKL.from_pretrained(folder).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return vae.eval().requires_grad_(False)


def _new_models(
    work: Path, vae: AutoencoderKL, captions: Sequence[str], recipe: MiniRecipe, device: str
) -> TrainingModels:
    if not (work / "tokenizer" / "vocab.json").exists():
        train_tokenizer(["depth_map, edge_map, pose_map, ", *captions], work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    text_encoder = new_text_encoder(tokenizer)
    unet = new_unet(vae, recipe.block_out_channels, text_encoder.config.hidden_size, SQUARE[0])
    unet = unet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainingModels(unet, text_encoder.to(device), tokenizer, DDPMScheduler(**NOISE))


class SceneLatents(NamedTuple):
    """Pictures and maps of one group of scenes, encoded."""

    latents: dict[str, Tensor]
    """(S, c, h, w) float16 by what is shown: ``image``, ``depth``, ``edge``, ``pose``."""
    captions: tuple[str, ...]


def encoded(work: Path, index: int, vae: AutoencoderKL, scenes: SceneArrays) -> SceneLatents:
    """Latents of one group of scenes, from the disk where they were computed before."""
    path = work / f"latents-{index}.pt"
    if not path.exists():
        torch.save({kind: _encode_maps(vae, scenes, kind) for kind in SHARES}, path)
    return SceneLatents(torch.load(path, weights_only=True), scenes.captions)


def _encode_maps(vae: AutoencoderKL, scenes: SceneArrays, kind: str, batch_size: int = 64) -> Tensor:
    parts = []
    with torch.autocast(vae.device.type, torch.bfloat16):
        for start in range(0, len(scenes.captions), batch_size):
            pixels = torch.from_numpy(map_pixels(scenes, kind, np.s_[start : start + batch_size])).permute(0, 3, 1, 2)
            parts.append(encode_latents(vae, pixels))
    return torch.cat(parts)


def save(models: TrainingModels, vae: AutoencoderKL, adapters: Iterable[str], output: Path) -> None:
    """Write the diffusers folder and the adapters, weights in float16."""
    (output / "adapters").mkdir(parents=True, exist_ok=True)
    unet = copy.deepcopy(models.unet).half()
    for name in adapters:
        save_adapter(unet, name, output / "adapters" / f"{name}.safetensors")
    plain = UNet2DConditionModel.from_config(models.unet.config).half()
    plain.load_state_dict(_without_adapters(unet.state_dict()))
    plain.save_pretrained(output / "unet")
    plain_vae = AutoencoderKL.from_config(_public_config(vae)).half()
    plain_vae.load_state_dict(vae.state_dict())
    plain_vae.save_pretrained(output / "vae")
    copy.deepcopy(models.text_encoder).half().save_pretrained(output / "text_encoder")
    models.tokenizer.save_pretrained(output / "tokenizer")
    DDIMScheduler(**NOISE, clip_sample=False, timestep_spacing="trailing").save_pretrained(output / "scheduler")
    parts = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "scheduler": "DDIMScheduler",
    }
    texts = {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    absent = [None, None]
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": absent, "feature_extractor": absent}
    index |= {name: ["diffusers", kind] for name, kind in parts.items()}
    index |= {name: ["transformers", kind] for name, kind in texts.items()}
    (output / "model_index.json").write_text(json.dumps({**index, "requires_safety_checker": False}, indent=2) + "\n")


def _public_config(vae: AutoencoderKL) -> dict:
    """The configuration without the private entries that loading adds, such as the path it came from."""
    return {key: value for key, value in vae.config.items() if not key.startswith("_")}


def _without_adapters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A UNet's own weights under their plain names."""
    return {
        name.replace(".base_layer.", "."): value
        for name, value in state.items()
        if ".lora_" not in name and ".processor." not in name
    }
