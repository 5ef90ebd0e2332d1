"""Time and memory of planning: a large input for the first and second time, and the listing of many finished chunks."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fake_model import write_shards
from pipelines.dataset import layout
from pipelines.planning.plan import make_plan
from pipelines.readers.measure import measure as measure_shards
from pipelines.readers.shards import find_shards
from pipelines.samples import Columns, chunk_name, version_stem
from pipelines.storage.file_info import HASH_DIGITS

CONFIGURATION = "0" * HASH_DIGITS


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--samples", type=int, default=1_000, help="samples per shard (default: %(default)s)")
    parser.add_argument("--marks", type=int, default=100_000, help="finished chunks to list (default: %(default)s)")
    parser.add_argument("--chunk-size", type=int, default=64)


def measure(options: Namespace) -> dict[str, Any]:
    """Measure each part in its own process, with its peak memory."""
    with tempfile.TemporaryDirectory() as name:
        inputs, output = Path(name) / "in", Path(name) / "out"
        copy_shards(inputs, options.shards, options.samples)
        arguments = (str(inputs), str(output), options.chunk_size)
        first = in_a_process(plan_input, *arguments)
        again = in_a_process(plan_input, *arguments)
        write_marks(output, options.marks)
        listing = in_a_process(list_marks, str(output))
        finished = in_a_process(plan_input, *arguments)
    return {"first": first, "again": again, "listing": listing, "with finished chunks": finished}


def copy_shards(folder: Path, shards: int, samples: int) -> None:
    """Write copies of one tar of tiny images; planning reads only the headers."""
    first = write_shards(folder, 1, samples, 16) / "00000.tar"
    for number in range(1, shards):
        shutil.copyfile(first, folder / f"{number:05d}.tar")


def write_marks(output: Path, count: int) -> None:
    """Write finished chunks of shards outside the input, with empty data files, which nothing opens."""
    for folder in ("data", "_chunks/done"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        fingerprint = "1" * HASH_DIGITS
        name = chunk_name("old", f"/old/{number // 16}.tar", fingerprint, number * 64, number * 64 + 64, CONFIGURATION)
        stem = version_stem(name, 64, [])
        Path(layout.data_uri(str(output), stem)).touch()
        Path(layout.mark_uri(str(output), stem)).touch()


def plan_input(inputs: str, output: str, chunk_size: int) -> dict[str, Any]:
    """Plan a run and time the steps."""
    began = time.perf_counter()
    shards = find_shards([inputs], exclude=output)
    found = time.perf_counter()
    listing = layout.list_output(output)
    listed = time.perf_counter()
    measured = measure_shards(shards, Columns(), output)
    counted = time.perf_counter()
    plan = make_plan(measured, listing, CONFIGURATION, chunk_size)
    return {
        "samples": plan.samples,
        "chunks": len(plan.chunks),
        "find_s": found - began,
        "list_s": listed - found,
        "count_s": counted - listed,
        "cut_s": time.perf_counter() - counted,
        "whole_s": time.perf_counter() - began,
    }


def list_marks(output: str) -> dict[str, Any]:
    """Time the listing with which every run begins and ends."""
    began = time.perf_counter()
    listing = layout.list_output(output)
    return {"marks": len(listing.finished), "list_s": time.perf_counter() - began}


def in_a_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run `work` in a new process; return its result, its peak memory, and the part that the work added."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_memory, (work, arguments))


def _with_memory(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = work(*arguments)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        **result,
        "peak_rss_mb": round(peak_kb / 1e3, 1),
        "of_which_by_the_work_mb": round((peak_kb - before_kb) / 1e3, 1),
    }
