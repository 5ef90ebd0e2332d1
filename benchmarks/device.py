#!/usr/bin/env python
"""Everything that needs a GPU, as one command that ends in time.

    python benchmarks/device.py --output results/ --minutes 9

Runs the steps below in order of value, each in a process of its own with a time limit, and stops when the minutes are
used up. Every step writes its own JSON file into the output folder; `summary.json` is replaced after every step and
tells the exit code, the seconds and the last lines of each. A step that fails or runs out of time does not stop the
others. With `--device cpu --small`, all steps run on a CPU with small settings, as a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAST_LINES = 25
SHORTEST_STEP_S = 15.0
"""A step is not started with less time than this left."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command with a time limit."""

    name: str
    words: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a step."""

    name: str
    command: str
    seconds: float
    exit_code: int | None
    """None if the time limit ended it."""
    last_lines: str


def main() -> int:
    """Run the steps. Returns 1 if one of them failed or was not run."""
    options = parse()
    output: Path = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    ends_at = time.monotonic() + 60 * options.minutes
    steps, outcomes = steps_of(options, output), []
    for step in steps:
        left_s = ends_at - time.monotonic()
        if left_s < SHORTEST_STEP_S:
            break
        outcomes.append(run(step, min(step.limit_s, left_s), output))
        summary = {"date": date.today().isoformat(), "not run": [each.name for each in steps[len(outcomes) :]]}
        summary["steps"] = [asdict(outcome) for outcome in outcomes]
        (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        print(f"{outcomes[-1].name}: exit code {outcomes[-1].exit_code}, {outcomes[-1].seconds:.0f} s", flush=True)
    return 0 if len(outcomes) == len(steps) and all(outcome.exit_code == 0 for outcome in outcomes) else 1


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all steps together (default: %(default)s)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", type=Path, default=Path("/tmp/sd15"), help="where the random model is written")
    parser.add_argument("--small", action="store_true", help="small settings, to rehearse the steps on a CPU")
    return parser.parse_args()


def steps_of(options: argparse.Namespace, output: Path) -> list[Step]:
    """Return the steps in order of value."""
    small, device = options.small, options.device
    model = "mini" if small else str(options.model)
    shape = ("mini", "8") if small else ("sd15", "16")
    dtype = "float32" if device == "cpu" else "float16"
    images, batch = ("4", "2") if small else ("64", "16")
    rates = ("benchmarks/throughput.py", "--model", model, "--device", device, "--dtype", dtype, "--images", images)
    rates += ("--batch-size", batch, "--rounds", "1" if small else "2")
    job = ("benchmarks/pipeline.py", "efficiency", "--model", model, "--samples", "32" if small else "512")
    job += ("--size-px", "128" if small else "512", "--batch-size", batch)
    return [
        *([] if small else [_step("model", 60, "benchmarks/random_sd15.py", "--output", model, "--device", device)]),
        _json(output, "engine", 170, "benchmarks/engine.py", "--shape", shape[0], "--rows", shape[1],
              "--device", device, "--dtype", dtype, "--compile"),
        _json(output, "one-step", 200, *rates, "--compile", "always", "--modes", "1 step", "1 step, small decoder"),
        _json(output, "modes", 90, *rates),
        _json(output, "training", 100, "benchmarks/training.py", "--device", device,
              *(("--batch-size", "2", "--rounds", "1") if small else ("--batch-size", "512", "--compile"))),
        _json(output, "job-10-steps", 120, *job, "--steps", "10"),
        _json(output, "job-1-step", 90, *job, "--steps", "1"),
        _json(output, "compilation", 120, "benchmarks/compilation.py", "--device", device),
        _step("tests", 90, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unicon",
              "-k" if small else "-m", "golden" if small else "gpu"),
    ]  # fmt: skip


def _step(name: str, limit_s: float, *words: str) -> Step:
    return Step(name=name, words=words, limit_s=limit_s)


def _json(output: Path, name: str, limit_s: float, *words: str) -> Step:
    """Return a step that writes its result to a file of its name."""
    return Step(name=name, words=(*words, "--json", str(output / f"{name}.json")), limit_s=limit_s)


def run(step: Step, limit_s: float, output: Path) -> Outcome:
    """Run a step for at most `limit_s` seconds; everything it prints goes to a log file at once."""
    command = [sys.executable, *step.words]
    log, began = output / f"{step.name}.log", time.monotonic()
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=limit_s
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = None
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return Outcome(
        name=step.name, command=" ".join(step.words), seconds=round(time.monotonic() - began, 1), exit_code=code,
        last_lines="\n".join(lines),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
