"""What judges files that are not Python: foreign checkers, and the options that ray's commands know."""

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
    """The options of `ray COMMAND`."""
    return {name for parameter in ray_cli.commands[command].params for name in parameter.opts}
