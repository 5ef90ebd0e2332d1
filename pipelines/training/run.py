"""One run of a training on a corpus, from the checked settings to the exit code.

Tested in tests/jobs/test_train_corpus.py.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines import storage
from pipelines.engine.cluster import ray_session
from pipelines.engine.train import Scaling, run_training
from pipelines.errors import FlowError, SettingError, say
from pipelines.runs.interrupts import Interrupted, interrupts_raise
from pipelines.storage.store import FILES, Store
from pipelines.training.progress import TrainingProgress
from pipelines.training.steps import CorpusSteps
from pipelines.training.work import AdapterWork

SETTINGS_FILE = "settings.json"
EXIT_COMPLETE, EXIT_INCOMPLETE = 0, 1


@dataclass(frozen=True, kw_only=True)
class CorpusTraining:
    """A training with checked settings."""

    work: AdapterWork
    steps: CorpusSteps
    workers: tuple[int, int]
    """Smallest and largest number of workers."""
    device: str | None
    """cuda or cpu; None: GPUs if the cluster has any."""
    left_out: Mapping[str, int]
    """Reason -> number of rows that planning has left out."""


def run(training: CorpusTraining) -> int:
    """Train, tell about it on stderr, and return the exit code.

    Raises:
        SettingError: the cluster has too few machines, or the rows or settings are such that training cannot go on.
    """
    progress = TrainingProgress(training.steps.steps)
    try:
        with interrupts_raise(), ray_session() as resources:
            scaling, work = place(training, resources)
            run_training(work, training.steps, scaling, progress)
    except Interrupted as interrupt:
        say("\ninterrupted; run the same command again to continue from the latest checkpoint")
        return interrupt.exit_code
    except FlowError as error:
        return _stopped(error, progress)
    progress.end(dict(training.left_out))
    if progress.failure:
        raise SettingError(progress.failure)
    return EXIT_COMPLETE


def place(training: CorpusTraining, resources: Mapping[str, float]) -> tuple[Scaling, AdapterWork]:
    """Return the workers for a cluster with these resources, and what they do.

    Raises:
        SettingError: this machine has too few GPUs or CPUs. A cluster may still grow.
    """
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 1.0)
    uses_gpus = training.device == "cuda" or (training.device is None and gpus > 0)
    fewest, most = training.workers
    room, what = (gpus, "GPUs") if uses_gpus else (int(2 * cpus), "CPUs")
    if fewest > room and "RAY_ADDRESS" in os.environ:
        say(f"waiting until the cluster has {what} for {fewest} workers; it has {room} now")
    elif fewest > room:
        raise SettingError(
            f"--num-workers {fewest}: every worker needs {'a GPU' if uses_gpus else 'half a CPU'}; this machine has "
            f"{what} for {room}. Use fewer workers, or a cluster."
        )
    return Scaling(fewest=fewest, most=most, uses_gpus=uses_gpus), dataclasses.replace(
        training.work, uses_gpus=uses_gpus
    )


def keep_settings(work: str, settings: dict[str, Any], has_begun: bool, store: Store = FILES) -> None:
    """Keep the settings of a training in its work folder.

    Raises:
        SettingError: the folder holds a training with other settings, or files of something else.
    """
    from unicon.training.settings import refuse_other_settings

    uri = storage.join(work, SETTINGS_FILE)
    try:
        known = json.loads(store.read_bytes(uri))
    except FileNotFoundError:
        known = {}
    except ValueError:
        known = None
    if not isinstance(known, dict) or (known and "corpus" not in known):
        raise SettingError(
            f"--work: a work folder holds the files of its training; {uri} was not written by a training on a corpus "
            "and is not replaced. Choose another work folder."
        )
    if has_begun:
        try:
            refuse_other_settings(work, known, settings)
        except ValueError as error:
            raise SettingError(f"--work: {error}") from error
    store.publish(uri, (json.dumps(settings, indent=2) + "\n").encode())


def _stopped(error: FlowError, progress: TrainingProgress) -> int:
    """Tell why the workers stopped. Raises SettingError if another run would stop too."""
    progress.end({})
    if progress.out_of_memory:
        raise SettingError(
            f"The device ran out of memory ({progress.out_of_memory}). Add --gradient-checkpointing or "
            "--gradient-accumulation, more workers, or lower --batch-size or --resolution."
        ) from error
    say(f"stopped: {error}\nrun the same command again to continue from the latest checkpoint")
    return EXIT_INCOMPLETE
