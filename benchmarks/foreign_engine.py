#!/usr/bin/env python
# transformers declares the configurations of backbones too narrowly.
# pyright: reportCallIssue=false
"""What the data plane costs a foreign engine: a job with a depth estimator of transformers, over its bare loop.

    python benchmarks/foreign_engine.py                              # Depth-Anything-V2-Small's shape, on this CPU
    python benchmarks/foreign_engine.py --shape large --side 518 --samples 4096 --dtype float16     # on a GPU

The weights are random, which costs the same as real ones. The bare loop is what one would write without this project,
with transformers alone: the image processor, the model, and the post-processing of batches of decoded images in memory,
to depth maps of 8 bits. It runs before and after the job; the goal is at most 1.05 in steady state. Prints JSON, which
--json FILE also writes to a file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.efficiency import WARM_CHUNKS, Times
from benchmarks.fake_model import write_shards
from benchmarks.pipeline import hardware, rounded
from jobs import _cli, _engines, estimate
from pipelines.dataset import layout
from pipelines.engine.flow import run_flow
from pipelines.images.codec import open_image
from pipelines.planning.plan import Plan, make_plan
from pipelines.readers.sources import ImageShards
from pipelines.runs.placement import choose_resources
from pipelines.samples import Columns
from pipelines.tasks.model import limit_threads

SHAPES = {
    "tiny": {"hidden": 32, "layers": 4, "heads": 2, "stages": (1, 2, 3, 4), "neck": [8, 16, 32, 32], "fusion": 8},
    "small": {"hidden": 384, "layers": 12, "heads": 6, "stages": (3, 6, 9, 12), "neck": [48, 96, 192, 384],
              "fusion": 64},
    "large": {"hidden": 1024, "layers": 24, "heads": 16, "stages": (5, 12, 18, 24), "neck": [256, 512, 1024, 1024],
              "fusion": 256},
}  # fmt: skip
"""Shapes of Depth Anything V2: 24.8 million parameters for small, 335 million for large; tiny is for the test."""


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    options = parse()
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "results": rounded(measure(options)),
        "hardware": hardware(),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--side", type=int, default=252, help="side at which the model works (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--size-px", type=int, default=512, help="side of the images (default: %(default)s)")
    parser.add_argument("--chunk-size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--rounds", type=int, default=1, help="repetitions, of which the median ratio is reported")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the bare loop, the job, and the bare loop again, in every round; all times are in seconds."""
    from pipelines.engine.cluster import ray_session

    with tempfile.TemporaryDirectory() as name:
        model = write_model(Path(name) / options.shape, options.shape, options.side)
        inputs = write_shards(Path(name) / "in", 1, options.samples, options.size_px)
        with ray_session() as available:
            outputs = [Path(name) / f"out-{number}" for number in range(options.rounds)]
            rounds = [measure_round(options, model, inputs, output, available) for output in outputs]
    ratios = [each["steady_ratio"] for each in rounds]
    median = min(rounds, key=lambda each: abs(each["steady_ratio"] - statistics.median(ratios)))
    return {**median, "steady_ratios": ratios}


def write_model(folder: Path, shape: str, side: int) -> Path:
    """Write a Depth Anything of a shape with random weights, which works at a side in pixels."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    size = SHAPES[shape]
    backbone = Dinov2Config(
        hidden_size=size["hidden"], num_hidden_layers=size["layers"], num_attention_heads=size["heads"],
        image_size=518, patch_size=14, out_features=[f"stage{stage}" for stage in size["stages"]],
        reshape_hidden_states=False,
    )  # fmt: skip
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=size["hidden"],
            neck_hidden_sizes=size["neck"],
            fusion_hidden_size=size["fusion"],
        )  # fmt: skip
    ).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": side, "width": side}, keep_aspect_ratio=True, ensure_multiple_of=14
    ).save_pretrained(folder)
    return folder


def measure_round(
    options: argparse.Namespace, model: Path, inputs: Path, output: Path, available: Mapping[str, float]
) -> dict[str, Any]:
    """Return the times of one job beside the mean of the bare loops before and after it."""
    words = ["--input", str(inputs), "--output", str(output), "--engine", f"transformers:{model}"]
    words += ["--chunk-size", str(options.chunk_size), "--batch-size", str(options.batch_size)]
    job_options = estimate.parse([*words, *(["--dtype", options.dtype] if options.dtype else [])])
    job = _engines.engine_job(job_options, None, estimate.engine_task_run)
    measured = job.source.measure(job.source.find([str(inputs)], str(output)), str(output), None)
    plan = make_plan(measured, layout.list_output(str(output)), "0" * 16, options.chunk_size)
    bare = BareLoop.of(plan, model, options)
    bare.run(WARM_CHUNKS * options.chunk_size)
    before_s = bare.run(options.samples)
    request = _cli.request_of(job_options)
    resources = choose_resources(request, available, can_grow=False)
    times = Times.of(run_flow(plan.chunks, job.make_flow(request.output, resources), resources))
    return times.beside((before_s + bare.run(options.samples)) / 2)


@dataclass(frozen=True, kw_only=True)
class BareLoop:
    """The same model in a loop of transformers alone."""

    images: list[Any]
    processor: Any
    model: Any
    batch_size: int

    @classmethod
    def of(cls, plan: Plan, folder: Path, options: argparse.Namespace) -> BareLoop:
        """Load the model, and decode the images of a few chunks, which repeat."""
        import torch
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        limit_threads(1)  # as in the only actor of a machine
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = getattr(torch, options.dtype or ("float16" if device == "cuda" else "float32"))
        source = ImageShards(columns=Columns())
        images = [open_image(each.image, 1 << 30)[0] for chunk in plan.chunks[:4] for each in source.read(chunk)]
        model = AutoModelForDepthEstimation.from_pretrained(folder, dtype=dtype).to(device).eval()
        return cls(
            images=images, processor=AutoImageProcessor.from_pretrained(folder), model=model,
            batch_size=options.batch_size,
        )  # fmt: skip

    def run(self, samples: int) -> float:
        """Return the seconds for a number of samples."""
        began = time.perf_counter()
        for start in range(0, samples, self.batch_size):
            numbers = range(start, min(start + self.batch_size, samples))
            self._estimate([self.images[number % len(self.images)] for number in numbers])
        return time.perf_counter() - began

    def _estimate(self, images: list[Any]) -> None:
        import torch

        inputs = self.processor(images=images, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            outputs = self.model(pixel_values=inputs.to(self.model.device, self.model.dtype))
        sizes = [image.size[::-1] for image in images]
        for found in self.processor.post_process_depth_estimation(outputs, target_sizes=sizes):
            depth = found["predicted_depth"].float().cpu().numpy()
            ((depth - depth.min()) / (depth.max() - depth.min() + 1e-9) * 255).astype("uint8")


if __name__ == "__main__":
    main()
