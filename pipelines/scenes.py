"""Rendered scenes as WebDataset tars: one shard is one task, the same settings give the same bytes.

A shard's name says which scenes it holds (`scenes-s1-128x128-00000000-00001000.tar`: seed, size, range), so listing the
output says what is left to do.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from PIL import Image

from pipelines import pictures, storage
from pipelines.errors import SettingError
from pipelines.plan import gaps
from pipelines.progress import Progress, clock
from pipelines.runner import EXIT_INCOMPLETE, EXIT_OK, Interrupted, check_output, interrupts_raise, say
from pipelines.tar_writer import TarSample, TarTask, write_tar_shards
from unicon.pose import JOINTS
from unicon.scenes import Rendering, Scene, render, sample_scene

SHARD_NAME = re.compile(r"scenes-s(?P<seed>\d+)-(?P<width>\d+)x(?P<height>\d+)-(?P<start>\d{8,})-(?P<stop>\d{8,})\.tar")
BYTES_PER_PIXEL = 8
"""Of a sample in a shard: 4 for the exact depth, the rest for the pictures, generously."""
SHARD_BYTES = 256 << 20
"""A task makes its shard in memory: the default shard size keeps it below this."""
CARD = """# Rendered scenes

WebDataset tars of rooms and yards with simple solids and posed mannequins, drawn from a seed, with exact ground truth.
`scenes-s1-128x128-00000000-00001000.tar` holds scenes 0 to 999 of seed 1. Members of a sample:

| member | content |
|---|---|
| `KEY.png` | the picture, 8-bit sRGB |
| `KEY.txt` | English caption |
| `KEY.json` | seed, index, place (room or yard), camera in metres; rotation columns: right, forward, up |
| `KEY.depth.png` | 16-bit relative inverse depth: 0 = the farthest place seen, 65535 = the nearest |
| `KEY.depth_m.npy` | float32 (H, W), metres along the optical axis; `inf` where the sky is |
| `KEY.edges.png` | 8-bit, 255 where a surface ends |
| `KEY.pose.png` | 8-bit RGB drawing of the mannequins' joints and limbs, black where nobody is in view |
| `KEY.people.json` | list of mannequins: joint -> [x, y, visible], pixels from the upper left corner, visible 1 or 0 |

A scene without a mannequin in view lists one person whose joints are all invisible, so that all samples have the same
fields.

```python
import datasets

rows = datasets.load_dataset("webdataset", data_files="*.tar", split="train")
```
"""


def default_shard_size(width_px: int, height_px: int) -> int:
    """Scenes in a shard: 1000, or fewer where they would fill the memory."""
    return max(1, min(1000, SHARD_BYTES // (BYTES_PER_PIXEL * width_px * height_px)))


def missing_ranges(output: str, seed: int, size_px: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """The parts of scenes [0, count) that no shard of the output holds, as [start, stop).

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
                f"--size {size_px[0]}x{size_px[1]}: one output holds a seed's scenes in one size, because keys are "
                f"unique; {output} has {info.uri.rsplit('/', 1)[-1]}. Choose another --output."
            )
        taken.append((int(match["start"]), int(match["stop"])))
    return list(gaps(0, count, taken))


def shard_task(output: str, seed: int, size_px: tuple[int, int], start: int, stop: int) -> TarTask:
    """The task that writes scenes [start, stop) into their shard."""
    name = f"scenes-s{seed}-{size_px[0]}x{size_px[1]}-{start:08d}-{stop:08d}.tar"
    return TarTask(uri=storage.join(output, name), make=partial(scene_samples, seed, size_px, start, stop))


def scene_samples(seed: int, size_px: tuple[int, int], start: int, stop: int) -> Iterator[TarSample]:
    """Render scenes [start, stop) of a seed, one after the other."""
    for index in range(start, stop):
        scene = sample_scene(seed, index)
        rendering = render(scene, *size_px)
        yield f"s{seed}-{index:08d}", sample_files(rendering, {"seed": seed, "index": index, **_facts(scene)})


def sample_files(rendering: Rendering, facts: dict[str, object]) -> dict[str, bytes]:
    """The files of one sample by extension, the picture first."""
    depth_m = io.BytesIO()
    np.save(depth_m, rendering.depth_m, allow_pickle=False)
    return {
        "png": pictures.png_bytes(Image.fromarray(rendering.image)),
        "txt": rendering.caption.encode(),
        "json": json.dumps(facts).encode(),
        "depth.png": pictures.png_bytes(Image.fromarray(pictures.depth_levels(rendering.inverse_depth))),
        "depth_m.npy": depth_m.getvalue(),
        "edges.png": pictures.png_bytes(Image.fromarray(rendering.edges.astype(np.uint8) * 255)),
        "pose.png": pictures.png_bytes(Image.fromarray(rendering.pose)),
        "people.json": encode_people(rendering.people),
    }


def encode_people(people: np.ndarray) -> bytes:
    """People (P, J, 3) as `KEY.people.json`; nobody becomes one person whose joints are all invisible.

    Without that, `datasets` takes a shard that begins with empty lists for one of lists of nothing, and fails later.
    """
    listed = people if len(people) else np.zeros((1, len(JOINTS), 3))
    return json.dumps(
        [
            {
                name: [round(float(x), 2), round(float(y), 2), int(seen)]
                for name, (x, y, seen) in zip(JOINTS, person, strict=True)
            }
            for person in listed
        ]
    ).encode()


def decode_people(content: bytes) -> np.ndarray:
    """The people in view (P, J, 3) float32 of a `KEY.people.json`."""
    people = [[person[name] for name in JOINTS] for person in json.loads(content)]
    joints = np.array(people, np.float32).reshape(-1, len(JOINTS), 3)
    return joints[joints[..., 2].any(1)]


def render_scenes(output: str, seed: int, size_px: tuple[int, int], count: int, shard_size: int) -> int:
    """Render what is missing of scenes [0, count) and report; returns the exit code.

    Raises:
        SettingError: before any worker starts.
    """
    output = check_output(output)
    missing = missing_ranges(output, seed, size_px, count)
    _publish_card(output)
    tasks = [
        shard_task(output, seed, size_px, start, min(start + shard_size, stop))
        for first, stop in missing
        for start in range(first, stop, shard_size)
    ]
    left = _scenes_in(missing)
    say(f"{count} scenes; {count - left} rendered before, {left} to do in {len(tasks)} shards")
    trouble = _run(tasks, Progress(left)) if tasks else None
    if trouble:
        say(f"stopped: {trouble}")
    left = _scenes_in(missing_ranges(output, seed, size_px, count))
    if left:
        say(f"{left} of {count} scenes are missing; the same command renders them")
        return EXIT_INCOMPLETE
    say(f"output: {output}")
    return EXIT_OK


def _scenes_in(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)


def _facts(scene: Scene) -> dict[str, object]:
    return {
        "place": scene.place,
        "field_of_view_deg": scene.camera.field_of_view_deg,
        "camera_position_m": scene.camera.position_m.tolist(),
        "camera_rotation": scene.camera.rotation.tolist(),
    }


def _publish_card(output: str) -> None:
    """The first write, so it finds an unwritable output."""
    try:
        storage.publish(storage.join(output, "README.md"), CARD.encode())
    except Exception as error:  # every storage driver has its own exceptions for "you may not"
        raise SettingError(
            f"--output {output} cannot be written: {type(error).__name__}: {error}. Check the path and "
            "the permissions; credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)."
        ) from error


def _run(tasks: Sequence[TarTask], progress: Progress) -> str | None:
    """Render the shards; returns why it stopped early, if it did."""
    from pipelines.cluster import ray_session
    from pipelines.flow import FlowError

    with interrupts_raise():
        try:
            say("starting Ray ...")
            with ray_session(), progress:
                for receipt in write_tar_shards(tasks):
                    progress.add({"ok": receipt["samples"], "bad": 0})
        except FlowError as error:
            return str(error)
        except Interrupted as interrupt:
            say(f"\n{interrupt}: stopped; the same command renders the missing shards.")
            raise SystemExit(interrupt.exit_code) from None
    say(f"{progress.done} scenes in {clock(progress.elapsed_s)}, {progress.done / progress.elapsed_s:.1f}/s")
    return None
