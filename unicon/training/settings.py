"""Keeping the settings of a training in its work folder, so that it resumes with the same settings or not at all.

Tested in tests/jobs/test_train_adapter.py and tests/unicon/training/mini/test_train.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STEPS = "steps"


def refuse_other_settings(work: object, known: dict[str, Any], settings: dict[str, Any]) -> None:
    """Compare the settings of a training that has a checkpoint with those of the command that resumes it.

    More steps are allowed, and reported on stderr.

    Args:
        work: The work folder, or what else holds the training, for the message.
        known: The settings that were kept. Settings that an earlier version did not keep are not compared.
        settings: The settings of the command.

    Raises:
        ValueError: A setting differs, or there are fewer steps.
    """
    other = {
        key: (known[key], value)
        for key, value in settings.items()
        if key in known and known[key] != value and not (key == STEPS and known[key] < value)
    }
    if other:
        raise ValueError(
            f"A work folder resumes the training it began; {work} differs in (its, this run's) {other}. "
            "Give the same settings, or another work folder."
        )
    if STEPS in known and STEPS in settings and known[STEPS] < settings[STEPS]:
        print(
            f"training continues to {settings[STEPS]} steps instead of {known[STEPS]}: from here on the learning rate "
            "follows the longer schedule",
            file=sys.stderr,
        )


def keep_settings(path: Path, settings: dict[str, Any], *, has_begun: bool) -> None:
    """Write the settings to a file. Raises ValueError if they differ from those of a training that has begun."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and has_begun:
        refuse_other_settings(path.parent, json.loads(path.read_text()), settings)
    path.write_text(json.dumps(settings, indent=2) + "\n")
