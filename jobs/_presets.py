"""The presets: names for the sampling options that people choose between exactness and price.

Tested in tests/jobs/test_presets.py.
"""

from argparse import Namespace, _ArgumentGroup
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import SettingError
from unicon.options import PUBLISHED_STEPS, SamplingOptions, option_names

if TYPE_CHECKING:
    from pipelines.tasks.model_identity import ModelIdentity

EXACT, BALANCED, FAST = "exact", "balanced", "fast"
FAST_SAMPLING: Mapping[str, Any] = {
    "num_inference_steps": 1,
    "one_way": True,
    "sampler": "ddim",
    "timestep_spacing": "trailing",
    "given_at": "clean",
    "guidance_scale": 1.0,
    "condition_guidance_scale": 0.0,
}
"""What `fast` is, besides one view and the small decoder of maps where the model has one."""
TWO_WAY: Mapping[str, Any] = {"one_way": False, "map_decoder": "vae"}
"""What `exact` is, besides published sampling."""


def add_preset_options(model: _ArgumentGroup, estimates: bool) -> None:
    """Add `--preset` and `--published`; `fast` exists for estimates only."""
    fast = (
        "; fast: one step, one view, --one-way, and the small decoder of maps if the model has one, for adapters that "
        "were trained for one step"
    )
    model.add_argument(
        "--preset",
        choices=(EXACT, BALANCED, FAST) if estimates else (EXACT, BALANCED),
        metavar="NAME",
        help="exact: as in the published implementation; balanced: the recommendation of the adapter, which other "
        f"options change{fast if estimates else '; fast exists for estimates only'} (default: balanced)",
    )
    model.add_argument(
        "--published",
        action="store_true",
        help="the same as --preset exact: leading timestep spacing and a last step that ends at the first training "
        "timestep with ddim, linspace spacing with other samplers, given images and conditions noised to the last step "
        f"index, two-way attention, and {PUBLISHED_STEPS} steps unless --steps is given",
    )


def preset_of(options: Namespace) -> str:
    """Return the preset of a command line.

    Raises:
        SettingError: Two presets are named.
    """
    if options.published and options.preset not in (None, EXACT):
        raise SettingError(
            f"--published is --preset {EXACT}, and --preset {options.preset} is given too. Remove one of the options."
        )
    return EXACT if options.published else options.preset or BALANCED


def preset_sampling(preset: str, given: Mapping[str, Any], has_map_decoder: bool = False) -> SamplingOptions:
    """Return the sampling options of a preset together with those that are given.

    Args:
        preset: Its name.
        given: Values by field of `SamplingOptions`.
        has_map_decoder: Whether the model has a small decoder of maps.

    Raises:
        SettingError: A given value contradicts the preset.
        ValueError: Given values contradict each other or published sampling.
    """
    if preset == BALANCED:
        return SamplingOptions(**given)
    if preset == EXACT:
        _refuse_others(preset, given, TWO_WAY)
        return SamplingOptions.published(**given)
    _refuse_others(preset, given, {**FAST_SAMPLING, "map_decoder": "small"})
    decoder = {"map_decoder": "small"} if has_map_decoder else {}
    return SamplingOptions(**{**decoder, **given, **FAST_SAMPLING})


def check_views(views: int | None) -> None:
    """Raise SettingError unless a number of views suits the preset `fast`."""
    if views not in (None, 1):
        raise SettingError(f"--preset {FAST} has --views 1; got --views {views}. Remove one of the options.")


def estimation_views(options: Namespace, identity: "ModelIdentity") -> dict[str, int]:
    """Return the number of views of estimates by condition: that of the preset or the option, else what suits adapters.

    Raises:
        SettingError: The preset is `fast`, and an adapter was not trained for estimates in one step.
    """
    if preset_of(options) != FAST:
        return {name: options.views or each.views for name, each in identity.recommended.items()}
    for name in identity.not_single_step:
        raise SettingError(
            f"--preset {FAST} estimates in one step, which the adapter of {name} was not trained for: its estimates "
            f"would be blurred. Use --preset {BALANCED}, or train an adapter with --single-step-share "
            "(jobs/train_adapter.py)."
        )
    return dict.fromkeys(identity.recommended, 1)


def _refuse_others(preset: str, given: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name, value in fixed.items():
        if given.get(name, value) != value:
            option = option_names()[name]
            raise SettingError(
                f"--preset {preset} has {_as_option(option, value)}; got {_as_option(option, given[name])}. Remove one "
                "of the options."
            )


def _as_option(option: str, value: Any) -> str:
    """Write an option with its value as on a command line."""
    if isinstance(value, bool):
        return option if value else option.replace("--", "--no-", 1)
    return f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"
