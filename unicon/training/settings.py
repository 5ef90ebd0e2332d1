"""The settings that a work folder keeps of its training, so that it goes on with the same ones or not at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STEPS = "steps"


def refuse_other_settings(work: Path, known: dict[str, Any], settings: dict[str, Any]) -> None:
    """Compare the settings of a training that has a checkpoint with those of the command that goes on with it.

    known: as they were kept; what an earlier version did not keep is not compared. More steps are legitimate, and said.

    Raises:
        ValueError: another setting, or fewer steps.
    """
    other = {
        key: (known[key], value)
        for key, value in settings.items()
        if key in known and known[key] != value and not (key == STEPS and known[key] < value)
    }
    if other:
        raise ValueError(
            f"A work folder goes on with the training it began; {work} differs in (its, this run's) {other}. "
            "Give the same settings, or another work folder."
        )
    if STEPS in known and STEPS in settings and known[STEPS] < settings[STEPS]:
        print(
            f"goes on to {settings[STEPS]} steps instead of {known[STEPS]}: from here on the learning rate follows the "
            "longer schedule",
            file=sys.stderr,
        )


def keep_settings(path: Path, settings: dict[str, Any], *, has_begun: bool) -> None:
    """Write settings down; refuse other ones than those of a training that has begun. Raises as above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and has_begun:
        refuse_other_settings(path.parent, json.loads(path.read_text()), settings)
    path.write_text(json.dumps(settings, indent=2) + "\n")
