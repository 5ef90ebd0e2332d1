"""The card tells what was trained, on what, how, and how well."""

from __future__ import annotations

import re

from tests.support.pair_rows import tiny_recipe
from unicon.training.model_card import MAX_POINTS, CardFacts, averaged, model_card


def test_a_card_has_data_settings_curves_and_accuracy() -> None:
    curve = [(step, 1 / step) for step in range(1, 1001)]
    facts = CardFacts(
        base_model="owner/model", base_sha256="abc", data={"rows": "2,000", "canny": "controlnet-aux | canny"},
        curves={"loss": [*curve, (1001, float("nan"))], "one": [(1, 0.5)]}, accuracy={"canny_f1": 0.87654},
    )  # fmt: skip
    card = model_card(tiny_recipe(single_step_steps=2), facts)
    assert card.startswith('---\nlibrary_name: diffusers\nbase_model: "owner/model"')
    assert '"canny": "canny.safetensors", "depth": "depth.safetensors"' in card and "`abc`" in card
    assert r"| canny | controlnet-aux \| canny |" in card and "| canny_f1 | 0.8765 |" in card
    assert "| learning_rate | 0.001 |" in card and "| single_step_steps | 2 |" in card
    assert "rank 4, alpha 4, fused projection, trigger 'edge_map, '" in card
    (points,) = re.findall(r'<polyline points="([^"]*)"', card)
    assert len(points.split()) <= MAX_POINTS and "## one" not in card


def test_a_card_says_nothing_that_is_not_known() -> None:
    card = model_card(tiny_recipe(), CardFacts(base_model="mini"))
    assert "## Data" not in card and "## Accuracy" not in card and "<svg" not in card and "SHA-256" not in card


def test_curves_are_averaged() -> None:
    assert averaged([(step, float(step)) for step in range(4 * MAX_POINTS)])[:2] == [(3, 1.5), (7, 5.5)]
    assert averaged([(1, 2.0)]) == [(1, 2.0)]
