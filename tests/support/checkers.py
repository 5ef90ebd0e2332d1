"""Checks for files that are not Python: external checkers, and the options of the `ray` commands."""

import subprocess
import sys
from pathlib import Path

from ray.scripts.scripts import cli as ray_cli

from tests.support.paths import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
BIN = Path(sys.executable).parent


def run_checker(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and not result.stdout, result.stdout + result.stderr


def options_of(command: str) -> set[str]:
    """Return the options that `ray COMMAND` accepts."""
    return {name for parameter in ray_cli.commands[command].params for name in parameter.opts}
