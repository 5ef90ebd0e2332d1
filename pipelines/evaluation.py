"""Depth estimates against rendered truth: joined by key, one truth shard in memory at a time."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pipelines import storage, tar_shards
from pipelines.errors import SettingError
from pipelines.inputs import find_shards
from unicon.conditions import CONDITIONS, decode_depth
from unicon.metrics import DepthMetrics, depth_metrics, mean_metrics, vertical_ramp
from unicon.scenes import render, sample_scene

PROVENANCE = ("model", "adapter", "weights_sha256", "seed", "num_inference_steps", "guidance_scale", "code_version")
PICTURE_SCENES = 8
ESTIMATE, MEAN_MAP, RAMP = "UniCon", "mean of training scenes", "vertical ramp"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One rendered scene."""

    key: str
    image: bytes
    depth_m: np.ndarray
    """(H, W) float32, `inf` where the sky is."""
    relative_inverse_depth: np.ndarray
    """(H, W) float32, 0 far, 1 near; to look at."""


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Where the estimates are."""

    file_of: Mapping[str, str]
    """Key -> URI of its Parquet file."""
    provenance: Mapping[str, Any]
    """What the first row says of its making."""


@dataclass(kw_only=True)
class Evaluation:
    """What is known after all shards."""

    metrics: dict[str, list[DepthMetrics]] = field(default_factory=dict)
    """By row of the table, one for each image."""
    without_estimate: list[str] = field(default_factory=list)
    """Keys of truth nobody estimated."""
    without_truth: list[str] = field(default_factory=list)
    """Keys of estimates that no scene has."""
    pictured: list[tuple[Truth, np.ndarray]] = field(default_factory=list)
    """The first scenes and their estimates."""

    @property
    def images(self) -> int:
        """Joined pairs."""
        return len(self.metrics.get(ESTIMATE, []))

    def means(self) -> dict[str, DepthMetrics]:
        """Means over the images, by row of the table."""
        return {name: mean_metrics(found) for name, found in self.metrics.items()}


class MeanMap:
    """The mean inverse-depth map of training scenes: the best guess without looking, one for each picture size."""

    def __init__(self, seed: int, scenes: int) -> None:
        self.seed = seed
        self.scenes = scenes
        self._maps: dict[tuple[int, int], np.ndarray] = {}

    def of_size(self, height_px: int, width_px: int) -> np.ndarray:
        """(H, W) float32 in [0, 1]; rendered at the first call for a size."""
        if (height_px, width_px) not in self._maps:
            total = np.zeros((height_px, width_px), np.float64)
            for index in range(self.scenes):
                scene = sample_scene(self.seed, index)
                total += render(scene, width_px, height_px, supersampling=1).inverse_depth
            self._maps[height_px, width_px] = (total / self.scenes).astype(np.float32)
        return self._maps[height_px, width_px]


def evaluate(predictions: str, truth: str, mean_map: MeanMap, max_depth_m: float) -> tuple[Evaluation, Estimates]:
    """Compare every estimate with its scene, and two guesses that see nothing with the same scenes.

    Raises:
        SettingError: one of the two is not what it should be, or they have no key in common.
    """
    estimates = find_estimates(predictions)
    evaluation = Evaluation()
    left = set(estimates.file_of)
    seen: set[str] = set()
    for shard in _files(truth, "--truth", ("tar", "tar.gz"), "tars that render_scenes.py wrote"):
        scenes = {scene.key: scene for scene in read_truth(shard.uri, compressed=shard.format == "tar.gz")}
        if repeated := scenes.keys() & seen:
            raise SettingError(f"--truth: keys must be unique; {min(repeated)!r} is in {shard.uri} and a shard before.")
        seen |= scenes.keys()
        left -= scenes.keys()
        evaluation.without_estimate += sorted(scenes.keys() - estimates.file_of.keys())
        for scene, estimate in _join(scenes, estimates):
            _compare(evaluation, scene, estimate, mean_map, max_depth_m)
    evaluation.without_truth += sorted(left)
    if not evaluation.images:
        raise SettingError(
            f"no key is in both: --predictions has {_some(estimates.file_of)}, --truth has {_some(seen)}. "
            "Estimate the depth of the very tars that --truth names."
        )
    return evaluation, estimates


def find_estimates(predictions: str) -> Estimates:
    """Read the keys of all Parquet files of an output of estimate_depth.

    Raises:
        SettingError: there are none, they have no `key` and `depth`, or a key comes twice.
    """
    file_of: dict[str, str] = {}
    provenance: dict[str, Any] = {}
    for shard in _files(predictions, "--predictions", ("parquet",), "Parquet files that estimate_depth.py wrote"):
        with storage.open_read(shard.uri) as file, pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if not {"key", "depth"} <= {*names}:
                raise SettingError(
                    f"--predictions: files must have the columns key and depth; {shard.uri} has {', '.join(names)}. "
                    "Name the output of estimate_depth.py."
                )
            for key in parquet.read(columns=["key"]).column("key").to_pylist():
                if key in file_of:
                    raise SettingError(
                        f"--predictions: keys must be unique; {key!r} is in {file_of[key]} and {shard.uri}. "
                        "Estimate one set of scenes with one setting into one output."
                    )
                file_of[key] = shard.uri
            if not provenance and parquet.metadata.num_rows:
                columns = [name for name in PROVENANCE if name in names]
                provenance = next(parquet.iter_batches(1, columns=columns)).to_pylist()[0] if columns else {}
    return Estimates(file_of=file_of, provenance=provenance)


def read_truth(uri: str, compressed: bool = False) -> Iterator[Truth]:
    """The scenes of one tar.

    Raises:
        SettingError: a sample has no exact depth, or the tar is damaged.
    """
    index = tar_shards.index_tar(uri, compressed)
    if index.damage:
        raise SettingError(f"--truth: {uri}: {index.damage}. Delete it and run render_scenes.py again.")
    for _, key, members in tar_shards.read_tar(uri, compressed, 0, index.samples):
        files = {member.extension: member.content or b"" for member in members}
        absent = [name for name in ("png", "depth.png", "depth_m.npy") if not files.get(name)]
        if absent:
            raise SettingError(
                f"--truth: samples must have the members .png, .depth.png and .depth_m.npy; {key!r} of {uri} "
                f"lacks .{absent[0]}. Name the output of render_scenes.py."
            )
        yield Truth(
            key=key,
            image=files["png"],
            depth_m=np.load(io.BytesIO(files["depth_m.npy"]), allow_pickle=False),
            relative_inverse_depth=decode_depth(Image.open(io.BytesIO(files["depth.png"]))),
        )


def table(evaluation: Evaluation) -> str:
    """The means as text, a row for the estimates and one for each guess."""
    lines = [f"{'':<24}{'AbsRel':>8}{'RMSE m':>8}{'delta1':>8}{'delta2':>8}{'delta3':>8}{'images':>8}"]
    for name, mean in evaluation.means().items():
        deltas = "".join(f"{value:>8.3f}" for value in (mean.delta1, mean.delta2, mean.delta3))
        lines.append(f"{name:<24}{mean.abs_rel:>8.4f}{mean.rmse_m:>8.3f}{deltas}{evaluation.images:>8}")
    return "\n".join(lines)


def summary(evaluation: Evaluation, estimates: Estimates, mean_map: MeanMap, max_depth_m: float) -> dict[str, Any]:
    """The means and how they came about, for a JSON file."""
    return {
        "protocol": "per image least-squares scale and shift of inverse depth, mean over images (arXiv 1907.01341)",
        "max_depth_m": max_depth_m,
        "images": evaluation.images,
        "scenes_without_estimate": len(evaluation.without_estimate),
        "estimates_without_scene": len(evaluation.without_truth),
        "estimates": dict(estimates.provenance),
        "mean_map": {"seed": mean_map.seed, "scenes": mean_map.scenes},
        "metrics": {name: asdict(mean) for name, mean in evaluation.means().items()},
    }


def picture(pictured: list[tuple[Truth, np.ndarray]]) -> Image.Image:
    """Image, truth and estimate of each scene side by side, two scenes a line."""
    tiles = [_triple(truth, estimate) for truth, estimate in pictured]
    gap, title = 8, 16
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    columns = min(2, len(tiles))
    lines = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, title + lines * (height + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for place, word in enumerate(("image", "truth", "estimate")):
            draw.text((gap + column * (width + gap) + place * width // 3, 4), word, fill="black")
    for number, tile in enumerate(tiles):
        line, column = divmod(number, columns)
        sheet.paste(tile, (gap + column * (width + gap), title + gap + line * (height + gap)))
    return sheet


def _triple(truth: Truth, estimate: np.ndarray) -> Image.Image:
    colour = CONDITIONS["depth"].preview
    image = Image.open(io.BytesIO(truth.image))
    tile = Image.new("RGB", (3 * image.width, image.height))
    for place, part in enumerate((image, colour(truth.relative_inverse_depth), colour(estimate))):
        tile.paste(part, (place * image.width, 0))
    return tile


def _files(uri: str, option: str, formats: tuple[str, ...], wanted: str) -> list[Any]:
    """The input files of the wanted formats."""
    try:
        shards = [shard for shard in find_shards([uri]) if shard.format in formats]
    except SettingError as error:
        raise SettingError(str(error).replace("--input", option, 1)) from error
    if not shards:
        raise SettingError(f"{option} {uri!r} holds none of the {wanted}. Check the path.")
    return shards


def _join(scenes: Mapping[str, Truth], estimates: Estimates) -> Iterator[tuple[Truth, np.ndarray]]:
    """Scenes of one shard with their estimates, in the order of the scenes' keys within each Parquet file."""
    files = dict.fromkeys(estimates.file_of[key] for key in scenes if key in estimates.file_of)
    for uri in files:
        with storage.open_read(uri) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(64, columns=["key", "depth"]):
                for row in batch.to_pylist():
                    if row["key"] in scenes:
                        stored = Image.open(io.BytesIO(row["depth"]["bytes"]))
                        yield scenes[row["key"]], decode_depth(stored)


def _compare(evaluation: Evaluation, scene: Truth, estimate: np.ndarray, mean_map: MeanMap, max_depth_m: float) -> None:
    """Enter one scene's metrics."""
    guesses = {
        ESTIMATE: estimate,
        MEAN_MAP: mean_map.of_size(*scene.depth_m.shape),
        RAMP: vertical_ramp(*scene.depth_m.shape),
    }
    try:
        found = {name: depth_metrics(guess, scene.depth_m, max_depth_m) for name, guess in guesses.items()}
    except ValueError as error:
        raise SettingError(f"scene {scene.key!r} cannot be evaluated: {error}") from error
    for name, metrics in found.items():
        evaluation.metrics.setdefault(name, []).append(metrics)
    if len(evaluation.pictured) < PICTURE_SCENES:
        evaluation.pictured.append((scene, estimate))


def _some(keys: Any) -> str:
    """The first keys, for a message."""
    first = sorted(keys)[:3]
    return f"{', '.join(map(repr, first))}{', ...' if len(keys) > 3 else ''}" if first else "none"
