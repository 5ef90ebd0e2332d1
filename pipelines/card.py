"""What lies beside the data for people: the dataset card and the preview picture."""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipelines import pictures, storage

PREVIEW_ROWS = 8
PREVIEW_HEIGHT_PX = 192


def card_text(title: str, task: str, settings: Mapping[str, Any], columns: str, ok: int, bad: int) -> str:
    """The README.md of a dataset: front matter that the hub understands, columns, settings, counts."""
    lines = "\n".join(f"| {name} | `{value}` |" for name, value in settings.items())
    return f"""---
pretty_name: {title}
task_categories:
- {task}
configs:
- config_name: default
  default: true
  data_files: data/*.parquet
- config_name: errors
  data_files: errors/*.parquet
---

# {title}

{ok} rows in `data/`; {bad} samples that could not be processed are in `errors/` with their reasons.

![image and result, side by side](preview.png)

```python
import datasets

rows = datasets.load_dataset("parquet", data_files="data/*.parquet", split="train")
```

{columns}

## Settings

| setting | value |
|---|---|
{lines}
"""


def write_preview(output: str, column: str, colour: Callable[[np.ndarray], Image.Image]) -> None:
    """preview.png: the first rows of the data, picture on the left, coloured map on the right, two pairs a line."""
    pairs: list[Image.Image] = []
    for info in storage.list_files(storage.join(output, "data")):
        with storage.open_read(info.uri) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(PREVIEW_ROWS, columns=["image", column]):
                pairs += [_pair(row["image"]["bytes"], row[column]["bytes"], colour) for row in batch.to_pylist()]
                if len(pairs) >= PREVIEW_ROWS:
                    break
        if len(pairs) >= PREVIEW_ROWS:
            break
    if pairs:
        storage.publish(storage.join(output, "preview.png"), pictures.png_bytes(_sheet(pairs[:PREVIEW_ROWS])))


def _pair(image_bytes: bytes, map_bytes: bytes, colour: Callable[[np.ndarray], Image.Image]) -> Image.Image:
    image, _ = pictures.open_picture(image_bytes, 1 << 40)
    levels = np.asarray(Image.open(BytesIO(map_bytes)), dtype=np.float32)
    size = max(1, min(image.width * PREVIEW_HEIGHT_PX // image.height, 2 * PREVIEW_HEIGHT_PX)), PREVIEW_HEIGHT_PX
    small = Image.fromarray(levels).resize(size, Image.Resampling.BOX)
    pair = Image.new("RGB", (2 * size[0], size[1]))
    pair.paste(image.resize(size, Image.Resampling.LANCZOS), (0, 0))
    pair.paste(colour(np.asarray(small) / 65535.0), (size[0], 0))
    return pair


def _sheet(pairs: list[Image.Image]) -> Image.Image:
    """Pairs in two columns on white."""
    gap = 8
    width = max(pair.width for pair in pairs)
    lines = (len(pairs) + 1) // 2
    sheet = Image.new("RGB", (2 * width + 3 * gap, lines * (PREVIEW_HEIGHT_PX + gap) + gap), "white")
    for number, pair in enumerate(pairs):
        line, column = divmod(number, 2)
        sheet.paste(pair, (gap + column * (width + gap), gap + line * (PREVIEW_HEIGHT_PX + gap)))
    return sheet
