"""The dataset card, for people and for the Hugging Face hub. Tested in tests/pipelines/dataset/test_ownership.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.dataset.features import Features, front_matter, load_options
from pipelines.dataset.funnel import FunnelLine
from pipelines.dataset.row_formats import PARQUET, RowFormat

PREVIEW = "preview.png"

KEY_TEXT = "name of the sample: WebDataset key, Parquet key column, or path in the folder; unique within its `shard`"

MEMBERS = """
In each tar, `image` is KEY.jpg, KEY.png or KEY.webp, another image column is KEY.COLUMN.png (or .jpg or .webp if it is
stored as it came), and the other columns are in KEY.json. All but one of the columns of an image are None:

```python
image = next(row[kind] for kind in ("jpg", "png", "webp") if row.get(kind) is not None)
```
"""

CARD_TEXT = """---
pretty_name: {title}
task_categories:
- {task}
configs:
- config_name: default
  default: true
  data_files: {files}
- config_name: errors
  data_files: errors/*.parquet
{info}---

# {title}

{ok} rows in `data/`; {bad} samples that {reason} are in `errors/` with their reasons.
{funnel}
![images and conditions, side by side]({preview})

```python
import datasets

rows = datasets.load_dataset("{format}", data_files="{files}", split="train"{options})
```
{members}
| column | content |
|---|---|
{columns}

## Settings

| setting | value |
|---|---|
{settings}
"""

COMMON_COLUMNS = {
    "`caption`": "text that came with the sample",
    "`width`, `height`": "pixels, after the EXIF rotation",
    "`caption_note`": "why the caption differs from what came with the sample, or why there is none; else null",
    "`shard`, `position`": "where the sample came from",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """How a job describes its datasets."""

    title: str
    task: str
    """Task category of the Hugging Face hub."""
    columns: Mapping[str, str]
    """Column, in backquotes -> its content. These lines replace lines of COMMON_COLUMNS or precede them."""
    previews: Mapping[str, str]
    """Column to show in preview.png -> kind of condition, or "" for an ordinary image."""


def card_text(
    card: Card,
    settings: Mapping[str, Any],
    provenance: Sequence[str],
    ok: int,
    bad: int,
    row_format: RowFormat = PARQUET,
    features: Features | None = None,
    preview: str = PREVIEW,
    funnel: Sequence[FunnelLine] = (),
) -> str:
    """Return the README.md of a dataset: front matter for the Hugging Face hub, columns, settings, counts.

    If filters have removed samples, `funnel` says how many of the input are left.
    """
    return CARD_TEXT.format(
        title=card.title,
        task=card.task,
        preview=preview,
        files=f"data/*.{row_format.extension}",
        format=row_format.name,
        options=load_options(features or {}),
        info=front_matter(features or {}),
        members="" if row_format is PARQUET else MEMBERS,
        ok=ok,
        bad=bad,
        reason="could not be processed, or that filters have removed," if funnel else "could not be processed",
        funnel=_funnel(funnel),
        columns=_column_lines(card, provenance),
        settings="\n".join(f"| {name} | `{_cell(value)}` |" for name, value in settings.items()),
    )


def _funnel(lines: Sequence[FunnelLine]) -> str:
    """Return a table of the samples that were read, removed and kept, or nothing."""
    if not lines:
        return ""
    rows = "\n".join(f"| {line.samples} | {_cell(line.what)} |" for line in lines)
    return f"\n| samples | |\n|---|---|\n{rows}\n"


def _cell(value: Any) -> str:
    """Format a value for a Markdown table: on one line, without characters that end a cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'") if isinstance(value, str) else str(value)


def _column_lines(card: Card, provenance: Sequence[str]) -> str:
    own = {name: text for name, text in card.columns.items() if name not in COMMON_COLUMNS}
    made_by = {", ".join(f"`{name}`" for name in provenance): "how it was made"}
    texts = {**own, **COMMON_COLUMNS, **card.columns, **made_by}
    return "\n".join(f"| {name} | {text} |" for name, text in texts.items())
