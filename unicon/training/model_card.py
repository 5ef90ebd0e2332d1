"""The card of trained adapters: what they are, the data and settings they were trained with, curves and accuracy.

The text is Markdown with the metadata that the Hugging Face hub reads. Curves are drawn as an SVG within the text.

Tested in tests/unicon/training/test_model_card.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from unicon.training.recipe import AdapterRecipe

WIDTH_PX, HEIGHT_PX, MARGIN_PX = 480, 120, 4
MAX_POINTS = 200
"""Curves are averaged over intervals down to this many points."""
SHOWN_FIT = ("steps", "learning_rate", "warmup_steps", "ema_decay", "autocast_dtype", "seed")
SHOWN_SAMPLING = ("batch_size", "text_dropout", "caption_dropout", "clean_image_fraction", "min_snr_gamma")
Curve = Sequence[tuple[int, float]]
"""(step, value) in order of the steps."""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says beside the recipe."""

    base_model: str
    """Name of the model that the adapters belong to."""
    base_sha256: str = ""
    """Hash of its weights."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Facts about the data by name, such as the number of rows and what made each condition."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Logged values by name, such as `loss`."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the last validation by name."""


def model_card(recipe: AdapterRecipe, facts: CardFacts) -> str:
    """The text of a card."""
    parts = [_metadata(facts), _adapters(recipe), _use(recipe, facts), _table("Data", facts.data)]
    parts.append(_table("Accuracy on held-out rows", {name: f"{value:.4g}" for name, value in facts.accuracy.items()}))
    parts.append(_table("Settings", _settings(recipe)))
    parts += [_curve(name, curve) for name, curve in facts.curves.items() if len(curve) > 1]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(facts: CardFacts) -> str:
    lines = ["library_name: diffusers", f"base_model: {json.dumps(facts.base_model)}", "tags: [unicon, lora]"]
    return "\n".join(["---", *lines, "---"])


def _adapters(recipe: AdapterRecipe) -> str:
    names = ", ".join(f"`{name}` ({config.kind})" for name, config in recipe.configs.items())
    return (
        f"# UniCon adapters: {names}\n\nAdapters for a frozen Stable Diffusion that estimate conditions of images, "
        "generate images from conditions, and generate both together (arXiv 2410.11439)."
    )


def _use(recipe: AdapterRecipe, facts: CardFacts) -> str:
    adapters = ", ".join(f'"{name}": "{name}.safetensors"' for name in recipe.configs)
    base = f" Weights of the base model: SHA-256 `{facts.base_sha256}`." if facts.base_sha256 else ""
    return (
        "```python\nfrom unicon import UniCon\n\n"
        f"model = UniCon.from_pretrained({json.dumps(facts.base_model)}, adapters={{{adapters}}})\n```\n\n"
        f"`official/` holds the same weights in the layout of the published adapters.{base}"
    )


def _settings(recipe: AdapterRecipe) -> dict[str, str]:
    fit, sampling = asdict(recipe.fit), asdict(recipe.sampling)
    shown = {name: fit[name] for name in SHOWN_FIT} | {name: sampling[name] for name in SHOWN_SAMPLING}
    shown |= {name: getattr(recipe, name) for name in ("single_step_share", "single_step_steps", "resolution_px")}
    for each in recipe.adapters:
        config = recipe.configs[each.config.name]
        start = "" if each.start_from is None else f", started from {each.start_from.name}"
        shown[f"adapter {config.name}"] = (
            f"rank {config.rank}, alpha {config.alpha:g}, {config.projection} projection, trigger {config.trigger!r}, "
            f"annotator {config.annotator or 'unknown'}, share {each.share:g}{start}"
        )
    return {name: str(value) for name, value in shown.items() if value is not None}


def _table(title: str, values: Mapping[str, str]) -> str:
    if not values:
        return ""
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _curve(name: str, curve: Curve) -> str:
    """A heading and an SVG of a curve, with the range of its values."""
    points = averaged([(step, value) for step, value in curve if math.isfinite(value)])
    if len(points) < 2:
        return ""
    (first, _), (last, _) = points[0], points[-1]
    low, high = min(value for _, value in points), max(value for _, value in points)
    places = [
        (
            MARGIN_PX + (WIDTH_PX - 2 * MARGIN_PX) * (step - first) / max(1, last - first),
            HEIGHT_PX - MARGIN_PX - (HEIGHT_PX - 2 * MARGIN_PX) * (value - low) / max(high - low, 1e-12),
        )
        for step, value in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return (
        f"## {name}\n\nFrom {points[0][1]:.4g} at step {first} to {points[-1][1]:.4g} at step {last}; lowest "
        f'{low:.4g}, highest {high:.4g}.\n\n<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" '
        f'height="{HEIGHT_PX}" role="img"><title>{name}</title><polyline points="{line}" fill="none" '
        'stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def averaged(curve: Curve) -> list[tuple[int, float]]:
    """At most `MAX_POINTS` points of a curve: the last step and the mean of every interval."""
    size = max(1, math.ceil(len(curve) / MAX_POINTS))
    intervals = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in intervals]
