"""What lies beside the data for people: the dataset card and the preview picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image

from pipelines import pictures, storage
from pipelines.features import Features, front_matter, load_options
from pipelines.ownership import Say, is_our_png, marked_png, publish_beside
from pipelines.progress import say
from pipelines.row_formats import PARQUET, RowFormat

PREVIEW = "preview.png"
PREVIEW_ROWS = 8
PREVIEW_HEIGHT_PX = 192


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


def write_preview(output: str, kinds: Mapping[str, str], row_format: RowFormat = PARQUET, tell: Say = say) -> str:
    """preview.png: the first rows of the data, their pictures and coloured conditions side by side, two rows a line.

    kinds: column -> kind of condition, or "" for an ordinary picture.

    Returns the file's name, which is another where a file of this name is that is not ours.
    """
    groups = [_group(row, kinds) for row in _first_rows(output, list(kinds), row_format)]
    if not groups:
        return PREVIEW
    return publish_beside(output, PREVIEW, marked_png(_sheet(groups)), is_our_png, tell) or PREVIEW


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
