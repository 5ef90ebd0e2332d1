# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and arguments too narrowly.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""`Backbone`: a Stable Diffusion model with its adapters on a device, and its conversions of images and prompts.

Tested in tests/unicon/test_loading.py, tests/unicon/test_model.py and tests/unicon/test_finite.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import adapter_configs
from unicon.autoencoders import Autoencoder, Float32Fallback, decode_scaled, encode_scaled
from unicon.compilation.cache import cache_path
from unicon.compilation.compiled import Compilation
from unicon.compilation.policy import CompileMode, CompileSettings
from unicon.conditions import CONDITIONS, Condition
from unicon.decoders import MapDecoder
from unicon.devices import floating_dtype, usable_device
from unicon.files.adapters import find_adapters
from unicon.files.autoencoders import vae_scale
from unicon.files.folder import find_folder, find_vae, weight_files
from unicon.files.hashes import fingerprint
from unicon.files.hub import commit_of
from unicon.files.loras import Loras, find_loras
from unicon.images import normalized
from unicon.limits import ModelLimits
from unicon.loading import load_parts, loaded
from unicon.options import SamplingOptions, TimestepSpacing
from unicon.prompts import tokens_cut
from unicon.sampling.loop import SCHEDULE_KEYS
from unicon.unet_call import RunUNet
from unicon.working_sizes import working_size

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


class Backbone:
    """A frozen Stable Diffusion with UniCon adapters. It does not change after loading."""

    _run: Callable[[Callable[[], Any]], Any] | None = None
    """See `in_turns`."""

    def __init__(
        self,
        *,
        unet: UNet2DConditionModel,
        vae: Autoencoder,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        description: Mapping[str, Any],
        map_decoder: MapDecoder | None = None,
        timestep_spacing: TimestepSpacing | None = None,
        compilation: Compilation | None = None,
    ) -> None:
        """Assemble a model from its parts, all on one device.

        Args:
            unet: The UNet in inference form (`unicon.adapters.merge`) or in training form.
            vae: The autoencoder.
            text_encoder: The text encoder.
            tokenizer: The tokenizer.
            scheduler: Its configuration says how the model was trained.
            description: See `describe`.
            map_decoder: The small decoder of maps.
            timestep_spacing: Spacing of calls that name none.
            compilation: Runs the calls of the modules. By default they are not compiled.
        """
        self.unet = unet
        self.compilation = Compilation()
        self.vae = vae
        self.map_decoder = map_decoder
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.scheduler: Any = scheduler
        self.timestep_spacing = SamplingOptions(timestep_spacing=timestep_spacing).timestep_spacing
        self._description = dict(description)
        self._said_cut = False
        self._fallback = Float32Fallback()
        triggers = [config.trigger or "" for config in self.adapters.values()]
        constant_prompts = list(dict.fromkeys(["", *triggers]))
        self._constant_embeds = dict(zip(constant_prompts, self._encode(constant_prompts), strict=True))
        self.compilation = compilation or self.compilation  # these few prompts are not worth compiling
        self.run_unet: RunUNet = self.compilation.run_unet

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, adapters: Mapping[str, str | Path] | None = None,
        device: str | torch.device | None = None, dtype: torch.dtype | str | None = None, revision: str | None = None,
        timestep_spacing: TimestepSpacing = "trailing", loras: Loras = (), vae: str | Path | None = None,
        weights_sha256: str | None = None, compile: CompileMode | CompileSettings = "never",
    ) -> Self:  # fmt: skip
        """Load a model and its adapters, strictly.

        Args:
            model: "mini" (embedded), a Stable Diffusion 1.x or 2.x folder in the diffusers layout, or a hub id, which
                may end in "@revision". Weights are read from safetensors only.
            adapters: Name -> a file of this project, a folder in the official layout, or such an adapter on the hub,
                "owner/name" or "owner/name/folder". None means every adapters/NAME.safetensors of the model.
            device: By default a GPU if there is one (CUDA, then MPS), else the CPU.
            dtype: By default float16 on a GPU and float32 on a CPU.
            revision: Branch, tag or commit of a hub id.
            timestep_spacing: Spacing of calls that name none; "leading" is as published (arXiv 2305.08891, table 2).
            loras: LoRAs of other tools for the base model, fused into it: paths, or path -> scale.
            vae: Another autoencoder of the same latents, an `AutoencoderKL` or `AutoencoderTiny`: its folder, a model
                folder that has it in vae/, or a hub id. By default the model's own.
            weights_sha256: The hash of the weights if the caller knows it, which saves reading all files for it.
            compile: Whether calls are compiled: "never"; "always": at the first use of every number of rows and working
                size, which takes minutes in all; "auto": on a CUDA GPU, each when enough work has been seen for it to
                pay. The code is kept for later processes, see `unicon.compilation.cache`.

        Raises:
            FileNotFoundError: The model, an adapter or a LoRA is absent.
            ValueError: One of them is something else, damaged, or does not fit. Headers are checked before weights.
        """
        folder, fused = find_folder(model, revision), find_loras(loras)
        paths, vae_folder = find_adapters(folder, adapters), find_vae(folder, vae)
        SamplingOptions(timestep_spacing=timestep_spacing)  # refuses other names before anything is loaded
        compiling = compile if isinstance(compile, CompileSettings) else CompileSettings(mode=compile)
        device = usable_device(device)
        dtype = floating_dtype(dtype or ("float32" if device.type == "cpu" else "float16"))
        parts = load_parts(folder, paths, fused, device, dtype, None if vae is None else vae_folder)
        known = weights_sha256 or fingerprint(weight_files(folder, paths.values(), fused, vae=vae_folder))
        return cls(
            **parts._asdict(),
            scheduler=ddim_scheduler(folder),
            timestep_spacing=timestep_spacing,
            description={
                "model": str(model),
                "revision": revision or commit_of(folder),
                "weights_sha256": known,
                **({} if vae is None else {"vae": str(vae)}),
                **loaded(parts, fused, dtype),
            },
            compilation=Compilation(compiling, device, path=cache_path(known, device, dtype)),
        )

    def in_turns(self, run: Callable[[Callable[[], Any]], Any]) -> Self:
        """The same model for callers in several threads.

        Args:
            run: Calls the function that it is given and returns its result. It gets the part of every call that uses
                the device, from several threads, and runs one at a time.
        """
        shared = copy.copy(self)
        shared._run = run
        return shared

    def run_on_device(self, call: Callable[[], T]) -> T:
        """Run the part of a call that uses the device: at once, or as `in_turns` says."""
        return call() if self._run is None else self._run(call)

    @property
    def adapters(self) -> dict[str, AdapterConfig]:
        """Configurations of the adapters by name."""
        return adapter_configs(self.unet)

    def adapter_kind(self, adapter: str) -> Condition:
        """The kind of condition of an adapter.

        Raises:
            ValueError: The adapter is absent or of an unknown kind.
        """
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
    def device_name(self) -> str:
        """Name of the kind of device, such as "NVIDIA H200", or "cpu"."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over all weight files in use, in hexadecimal; empty for a model that was not loaded from files."""
        return self._description.get("weights_sha256", "")

    def describe(self) -> dict[str, Any]:
        """Provenance as plain values: model, revision, weights_sha256, adapters, dtype."""
        return dict(self._description)

    @property
    def vae_scale(self) -> int:
        """Pixels per latent pixel along each side."""
        return vae_scale(self.vae.config)

    @property
    def native_px(self) -> int:
        """Side of the square that the model was trained for, in pixels."""
        return self.limits.native_px

    @property
    def limits(self) -> ModelLimits:
        """The sizes and numbers of steps that the model supports."""
        return ModelLimits.of(
            self.unet.config, self.vae.config, self.scheduler.config, has_map_decoder=self.map_decoder is not None
        )

    def working_size(self, image_size: tuple[int, int], *, resolution_px: int | None = None) -> tuple[int, int]:
        """(width, height) at which the model works on an image of `image_size` = (width, height).

        Images of one working size can share a batch. `resolution_px` is the side of the square whose area is aimed at;
        the default is the native resolution of the model.
        """
        multiple = self.vae_scale * 2 ** (len(self.unet.config.block_out_channels) - 1)
        return working_size(image_size, area=(resolution_px or self.native_px) ** 2, multiple=multiple)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, height, width), uint8 or in [-1, 1], to scaled latents (B, channels, h, w), the mode of each.

        A row that is not finite in float16 is encoded again in float32.
        """
        pixels = normalized(pixels.to(self.vae.device, non_blocking=True))
        return self._fallback.run(partial(self.compilation.run_rows, encode_scaled), self.vae, pixels)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, channels, h, w) to (B, 3, height, width) around [-1, 1].

        A row that is not finite in float16 is decoded again in float32.
        """
        return self._fallback.run(partial(self.compilation.run_rows, decode_scaled), self.vae, latents)

    @torch.no_grad()
    def decode_maps(self, latents: Tensor) -> Tensor:
        """Decode scaled latents of conditions (B, channels, h, w) with the small decoder, as `decode_latents`."""
        assert self.map_decoder is not None, "the limits of the model have been checked"
        return self._fallback.run(partial(self.compilation.run_rows, _decode_maps), self.map_decoder, latents)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts to (len(prompts), tokens, text C). The empty prompt and triggers are encoded at loading."""
        others = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._constant_embeds]
        embeds = self._constant_embeds | (dict(zip(others, self._encode(others), strict=True)) if others else {})
        return torch.stack([embeds[prompt] for prompt in prompts])

    def tokens_cut(self, prompts: Sequence[str]) -> list[int]:
        """The number of tokens by which each prompt exceeds the text encoder's limit."""
        return tokens_cut(self.tokenizer, prompts)

    @torch.no_grad()
    def _encode(self, prompts: list[str]) -> Tensor:
        if not self._said_cut and any(self.tokens_cut(prompts)):
            self._said_cut = True
            LOGGER.warning(
                "The text encoder takes %d tokens; the rest of longer prompts is cut off. This is said once: "
                "Generated.prompt_tokens_cut counts them in every result, tokens_cut(prompts) before.",
                self.tokenizer.model_max_length,
            )
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        ids = tokens.input_ids.to(self.text_encoder.device)
        return self.compilation.run_rows(_encode_tokens, self.text_encoder, ids)


def _decode_maps(decoder: MapDecoder, latents: Tensor) -> Tensor:
    return decoder(latents.to(decoder.dtype))


def _encode_tokens(text_encoder: CLIPTextModel, ids: Tensor) -> Tensor:
    """(B, tokens) -> (B, tokens, text C)."""
    return text_encoder(ids)[0]


def ddim_scheduler(folder: Path) -> DDIMScheduler:
    """The noise schedule of a model folder. How it is sampled is decided by each call."""
    config = DDIMScheduler.load_config(folder, subfolder="scheduler")
    schedule = {key: config[key] for key in SCHEDULE_KEYS if key in config}
    return DDIMScheduler(**schedule, timestep_spacing="trailing", clip_sample=False)
