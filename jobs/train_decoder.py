#!/usr/bin/env python3
"""Train a small decoder of condition maps for a model, which makes estimates cheaper (--map-decoder small)."""

import json
import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._adapter_training import choose_device, report_as
from jobs._arguments import integer, local_path, location, number
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from torch import Tensor

    from unicon.training.decoder import DecoderRecipe

KINDS = ("depth", "edge", "pose")
SCENES = 500
BIASES_LEARN_SLOWER = 5
"""Learning rate of the kernels over that of the biases."""
EXAMPLES = """
examples:
  # from rendered scenes, for the model that is included
  python jobs/train_decoder.py --model mini --work runs/decoder --output decoders/mini

  # for Stable Diffusion, from depth maps and edges that you have
  python jobs/train_decoder.py --model /models/stable-diffusion-v1-5 --maps depth=depths/ --maps edge=edges/ \\
      --work runs/decoder

An estimate with one step needs more operations in the decoder of the autoencoder than in the UNet. Maps are simpler
than photographs; this decoder has a fiftieth of the cost for Stable Diffusion. It is trained to make what the
autoencoder's own decoder makes, and is written to MODEL/decoders/maps. Images are always decoded by the autoencoder.

The command ends with the differences from the autoencoder's decoder on held-out maps, and with the costs of both. Look
at them before you use it:
  python jobs/estimate.py --condition depth --input photos/ --output depth/ --model /models/stable-diffusion-v1-5 \\
      --map-decoder small
  UniCon.from_pretrained("/models/stable-diffusion-v1-5").estimate(images, map_decoder="small")

Run the same command again to continue after a crash or Ctrl-C. --work receives the scenes, the checkpoints, log.jsonl
and report.json.

exit codes:
  0 complete   2 wrong setting   130 interrupted; run the same command again to continue
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--model",
        required=True,
        type=location,
        metavar="NAME",
        help="mini, a Stable Diffusion folder in the diffusers layout, or a hub id",
    )
    data.add_argument(
        "--maps",
        type=kind_and_folder,
        action="append",
        default=[],
        metavar="KIND=DIR",
        help=f"folder of condition maps as this project stores them; KIND is {', '.join(KINDS)}; repeatable (default: "
        "rendered scenes of all kinds)",
    )
    data.add_argument(
        "--scenes",
        type=integer(16, 100_000),
        metavar="N",
        help=f"number of rendered scenes, if there is no --maps (default: {SCENES})",
    )
    data.add_argument(
        "--output", type=local_path, metavar="DIR", help="folder to write the decoder to (default: MODEL/decoders/maps)"
    )
    data.add_argument("--work", required=True, type=local_path, metavar="DIR", help="folder for scenes and checkpoints")
    _add_training_options(parser)
    return parser.parse_args(arguments)


def kind_and_folder(text: str) -> tuple[str, Path]:
    """Parse `KIND=DIR` of `--maps`."""
    kind, _, folder = text.partition("=")
    if kind not in KINDS or not folder.strip():
        raise ArgumentTypeError(
            f"expected KIND=DIR with a kind of {', '.join(KINDS)}, such as depth=depths/; got {text!r}"
        )
    return kind, local_path(folder)


def _add_training_options(parser: _cli.Parser) -> None:
    recipe = parser.add_argument_group("training")
    recipe.add_argument(
        "--width",
        type=integer(4, 1024),
        metavar="N",
        help="channels of the finest layers; the cost grows with the square (default: half of the autoencoder's, "
        "64 for Stable Diffusion, and at least 20)",
    )
    for option, kind, default, text in (
        ("--steps", integer(1), 3000, "optimizer steps"),
        ("--batch-size", integer(1, 65_536), 4, "maps per step"),
        ("--learning-rate", number(1e-9, 1), 1e-2, "peak learning rate of the kernels, trained by Muon"),
        ("--seed", integer(0), 0, "seed of all random numbers"),
        ("--checkpoint-every", integer(1), 500, "steps between checkpoints"),
    ):
        metavar = "X" if isinstance(default, float) else "N"
        recipe.add_argument(option, type=kind, default=default, metavar=metavar, help=f"{text} (default: %(default)s)")
    recipe.add_argument("--device", metavar="NAME", help="cuda, cuda:1 or cpu (default: a GPU if there is one)")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    folders = map_folders(options)
    from unicon.files.folder import find_folder

    folder = report_as("--model", lambda: find_folder(options.model))
    output = output_of(options, folder)
    check_writable(output, options.work)
    device = choose_device(options.device)
    for line in train(options, folder, folders, output, device):
        print(line)
    print(f"{output}: {options.steps} steps", file=sys.stderr)
    return 0


def map_folders(options: Namespace) -> dict[str, Path]:
    """Return the folder of every kind of maps; empty for rendered scenes.

    Raises:
        SettingError: A kind is repeated, or --scenes would have no effect.
    """
    folders = dict(options.maps)
    if len(folders) < len(options.maps):
        raise SettingError("--maps is given twice for a kind. Put the maps of a kind into one folder.")
    if folders and options.scenes is not None:
        raise SettingError(
            f"--scenes {options.scenes} are rendered where there is no --maps. Remove one of the options."
        )
    return folders


def output_of(options: Namespace, folder: Path) -> Path:
    """Return the folder for the decoder.

    Raises:
        SettingError: It holds something else, or would be in the cache of the hub.
    """
    from unicon.files.decoders import MAP_DECODER, foreign_content
    from unicon.files.hub import commit_of

    if options.output is None and commit_of(folder) is not None:
        raise SettingError(
            f"--model {options.model} is in the cache of the hub, where nothing is written. Copy the model to a folder "
            "of your own, or give --output."
        )
    output = options.output or folder / MAP_DECODER
    foreign = foreign_content(output)
    if foreign:
        raise SettingError(
            f"--output {output} has content that this command did not write and will not replace ({foreign}). Choose "
            "an empty or new folder."
        )
    return output


def check_writable(output: Path, work: Path) -> None:
    """Raise `SettingError` unless both folders can be written."""
    from pipelines import storage

    for option, folder in (("--output", output), ("--work", work)):
        storage.check_writable(option, str(folder), ("",))


def train(options: Namespace, folder: Path, folders: dict[str, Path], output: Path, device: str) -> list[str]:
    """Train from the beginning or from the latest checkpoint, write the decoder, and return the lines of its report."""
    from unicon.training.decoder import data_settings, distill, load_teacher
    from unicon.training.settings import keep_settings

    teacher = report_as("--model", lambda: load_teacher(folder, device))
    recipe = recipe_of(options, teacher.finest_width, device)
    settings = report_as("--maps", lambda: data_settings(folder, folders, options.scenes or SCENES))
    settings |= {name: getattr(options, name) for name in ("steps", "batch_size", "learning_rate", "seed")}
    settings |= {"width": recipe.finest_width}
    begun = (options.work / "training" / "state.pt").exists()
    report_as("--work", lambda: keep_settings(options.work / "settings.json", settings, has_begun=begun))
    maps = report_as("--maps", lambda: maps_of(options, folders, teacher.native_px))
    comparison = report_as("--work", lambda: distill(teacher, maps, recipe, options.work, output))
    (options.work / "report.json").write_text(json.dumps(comparison.as_dict(), indent=2) + "\n")
    return comparison.lines()


def recipe_of(options: Namespace, width: int, device: str) -> "DecoderRecipe":
    """Return the recipe of a command line; `width` is the default of `--width`."""
    from unicon.devices import training_dtype
    from unicon.training.decoder import DecoderRecipe
    from unicon.training.fit import FitConfig

    dtype = training_dtype(device)
    fit = FitConfig(
        steps=options.steps,
        learning_rate=options.learning_rate / BIASES_LEARN_SLOWER,
        matrix_learning_rate=options.learning_rate,
        warmup_steps=min(100, options.steps // 10),
        autocast_dtype=None if dtype == "float32" else dtype,
        checkpoint_every=options.checkpoint_every,
        log_every=min(50, options.checkpoint_every, options.steps),
        seed=options.seed,
    )
    return DecoderRecipe(fit=fit, finest_width=options.width or width, batch_size=options.batch_size)


def maps_of(options: Namespace, folders: dict[str, Path], side_px: int) -> "dict[str, Tensor]":
    """Return the maps of every kind: those of the folders, or of rendered scenes."""
    from unicon.training.decoder_maps import num_held_out, read_maps, scene_maps

    maps = read_maps(folders, side_px) if folders else scene_maps(
        options.work / f"scenes-{side_px}", options.scenes or SCENES, side_px
    )  # fmt: skip
    for rows in maps.values():
        num_held_out(len(rows))
    return maps


if __name__ == "__main__":
    _cli.finish(main)
