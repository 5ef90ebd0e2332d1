"""The steps of a training on a corpus, as tasks that read them. Implements `pipelines.engine.step_stream.Steps`.

Tested in tests/pipelines/training/test_windows.py.
"""

from dataclasses import dataclass

from pipelines.training.checkpoints import StoredCheckpoints
from pipelines.training.corpus import PlannedCorpus
from pipelines.training.order import Order
from pipelines.training.windows import WindowReader, WindowRows


@dataclass(frozen=True, kw_only=True)
class CorpusSteps:
    """What remains of a training on a corpus."""

    corpus: PlannedCorpus
    reader: WindowReader
    checkpoints: StoredCheckpoints
    steps: int
    """Number of steps of the whole training."""

    def tasks(self) -> list[WindowRows]:
        """Return the windows from the latest checkpoint on; after the last step that of the last one, never none."""
        return self.tasks_from(min(self.checkpoints.step(), self.steps - 1))

    def tasks_from(self, first_step: int) -> list[WindowRows]:
        """Return the windows that train the steps from `first_step` on."""
        groups, columns, columns_of = self.corpus.groups, self.corpus.columns, self.corpus.columns_of
        order = Order(
            [group.rows for group in groups],
            [group.size_bytes for group in groups],
            self.reader.batch_size,
            self.reader.seed,
        )
        return [
            WindowRows(
                window=window,
                groups=tuple(groups[at] for at in window.groups),
                columns=tuple(columns[columns_of[at]] for at in window.groups),
                first_step=first_step,
                stop_step=self.steps,
            )
            for window in order.windows(first_step, self.steps)
        ]
