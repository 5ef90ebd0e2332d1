"""Photographs of a folder as rows for training. A row is read again whenever it is needed, to save memory.

Tested in tests/unicon/training/test_photographs.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from unicon.colors import oriented_size
from unicon.training.photographs import Photograph, read_image
from unicon.training.views import PairRow

HELD_OUT = 4
"""Largest number of images that are held out of the training for validation."""


class PhotographRows(Sequence[PairRow]):
    """The rows of one adapter."""

    def __init__(self, photographs: Sequence[Photograph], adapter: str, side_px: int) -> None:
        """Prepare the rows.

        Args:
            photographs: The photographs.
            adapter: The adapter that their conditions belong to.
            side_px: Shorter side at which images are read.
        """
        self.photographs, self.adapter, self.side_px = list(photographs), adapter, side_px

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> PairRow:  # type: ignore[override]
        photograph = self.photographs[index]
        condition = read_image(photograph.condition, self.side_px)
        return PairRow(
            key=photograph.image.stem,
            image=read_image(photograph.image, self.side_px),
            maps={self.adapter: condition},
            caption=photograph.caption,
        )

    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of every upright image."""
        found = []
        for photograph in self.photographs:
            with Image.open(photograph.condition) as condition:  # a PNG of the upright image's shape, quick to open
                found.append(oriented_size(condition))
        return found


def split_photographs(photographs: Sequence[Photograph]) -> tuple[list[Photograph], list[Photograph]]:
    """Split photographs into (training, held out).

    One of eight is held out, at least one and at most `HELD_OUT`, evenly spread.

    Raises:
        ValueError: There are fewer than two photographs.
    """
    if len(photographs) < 2:
        raise ValueError(
            f"Training needs at least two images, one of them for validation; got {len(photographs)}. Add more."
        )
    count = min(HELD_OUT, max(1, len(photographs) // 8))
    places = {index * len(photographs) // count for index in range(count)}
    training = [photograph for place, photograph in enumerate(photographs) if place not in places]
    return training, [photographs[place] for place in sorted(places)]
