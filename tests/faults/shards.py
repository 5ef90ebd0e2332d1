"""A fault in which the input changes while a run reads it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.faults.work import (
    PARQUET,
    SIZE_PX,
    TAR,
    Outcome,
    Work,
    finish,
    local_work,
    running,
    wait_for_moment,
)
from tests.support.inputs import encoded_image, write_parquet, write_tar

Change = Callable[[Work, Random], Work]
"""Changes the input and returns the work with the new expected result."""


def shard_change(folder: Path, random: Random) -> Outcome:
    """Rewrite a tar or Parquet file, or change, add or remove a loose image, at a random moment.

    The same command is run at least once more. The final input determines the expected output.
    """
    work = local_work(folder)
    name = random.choice(list(CHANGES))
    with running(work) as process:
        wait_for_moment(random, work, process, start_up=True)
        work = CHANGES[name](work, random)
        return finish(work, process, {name: 1}, fewest_runs=2)


def _rewrite_tar(work: Work, random: Random) -> Work:
    images = _others("tar", random)
    members = [(f"{key}.jpg", content) for key, content in images.items()]
    _write(Path(work.inputs) / TAR, random, lambda path: write_tar(path, members))
    return _instead(work, "tar", images)


def _rewrite_parquet(work: Work, random: Random) -> Work:
    images = _others("row", random)
    columns = {"key": [*images], "image": [*images.values()]}
    _write(Path(work.inputs) / PARQUET, random, lambda path: write_parquet(path, columns))
    return _instead(work, "row", images)


def _change_image(work: Work, random: Random) -> Work:
    key = random.choice(_images(work))
    return _with_image(work, random, key)


def _add_image(work: Work, random: Random) -> Work:
    return _with_image(work, random, f"c/{random.choice(('a-first', 'file0002b', 'z-last'))}.jpg")


def _remove_image(work: Work, random: Random) -> Work:
    """Remove an image; its row may stay, as it was correct when it was written."""
    key = random.choice(_images(work))
    (Path(work.inputs) / key).unlink()
    return replace(work, may_be_gone=frozenset({key}))


CHANGES: Mapping[str, Change] = {
    "tar": _rewrite_tar,
    "parquet": _rewrite_parquet,
    "image changed": _change_image,
    "image added": _add_image,
    "image removed": _remove_image,
}


def _others(prefix: str, random: Random) -> dict[str, bytes]:
    """Create new images for some of the previous keys and for some new keys."""
    first, count = random.randrange(6), random.randrange(8, 24)
    return {f"{prefix}{n:04d}": encoded_image(n + 1000, (SIZE_PX, SIZE_PX)) for n in range(first, first + count)}


def _instead(work: Work, prefix: str, images: Mapping[str, bytes]) -> Work:
    kept = {key: content for key, content in work.images.items() if not key.startswith(prefix)}
    return replace(work, images={**kept, **images})


def _images(work: Work) -> list[str]:
    return [key for key in work.images if key.startswith("c/")]


def _with_image(work: Work, random: Random, key: str) -> Work:
    content = encoded_image(random.randrange(2000, 3000), (SIZE_PX, SIZE_PX))
    _write(Path(work.inputs) / key, random, lambda path: path.write_bytes(content))
    return replace(work, images={**work.images, key: content})


def _write(path: Path, random: Random, write: Callable[[Path], object]) -> None:
    """Write in place, or to a temporary name with an atomic rename."""
    if random.random() < 0.5:
        write(path)
    else:
        other = path.with_name(f".{path.name}.new")
        write(other)
        os.replace(other, path)
