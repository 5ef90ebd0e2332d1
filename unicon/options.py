"""Sampling options as one frozen value, the same object from the command line to the sampler. Imports no torch.

Every field is an argument of the methods of `UniCon` and an option of the commands. The commands' parser, provenance
columns and configuration hash are derived from the fields.

Published sampling is that of arXiv 2410.11439 and its released code: the scheduler's own timestep spacing, a last step
that ends at the first training timestep, and given images or conditions noised to the last step index.

Tested in tests/jobs/test_sampling_options.py and tests/unicon/sampling/test_loop.py.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, TypedDict, get_args

SamplerName = Literal["ddim", "euler", "euler_ancestral", "dpmsolver++", "lcm"]
TimestepSpacing = Literal["trailing", "leading", "linspace"]
GivenAt = Literal["clean", "last_index"]
MapDecoderName = Literal["vae", "small"]

ESTIMATION_GUIDANCE_SCALE = 1.0
"""Text guidance of an estimate: none."""
GENERATION_STEPS = 20
"""Sampling steps of a generated image."""
GENERATION_GUIDANCE_SCALE = 7.5
"""Text guidance of a generated image, as published for Stable Diffusion 1.x and UniCon."""
LCM_STEPS, LCM_MAX_STEPS = 4, 50
"""Steps of latent consistency models: the default, and the number of steps that they are distilled from."""
LCM_GUIDANCE_SCALE = 1.0
PUBLISHED_STEPS = 50
MAX_SEED = 2**63 - 1
MAX_WEIGHT = 10.0
"""Largest weight of the joint attention of an adapter, to either side of zero."""


def setting(option: str, help: str, *, default: Any, least: float | None = None, most: float | None = None) -> Any:
    """A field of `SamplingOptions` with its command-line option, help text, and range of values."""
    return field(default=default, metadata={"option": option, "help": help, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How results are sampled. None stands for what suits the task, see `with_defaults`.

    Raises:
        ValueError: A value is out of its range, or values contradict each other.
    """

    num_inference_steps: int | None = setting("--steps", "sampling steps", default=None, least=1, most=1000)
    guidance_scale: float | None = setting(
        "--guidance-scale", "text guidance; 1 switches it off and is twice as fast", default=None, least=0, most=100
    )
    condition_guidance_scale: float = setting(
        "--condition-guidance-scale",
        "guidance toward the conditions, or of an estimate toward its image; 0 is off, other values add a third pass",
        default=0.0, least=0, most=100,
    )  # fmt: skip
    sampler: SamplerName = setting(
        "--sampler",
        f"{', '.join(get_args(SamplerName))}; lcm needs a latent consistency LoRA (--lora), 2 to 8 steps and "
        "guidance scales of 1 to 2",
        default="ddim",
    )
    eta: float = setting(
        "--eta", "noise added in each step of ddim, from 0 (none) to 1 (as in training)", default=0.0, least=0, most=1
    )
    timestep_spacing: TimestepSpacing | None = setting(
        "--timestep-spacing",
        "spacing of the timesteps: trailing suits few steps; Stable Diffusion 1.x was published with leading for ddim "
        "and linspace for the other samplers; lcm has its own",
        default=None,
    )
    set_alpha_to_one: bool = setting(
        "--set-alpha-to-one",
        "whether the last step of ddim ends without noise; the published implementation ends at the first training "
        "timestep",
        default=True,
    )
    given_at: GivenAt = setting(
        "--given-at",
        "noise level of the given image (estimation) or the given conditions (generation): clean, or last_index, the "
        "last step index, as in the published implementation",
        default="clean",
    )
    resolution_px: int | None = setting(
        "--resolution",
        "work at the area of a square with this side, in pixels",
        default=None, least=16, most=8192,
    )  # fmt: skip
    map_decoder: MapDecoderName = setting(
        "--map-decoder",
        "what decodes the generated conditions: vae, the model's autoencoder, or small, the small decoder in "
        "decoders/maps of the model folder, which is faster and less exact",
        default="vae",
    )
    one_way: bool = setting(
        "--one-way",
        "let what is given guide what is generated, but not the other way round: what is given is then computed once "
        "for all steps, which saves two fifths of the work of many steps; adapters trained two-way, such as the "
        "official ones, were not trained for it",
        default=False,
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check_value(entry.name, getattr(self, entry.name), entry.metadata["least"], entry.metadata["most"])
        for name, kind in (("sampler", SamplerName), ("timestep_spacing", TimestepSpacing), ("given_at", GivenAt),
                           ("map_decoder", MapDecoderName)):  # fmt: skip
            value = getattr(self, name)
            if value not in get_args(kind) and not (value is None and name == "timestep_spacing"):
                raise ValueError(f"{name} is one of {get_args(kind)}; got {value!r}. Correct the name.")
        for name in ("set_alpha_to_one", "one_way"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is true or false; got {getattr(self, name)!r}.")
        self._check_together()

    def _check_together(self) -> None:
        steps, spacing = self.num_inference_steps, self.timestep_spacing
        if self.eta and self.sampler != "ddim":
            raise ValueError(
                f"eta belongs to sampler ddim; got {self.eta} with {self.sampler!r}. Leave one of them out."
            )
        if not self.set_alpha_to_one and self.sampler != "ddim":
            raise ValueError(
                f"Only ddim can end its last step with noise; got set_alpha_to_one false with {self.sampler!r}. Leave "
                "one of them out."
            )
        if self.sampler == "lcm" and spacing is not None:
            raise ValueError(f"The sampler lcm has timesteps of its own; got timestep_spacing {spacing}. Leave it out.")
        if self.sampler == "lcm" and (steps or 1) > LCM_MAX_STEPS:
            raise ValueError(f"num_inference_steps of lcm is at most {LCM_MAX_STEPS}; got {steps}. 4 is usual.")
        if self.given_at == "last_index" and steps == 1:
            raise ValueError(
                "With one step the last step index is pure noise, and nothing is left of what is given; got given_at "
                "last_index with num_inference_steps 1. Use more steps, or clean."
            )

    @property
    def steps(self) -> int:
        """The number of sampling steps, which `with_defaults` has decided."""
        assert self.num_inference_steps is not None, "with_defaults has decided"
        return self.num_inference_steps

    @classmethod
    def published(cls, **settings: Any) -> Self:
        """Published sampling, combined with other settings.

        Raises:
            ValueError: A setting contradicts published sampling.
        """
        sampler = settings.get("sampler", "ddim")
        if sampler == "lcm":
            raise ValueError("Published sampling has no sampler lcm. Leave one of them out.")
        preset = {"timestep_spacing": "leading", "set_alpha_to_one": False, "given_at": "last_index", "eta": 0.0}
        if sampler != "ddim":
            preset |= {"timestep_spacing": "linspace", "set_alpha_to_one": True}
        for name, value in preset.items():
            if settings.get(name, value) != value:
                raise ValueError(
                    f"Published sampling with {sampler} has {name} {value!r}; got {settings[name]!r}. Leave one out."
                )
        return cls(**{"num_inference_steps": PUBLISHED_STEPS, **settings, **preset})

    def with_defaults(self, *, num_inference_steps: int, guidance_scale: float) -> Self:
        """The same options with steps and text guidance decided: as given, else those of lcm, else these defaults."""
        if self.sampler == "lcm":
            num_inference_steps, guidance_scale = LCM_STEPS, LCM_GUIDANCE_SCALE
        steps = self.num_inference_steps
        return replace(
            self,
            num_inference_steps=num_inference_steps if steps is None else steps,
            guidance_scale=guidance_scale if self.guidance_scale is None else self.guidance_scale,
        )

    def for_estimation(self, num_inference_steps: int) -> Self:
        """`with_defaults` for an estimate, with the number of steps that its adapter recommends."""
        return self.with_defaults(
            num_inference_steps=num_inference_steps, guidance_scale=ESTIMATION_GUIDANCE_SCALE
        )  # fmt: skip

    def for_first_estimation(self, num_inference_steps: int) -> Self:
        """`for_estimation` for conditions that are estimated before they are painted together with an image."""
        first = replace(
            self,
            num_inference_steps=None if self.given_at == "clean" else self.num_inference_steps,
            guidance_scale=None,
            condition_guidance_scale=0.0,
            sampler="lcm" if self.sampler == "lcm" else "ddim",
        )
        return first.for_estimation(num_inference_steps)

    def for_generation(self) -> Self:
        """`with_defaults` for a generated image."""
        return self.with_defaults(
            num_inference_steps=GENERATION_STEPS, guidance_scale=GENERATION_GUIDANCE_SCALE
        )  # fmt: skip

    def columns(self, always: Collection[str] = ()) -> dict[str, Any]:
        """The values that are written into every row: those that are not the default, and those named in `always`.

        They identify an output, so a new setting at its default does not change existing outputs.
        """
        return {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name in always or not self._is_default(entry.name, entry.default)
        }

    def _is_default(self, name: str, default: Any) -> bool:
        value = getattr(self, name)
        return value == default or (name == "timestep_spacing" and value == "trailing")


class SamplingSettings(TypedDict, total=False):
    """The fields of `SamplingOptions` as keyword arguments."""

    num_inference_steps: int | None
    guidance_scale: float | None
    condition_guidance_scale: float
    sampler: SamplerName
    eta: float
    timestep_spacing: TimestepSpacing | None
    set_alpha_to_one: bool
    given_at: GivenAt
    resolution_px: int | None
    map_decoder: MapDecoderName
    one_way: bool


def option_names() -> Mapping[str, str]:
    """Map each field to its command-line option."""
    return {entry.name: entry.metadata["option"] for entry in fields(SamplingOptions)}


def check_number(name: str, value: Any, least: float, most: float) -> None:
    """Raise ValueError unless a value is a finite number in [least, most]."""
    if not _is_number(value, numbers.Real) or not least <= value <= most:  # written so that NaN is refused
        raise ValueError(f"{name} is a number from {least:g} to {most:g}; got {value!r}.")


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Raise ValueError unless a value is a whole number in [least, most]."""
    if not _is_number(value, numbers.Integral):
        raise ValueError(f"{name} is a whole number; got {value!r}.")
    if value < least:
        raise ValueError(f"{name} is at least {least}; got {value}.")
    if value > most:
        raise ValueError(f"{name} is at most {most}; got {value}.")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_value(name: str, value: Any, least: float | None, most: float | None) -> None:
    if least is None or most is None or value is None:
        return
    if name in ("num_inference_steps", "resolution_px"):
        check_whole(name, value, int(least), int(most))
    else:
        check_number(name, value, least, most)
