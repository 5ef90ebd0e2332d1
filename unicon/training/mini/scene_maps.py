"""Rendered scenes with several of their maps, for training estimates in a single step.

Tested in tests/unicon/training/mini/test_train.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unicon.training.mini.pretrain import SceneLatents
from unicon.training.mini.scene_cache import SceneArrays
from unicon.training.mini.vae import map_pixels
from unicon.training.single_step import DrawnMaps

PERSON = "mannequin"
"""Word for a person in captions."""


class SceneMaps:
    """A `MapSource` of groups of scenes, each of one size. A group is drawn by its size, then scenes of it."""

    def __init__(
        self, scenes: Sequence[SceneArrays], latents: Sequence[SceneLatents], kinds: Sequence[str], person_share: float
    ) -> None:
        """Prepare the source.

        Args:
            scenes: The maps of every group.
            latents: The latents of the same groups.
            kinds: Kinds of the maps, which are the names of their adapters.
            person_share: Fraction of the drawn scenes that show a person, which are the first ones of a batch.
        """
        self.scenes, self.latents, self.kinds, self.person_share = scenes, latents, kinds, person_share
        self._sizes = torch.tensor([float(len(group.captions)) for group in latents])
        self._persons = [torch.tensor([PERSON in text for text in group.captions]) for group in latents]

    def draw_maps(self, generator: torch.Generator, batch_size: int) -> DrawnMaps:
        """See `MapSource`."""
        place = int(torch.multinomial(self._sizes, 1, generator=generator))
        scenes, latents = self.scenes[place], self.latents[place].latents
        rows = self._rows(place, generator, batch_size)
        window = rows.numpy()
        return DrawnMaps(
            latents["image"][rows],
            {kind: latents[kind][rows] for kind in self.kinds},
            {kind: torch.from_numpy(map_pixels(scenes, kind, window)).permute(0, 3, 1, 2) for kind in self.kinds},
            [scenes.captions[row] for row in rows.tolist()],
        )

    def _rows(self, place: int, generator: torch.Generator, batch_size: int) -> torch.Tensor:
        """Rows of a group: scenes with a person, then any other scenes."""
        shows = self._persons[place]
        persons = torch.nonzero(shows)[:, 0]
        others = torch.nonzero(~shows)[:, 0]
        count = round(self.person_share * batch_size) if len(others) else batch_size
        count = count if len(persons) else 0
        parts = ((persons, count), (others, batch_size - count))
        return torch.cat([
            group[torch.randint(len(group), (size,), generator=generator)] for group, size in parts if size
        ])  # fmt: skip
