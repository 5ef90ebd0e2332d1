"""Rendered scenes as WebDataset tars: each shard is a task, and the same settings give the same bytes.

The name of a shard contains its seed, size and range of scenes (`scenes-s1-128x128-00000000-00001000.tar`), so a
listing of the output is enough to know what is left to do, see `pipelines.scenes.shards`.

Tested in tests/jobs/test_render_scenes.py.
"""

import io
import json
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from PIL import Image

from pipelines import storage
from pipelines.dataset.layout import check_output
from pipelines.dataset.ownership import is_our_text, marked, publish_beside
from pipelines.dataset.tar_bytes import TarSample
from pipelines.errors import FlowError, say
from pipelines.images.codec import depth_levels
from pipelines.images.png import png_bytes
from pipelines.runs.interrupts import Interrupted, interrupts_raise
from pipelines.runs.outcome import EXIT_INCOMPLETE, EXIT_OK
from pipelines.runs.progress import Progress, clock
from pipelines.runs.runner import refusals_explained
from pipelines.scenes.people import encode_people
from pipelines.scenes.shards import Range, SceneShard, Series, Survey, on_grid, scenes_in, survey
from pipelines.scenes.tar_writer import TarTask, write_tar_shards
from pipelines.storage.errors import redacted
from pipelines.storage.store import FILES, Store
from unicon.scenes import render
from unicon.scenes.layout import Scene, sample_scene
from unicon.scenes.render import Rendering

BYTES_PER_PIXEL = 8
"""Upper estimate of the size of a sample: 4 bytes for the exact depth, the rest for the images."""


SHARD_BYTES = 256 << 20
"""A task creates its shard in memory; the default shard size keeps it below this size."""


MAX_ROUNDS = 5
"""Other commands on the same output may leave something to do after a command has done its part."""


CARD = """# Rendered scenes

WebDataset tars of rooms and yards with simple solids and posed mannequins, drawn from a seed, with exact ground truth.
`scenes-s1-128x128-00000000-00001000.tar` holds scenes 0 to 999 of seed 1. Members of a sample:

| member | content |
|---|---|
| `KEY.png` | the image, 8-bit sRGB |
| `KEY.txt` | English caption |
| `KEY.json` | seed, index, place (room or yard), camera in meters; rotation columns: right, forward, up |
| `KEY.depth.png` | 16-bit relative inverse depth: 0 = the farthest visible point, 65535 = the nearest |
| `KEY.depth_m.npy` | float32 (H, W), meters along the optical axis; `inf` where the sky is |
| `KEY.edges.png` | 8-bit, 255 at the edges of surfaces |
| `KEY.pose.png` | 8-bit RGB drawing of the mannequins' joints and limbs, black if nobody is in view |
| `KEY.people.json` | list of mannequins: joint -> [x, y, visible], pixels from the upper left corner, visible 1 or 0 |

A scene without a visible mannequin lists one person with only invisible joints, so that all samples have the same
fields.

```python
import datasets

rows = datasets.load_dataset("webdataset", data_files="*.tar", split="train")
```
"""


def default_shard_size(width_px: int, height_px: int) -> int:
    """Return the number of scenes in a shard: 1000, or fewer if they would need too much memory."""
    return max(1, min(1000, SHARD_BYTES // (BYTES_PER_PIXEL * width_px * height_px)))


def shard_task(output: str, seed: int, size_px: tuple[int, int], start: int, stop: int) -> TarTask:
    """Return the task that writes scenes [start, stop) to their shard."""
    name = SceneShard(seed=seed, size_px=size_px, start=start, stop=stop).name
    return TarTask(uri=storage.join(output, name), make=partial(scene_samples, seed, size_px, start, stop))


def scene_samples(seed: int, size_px: tuple[int, int], start: int, stop: int) -> Iterator[TarSample]:
    """Render scenes [start, stop) of a seed and yield their samples."""
    for index in range(start, stop):
        scene = sample_scene(seed, index)
        rendering = render(scene, *size_px)
        yield f"s{seed}-{index:08d}", sample_files(rendering, {"seed": seed, "index": index, **_facts(scene)})


def sample_files(rendering: Rendering, facts: dict[str, object]) -> dict[str, bytes]:
    """Return the files of a sample by extension, the image first."""
    depth_m = io.BytesIO()
    np.save(depth_m, rendering.depth_m, allow_pickle=False)
    return {
        "png": png_bytes(Image.fromarray(rendering.image)),
        "txt": rendering.caption.encode(),
        "json": json.dumps(facts).encode(),
        "depth.png": png_bytes(Image.fromarray(depth_levels(rendering.inverse_depth))),
        "depth_m.npy": depth_m.getvalue(),
        "edges.png": png_bytes(Image.fromarray(rendering.edges.astype(np.uint8) * 255)),
        "pose.png": png_bytes(Image.fromarray(rendering.pose)),
        "people.json": encode_people(rendering.people),
    }


def render_scenes(
    output: str, seed: int, size_px: tuple[int, int], count: int, shard_size: int, store: Store = FILES
) -> int:
    """Render the missing scenes of [0, count), remove duplicates, and report; return the exit code.

    Raises:
        SettingError: A setting is wrong. It is raised before any worker starts.
    """
    series = Series(output=check_output(output), seed=seed, size_px=size_px, store=store)
    with interrupts_raise():
        try:
            with refusals_explained(series.output):
                series.shards()  # refuses another size before anything is written
                _create_card(series)
            return _complete(series, count, series.agree_on_shard_size(shard_size, say))
        except OSError as error:
            say(f"stopped: {redacted(str(error))}\nThe same command continues where this one stopped.")
            return EXIT_INCOMPLETE
        except Interrupted as interrupt:
            say(f"\n{interrupt}: stopped; the same command renders the missing shards.")
            raise SystemExit(interrupt.exit_code) from None


def _complete(series: Series, count: int, shard_size: int) -> int:
    """Render and remove until a listing has every scene exactly once, since other commands may work on the output."""
    trouble: str | None = None
    found = survey(series.shards(), count)
    for _ in range(MAX_ROUNDS):
        if found.is_complete or trouble:
            break
        trouble = _render(series, count, list(on_grid(found.missing, shard_size)))
        if not trouble:
            _remove(series, survey(series.shards(), count).removable)
        found = survey(series.shards(), count)
    if not found.is_complete:
        _say_what_is_left(found, count, trouble)
        return EXIT_INCOMPLETE
    say(f"output: {series.output}")
    return EXIT_OK


def _render(series: Series, count: int, ranges: Sequence[Range]) -> str | None:
    """Render the shards of some ranges; return why it stopped early, if it did."""
    left = scenes_in(ranges)
    before = count - scenes_in((min(start, count), min(stop, count)) for start, stop in ranges)
    say(f"{count} scenes; {before} rendered before, {left} to do in {len(ranges)} shards")
    tasks = [shard_task(series.output, series.seed, series.size_px, *scenes) for scenes in ranges]
    return _run(tasks, Progress(left), series.store) if tasks else None


def _remove(series: Series, shards: Sequence[SceneShard]) -> None:
    for shard in shards:
        say(f"{shard.name} is removed: its scenes are in other shards too")
        series.store.remove(series.uri(shard))


def _say_what_is_left(found: Survey, count: int, trouble: str | None) -> None:
    if trouble:
        say(f"stopped: {trouble}")
    if found.missing:
        say(f"{scenes_in(found.missing)} of {count} scenes are missing; the same command renders them")
    if found.removable:
        shards = f"{len(found.removable)} shards" if len(found.removable) > 1 else "1 shard"
        say(f"{shards} to remove, because other shards contain the same scenes; the same command removes them")


def _facts(scene: Scene) -> dict[str, object]:
    return {
        "place": scene.place,
        "field_of_view_deg": scene.camera.field_of_view_deg,
        "camera_position_m": scene.camera.position_m.tolist(),
        "camera_rotation": scene.camera.rotation.tolist(),
    }


def _create_card(series: Series) -> None:
    """Write the dataset card, unless there is one. As the first write, it detects an output that cannot be written."""
    publish_beside(series.output, "README.md", marked(CARD), is_our_text, say, series.store)


def _run(tasks: Sequence[TarTask], progress: Progress, store: Store) -> str | None:
    """Render the shards; return why it stopped early, if it did."""
    from pipelines.engine.cluster import ray_session

    try:
        say("starting Ray ...")
        with ray_session(), progress:
            for receipt in write_tar_shards(tasks, store=store):
                progress.add({"ok": receipt["samples"], "bad": 0})
    except FlowError as error:
        return str(error)
    say(f"{progress.done} scenes in {clock(progress.elapsed_s)}, {progress.done / progress.elapsed_s:.1f}/s")
    return None
