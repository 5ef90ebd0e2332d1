"""Paths in this repository that tests read."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CASES = PROJECT_ROOT / "tests" / "cases"
GOLDEN = PROJECT_ROOT / "tests" / "golden"
MINI = PROJECT_ROOT / "unicon" / "models" / "mini"
