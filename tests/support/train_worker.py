"""One of several processes that train tiny adapters together; see tests/unicon/training/test_distributed.py.

python -m tests.support.train_worker MODEL OUTPUT STEPS RANK WORLD_SIZE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed as dist

from tests.support.pair_rows import batches_of, draw_row, draw_rows, tiny_recipe
from unicon.training.adapter import load_adapters, train_adapters
from unicon.training.batches import PairBatch
from unicon.training.checkpoints import FolderCheckpoints
from unicon.training.recipe import AdapterRecipe
from unicon.training.trainer import NonFiniteLossError


def recipe(steps: int) -> AdapterRecipe:
    """Return a recipe of two adapters whose last steps train single steps. There is a checkpoint in the middle."""
    fit = {"checkpoint_every": steps // 2, "learning_rate": 1e-2}
    return tiny_recipe(steps=steps, batch_size=5, single_step_steps=steps // 5, fit=fit)


class KeptCheckpoints(FolderCheckpoints):
    """The latest state, and those before it under names of their own."""

    def save(self, step: int, content: bytes) -> None:
        """See `Checkpoints`."""
        super().save(step, content)
        (self.folder / f"state-{step}.pt").write_bytes(content)


def train(model: Path, output: Path, steps: int) -> None:
    """Train with a log of the losses, from the state in the folder if there is one."""
    choice = recipe(steps)
    training = load_adapters(model, choice, "cpu")
    output.mkdir(parents=True, exist_ok=True)

    def log(step: int, values: dict[str, float]) -> None:
        with (output / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    source = batches_of(draw_rows(12), training, choice)
    train_adapters(training, source, choice, KeptCheckpoints(output), on_metrics=log)
    found = {name: parameter.detach() for name, parameter in training.parameters().items()}
    torch.save(found, output / f"trained-{dist.get_rank() if dist.is_initialized() else 0}.pt")


class Damaged:
    """Batches whose last row is not finite."""

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        """See `BatchSource`."""
        count = 3 - rank
        row = draw_row(0)
        images = torch.zeros(count, 3, 16, 16)
        images[-1] = float("nan") if rank == world_size - 1 else 0
        maps = {name: torch.zeros(count, 1, 16, 16) for name in row.maps}
        keys = tuple(f"{rank}-{place}" for place in range(count))
        return PairBatch(keys, images, maps, ("",) * count, torch.ones(count), (False,) * count)


def fail(model: Path, output: Path, steps: int) -> None:
    """Train on a row that is not finite, and write what the error says."""
    choice = recipe(steps)
    training = load_adapters(model, choice, "cpu")
    try:
        train_adapters(training, Damaged(), choice, FolderCheckpoints(output))
    except NonFiniteLossError as error:
        (output.parent / f"error-{dist.get_rank()}.json").write_text(json.dumps([error.step, error.keys]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, output = Path(sys.argv[1]), Path(sys.argv[2])
    steps, rank, world_size = map(int, sys.argv[3:])
    dist.init_process_group("gloo", init_method=f"file://{output}/meeting", rank=rank, world_size=world_size)
    train(model, output / "trained", steps)
    fail(model, output / "failed", steps)
    dist.destroy_process_group()
