"""`UniCon`: a Stable Diffusion folder with its adapters, ready to estimate conditions from images.

model = UniCon.from_pretrained("mini")
depth = model.estimate([Image.open("photo.jpg")])[0]        # float32 (H, W), 0 far, 1 near
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from unicon import images as pictures
from unicon.adapter import AdapterConfig, adapter_configs
from unicon.checkpoint import load_adapter
from unicon.conditions import CONDITIONS
from unicon.folder import find_adapters, find_folder, fingerprint, weight_files
from unicon.guidance import Denoiser
from unicon.merged import merge_adapters
from unicon.pairs import Pairs
from unicon.published import is_published, load_published
from unicon.sampling import row_noise, sample, starting_latents, with_timesteps
from unicon.schedule import estimation


class UniCon:
    """A frozen Stable Diffusion with UniCon adapters merged into it. Nothing in it changes after loading."""

    def __init__(
        self,
        *,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDIMScheduler,
        description: Mapping[str, Any],
    ) -> None:
        """`unet` in inference form (`unicon.merged.merge_adapters`); every part on one device, in one dtype."""
        self.unet = unet
        self.vae = vae
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self._description = dict(description)
        triggers = [config.trigger or "" for config in self.adapters.values()]
        constant_prompts = list(dict.fromkeys(["", *triggers]))
        self._constant_embeds = dict(zip(constant_prompts, self._encode(constant_prompts), strict=True))

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        adapters: Mapping[str, str | Path] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> UniCon:
        """Load a model and its adapters.

        model: "mini" (embedded), a Stable Diffusion 1.x/2.x folder in the diffusers layout, or a hub id, at
        `revision`; safetensors only. adapters: name -> our file or a published folder; None means every
        adapters/NAME.safetensors of the model. device: a GPU when there is one. dtype: float16 on a GPU, float32 on
        a CPU.
        Errors: FileNotFoundError for absent models and adapters, ValueError for adapters that do not fit.
        """
        folder = find_folder(model, revision)
        paths = find_adapters(folder, adapters)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
        options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": dtype}
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options).to(device)
        for name, path in paths.items():
            (load_published if is_published(path) else load_adapter)(unet, path, name=name)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **options)
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, dtype=dtype)
        return cls(
            unet=merge_adapters(unet),
            vae=vae.to(device).eval().requires_grad_(False),
            text_encoder=text_encoder.to(device).eval().requires_grad_(False),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            scheduler=_ddim(folder),
            description={
                "model": str(model),
                "revision": revision,
                "weights_sha256": fingerprint(weight_files(folder, paths.values())),
                "adapters": {name: config.to_dict() for name, config in adapter_configs(unet).items()},
                "dtype": str(dtype).removeprefix("torch."),
            },
        )

    @property
    def adapters(self) -> dict[str, AdapterConfig]:
        """Configurations of the adapters by name."""
        return adapter_configs(self.unet)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def weights_sha256(self) -> str:
        """sha256 over all files of weights in use, in hexadecimal; "" for a model that was put together by hand."""
        return self._description.get("weights_sha256", "")

    def describe(self) -> dict[str, Any]:
        """Provenance as plain values: model, revision, weights_sha256, adapters, dtype."""
        return dict(self._description)

    @property
    def vae_scale(self) -> int:
        """Pixels a latent pixel, a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def working_size(self, image_size: tuple[int, int], *, resolution_px: int | None = None) -> tuple[int, int]:
        """(width, height) at which the model sees a picture of `image_size` = (width, height).

        resolution_px: side of the square whose area is aimed at; the model's native resolution when None. Pictures
        of one working size can share a batch.
        """
        resolution_px = resolution_px or self.unet.config.sample_size * self.vae_scale
        multiple = self.vae_scale * 2 ** (len(self.unet.config.block_out_channels) - 1)
        return pictures.working_size(image_size, area=resolution_px**2, multiple=multiple)

    def estimate(
        self,
        images: Sequence[Image.Image],
        condition: str = "depth",
        *,
        prompts: Sequence[str] | None = None,
        seeds: int | Sequence[int] = 0,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        resolution_px: int | None = None,
        batch_size: int | None = None,
    ) -> list[np.ndarray]:
        """Estimate a condition of every image.

        images: any sizes and modes, together; EXIF orientation is applied. condition: name of an adapter. prompts:
        one an image, none by default. seeds: one for all, or one an image. num_inference_steps: what the adapter
        recommends when None. batch_size: the most images the model
        sees at once; all of one working size when None.

        Returns one map an image in the same order, at the image's own (upright) size; for depth float32 (H, W) in
        [0, 1], relative inverse depth, 0 far and 1 near.

        A row's result belongs to the row: it depends on its image, prompt and seed, not on its neighbours or the
        batch size, within 1e-4 absolute in fp32 (batched matrix products round differently; 3e-7 was measured on a tiny
        model on a CPU).
        Errors: ValueError for an absent adapter or lists of different lengths.
        """
        config = self._config(condition)
        prompts = [""] * len(images) if prompts is None else list(prompts)
        seeds = [seeds] * len(images) if isinstance(seeds, int) else list(seeds)
        if not len(images) == len(prompts) == len(seeds):
            raise ValueError(
                f"Prompts and seeds come one an image; got {len(images)} images, {len(prompts)} prompts, "
                f"{len(seeds)} seeds. Give lists of the same length."
            )
        uprights = [pictures.to_rgb(image) for image in images]
        results: dict[int, np.ndarray] = {}
        for size, rows in self._batches(uprights, resolution_px, batch_size):
            pixels = torch.stack([pictures.to_model(uprights[row], size) for row in rows])
            decoded = self._estimate_batch(
                pixels,
                config,
                [prompts[row] for row in rows],
                [seeds[row] for row in rows],
                num_inference_steps or config.estimation_steps,
                guidance_scale,
            )
            for row, tensor in zip(rows, decoded, strict=True):
                values = CONDITIONS[config.kind].from_model(tensor)
                results[row] = pictures.resize_map(values, uprights[row].size)
        return [results[row] for row in range(len(images))]

    def _config(self, condition: str) -> AdapterConfig:
        if condition not in self.adapters:
            raise ValueError(
                f"A condition is the name of a loaded adapter, {sorted(self.adapters)}; got {condition!r}. "
                "Load it with from_pretrained(adapters=...)."
            )
        config = self.adapters[condition]
        if config.kind not in CONDITIONS:
            raise ValueError(
                f"Estimation knows the kinds {sorted(CONDITIONS)}; adapter {condition!r} is of kind {config.kind!r}. "
                "Name the adapter after its kind."
            )
        return config

    def _batches(
        self, uprights: Sequence[Image.Image], resolution_px: int | None, batch_size: int | None
    ) -> list[tuple[tuple[int, int], list[int]]]:
        """(working size, rows) of every batch."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for row, image in enumerate(uprights):
            by_size.setdefault(self.working_size(image.size, resolution_px=resolution_px), []).append(row)
        return [
            (size, rows[start : start + (batch_size or len(rows))])
            for size, rows in by_size.items()
            for start in range(0, len(rows), batch_size or len(rows))
        ]

    @torch.no_grad()
    def _estimate_batch(
        self,
        pixels: Tensor,
        config: AdapterConfig,
        prompts: list[str],
        seeds: list[int],
        num_inference_steps: int,
        guidance_scale: float,
    ) -> Tensor:
        """(B, 3, height, width) in [-1, 1] -> decoded condition (B, 3, height, width)"""
        clean = self.encode_images(pixels)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = row_noise(clean.shape[1:], generators, self.device, self.dtype)
        size = len(clean)
        roles = [slice(0, size), slice(size, 2 * size)]
        scheduler = with_timesteps(self.scheduler, num_inference_steps)
        table = estimation(num_inference_steps, clean_image=True)
        denoise = Denoiser(
            unet=self.unet,
            pairs=Pairs.one_to_one(size, config.name),
            prompt_embeds=self.encode_prompts([*prompts, *((config.trigger or "") + prompt for prompt in prompts)]),
            negative_prompt_embeds=self.encode_prompts([""] * 2 * size) if guidance_scale != 1.0 else None,
            guidance_scale=guidance_scale,
        )
        start = starting_latents(scheduler, table, roles, torch.cat([clean, clean]), torch.cat([noise, noise]))
        latents = sample(denoise, start, scheduler, table, roles)
        return self.decode_latents(latents[roles[1]])

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) in [-1, 1] -> scaled latents (B, channels, h, w), the mode of the VAE's posterior."""
        posterior = self.vae.encode(pixels.to(self.device, self.dtype)).latent_dist
        return (posterior.mode() - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, channels, h, w) -> (B, 3, height, width) around [-1, 1]"""
        latents = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        return self.vae.decode(latents).sample

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(len(prompts), tokens, text C); "" and the triggers are computed once, at loading."""
        others = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._constant_embeds]
        embeds = self._constant_embeds | (dict(zip(others, self._encode(others), strict=True)) if others else {})
        return torch.stack([embeds[prompt] for prompt in prompts])

    @torch.no_grad()
    def _encode(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]


def _ddim(folder: Path) -> DDIMScheduler:
    """The folder's noise schedule as DDIM for few steps: trailing spacing (arXiv 2305.08891), ending without noise."""
    config = DDIMScheduler.load_config(folder, subfolder="scheduler")
    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
            "rescale_betas_zero_snr")  # fmt: skip
    schedule = {key: config[key] for key in keys if key in config}
    return DDIMScheduler(**schedule, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True)
