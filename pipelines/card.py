"""What lies beside the data for people: the dataset card and the preview picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image

from pipelines import pictures, storage
from pipelines.row_formats import PARQUET, RowFormat

PREVIEW_ROWS = 8
PREVIEW_HEIGHT_PX = 192


KEY_TEXT = "name of the sample: WebDataset key, Parquet key column, or path in the folder; unique within its `shard`"
MEMBERS = """
In each tar `image` is KEY.jpg, .png or .webp, another picture column is KEY.COLUMN.png, and the rest is in KEY.json.
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
---

# {title}

{ok} rows in `data/`; {bad} samples that could not be processed are in `errors/` with their reasons.

![pictures and conditions, side by side](preview.png)

```python
import datasets

rows = datasets.load_dataset("{format}", data_files="{files}", split="train")
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
) -> str:
    """The README.md of a dataset: front matter that the hub understands, columns, settings, counts."""
    return CARD_TEXT.format(
        title=card.title,
        task=card.task,
        files=f"data/*.{row_format.extension}",
        format=row_format.name,
        members="" if row_format is PARQUET else MEMBERS,
        ok=ok,
        bad=bad,
        columns=_column_lines(card, provenance),
        settings="\n".join(f"| {name} | `{value}` |" for name, value in settings.items()),
    )


def _column_lines(card: Card, provenance: Sequence[str]) -> str:
    own = {name: text for name, text in card.columns.items() if name not in COMMON_COLUMNS}
    made_by = {", ".join(f"`{name}`" for name in provenance): "what made it"}
    texts = {**own, **COMMON_COLUMNS, **card.columns, **made_by}
    return "\n".join(f"| {name} | {text} |" for name, text in texts.items())


def write_preview(output: str, kinds: Mapping[str, str], row_format: RowFormat = PARQUET) -> None:
    """preview.png: the first rows of the data, their pictures and coloured conditions side by side, two rows a line.

    kinds: column -> kind of condition, or "" for an ordinary picture.
    """
    groups = [_group(row, kinds) for row in _first_rows(output, list(kinds), row_format)]
    if groups:
        storage.publish(storage.join(output, "preview.png"), pictures.png_bytes(_sheet(groups)))


def _first_rows(output: str, columns: list[str], row_format: RowFormat) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for info in storage.list_files(storage.join(output, "data")):
        rows += islice(row_format.read(info.uri, columns), PREVIEW_ROWS - len(rows))
        if len(rows) == PREVIEW_ROWS:
            break
    return rows


def _group(row: Mapping[str, Any], kinds: Mapping[str, str]) -> Image.Image:
    """The pictures of one row side by side, of the first one's shape."""
    tiles = [_coloured(row[column]["bytes"], kind) for column, kind in kinds.items()]
    first = tiles[0]
    size = max(1, min(first.width * PREVIEW_HEIGHT_PX // first.height, 2 * PREVIEW_HEIGHT_PX)), PREVIEW_HEIGHT_PX
    group = Image.new("RGB", (len(tiles) * size[0], size[1]))
    for place, tile in enumerate(tiles):
        group.paste(tile.resize(size, Image.Resampling.LANCZOS), (place * size[0], 0))
    return group


def _coloured(content: bytes, kind: str) -> Image.Image:
    """A stored picture for people."""
    from unicon.conditions import CONDITIONS

    if kind not in CONDITIONS:
        return pictures.open_picture(content, 1 << 40)[0]
    condition = CONDITIONS[kind]
    return condition.preview(condition.decode(pictures.open_map(content, 1 << 40)[0]))


def _sheet(groups: list[Image.Image]) -> Image.Image:
    """Groups in two columns on white."""
    gap = 8
    width = max(group.width for group in groups)
    lines = (len(groups) + 1) // 2
    sheet = Image.new("RGB", (2 * width + 3 * gap, lines * (PREVIEW_HEIGHT_PX + gap) + gap), "white")
    for number, group in enumerate(groups):
        line, column = divmod(number, 2)
        sheet.paste(group, (gap + column * (width + gap), gap + line * (PREVIEW_HEIGHT_PX + gap)))
    return sheet
