"""Train UniCon and its rivals on the same rendered scenes, from the same base, and compare them.

    python -m benchmarks.rivals --work out/rivals --steps 200 --json out/rivals.json --sheet out/rivals.png
    python -m benchmarks.rivals --work out/rivals --steps 200 --only controlnet      # one of them, in this process

Every rival is trained and measured in a process of its own, one after the other, on one core. A rival whose result is
in the work folder is not repeated, and a training that was interrupted goes on where it stopped. docs/rivals.md
describes the comparison.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.rivals.base import MODEL, read_base, read_vae, train_base
from benchmarks.rivals.data import training_scenes, unseen_scenes
from benchmarks.rivals.field import FIELD
from benchmarks.rivals.measures import Judge, measure
from benchmarks.rivals.references import measure_references
from benchmarks.rivals.sheet import draw
from benchmarks.rivals.table import tables, write_into
from benchmarks.rivals.training import train
from unicon.files.folder import find_folder
from unicon.model import UniCon
from unicon.training.settings import keep_settings

ROOT = Path(__file__).resolve().parents[2]
RESULT_FILE, REFERENCES = "result.json", "references"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of scenes, base, checkpoints and results")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of every rival (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="pairs in a step (%(default)s)")
    parser.add_argument("--scenes", type=int, default=2000, help="scenes to train on (%(default)s)")
    parser.add_argument("--unseen", type=int, default=64, help="scenes to measure on (%(default)s)")
    parser.add_argument(
        "--base-steps",
        type=int,
        default=150,
        help="steps of plain denoising that turn mini into the base (%(default)s)",
    )
    parser.add_argument("--rivals", nargs="+", choices=FIELD, default=list(FIELD), help="which ones (all)")
    parser.add_argument("--only", choices=[*FIELD, REFERENCES], help="train and measure this one in this process")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--sheet", type=Path, help="draw what the rivals make of unseen scenes here")
    parser.add_argument("--page", type=Path, help="replace the tables of this page, such as docs/rivals.md")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, and print the table."""
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with sdpa_kernel(SDPBackend.MATH):  # on a CPU, fused attention is slower for so few tokens
        if options.only:
            run_one(options, options.only)
            return
        keep_settings(options.work / "settings.json", _settings(options), has_begun=(options.work / "base").exists())
        prepare(options)
        for name in (*options.rivals, REFERENCES):
            if not is_done(options, name):
                command = [sys.executable, "-m", "benchmarks.rivals", *_repeated(options), "--only", name]
                subprocess.run(command, check=True, cwd=ROOT)
        results = collect(options)
        if options.sheet:
            scenes = training_scenes(options.work, read_vae(find_folder(MODEL)), options.scenes)
            draw(options.work, options.rivals, scenes, options.sheet)
    print(written := tables(results))
    if options.page:
        write_into(options.page, written)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def is_done(options: argparse.Namespace, name: str) -> bool:
    """Whether the work folder has the result of a rival after that number of steps, or that of the references."""
    path = options.work / name / RESULT_FILE
    return path.exists() and json.loads(path.read_text()).get("steps", options.steps) == options.steps


def prepare(options: argparse.Namespace) -> Path:
    """Render the scenes and train the base, unless they are there. Returns the folder of the base."""
    scenes = training_scenes(options.work, read_vae(find_folder(MODEL)), options.scenes)
    return train_base(options.work, scenes, options.base_steps)


def run_one(options: argparse.Namespace, name: str) -> None:
    """Train and measure one rival, or measure the references, and write the result."""
    base = read_base(prepare(options))
    scenes = training_scenes(options.work, base.vae, options.scenes)
    folder, unseen = options.work / name, unseen_scenes(options.unseen)
    if name == REFERENCES:
        folder.mkdir(exist_ok=True)
        result = measure_references(base, scenes, unseen, Judge(UniCon.from_pretrained(MODEL, device="cpu")))
    else:
        rival = FIELD[name].build(base, scenes, options.batch_size)
        cost = train(rival, folder, options.steps)
        rival.load(folder)
        judge = Judge(UniCon.from_pretrained(MODEL, device="cpu"))
        result = {"title": FIELD[name].title, **cost, **measure(rival, unseen, judge)}
    (folder / RESULT_FILE).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: result}), flush=True)


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """All results, with the command, the hardware and the date."""
    names = (*options.rivals, REFERENCES)
    found = {name: json.loads((options.work / name / RESULT_FILE).read_text()) for name in names}
    unet = sum(each.numel() for each in read_base(options.work / "base").models.unet.parameters())
    return {
        "command": f"python -m benchmarks.rivals {' '.join(_repeated(options))}",
        "hardware": f"one thread of {platform.processor() or platform.machine()}, torch {torch.__version__}, float32",
        "date": date.today().isoformat(),
        "base_parameters": unet,
        **_settings(options),
        "rivals": {name: found[name] for name in options.rivals},
        REFERENCES: found[REFERENCES],
    }


def _settings(options: argparse.Namespace) -> dict[str, int]:
    """What cannot change in a work folder."""
    return {name: getattr(options, name) for name in ("steps", "batch_size", "scenes", "unseen", "base_steps")}


def _repeated(options: argparse.Namespace) -> list[str]:
    """The options for the process of one rival."""
    pairs = {"work": options.work.resolve(), **_settings(options)}
    return [text for name, value in pairs.items() for text in (f"--{name.replace('_', '-')}", str(value))]


if __name__ == "__main__":
    main()
