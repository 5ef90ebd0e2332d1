"""The losses of a training of several adapters on batches of weighted rows.

A loss is kept as a sum over rows and the sum of their weights. So the parts of a batch, on one worker or on several,
add up to the loss of the whole, and a row of weight 0 has no effect.

Shapes: B rows of a part, G rows of the global batch, K adapters, c h w latents, H W pixels.

Tested in tests/unicon/training/test_batch_gradients.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unicon.autoencoders import Autoencoder, encode_scaled
from unicon.training.batches import BatchLatents, PairBatch
from unicon.training.fit import step_generator
from unicon.training.latent_cache import LatentCache
from unicon.training.map_losses import map_losses_by_row
from unicon.training.models import TrainingModels, normal_noise
from unicon.training.pair_rows import PairRows, as_index
from unicon.training.recipe import AdapterRecipe
from unicon.training.single_step import SingleStepRows

ENCODED_TOGETHER = 8
"""Number of images encoded in one batch."""


class WeightedSum(NamedTuple):
    """A weighted sum over rows. The loss is `total / weight`, of all parts together."""

    total: Tensor
    weight: Tensor

    @classmethod
    def of(cls, errors: Tensor, weights: Tensor) -> WeightedSum:
        """The sum of errors (B,) with weights (B,)."""
        return cls((errors * weights).sum(), weights.sum())


class BatchLoss:
    """The losses of the steps of a recipe."""

    def __init__(
        self, models: TrainingModels, vae: Autoencoder, recipe: AdapterRecipe, cache: LatentCache | None = None
    ) -> None:
        """Prepare the losses.

        Args:
            models: The models, with the adapters of the recipe in the UNet.
            vae: The frozen autoencoder.
            recipe: The recipe.
            cache: Where latents and text embeddings are kept.

        Raises:
            ValueError: Single-step estimates are trained and there is no loss for the kind of an adapter.
        """
        self.models, self.vae, self.recipe, self.cache = models, vae, recipe, cache
        self.pairs = {
            name: PairRows(models, name, config.trigger or "", recipe.sampling)
            for name, config in recipe.configs.items()
        }
        self.single = (
            SingleStepRows(models, vae, list(recipe.configs), recipe.single_step) if recipe.trains_single_step else None
        )

    def __call__(self, batch: PairBatch, places: Sequence[int], step: int) -> dict[str, WeightedSum]:
        """The losses of some rows of a step, by name; the one named `loss` is minimized.

        Args:
            batch: The rows.
            places: Their places in the global batch, ascending.
            step: The number of the step.
        """
        kind, device = self.recipe.step_kind(step), self.models.unet.device
        batch, generator = batch.to_model(device), step_generator(self.recipe.fit.seed, step)
        if kind.single_step:
            return self._single_step(batch, places, generator)
        return self._pairs(kind.adapters[0], batch, places, generator)

    def _pairs(
        self, name: str, batch: PairBatch, places: Sequence[int], generator: torch.Generator
    ) -> dict[str, WeightedSum]:
        latents, rows = self.latents(batch, [name]), self.pairs[name]
        draws = rows.draw(latents.images.shape[1:], generator).select(places)
        found = rows.predict(latents.images, latents.maps[name], batch.captions, draws)
        weights = batch.weights.repeat(2) * found.learned
        count = len(places)
        return {
            "loss": WeightedSum.of(found.errors, weights),
            "image": WeightedSum.of(found.errors[:count].detach(), weights[:count]),
            "condition": WeightedSum.of(found.errors[count:].detach(), weights[count:]),
        }

    def _single_step(
        self, batch: PairBatch, places: Sequence[int], generator: torch.Generator
    ) -> dict[str, WeightedSum]:
        rows, recipe = self.single, self.recipe
        assert rows is not None
        names, total = list(rows.configs), recipe.sampling.batch_size
        fractions = {name: recipe.single_step.decoded_fractions.get(name, 1.0) for name in names}
        latents = self.latents(batch, [name for name in names if fractions[name] < 1])
        shape = latents.images.shape[1:]
        noise = normal_noise((len(names) * total, *shape), generator, self.models.unet.device)
        index = as_index(places)
        noise = noise.unflatten(0, (len(names), total))[:, index].flatten(0, 1)
        chances = torch.rand(total, generator=generator)[index]
        embeds = self.models.encode_prompts(rows.prompts(batch.captions, chances))
        _, estimates = rows.estimate(latents.images, noise, embeds)
        losses = {}
        for name, fraction in fractions.items():
            decoded = sum(place < fraction * total for place in places)
            errors = self._map_errors(name, estimates[name], batch, latents, decoded)
            losses[name] = WeightedSum.of(errors, batch.weights)
        loss = WeightedSum(torch.stack([each.total for each in losses.values()]).sum(), batch.weights.sum())
        return {"loss": loss, **{f"{name}_maps": each for name, each in losses.items()}}

    def _map_errors(
        self, name: str, estimates: Tensor, batch: PairBatch, latents: BatchLatents, decoded: int
    ) -> Tensor:
        """The losses (B,) of the estimates of an adapter: of the first `decoded` as maps, of the others as latents."""
        rows, errors = self.single, []
        assert rows is not None
        if decoded:
            maps = rows.decode(estimates[:decoded], name)
            truths = rows.values(batch.maps[name][:decoded], name)
            weight = rows.sampling.map_weights.get(name, 1.0)
            errors.append(weight * map_losses_by_row(rows.configs[name].kind, maps, truths))
        if decoded < len(estimates):
            target = latents.maps[name][decoded:]
            weight = rows.sampling.latent_weights.get(name, 1.0)
            errors.append(weight * (estimates[decoded:] - target).square().flatten(1).mean(1))
        return torch.cat(errors)

    @torch.no_grad()
    def latents(self, batch: PairBatch, names: Sequence[str]) -> BatchLatents:
        """The latents of a batch in float32 on the device, of its images and of the maps of some adapters."""
        pixels = {"": batch.images, **{name: batch.maps[name] for name in names}}
        with torch.autocast(self.vae.device.type, enabled=False):
            found = self._encode_all(pixels) if self.cache is None else self.cache.latents(batch, pixels, self.encode)
        return BatchLatents(found[""].float(), {name: found[name].float() for name in names})

    def _encode_all(self, pixels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoded = self.encode(torch.cat(list(pixels.values())))
        return dict(zip(pixels, encoded.split(len(next(iter(pixels.values())))), strict=True))

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode (S, 3, H, W) in [-1, 1] to scaled latents (S, c, h, w), rounded to float16, on the device."""
        parts = pixels.to(self.vae.dtype).split(ENCODED_TOGETHER)
        return torch.cat([encode_scaled(self.vae, part) for part in parts]).half()
