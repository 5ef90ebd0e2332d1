#!/usr/bin/env python3
"""Convert a UniCon adapter between the published format and this project's single-file format, and describe it."""

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
from jobs._arguments import local_path, location
from pipelines import storage
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from unicon.adapters.config import AdapterConfig

EXAMPLES = """
examples:
  # a folder in the published format (xy_lora/, yx_lora/, y_lora/, model.pth), or a folder of a hub repository
  python jobs/import_adapter.py checkpoints/depth --output adapters/depth.safetensors
  python jobs/import_adapter.py lixirui142/unicon/depth --output adapters/depth.safetensors

  # use the result
  python jobs/estimate_depth.py --input photos/ --output depth/ --model /models/sd15 \\
      --adapter adapters/depth.safetensors

  # from this project's format to the published format
  python jobs/import_adapter.py adapters/depth.safetensors --to published --output checkpoints/depth

The names and shapes of all tensors are checked against the base model. Its weights are not read.

exit codes:
  0 complete   2 wrong setting, or an adapter that does not fit the base model
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "source",
        type=location,
        metavar="SOURCE",
        help="folder in the published format, adapter file, or hub id OWNER/NAME or OWNER/NAME/FOLDER; --name chooses "
        "from a repository with several adapters",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="PATH",
        help="file to write, or folder with --to published; only adapter files of this project are replaced",
    )
    parser.add_argument(
        "--to", choices=("unicon", "published"), default="unicon", help="format to write (default: %(default)s)"
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="kind of the condition (default: as recorded in the file, or the name of the folder)",
    )
    parser.add_argument(
        "--base",
        type=location,
        metavar="MODEL",
        help="base model of an official adapter: sd15, mini, a folder or a hub id (default: sd15)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    output: Path = options.output
    if output.is_dir() and (options.to == "unicon" or any(output.iterdir())):
        raise SettingError(
            f"--output {options.output} is an existing folder. Choose the name of a file, or an empty folder with --to "
            "published."
        )
    _cli.check_adapter_output(output)
    if options.to == "published" and output.exists() and not output.is_dir():
        raise SettingError(
            f"--output {output} is a file, but an official adapter is a folder. Choose the name of a folder."
        )
    storage.check_writable("--output", str(output))
    if "://" in options.source:
        raise SettingError(
            f"{options.source!r} is in an object store, but this command reads local adapters or the hub. Copy it to a "
            "local folder."
        )
    try:
        print("\n".join(convert(options, output)))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise SettingError(str(error)) from error
    return 0


def convert(options: Namespace, output: Path) -> list[str]:
    """Read, check and write an adapter, and return a description in lines.

    Raises:
        FileNotFoundError: There is no adapter.
        ValueError: The adapter does not fit the base model.
    """
    from unicon.adapters.checkpoint import check_tensors, save_adapter
    from unicon.adapters.official import save_official, unet_without_weights
    from unicon.adapters.unet import adapter_shapes, add_adapter, transformer_blocks
    from unicon.files.adapters import find_adapter

    source = find_adapter(options.source, options.name)
    config, shape, tensors = _read(source, options)
    unet = unet_without_weights(shape)
    base = f"{options.source} on {shape if isinstance(shape, str) else 'the base model that it names'}"
    check_tensors(adapter_shapes(unet, config), tensors, f"{base} (--base chooses another model)")
    add_adapter(unet, config)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:  # so that --output is complete or absent
        partial = Path(folder) / output.name
        if options.to == "published":
            save_official(unet, config.name, partial, tensors=tensors)
        else:
            save_adapter(unet, config.name, partial, tensors=tensors)
        _replace(partial, output)
    blocks = sum(1 for _ in transformer_blocks(unet))
    return _facts(config, tensors, blocks, output)


def _read(source: Path, options: Namespace) -> "tuple[AdapterConfig, str | Mapping[str, Any], Mapping[str, Any]]":
    """Return the configuration, the base model or the shape of its UNet, and the tensors under this project's names."""
    from safetensors.torch import load_file

    from unicon.adapters.config import read_config
    from unicon.adapters.official import SD15, read_official
    from unicon.condition_kinds import CONDITION_KINDS
    from unicon.files.headers import check_weights
    from unicon.files.official import check_official_files

    if source.is_dir():
        check_official_files(source)
        name = options.name or source.resolve().name
        if name not in CONDITION_KINDS:
            raise SettingError(
                f"An official adapter does not record its kind, and {name!r} is not one of "
                f"{', '.join(CONDITION_KINDS)}. Give the kind with --name."
            )
        config, tensors = read_official(source, name)
        return config, options.base or SD15, tensors
    if options.base is not None:
        raise SettingError(
            f"--base applies to official adapters only; {source} records the shape of its base model. Remove --base."
        )
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
