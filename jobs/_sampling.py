"""The sampling options, generated from the fields of `SamplingOptions`, and the value that a command line gives."""

import argparse
import re
from argparse import Namespace, _ArgumentGroup
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from jobs._arguments import integer, number
from jobs._presets import FAST, check_views, preset_of, preset_sampling
from pipelines.errors import SettingError
from unicon.limits import ModelLimits
from unicon.options import (
    GENERATION_GUIDANCE_SCALE,
    GENERATION_STEPS,
    LCM_GUIDANCE_SCALE,
    LCM_STEPS,
    SamplingOptions,
)

INTEGERS = frozenset({"num_inference_steps", "resolution_px"})
METAVARS = {"num_inference_steps": "N", "resolution_px": "PX"}
LCM_DEFAULTS = {"num_inference_steps": LCM_STEPS, "guidance_scale": LCM_GUIDANCE_SCALE}
ESTIMATION_DEFAULTS = {"num_inference_steps": "recommended by the adapter", "guidance_scale": "1"}
GENERATION_DEFAULTS = {"num_inference_steps": f"{GENERATION_STEPS}", "guidance_scale": f"{GENERATION_GUIDANCE_SCALE:g}"}
OTHER_DEFAULTS = {"timestep_spacing": "trailing", "resolution_px": "native resolution of the model"}


def add_sampling_options(model: _ArgumentGroup, defaults: Mapping[str, str], leave_out: Collection[str] = ()) -> None:
    """Add an option for every field of `SamplingOptions`.

    Args:
        model: Group that receives the options.
        defaults: Descriptions of defaults that are decided later, by field.
        leave_out: Fields that have no meaning for the command.
    """
    hints = get_type_hints(SamplingOptions)
    for entry in fields(SamplingOptions):
        if entry.name in leave_out:
            continue
        name = entry.name
        default = {**OTHER_DEFAULTS, **defaults}.get(name, str(entry.default).lower())
        if name in LCM_DEFAULTS:
            default += f"; {LCM_DEFAULTS[name]:g} with lcm"
        settings: dict[str, Any] = {"default": None, "help": f"{entry.metadata['help']} (default: {default})"}
        if isinstance(entry.default, bool):
            settings["action"] = argparse.BooleanOptionalAction
        elif name in INTEGERS:
            settings |= {"type": integer(entry.metadata["least"], entry.metadata["most"]), "metavar": METAVARS[name]}
        elif entry.metadata["least"] is not None:
            settings |= {"type": number(entry.metadata["least"], entry.metadata["most"]), "metavar": "X"}
        else:
            choices = [value for each in get_args(hints[name]) for value in (get_args(each) or [each])]
            settings |= {"choices": [value for value in choices if isinstance(value, str)], "metavar": "NAME"}
        model.add_argument(entry.metadata["option"], **settings)


def sampling_of(options: Namespace, has_map_decoder: bool = False) -> SamplingOptions:
    """Return the sampling options of a command line, without the defaults that depend on the task.

    Args:
        options: The command line.
        has_map_decoder: Whether the model has a small decoder of maps, which `--preset fast` uses.

    Raises:
        SettingError: Some options contradict each other.
    """
    preset = preset_of(options)
    if preset == FAST:
        check_views(options.views)
    given = {
        entry.name: value
        for entry in fields(SamplingOptions)
        if (value := getattr(options, _dest(entry.metadata["option"]), None)) is not None
    }
    try:
        return preset_sampling(preset, given, has_map_decoder)
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError(in_option_names(str(error))) from error


def check_limits(limits: ModelLimits | None, sampling: SamplingOptions) -> None:
    """Raise `SettingError` for a resolution or a number of steps that the model does not support."""
    try:
        if limits is not None:
            limits.check(sampling)
    except ValueError as error:
        raise SettingError(in_option_names(str(error))) from error


def in_option_names(text: str) -> str:
    """Replace names of arguments in an error of the library by names of options."""
    for entry in fields(SamplingOptions):
        name = entry.name
        if "_" in name or name == "eta":
            text = re.sub(rf"\b{name}\b", entry.metadata["option"], text)
    return text


def _dest(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def generation_sampling(options: Namespace) -> SamplingOptions:
    """Return the sampling options of a command that generates images, with all defaults.

    Raises:
        SettingError: Some options contradict each other, or a negative prompt is given without text guidance.
    """
    sampling = sampling_of(options).for_generation()
    if options.negative_prompt and sampling.guidance_scale == 1:
        raise SettingError(
            f"--negative-prompt {options.negative_prompt[:60]!r} needs text guidance, which --guidance-scale 1 "
            "switches off. Remove it, or set --guidance-scale above 1."
        )
    return sampling
