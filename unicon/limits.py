"""The sizes and numbers of steps that a model supports, from its configuration alone. Imports no torch.

Tested in tests/unicon/test_generation.py and tests/jobs/test_sampling_options.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from unicon.files.autoencoders import vae_scale
from unicon.files.decoders import map_decoder_folder
from unicon.files.headers import read_json
from unicon.options import SamplingOptions

MAX_SCALE = 8
"""A model works at up to this many times the side it was trained for, and down to the inverse of it."""
NUM_TRAIN_TIMESTEPS = 1000
"""Training timesteps where the scheduler does not state them."""


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """Sizes and timesteps of a model."""

    native_px: int
    """Side of the square that the model was trained for."""
    multiple_px: int
    """Number of pixels of which all sides are multiples."""
    num_train_timesteps: int = NUM_TRAIN_TIMESTEPS
    steps_offset: int = 0
    starts_from_nothing: bool = False
    """Whether the model predicts noise and its schedule ends in nothing but noise (zero terminal SNR)."""
    has_map_decoder: bool = False
    """Whether the model has a small decoder of maps."""

    @classmethod
    def of(
        cls, unet: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Mapping[str, Any], *, has_map_decoder: bool
    ) -> Self:
        """The limits of a model, from the configurations of its parts."""
        scale = vae_scale(vae)
        size = unet["sample_size"]
        return cls(
            native_px=(size if isinstance(size, int) else max(size)) * scale,
            multiple_px=scale * 2 ** (len(unet["block_out_channels"]) - 1),
            num_train_timesteps=scheduler.get("num_train_timesteps", NUM_TRAIN_TIMESTEPS),
            steps_offset=scheduler.get("steps_offset", 0),
            starts_from_nothing=bool(scheduler.get("rescale_betas_zero_snr"))
            and scheduler.get("prediction_type", "epsilon") == "epsilon",
            has_map_decoder=has_map_decoder,
        )

    @classmethod
    def of_folder(cls, folder: Path, vae: Path | None = None) -> Self:
        """The limits of a model folder in the diffusers layout, with its own autoencoder or that in the folder `vae`.

        Raises:
            OSError: A configuration is missing.
            ValueError: A configuration is something else.
            KeyError: A configuration lacks a value.
        """
        return cls.of(
            read_json(folder / "unet" / "config.json"),
            read_json((vae or folder / "vae") / "config.json"),
            read_json(folder / "scheduler" / "scheduler_config.json"),
            has_map_decoder=map_decoder_folder(folder) is not None,
        )

    def check(self, options: SamplingOptions) -> None:
        """Raise ValueError for a resolution, a number of steps or a decoder that the model does not support."""
        if options.map_decoder == "small" and not self.has_map_decoder:
            raise ValueError(
                "map_decoder small needs a small decoder in decoders/maps of the model folder; this model has none. "
                "Train one with jobs/train_decoder.py, or leave map_decoder out."
            )
        least, most = max(self.multiple_px, self.native_px // MAX_SCALE), self.native_px * MAX_SCALE
        if options.resolution_px is not None and not least <= options.resolution_px <= most:
            raise ValueError(
                f"resolution_px of this model, trained for {self.native_px} pixels, is {least} to {most}; got "
                f"{options.resolution_px}. Leave it out for {self.native_px}."
            )
        steps, most = options.num_inference_steps or 1, self.num_train_timesteps
        if options.timestep_spacing == "leading":
            most -= self.steps_offset  # more steps would go beyond the last timestep
        if steps > most:
            raise ValueError(f"num_inference_steps of this model is at most {most}; got {steps}. 10 to 50 are usual.")
        spacing = options.timestep_spacing or "trailing"
        from_last = spacing == "trailing" or (spacing == "linspace" and options.sampler == "ddim")
        if self.starts_from_nothing and (from_last or options.sampler == "lcm"):
            raise ValueError(
                "Predicting noise says nothing about the image where there is only noise; this model's schedule has "
                "zero terminal SNR (rescale_betas_zero_snr) and prediction_type epsilon. Use timestep_spacing leading, "
                "or correct scheduler/scheduler_config.json."
            )
