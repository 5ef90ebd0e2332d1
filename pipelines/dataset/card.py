"""What lies beside the data for people: the dataset card and the preview picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.dataset.features import Features, front_matter, load_options
from pipelines.dataset.row_formats import PARQUET, RowFormat

PREVIEW = "preview.png"


KEY_TEXT = "name of the sample: WebDataset key, Parquet key column, or path in the folder; unique within its `shard`"


MEMBERS = """
In each tar `image` is KEY.jpg, KEY.png or KEY.webp, another image column is KEY.COLUMN.png (or .jpg, .webp where it is
kept as it came), and the rest is in KEY.json. Of the columns of one image all but one are None:

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

{ok} rows in `data/`; {bad} samples that could not be processed are in `errors/` with their reasons.

![pictures and conditions, side by side]({preview})

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
    "`caption_note`": "why the caption is not what came with the sample, or why there is none; else null",
    "`shard`, `position`": "where the sample came from",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a job says of its datasets."""

    title: str
    task: str
    """Task category of the hub."""
    columns: Mapping[str, str]
    """Columns, in backquotes, -> what they hold; replaces lines of COMMON_COLUMNS, or comes before them."""
    previews: Mapping[str, str]
    """Columns to show in preview.png -> kind of condition, or "" for an ordinary picture."""


def card_text(
    card: Card,
    settings: Mapping[str, Any],
    provenance: Sequence[str],
    ok: int,
    bad: int,
    row_format: RowFormat = PARQUET,
    features: Features | None = None,
    preview: str = PREVIEW,
) -> str:
    """The README.md of a dataset: front matter that the hub understands, columns, settings, counts."""
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
        columns=_column_lines(card, provenance),
        settings="\n".join(f"| {name} | `{_cell(value)}` |" for name, value in settings.items()),
    )


def _cell(value: Any) -> str:
    """A value in a table of Markdown: on one line, without what ends a cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'") if isinstance(value, str) else str(value)


def _column_lines(card: Card, provenance: Sequence[str]) -> str:
    own = {name: text for name, text in card.columns.items() if name not in COMMON_COLUMNS}
    made_by = {", ".join(f"`{name}`" for name in provenance): "what made it"}
    texts = {**own, **COMMON_COLUMNS, **card.columns, **made_by}
    return "\n".join(f"| {name} | {text} |" for name, text in texts.items())
