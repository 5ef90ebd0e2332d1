"""Trainings on small corpora: prepared from a command line, without Ray, and with workers that are killed."""

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from jobs import _corpus_training, train_adapter
from pipelines.engine.train import Session
from pipelines.training.run import CorpusTraining
from pipelines.training.work import AdapterWork


def command(model: Path, corpus: Path, root: Path, *more: str) -> list[str]:
    """Return a command that trains an adapter for edges in ten steps."""
    return [
        *("--model", str(model), "--corpus", str(corpus), "--condition", "canny", "--device", "cpu"),
        *("--output", str(root / "adapters"), "--work", str(root / "work"), "--rank", "2", "--batch-size", "4"),
        *("--steps", "10", "--checkpoint-every", "4", "--validation-every", "1000", "--learning-rate", "0.01", *more),
    ]


def prepared(arguments: list[str]) -> CorpusTraining:
    """Return the checked training of a command, which logs every step."""
    training = _corpus_training.prepare(train_adapter.parse(arguments))
    fit = dataclasses.replace(training.work.recipe.fit, log_every=1)
    recipe = dataclasses.replace(training.work.recipe, fit=fit)
    return dataclasses.replace(training, work=dataclasses.replace(training.work, recipe=recipe, threads=1))


def train_plainly(training: CorpusTraining) -> list[dict]:
    """Train in this process, without Ray, and return the events."""
    events: list[dict] = []
    training.work(AloneSession(0, 1, 1, plain_rows(training), events.append))
    return events


class AloneSession(Session):
    """The session of the only worker."""

    def __init__(self, rank: int, world_size: int, local: int, rows: Iterator[pa.Table], tell) -> None:
        super().__init__(rank=rank, world_size=world_size, local_world_size=local, rows=rows, tell=tell)

    @staticmethod
    def is_preempted() -> bool:
        """Return False: nobody takes this machine away."""
        return False


def plain_rows(training: CorpusTraining) -> Iterator[pa.Table]:
    """Yield the rows of the only worker, read in this process."""
    reader = training.steps.reader
    for task in training.steps.tasks():
        for table in reader.read(task, 1):
            yield reader.decode(table)


@dataclass(frozen=True, kw_only=True)
class DyingWork(AdapterWork):
    """Work that is killed with SIGKILL when it asks for the rows of a step, once."""

    dies_at: int
    mark: Path
    """File that says that it has died."""

    def __call__(self, session: Session) -> None:
        """See `AdapterWork`."""
        super().__call__(dataclasses.replace(session, rows=self._rows(session.rows)))

    def _rows(self, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in rows:
            if table.column("step")[0].as_py() == self.dies_at and not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield table


def dying(training: CorpusTraining, dies_at: int, mark: Path) -> CorpusTraining:
    """Return the training with a worker that is killed once."""
    fields = {field.name: getattr(training.work, field.name) for field in dataclasses.fields(training.work)}
    return dataclasses.replace(training, work=DyingWork(**fields, dies_at=dies_at, mark=mark))


def losses(root: Path) -> dict[int, float]:
    """Return step -> loss of the log of a training."""
    lines = (root / "work" / "training" / "log.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len({line["step"] for line in found}) == len(found)
    return {line["step"]: line["loss"] for line in found}
