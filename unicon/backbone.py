"""`Backbone`: a Stable Diffusion folder with its adapters on a device; pictures and prompts to tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from unicon import images as pictures
from unicon.adapter import AdapterConfig, adapter_configs
from unicon.checkpoint import load_adapter
from unicon.conditions import CONDITIONS, Condition
from unicon.folder import find_adapters, find_folder, fingerprint, weight_files
from unicon.merged import merge_adapters
from unicon.published import is_published, load_published

TimestepSpacing = Literal["trailing", "leading"]
SCHEDULE_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
                 "rescale_betas_zero_snr")  # fmt: skip
"""What of a folder's scheduler describes the model; the rest describes a way of sampling."""


class Backbone:
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
        cls, model: str | Path, *, adapters: Mapping[str, str | Path] | None = None,
        device: str | torch.device | None = None, dtype: torch.dtype | None = None, revision: str | None = None,
        timestep_spacing: TimestepSpacing = "trailing",
    ) -> Self:  # fmt: skip
        """Load a model and its adapters.

        model: "mini" (embedded), a Stable Diffusion 1.x/2.x folder in the diffusers layout, or a hub id, at
        `revision`; safetensors only. adapters: name -> our file or a published folder; None means every
        adapters/NAME.safetensors of the model. device: a GPU when there is one (CUDA, then MPS). dtype: float16 on a
        GPU, float32 on a CPU. timestep_spacing: "trailing" suits few steps, "leading" is how Stable Diffusion 1.x was
        published (arXiv 2305.08891, table 2).
        Errors: FileNotFoundError for absent models and adapters, ValueError for adapters that do not fit.
        """
        folder = find_folder(model, revision)
        paths = find_adapters(folder, adapters)
        scheduler = ddim_scheduler(folder, timestep_spacing)
        device = torch.device(device or default_device())
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
        unet, vae, text_encoder = _load_parts(folder, device, dtype)
        for name, path in paths.items():
            (load_published if is_published(path) else load_adapter)(unet, path, name=name)
        return cls(
            unet=merge_adapters(unet),
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            scheduler=scheduler,
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

    def adapter_kind(self, adapter: str) -> Condition:
        """The kind of condition of an adapter. Errors: ValueError for an absent adapter, or one of an unknown kind."""
        if adapter not in self.adapters:
            raise ValueError(
                f"A condition is the name of a loaded adapter, {sorted(self.adapters)}; got {adapter!r}. "
                "Load it with from_pretrained(adapters=...)."
            )
        kind = self.adapters[adapter].kind
        if kind not in CONDITIONS:
            raise ValueError(
                f"The kinds of conditions are {sorted(CONDITIONS)}; adapter {adapter!r} is of kind {kind!r}. "
                "Name the adapter after its kind."
            )
        return CONDITIONS[kind]

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

    @property
    def native_px(self) -> int:
        """Side of the square that the model was made for, in pixels."""
        return self.unet.config.sample_size * self.vae_scale

    def working_size(self, image_size: tuple[int, int], *, resolution_px: int | None = None) -> tuple[int, int]:
        """(width, height) at which the model sees a picture of `image_size` = (width, height).

        resolution_px: side of the square whose area is aimed at; the model's native resolution when None. Pictures
        of one working size can share a batch.
        """
        area = (self.native_px if resolution_px is None else resolution_px) ** 2
        multiple = self.vae_scale * 2 ** (len(self.unet.config.block_out_channels) - 1)
        return pictures.working_size(image_size, area=area, multiple=multiple)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) in [-1, 1] -> scaled latents (B, channels, h, w), the mode of the VAE's posterior."""
        posterior = self.vae.encode(pixels.to(self.device, self.dtype)).latent_dist
        return (posterior.mode() - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, channels, h, w) -> (B, 3, height, width) around [-1, 1]"""
        latents = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        return self.vae.decode(latents.to(self.dtype)).sample

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


def default_device() -> str:
    """ "cuda", else "mps", else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def ddim_scheduler(folder: Path, timestep_spacing: TimestepSpacing) -> DDIMScheduler:
    """The folder's noise schedule as DDIM that ends without noise.

    Errors: ValueError for another spacing than "trailing" or "leading".
    """
    if timestep_spacing not in ("trailing", "leading"):
        raise ValueError(f'timestep_spacing is "trailing" or "leading"; got {timestep_spacing!r}. Correct it.')
    config = DDIMScheduler.load_config(folder, subfolder="scheduler")
    keys = (*SCHEDULE_KEYS, "steps_offset") if timestep_spacing == "leading" else SCHEDULE_KEYS
    schedule = {key: config[key] for key in keys if key in config}
    return DDIMScheduler(**schedule, timestep_spacing=timestep_spacing, clip_sample=False, set_alpha_to_one=True)


def _load_parts(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": dtype}
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options).to(device)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **options).to(device)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, dtype=dtype).to(device)
    return unet, vae.eval().requires_grad_(False), text_encoder.eval().requires_grad_(False)
