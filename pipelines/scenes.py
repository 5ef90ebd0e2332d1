"""Rendered scenes as WebDataset tars: one shard is one task, the same settings give the same bytes.

A shard's name says which scenes it holds (`scenes-s1-128x128-00000000-00001000.tar`: seed, size, range), so listing the
output says what is left to do.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipelines import pictures, storage
from pipelines.errors import SettingError
from pipelines.flow import FlowError, run_tasks
from pipelines.plan import gaps
from pipelines.progress import Progress, clock
from pipelines.runner import EXIT_INCOMPLETE, EXIT_OK, Interrupted, check_output, interrupts_raise, say
from unicon.scenes import Rendering, Scene, render, sample_scene

SHARD_NAME = re.compile(r"scenes-s(?P<seed>\d+)-(?P<width>\d+)x(?P<height>\d+)-(?P<start>\d{8,})-(?P<stop>\d{8,})\.tar")
BYTES_PER_PIXEL = 8
"""Of a sample in a shard: 4 for the exact depth, the rest for the pictures, generously."""
SHARD_BYTES = 256 << 20
"""A task makes its shard in memory: the default shard size keeps it below this."""
CARD = """# Rendered scenes

WebDataset tars of rooms and yards with simple solids, drawn from a seed, with exact ground truth.
`scenes-s1-128x128-00000000-00001000.tar` holds scenes 0 to 999 of seed 1. Members of a sample:

| member | content |
|---|---|
| `KEY.png` | the picture, 8-bit sRGB |
| `KEY.txt` | English caption |
| `KEY.json` | seed, index, size, place (room or yard), camera in metres; rotation columns: right, forward, up |
| `KEY.depth.png` | 16-bit relative inverse depth: 0 = the farthest place seen, 65535 = the nearest |
| `KEY.depth_m.npy` | float32 (H, W), metres along the optical axis; `inf` where the sky is |
| `KEY.edges.png` | 8-bit, 255 where a surface ends |

```python
import datasets

rows = datasets.load_dataset("webdataset", data_files="*.tar", split="train")
```
"""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Scenes [start, stop) of a seed, as one tar."""

    output: str
    seed: int
    width_px: int
    height_px: int
    start: int
    stop: int

    @property
    def uri(self) -> str:
        """Where it is published."""
        size = f"{self.width_px}x{self.height_px}"
        return storage.join(self.output, f"scenes-s{self.seed}-{size}-{self.start:08d}-{self.stop:08d}.tar")


def default_shard_size(width_px: int, height_px: int) -> int:
    """Scenes in a shard: 1000, or fewer where they would fill the memory."""
    return max(1, min(1000, SHARD_BYTES // (BYTES_PER_PIXEL * width_px * height_px)))


def plan_shards(
    output: str, seed: int, size_px: tuple[int, int], count: int, shard_size: int
) -> tuple[list[Shard], int]:
    """The shards to render so that scenes [0, count) are there, and how many of those are there already.

    Raises:
        SettingError: the output has scenes of this seed in another size: keys would repeat.
    """
    taken: list[tuple[int, int]] = []
    for info in storage.list_files(output):
        match = SHARD_NAME.fullmatch(info.uri.rsplit("/", 1)[-1])
        if match is None or int(match["seed"]) != seed:
            continue
        if (int(match["width"]), int(match["height"])) != size_px:
            raise SettingError(
                f"--size {size_px[0]}x{size_px[1]}: one output holds a seed's scenes in one size, because keys are unique; "
                f"{output} has {info.uri.rsplit('/', 1)[-1]}. Choose another --output."
            )
        taken.append((int(match["start"]), int(match["stop"])))
    fields: dict[str, Any] = {"output": output, "seed": seed, "width_px": size_px[0], "height_px": size_px[1]}
    shards = [
        Shard(**fields, start=start, stop=min(start + shard_size, stop))
        for first, stop in gaps(0, count, taken)
        for start in range(first, stop, shard_size)
    ]
    return shards, count - sum(shard.stop - shard.start for shard in shards)


def render_shard(shard: Shard) -> dict[str, int]:
    """Render and publish one shard; returns its receipt."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(shard.start, shard.stop):
            scene = sample_scene(shard.seed, index)
            for name, content in members(shard, index, scene, render(scene, shard.width_px, shard.height_px)):
                info = tarfile.TarInfo(name)  # owner 0 and time 0: the same scenes are the same bytes
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    storage.publish(shard.uri, buffer.getvalue())
    return {"ok": shard.stop - shard.start, "bad": 0}


def members(shard: Shard, index: int, scene: Scene, rendering: Rendering) -> Iterator[tuple[str, bytes]]:
    """(name, content) of one sample's files, the picture first."""
    key = f"s{shard.seed}-{index:08d}"
    facts = {
        "seed": shard.seed,
        "index": index,
        "width": shard.width_px,
        "height": shard.height_px,
        "place": scene.place,
        "field_of_view_deg": scene.camera.field_of_view_deg,
        "camera_position_m": scene.camera.position_m.tolist(),
        "camera_rotation": scene.camera.rotation.tolist(),
    }
    depth_m = io.BytesIO()
    np.save(depth_m, rendering.depth_m, allow_pickle=False)
    yield f"{key}.png", pictures.png_bytes(Image.fromarray(rendering.image))
    yield f"{key}.txt", rendering.caption.encode()
    yield f"{key}.json", json.dumps(facts).encode()
    levels = pictures.depth_levels(rendering.inverse_depth)
    yield f"{key}.depth.png", pictures.png_bytes(Image.fromarray(levels))
    yield f"{key}.depth_m.npy", depth_m.getvalue()
    yield f"{key}.edges.png", pictures.png_bytes(Image.fromarray(rendering.edges.astype(np.uint8) * 255))


def render_scenes(output: str, seed: int, size_px: tuple[int, int], count: int, shard_size: int) -> int:
    """Render what is missing of scenes [0, count) and report; returns the exit code.

    Raises:
        SettingError: before any worker starts.
    """
    output = check_output(output)
    shards, done_before = plan_shards(output, seed, size_px, count, shard_size)
    _publish_card(output)
    say(f"{count} scenes; {done_before} rendered before, {count - done_before} to do in {len(shards)} shards")
    trouble = _run(shards, Progress(count - done_before)) if shards else None
    left, done = plan_shards(output, seed, size_px, count, shard_size)
    if trouble:
        say(f"stopped: {trouble}")
    if left:
        say(f"{count - done} of {count} scenes are missing; the same command renders them")
        return EXIT_INCOMPLETE
    say(f"output: {output}")
    return EXIT_OK


def _publish_card(output: str) -> None:
    """The first write, so it finds an unwritable output."""
    try:
        storage.publish(storage.join(output, "README.md"), CARD.encode())
    except Exception as error:  # every storage driver has its own exceptions for "you may not"
        raise SettingError(
            f"--output {output} cannot be written: {type(error).__name__}: {error}. Check the path and "
            "the permissions; credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)."
        ) from error


def _run(shards: Sequence[Shard], progress: Progress) -> str | None:
    """Render the shards; returns why it stopped early, if it did."""
    from pipelines.cluster import ray_session

    with interrupts_raise():
        try:
            say("starting Ray ...")
            with ray_session(), progress:
                for receipt in run_tasks(shards, render_shard):
                    progress.add(receipt)
        except FlowError as error:
            return str(error)
        except Interrupted as interrupt:
            say(f"\n{interrupt}: stopped; the same command renders the missing shards.")
            raise SystemExit(interrupt.exit_code) from None
    say(f"{progress.done} scenes in {clock(progress.elapsed_s)}, {progress.done / progress.elapsed_s:.1f}/s")
    return None
