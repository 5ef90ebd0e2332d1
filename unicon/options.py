"""How results are sampled, as one frozen value: the same object from the command line to the sampler. Without torch.

Every field is an argument of the methods of `UniCon` and an option of the commands, whose parser, provenance columns
and configuration hash are made from the fields here.

Published sampling is that of arXiv 2410.11439 and its released code: the scheduler's own timestep spacing, a last step
that ends at the first training timestep, and what is given noised to the last step index.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, TypedDict, get_args

SamplerName = Literal["ddim", "euler", "euler_ancestral", "dpmsolver++", "lcm"]
TimestepSpacing = Literal["trailing", "leading", "linspace"]
GivenAt = Literal["clean", "last_index"]

ESTIMATION_GUIDANCE_SCALE = 1.0
"""Text guidance of an estimate: none."""
GENERATION_STEPS = 20
"""Sampling steps of a generated image."""
GENERATION_GUIDANCE_SCALE = 7.5
"""Text guidance of a generated image: what Stable Diffusion 1.x and UniCon are published with."""
LCM_STEPS, LCM_MAX_STEPS = 4, 50
"""Steps of latent consistency models: by default, and what they are distilled from."""
LCM_GUIDANCE_SCALE = 1.0
PUBLISHED_STEPS = 50
MAX_SEED = 2**63 - 1
MAX_WEIGHT = 10.0
"""Of the joint attention of an adapter, to either side of zero."""


def setting(option: str, help: str, *, default: Any, least: float | None = None, most: float | None = None) -> Any:
    """A field with its option on the command line, its help, and the range of numbers it takes."""
    return field(default=default, metadata={"option": option, "help": help, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How results are sampled. `None` is what suits the task: see `with_defaults`.

    Raises:
        ValueError: a value out of its range, or values that contradict each other.
    """

    num_inference_steps: int | None = setting("--steps", "sampling steps", default=None, least=1, most=1000)
    guidance_scale: float | None = setting(
        "--guidance-scale", "text guidance; 1 is none and twice as fast", default=None, least=0, most=100
    )
    condition_guidance_scale: float = setting(
        "--condition-guidance-scale",
        "pull toward the conditions, or of an estimate toward its image; 0 is none, others cost a third pass",
        default=0.0, least=0, most=100,
    )  # fmt: skip
    sampler: SamplerName = setting(
        "--sampler",
        f"{', '.join(get_args(SamplerName))}; lcm is for models with a latent consistency LoRA (--lora), in 2 to 8 "
        "steps at guidance scales of 1 to 2",
        default="ddim",
    )
    eta: float = setting(
        "--eta", "fresh noise in each step of ddim, 0 none to 1 as in training", default=0.0, least=0, most=1
    )
    timestep_spacing: TimestepSpacing | None = setting(
        "--timestep-spacing",
        "of the steps: trailing suits few steps, leading is how Stable Diffusion 1.x was published with ddim, linspace "
        "with the other samplers; lcm has its own",
        default=None,
    )
    set_alpha_to_one: bool = setting(
        "--set-alpha-to-one",
        "whether the last step of ddim ends without noise; published sampling ends at the first training timestep",
        default=True,
    )
    given_at: GivenAt = setting(
        "--given-at",
        "how the given image of an estimate, or the given conditions of a generated image, enter: clean, or noised to "
        "the last_index of the steps as published",
        default="clean",
    )
    resolution_px: int | None = setting(
        "--resolution",
        "side of the square whose area the model works at, in pixels",
        default=None, least=16, most=8192,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check_value(entry.name, getattr(self, entry.name), entry.metadata["least"], entry.metadata["most"])
        for name, kind in (("sampler", SamplerName), ("timestep_spacing", TimestepSpacing), ("given_at", GivenAt)):
            value = getattr(self, name)
            if value not in get_args(kind) and not (value is None and name == "timestep_spacing"):
                raise ValueError(f"{name} is one of {get_args(kind)}; got {value!r}. Correct the name.")
        if not isinstance(self.set_alpha_to_one, bool):
            raise ValueError(f"set_alpha_to_one is true or false; got {self.set_alpha_to_one!r}.")
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

    @classmethod
    def published(cls, **settings: Any) -> Self:
        """Published sampling, with other settings beside it.

        Raises:
            ValueError: a setting that is not as published.
        """
        sampler = settings.get("sampler", "ddim")
        if sampler == "lcm":
            raise ValueError("Published sampling knows no sampler lcm. Leave one of them out.")
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
        """The same with steps and text guidance decided: as given, else lcm's own, else these of the task."""
        if self.sampler == "lcm":
            num_inference_steps, guidance_scale = LCM_STEPS, LCM_GUIDANCE_SCALE
        steps = self.num_inference_steps
        return replace(
            self,
            num_inference_steps=num_inference_steps if steps is None else steps,
            guidance_scale=guidance_scale if self.guidance_scale is None else self.guidance_scale,
        )

    def for_estimation(self, num_inference_steps: int) -> Self:
        """`with_defaults` of an estimate; the steps are those that its adapter recommends."""
        return self.with_defaults(
            num_inference_steps=num_inference_steps, guidance_scale=ESTIMATION_GUIDANCE_SCALE
        )  # fmt: skip

    def for_generation(self) -> Self:
        """`with_defaults` of a generated image."""
        return self.with_defaults(
            num_inference_steps=GENERATION_STEPS, guidance_scale=GENERATION_GUIDANCE_SCALE
        )  # fmt: skip

    def columns(self, always: Collection[str] = ()) -> dict[str, Any]:
        """What is written into every row: settings that are not the default, and those named `always`.

        An output is known by these values, so a setting at its default changes no existing output.
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


def option_names() -> Mapping[str, str]:
    """Field -> its option on the command line."""
    return {entry.name: entry.metadata["option"] for entry in fields(SamplingOptions)}


def check_number(name: str, value: Any, least: float, most: float) -> None:
    """Raises ValueError unless a value is a finite number in [least, most]."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # so that NaN is refused
        raise ValueError(f"{name} is a number from {least:g} to {most:g}; got {value!r}.")


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Raises ValueError unless a value is a whole number in [least, most]."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is a whole number; got {value!r}.")
    if value < least:
        raise ValueError(f"{name} is at least {least}; got {value}.")
    if value > most:
        raise ValueError(f"{name} is at most {most}; got {value}.")


def _check_value(name: str, value: Any, least: float | None, most: float | None) -> None:
    if least is None or most is None or value is None:
        return
    if name in ("num_inference_steps", "resolution_px"):
        check_whole(name, value, int(least), int(most))
    else:
        check_number(name, value, least, most)
