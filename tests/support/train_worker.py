"""One of several processes that train tiny adapters together; see tests/unicon/training/test_distributed.py.

python -m tests.support.train_worker MODEL OUTPUT RANK WORLD_SIZE
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
from unicon.training.trainer import NonFiniteLossError

STEPS, KEPT = 20, 10
RECIPE = tiny_recipe(
    steps=STEPS, batch_size=5, single_step_steps=4, fit={"checkpoint_every": KEPT, "learning_rate": 1e-2}
)


class KeptCheckpoints(FolderCheckpoints):
    """The latest state, and those before it under names of their own."""

    def save(self, step: int, content: bytes) -> None:
        """See `Checkpoints`."""
        super().save(step, content)
        (self.folder / f"state-{step}.pt").write_bytes(content)


def train(model: Path, output: Path) -> None:
    """Train with a log of the losses, from the state in the folder if there is one."""
    training = load_adapters(model, RECIPE, "cpu")
    output.mkdir(parents=True, exist_ok=True)

    def log(step: int, values: dict[str, float]) -> None:
        with (output / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    source = batches_of(draw_rows(12), training, RECIPE)
    train_adapters(training, source, RECIPE, KeptCheckpoints(output), on_metrics=log)
    found = {name: parameter.detach() for name, parameter in training.parameters().items()}
    torch.save(found, output / f"trained-{dist.get_rank() if dist.is_initialized() else 0}.pt")


class Damaged:
    """Batches in which one row is not finite."""

    def __init__(self, model: Path) -> None:
        self.training = load_adapters(model, RECIPE, "cpu")
        self.source = batches_of([draw_row(0)] * 5, self.training, RECIPE)

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        """See `BatchSource`."""
        batch = self.source.batch(step, rank, world_size)
        images = batch.images.float()
        images[-1] = float("nan") if rank == world_size - 1 else 0
        keys = tuple(f"{rank}-{place}" for place in range(len(batch.keys)))
        return PairBatch(keys, images, batch.maps, batch.captions, batch.weights, batch.mirrored)


def fail(model: Path, output: Path) -> None:
    """Train on a row that is not finite, and write what the error says."""
    source = Damaged(model)
    try:
        train_adapters(source.training, source, RECIPE, FolderCheckpoints(output))
    except NonFiniteLossError as error:
        output.mkdir(exist_ok=True)
        (output / f"error-{dist.get_rank()}.json").write_text(json.dumps([error.step, error.keys]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, output, rank, world_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    dist.init_process_group("gloo", init_method=f"file://{output}/meeting", rank=rank, world_size=world_size)
    train(model, output / "whole")
    fail(model, output / "failed")
    dist.destroy_process_group()
