"""preview.png: the first rows of a dataset as one image."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from PIL import Image

from pipelines import storage
from pipelines.dataset.card import PREVIEW
from pipelines.dataset.ownership import Say, is_our_png, marked_png, publish_beside
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.images.codec import open_map, open_picture
from pipelines.texts import say

PREVIEW_ROWS = 8


PREVIEW_HEIGHT_PX = 192


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
        return open_picture(content, 1 << 40)[0]
    condition = CONDITIONS[kind]
    return condition.preview(condition.decode(open_map(content, 1 << 40)[0]))


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
