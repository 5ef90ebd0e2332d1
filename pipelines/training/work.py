"""What the workers of a training on a corpus do: load the model, train, and publish the log and the adapters.

Tested in tests/jobs/test_train_corpus.py.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.engine.train import Session
from pipelines.errors import SampleError
from pipelines.images.codec import open_image, open_map
from pipelines.readers.chunks import read_chunk
from pipelines.samples import Columns
from pipelines.storage.store import FILES, Store
from pipelines.tasks.model import UniConModel, find_same_files, usable_cpus
from pipelines.training.checkpoints import StoredCheckpoints
from pipelines.training.groups import Group
from pipelines.training.journal import Journal, TensorBoard, WeightsAndBiases
from pipelines.training.output import AdapterOutput
from pipelines.training.source import StreamedBatches
from pipelines.training.windows import stored_row

if TYPE_CHECKING:
    from unicon.training.adapter import AdapterTraining
    from unicon.training.recipe import AdapterRecipe
    from unicon.training.views import PairRow

PREEMPTION_STEPS = 20
"""Number of steps between questions whether machines are taken away, for which all workers wait for each other."""


@dataclass(frozen=True, kw_only=True)
class AdapterWork:
    """A training of adapters on a corpus, as every worker runs it. Light and picklable."""

    model: UniConModel
    """The frozen model; its adapters are those that the training starts from."""
    recipe: "AdapterRecipe"
    held_out: tuple[tuple[Group, Columns], ...]
    """The rows for validation."""
    max_pixels: int
    work: str
    """URI of the work folder."""
    output: AdapterOutput
    uses_gpus: bool = False
    dtype: str | None = None
    """Type of frozen weights and computation; None: the fastest of the worker's device."""
    cache: Path | None = None
    """Folder on the worker's machine for latents."""
    identity: str = ""
    """Hash of the data and of the model's weights, on which the latents depend."""
    threads: int | None = None
    """Threads of a worker on a CPU; None: the workers of a machine share its CPUs."""
    tensorboard: bool = True
    wandb: str | None = None
    """Project of Weights & Biases."""
    store: Store = FILES

    def __call__(self, session: Session) -> None:
        """Train until the last step. Errors that every worker has, and would have again, are told instead of raised."""
        import torch

        from unicon.training.trainer import NonFiniteLossError, ResumeError

        if not self.uses_gpus:
            torch.set_num_threads(self.threads or max(1, usable_cpus() // session.local_world_size))
        try:
            self._train(session, "cuda" if self.uses_gpus else "cpu")
        except (NonFiniteLossError, ResumeError) as error:
            session.tell({"failure": str(error)})
        except torch.OutOfMemoryError as error:
            session.tell({"out_of_memory": str(error).splitlines()[0]})
            raise

    def _train(self, session: Session, device: str) -> None:
        import torch

        from unicon.training.adapter import load_adapters, train_adapters
        from unicon.training.latent_cache import LatentCache
        from unicon.training.workers import Workers

        checkpoints = StoredCheckpoints(self.work, self.store)
        files, recipe = find_same_files(self.model), self._recipe(device)
        torch.manual_seed(recipe.fit.seed)  # new adapters are the same in every worker
        training = load_adapters(files.folder, with_starts(recipe, files.adapters), device)
        workers = Workers(session.rank, session.world_size)
        reports = _Reports(self, session, training, checkpoints.step())
        if workers.is_first:
            session.tell({"started": checkpoints.step(), "workers": session.world_size})
        train_adapters(
            training,
            StreamedBatches(session.rows, session.tell),
            recipe,
            reports.before(checkpoints),
            workers=workers,
            cache=None if self.cache is None else LatentCache(self.cache, self.identity, training.views),
            held_out=list(self._held_out_rows(session)) if workers.is_first else (),
            on_metrics=reports.on_metrics,
            on_validation=reports.on_validation,
            on_checkpoint=reports.on_checkpoint,
            wants_checkpoint=_Preemption(session),
        )
        reports.on_end()

    def _recipe(self, device: str) -> "AdapterRecipe":
        """Return the recipe with the data type of the worker's device."""
        from unicon.devices import training_dtype

        dtype = self.dtype or training_dtype(device)
        fit = dataclasses.replace(self.recipe.fit, autocast_dtype=None if dtype == "float32" else dtype)
        return dataclasses.replace(self.recipe, fit=fit)

    def _held_out_rows(self, session: Session) -> "Iterator[PairRow]":
        """Yield the rows for validation that can be read."""
        from unicon.training.views import PairRow

        problems: list[tuple[str, str]] = []
        for group, columns in self.held_out:
            for sample in read_chunk(group.chunk, columns, self.store):
                try:
                    row = stored_row(sample, 1.0, columns.media)
                    image, _ = open_image(row.image, self.max_pixels)
                    maps = [open_map(content, self.max_pixels)[0] for content in row.maps]
                except SampleError as error:
                    problems.append((sample.key, error.reason))
                    continue
                yield PairRow(row.key, image, dict(zip(self.recipe.kinds, maps, strict=True)), row.caption)
        if problems:
            session.tell({"problems": problems})


def with_starts(recipe: "AdapterRecipe", starts: Mapping[str, Path]) -> "AdapterRecipe":
    """Return the recipe whose adapters start from the weights of others, where given by name."""
    adapters = [dataclasses.replace(each, start_from=starts.get(each.config.name)) for each in recipe.adapters]
    return dataclasses.replace(recipe, adapters=tuple(adapters))


class _Preemption:
    """Asks Ray Train now and then whether machines are taken away, and wants one checkpoint if so."""

    def __init__(self, session: Session) -> None:
        self.session, self.asked, self.was_told = session, 0, False

    def __call__(self) -> bool:
        self.asked += 1
        if self.was_told or self.asked % PREEMPTION_STEPS:
            return False
        self.was_told = self.session.is_preempted()
        return self.was_told


class _Reports:
    """Writes the log and the adapters in the first worker, and tells the command about the progress."""

    def __init__(self, work: AdapterWork, session: Session, training: "AdapterTraining", first_step: int) -> None:
        self.work, self.session, self.training = work, session, training
        self.is_first = session.rank == 0
        self.journal = Journal(work=work.work, first_step=first_step, store=work.store)
        if self.is_first:
            self.journal.sinks = tuple(self._sinks(first_step))

    def _sinks(self, first_step: int) -> Iterator[Any]:
        if self.work.tensorboard:
            yield TensorBoard(self.work.work, first_step, self.work.store)
        if self.work.wandb:
            yield WeightsAndBiases(self.work.wandb, self.work.work)

    def before(self, checkpoints: StoredCheckpoints) -> "_LoggedCheckpoints":
        """Return the checkpoints, before each of which the log is published."""
        return _LoggedCheckpoints(checkpoints, self.journal)

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        rate = self.work.recipe.sampling.batch_size / values["seconds_a_step"]
        self.journal.metrics(step, {**values, "pairs_a_second": round(rate, 1)})
        self.session.tell({"step": step, "loss": values["loss"], "pairs_a_second": rate})

    def on_validation(self, step: int, values: dict[str, float], pictures: Mapping[str, Any]) -> None:
        self.journal.validation(step, values, pictures)
        self.session.tell({"validated": step, "values": values})

    def on_checkpoint(self, step: int) -> None:
        if self.is_first:
            self.work.output.publish(self.training, self.journal, self.work.recipe)

    def on_end(self) -> None:
        """Publish what came after the last checkpoint, or what an earlier run was killed before it published."""
        if self.is_first:
            self.journal.publish()
            self.on_checkpoint(self.work.recipe.fit.steps)


class _LoggedCheckpoints:
    """Checkpoints, before each of which a journal is published."""

    def __init__(self, checkpoints: StoredCheckpoints, journal: Journal) -> None:
        self.checkpoints, self.journal = checkpoints, journal

    def __str__(self) -> str:
        return str(self.checkpoints)

    def load(self) -> bytes | None:
        return self.checkpoints.load()

    def save(self, step: int, content: bytes) -> None:
        self.journal.publish()
        self.checkpoints.save(step, content)
