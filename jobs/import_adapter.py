#!/usr/bin/env python3
"""Turn a published UniCon adapter into one file of this project's format, or back; check it and say what it is."""

import hashlib
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._arguments import local_path, place
from pipelines import storage
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from unicon.adapters.config import AdapterConfig

EXAMPLES = """
examples:
  # a published folder (xy_lora/, yx_lora/, y_lora/, model.pth), or a folder of a hub repository
  python jobs/import_adapter.py checkpoints/depth --output adapters/depth.safetensors
  python jobs/import_adapter.py lixirui142/unicon/depth --output adapters/depth.safetensors

  # then
  python jobs/estimate_depth.py --input photos/ --output depth/ --model /models/sd15 \\
      --adapter adapters/depth.safetensors

  # one of ours as a published folder
  python jobs/import_adapter.py adapters/depth.safetensors --to published --output checkpoints/depth

Every tensor is checked by name and shape against the base model. No weights of the base are read.

exit codes:
  0 done   2 a wrong setting, or an adapter that does not fit
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "source",
        type=place,
        metavar="SOURCE",
        help="published folder, adapter file, or hub id OWNER/NAME or OWNER/NAME/FOLDER; of several the one of --name",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="PATH",
        help="file to write, or folder with --to published; a file that is no adapter of ours is not replaced",
    )
    parser.add_argument(
        "--to", choices=("unicon", "published"), default="unicon", help="format to write (default: %(default)s)"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="kind of condition (default: the one in the file, or the folder's name)"
    )
    parser.add_argument(
        "--base",
        type=place,
        metavar="MODEL",
        help="model that a published adapter was trained on: sd15, mini, a folder or a hub id (default: sd15)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    output: Path = options.output
    if output.is_dir() and (options.to == "unicon" or any(output.iterdir())):
        raise SettingError(f"--output {options.output}: there is a folder already. Name a file, or an empty folder.")
    _cli.check_adapter_output(output)
    if options.to == "published" and output.exists() and not output.is_dir():
        raise SettingError(f"--output {output}: a published adapter is a folder, and there is a file. Name a folder.")
    storage.check_writable("--output", str(output))
    if "://" in options.source:
        raise SettingError(
            f"{options.source!r} is in an object store; this command reads adapters of this machine or the hub. Copy "
            "it to a folder here."
        )
    try:
        print("\n".join(convert(options, output)))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise SettingError(str(error)) from error
    return 0


def convert(options: Namespace, output: Path) -> list[str]:
    """Read, check, write; returns what was found, a line each.

    Raises:
        FileNotFoundError, ValueError: no adapter, or one that does not fit.
    """
    from unicon.adapters.checkpoint import check_tensors, save_adapter
    from unicon.adapters.official import find_adapter, save_published, unet_without_weights
    from unicon.adapters.unet import adapter_shapes, add_adapter, transformer_blocks

    source = find_adapter(options.source, options.name)
    config, shape, tensors = _read(source, options)
    unet = unet_without_weights(shape)
    base = f"{options.source} on {shape if isinstance(shape, str) else 'the base that it names'}"
    check_tensors(adapter_shapes(unet, config), tensors, f"{base} (--base chooses another)")
    add_adapter(unet, config)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:  # so that --output is whole or not there
        partial = Path(folder) / output.name
        if options.to == "published":
            save_published(unet, config.name, partial, tensors=tensors)
        else:
            save_adapter(unet, config.name, partial, tensors=tensors)
        _replace(partial, output)
    blocks = sum(1 for _ in transformer_blocks(unet))
    return _facts(config, tensors, blocks, output)


def _read(source: Path, options: Namespace) -> "tuple[AdapterConfig, str | Mapping[str, Any], Mapping[str, Any]]":
    """(configuration, base or shape of its UNet, tensors under our names)."""
    from safetensors.torch import load_file

    from unicon.adapters.checkpoint import read_config
    from unicon.adapters.official import SD15, read_published
    from unicon.conditions import CONDITIONS
    from unicon.files.inspection import check_weights
    from unicon.files.official import check_published_files

    if source.is_dir():
        check_published_files(source)
        name = options.name or source.resolve().name
        if name not in CONDITIONS:
            raise SettingError(
                f"a published adapter does not say its kind, and {name!r} is none of {', '.join(CONDITIONS)}. "
                "Say it with --name."
            )
        config, tensors = read_published(source, name)
        return config, options.base or SD15, tensors
    if options.base is not None:
        raise SettingError(f"--base is for published adapters; {source} knows the shape of its base model.")
    config, shape = read_config(source)
    check_weights(source)
    return replace(config, name=options.name or config.name), shape, load_file(source)


def _replace(partial: Path, output: Path) -> None:
    if output.is_dir():  # empty
        output.rmdir()
    if partial.is_dir():
        shutil.move(partial, output)
    else:
        os.replace(partial, output)


def _facts(config: "AdapterConfig", tensors: Mapping[str, Any], blocks: int, output: Path) -> list[str]:
    files = [output] if output.is_file() else sorted(path for path in output.rglob("*") if path.is_file())
    condition_adapter = "with" if config.condition_adapter else "without"
    return [
        f"kind        {config.kind}" + ("" if config.name == config.kind else f", called {config.name}"),
        f"LoRA        rank {config.rank}, alpha {config.alpha:g}, {condition_adapter} condition adapter",
        *([f"annotator   {config.annotator}"] if config.annotator else []),
        f"projection  {config.projection}",
        f"blocks      {blocks}",
        f"parameters  {sum(tensor.numel() for tensor in tensors.values()):,} in {len(tensors)} tensors",
        *(f"sha256      {hashlib.sha256(path.read_bytes()).hexdigest()}  {path}" for path in files),
    ]


if __name__ == "__main__":
    _cli.finish(main)
