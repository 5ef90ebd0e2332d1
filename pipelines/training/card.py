"""The model card of trained adapters: use, data, settings, loss, accuracy on held-out rows.

Tested in tests/pipelines/training/test_output.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unicon.training.recipe import AdapterRecipe

CARD = """---
library_name: unicon
base_model: {model}
tags:
- unicon
- stable-diffusion
- {tags}
---

# UniCon adapters: {names}

{kinds}

Trained for `{model}` with jobs/train_adapter.py. Each of them estimates its condition from an image, and generates
images from the condition:

```python
from unicon import UniCon

model = UniCon.from_pretrained({model!r}, adapters={{{adapters}}})
(found,) = model.estimate([image], {name!r})
```

## Data

{data}

## Settings

{settings}

## Loss

![loss by steps]({chart})

{loss}

## Accuracy on held-out rows

{accuracy}
"""


def card_text(
    recipe: "AdapterRecipe",
    model: str,
    data: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    chart: str,
    files: Mapping[str, str],
) -> str:
    """Return the card.

    Args:
        recipe: The recipe.
        model: Name of the base model.
        data: What is said about the data, by name.
        log: Lines of log.jsonl.
        validation: Lines of validation.jsonl.
        chart: Path of the picture of the loss, from the card.
        files: Adapter -> its file, from the card.
    """
    kinds = recipe.kinds
    return CARD.format(
        model=model,
        tags="\n- ".join(dict.fromkeys(kinds.values())),
        names=", ".join(kinds),
        kinds="; ".join(f"`{files[name]}` ({kind})" for name, kind in kinds.items()),
        adapters=", ".join(f"{name!r}: {file!r}" for name, file in files.items()),
        name=next(iter(kinds)),
        data=_table("data", data),
        settings=_table("setting", settings_of(recipe)),
        chart=chart,
        loss=_progress(log),
        accuracy=_accuracy(validation),
    )


def settings_of(recipe: "AdapterRecipe") -> dict[str, Any]:
    """Return the settings of a recipe by name, without those of an unused part."""
    form = asdict(recipe.adapters[0].config)
    single = {"single_step_share": recipe.single_step_share, "single_step_steps": recipe.single_step_steps}
    return {
        **{name: form[name] for name in ("rank", "alpha", "projection")},
        **{name: value for name, value in asdict(recipe.fit).items() if value is not None},
        **asdict(recipe.sampling),
        **(single if recipe.trains_single_step else {}),
        "resolution_px": recipe.resolution_px or "that of the model",
        **{name: getattr(recipe, name) for name in ("aspect_buckets", "random_crop", "flip_probability")},
    }


def _table(what: str, values: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {name} | `{_cell(value)}` |" for name, value in values.items())
    return f"| {what} | value |\n|---|---|\n{rows}"


def _progress(log: Sequence[Mapping[str, Any]]) -> str:
    known = [line for line in log if line.get("loss") is not None]
    if not known:
        return "No loss was logged yet."
    shown = sorted({0, len(known) // 4, len(known) // 2, 3 * len(known) // 4, len(known) - 1})
    return _columns([("step", [known[at]["step"] for at in shown]), ("loss", [known[at]["loss"] for at in shown])])


def _accuracy(validation: Sequence[Mapping[str, Any]]) -> str:
    if not validation:
        return "Not measured yet."
    names = [name for name in validation[-1] if name != "step"]
    shown = sorted({0, len(validation) // 2, len(validation) - 1})
    columns = [("step", [validation[at]["step"] for at in shown])]
    return _columns([*columns, *((name, [validation[at].get(name) for at in shown]) for name in names)])


def _columns(columns: Sequence[tuple[str, Sequence[Any]]]) -> str:
    """Return a table with a line for every name, as values develop over the steps."""
    lines = [f"| {name} | {' | '.join(map(_number, values))} |" for name, values in columns]
    lines.insert(1, "|---" * (1 + len(columns[0][1])) + "|")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'")
