#!/usr/bin/env python3
"""From images to a new adapter and back: the whole loop of a corpus, with the commands that users run.

    python -m benchmarks.new_adapter --work out/adapter

1. Render scenes, and other ones that are used for measuring only.
2. Build a corpus of each: Canny edges (controlnet-aux) and depth (UniCon with `mini`).
3. Train a new adapter, `canny`, for `mini` on the first corpus. A second one, `untrained`, stops after its first step.
4. With both, estimate Canny edges of the unseen images, and generate images that follow given Canny edges.
5. Measure the edges against those of Canny (F1 within one pixel, correlation), and the Canny edges of the generated
   images against those that they should follow (correlation; shuffled: with those of another image).

Prints every command before it runs, the seconds of each, and a table. The same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pipeline import hardware, rounded

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = ("untrained", "canny")
TRAINING_SEED, UNSEEN_SEED = 31, 131
OPTIONS = {"detect_px": 128, "low_threshold": 40, "high_threshold": 80}
"""Options of Canny for the small, faint pictures of rendered scenes."""
CANNY = ",".join(["canny=controlnet-aux:canny", *(f"{name}={value}" for name, value in OPTIONS.items())])


@dataclass(kw_only=True)
class Loop:
    """The commands of one run, in a folder."""

    work: Path
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each command, by its name."""

    def run(self, name: str, job: str, *words: str | Path) -> None:
        """Print a command and run it. Raises SystemExit with its exit code if it fails."""
        command = [f"jobs/{job}.py", *map(str, words)]
        print(f"\n$ python {shlex.join(command)}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
        self.seconds[name] = time.monotonic() - began
        if code:
            raise SystemExit(code)

    def build(self, scenes: str, corpus: str, count: int, seed: int) -> None:
        """Render scenes and build their corpus."""
        self.run(
            f"render {scenes}", "render_scenes", "--output", self.work / scenes, "--count", str(count),
            "--seed", str(seed),
        )  # fmt: skip
        self.run(
            f"build {corpus}", "build_corpus", "--input", self.work / scenes, "--output", self.work / corpus,
            "--condition", CANNY, "--condition", "depth=unicon", "--preset", "fast",
        )  # fmt: skip

    def train(self, name: str, steps: int, batch_size: int) -> None:
        """Train an adapter for Canny edges on the corpus, with as many steps for estimates as for pairs."""
        self.run(
            f"train {name}", "train_adapter", "--model", "mini", "--corpus", self.work / "corpus",
            "--condition", f"{name}=edge:canny", "--steps", str(steps), "--batch-size", str(batch_size),
            "--learning-rate", "1e-3", "--single-step-share", "0.5", "--clean-condition-fraction", "0.5",
            "--work", self.work / f"training-{name}", "--output", self.work / "adapters" / name,
        )  # fmt: skip

    def use(self, name: str) -> None:
        """Estimate the edges of the unseen images, generate images from true edges, and find the edges of these."""
        adapter = ["--adapter", f"{name}={self.work / 'adapters' / name / f'{name}.safetensors'}"]
        unseen, images = self.work / "unseen-corpus", self.work / f"images-{name}"
        self.run(f"estimate {name}", "estimate", "--input", unseen, "--output", self.work / f"edges-{name}",
                 "--condition", name, *adapter)  # fmt: skip
        self.run(f"synthesize {name}", "synthesize", "--input", unseen, "--output", images,
                 "--condition", f"{name}=canny", *adapter)  # fmt: skip
        options = [word for pair in OPTIONS.items() for word in ("--engine-option", "{}={}".format(*pair))]
        self.run(f"edges of images {name}", "estimate", "--input", images, "--output", self.work / f"again-{name}",
                 "--engine", "controlnet-aux:canny", "--condition", "canny", *options)  # fmt: skip

    def measured(self, name: str) -> dict[str, Any]:
        """Compare the results of an adapter with the edges of Canny."""
        predictions = {"estimates": (f"edges-{name}", name), "images": (f"again-{name}", "canny")}
        found: dict[str, Any] = {}
        for what, (folder, column) in predictions.items():
            for measure in ("accuracy", "correlation") if what == "estimates" else ("correlation",):
                path = self.work / f"{what}-{measure}-{name}.json"
                self.run(
                    f"evaluate {what} {name}", "evaluate", "--condition", "canny", "--kind", "edge",
                    "--measure", measure, "--predictions", self.work / folder, "--prediction-column", column,
                    "--truth", self.work / "unseen-corpus", "--json", path,
                )  # fmt: skip
                found[f"{what}_{measure}"] = json.loads(path.read_text())
        return found


def table(results: dict[str, dict[str, Any]]) -> str:
    """Format the results of the adapters, one line each."""
    lines = [f"{'':<12}{'F1':>8}{'corr.':>8}{'shuffled':>10}{'images, corr.':>15}{'shuffled':>10}"]
    for name, found in results.items():
        (numbers,) = (row for key, row in found["estimates_accuracy"]["metrics"].items() if key == "UniCon")
        estimates, images = found["estimates_correlation"]["correlation"], found["images_correlation"]["correlation"]
        lines.append(
            f"{name:<12}{numbers['f1']:>8.3f}{estimates['matched']:>8.3f}{estimates['shuffled']:>10.3f}"
            f"{images['matched']:>15.3f}{images['shuffled']:>10.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the loop, print the table, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/adapter"), help="folder (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=800, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--unseen", type=int, default=64, help="scenes to measure on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="training steps (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a step (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args()
    loop, began = Loop(work=options.work.resolve()), time.monotonic()
    loop.build("scenes", "corpus", options.scenes, TRAINING_SEED)
    loop.build("unseen-scenes", "unseen-corpus", options.unseen, UNSEEN_SEED)
    results = {}
    for name in ADAPTERS:
        loop.train(name, 1 if name == "untrained" else options.steps, options.batch_size)
        loop.use(name)
        results[name] = loop.measured(name)
    total_s = time.monotonic() - began
    print(f"\n{table(results)}\n\n{total_s / 60:.0f} minutes; pictures: {options.work}/images-canny/preview.png")
    if options.json:
        result = {
            "command": shlex.join(["python", "-m", "benchmarks.new_adapter", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "hardware": hardware(),
            "results": rounded({"seconds": {**loop.seconds, "all": total_s}, **results}),
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
