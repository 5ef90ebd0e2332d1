"""preview.png, which shows the first rows of a dataset. Tested in tests/pipelines/dataset/test_ownership.py."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from PIL import Image

from pipelines import storage
from pipelines.dataset.card import PREVIEW
from pipelines.dataset.ownership import Say, is_our_png, marked_png, publish_beside
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.errors import say
from pipelines.images.codec import open_image, open_map

PREVIEW_ROWS = 8
PREVIEW_HEIGHT_PX = 192


def write_preview(output: str, kinds: Mapping[str, str], row_format: RowFormat = PARQUET, tell: Say = say) -> str:
    """Write preview.png: the images and colored conditions of the first rows, two rows side by side.

    Args:
        output: The output root.
        kinds: Column -> kind of condition, or "" for an ordinary image.
        row_format: The file format of the output.
        tell: Called with a message if the file gets another name.

    Returns:
        The name of the file, which differs if a user's file has this one.
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
    """Put the images of one row side by side, in the shape of the first one."""
    tiles = [_colored(row[column]["bytes"], kind) for column, kind in kinds.items()]
    first = tiles[0]
    size = max(1, min(first.width * PREVIEW_HEIGHT_PX // first.height, 2 * PREVIEW_HEIGHT_PX)), PREVIEW_HEIGHT_PX
    group = Image.new("RGB", (len(tiles) * size[0], size[1]))
    for place, tile in enumerate(tiles):
        group.paste(tile.resize(size, Image.Resampling.LANCZOS), (place * size[0], 0))
    return group


def _colored(content: bytes, kind: str) -> Image.Image:
    """Decode a stored image; a condition is colored for people."""
    from unicon.conditions import CONDITIONS

    if kind not in CONDITIONS:
        return open_image(content, 1 << 40)[0]
    condition = CONDITIONS[kind]
    return condition.preview(condition.decode(open_map(content, 1 << 40)[0]))


def _sheet(groups: list[Image.Image]) -> Image.Image:
    """Arrange groups in two columns on white."""
    gap = 8
    width = max(group.width for group in groups)
    lines = (len(groups) + 1) // 2
    sheet = Image.new("RGB", (2 * width + 3 * gap, lines * (PREVIEW_HEIGHT_PX + gap) + gap), "white")
    for number, group in enumerate(groups):
        line, column = divmod(number, 2)
        sheet.paste(group, (gap + column * (width + gap), gap + line * (PREVIEW_HEIGHT_PX + gap)))
    return sheet
