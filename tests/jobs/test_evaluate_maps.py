"""The evaluate command on any maps: Parquet and tars, every kind, parts, comparisons, and the page."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import _cli, evaluate
from pipelines.dataset.schema import MEDIA
from tests.support.inputs import encoded_image, write_tar
from unicon.conditions import CONDITIONS
from unicon.scenes import Rendering, render, sample_scene

COUNT, SIZE_PX = 12, (48, 32)


@pytest.fixture(scope="module")
def scenes() -> list[Rendering]:
    return [render(sample_scene(9, index), *SIZE_PX, supersampling=1) for index in range(COUNT)]


def png(kind: str, values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    CONDITIONS[kind].encode(values).save(buffer, "PNG")
    return buffer.getvalue()


def key(at: int) -> str:
    return f"<b>{at:02d}</b>"


def write(path: Path, column: str, kind: str, maps: Sequence[np.ndarray], **columns: Sequence[Any]) -> str:
    """Write maps with further columns in Parquet."""
    media = [{"bytes": png(kind, each), "path": None} for each in maps]
    table = {"key": [key(at) for at in range(len(maps))], column: pa.array(media, MEDIA)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**table, **columns}), path)
    return str(path)


def evaluated(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    result = tmp_path / "result.json"
    assert evaluate.main([*arguments, "--json", str(result)]) == 0
    return json.loads(result.read_text())


def maps_of(kind: str, scenes: Sequence[Rendering]) -> list[np.ndarray]:
    """Return a map of the kind for each scene; normals and images are made up."""
    rng = np.random.default_rng(0)
    if kind == "depth":
        return [scene.inverse_depth for scene in scenes]
    if kind == "edge":
        return [scene.edges.astype(np.float32) for scene in scenes]
    if kind == "pose":
        return [scene.pose.astype(np.float32) / 255 for scene in scenes]
    if kind == "normal":
        vectors = rng.normal(0, 1, (len(scenes), 4, 6, 3)) + [0, 0, 2]
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        return [np.kron(each, np.ones((8, 8, 1))).astype(np.float32) / 2 + 0.5 for each in unit]
    return [scene.image.astype(np.float32) / 255 for scene in scenes]


PERFECT = {
    "depth": {"abs_rel": 0, "rmse": 0, "delta1": 1, "correlation": 1},
    "edge": {"f1": 1, "precision": 1, "recall": 1},
    "pose": {"pck": 1, "invention": 0},
    "normal": {"mean_deg": 0, "within_11": 1},
    "appearance": {"color": 1, "correlation": 1, "psnr": 100},
}


@pytest.mark.parametrize("kind", PERFECT)
def test_maps_of_every_kind_against_maps(kind: str, scenes: list[Rendering], tmp_path: Path) -> None:
    maps = maps_of(kind, scenes)
    truth = write(tmp_path / "truth" / "t.parquet", "true", kind, maps)
    same = write(tmp_path / "same.parquet", "made", kind, maps)
    rng = np.random.default_rng(1)
    noisy = [np.clip(each + rng.normal(0, 0.3, each.shape), 0, 1) for each in maps]
    worse = write(tmp_path / "worse.parquet", "made", kind, noisy)
    columns = ["--condition", "x", "--kind", kind, "--prediction-column", "made", "--truth-column", "true"]
    found = evaluated(tmp_path, *columns, "--predictions", same, "--truth", truth, "--compare-with", worse)
    assert found["metrics"]["UniCon"] == pytest.approx({**found["metrics"]["UniCon"], **PERFECT[kind]}, abs=0.02)
    assert found["images"] == COUNT and ("without meters" in found["protocol"]) == (kind == "depth")
    comparison = found["comparison"]
    name = next(iter(PERFECT[kind]))
    low, high = comparison["intervals"][name]
    assert low <= comparison["differences"][name] <= high
    assert comparison["images"] == COUNT and comparison["left_out"] == 0
    assert kind == "pose" or low * high > 0  # zero is outside: the difference is significant
    low, high = found["intervals"]["UniCon"][name]
    assert low == pytest.approx(high, abs=0.02)


def test_another_size_is_scaled_and_counted(
    scenes: list[Rendering], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = maps_of("depth", scenes)
    halved = [each.reshape(16, 2, 24, 2).mean((1, 3)) for each in maps]
    truth = write(tmp_path / "t.parquet", "depth", "depth", maps)
    small = write(tmp_path / "p.parquet", "depth", "depth", [*halved[:4], *maps[4:]])
    found = evaluated(tmp_path, "--condition", "depth", "--predictions", small, "--truth", truth)
    assert found["estimates_scaled"] == 4 and found["metrics"]["UniCon"]["correlation"] > 0.97
    assert "4 predictions have another size" in capsys.readouterr().err


def test_tars_on_both_sides(scenes: list[Rendering], tmp_path: Path) -> None:
    maps = [png("depth", scene.inverse_depth) for scene in scenes]
    told = [json.dumps({"key": key(at), "room": at % 3}).encode() for at in range(COUNT)]
    predictions, truth = (
        write_tar(
            tmp_path / f"{name}.tar",
            [
                member
                for at in range(COUNT)
                for member in ((f"{at}.{name}.png", maps[at]), (f"{at}.json", told[at]), (f"{at}.txt", b"a red cube"))
            ],
        )
        for name in ("depth", "zoe")
    )
    columns = ["--prediction-column", "depth", "--truth-column", "zoe"]
    datasets = ["--predictions", str(predictions), "--truth", str(truth), *columns]
    found = evaluated(tmp_path, "--condition", "depth", *datasets, "--slice-by", "room", "--slice-by-word")
    assert found["images"] == COUNT and found["metrics"]["UniCon"]["abs_rel"] < 0.001
    assert [(part["by"], part["value"], part["images"]) for part in found["slices"]] == [
        ("room", str(room), 4) for room in range(3)
    ]  # every caption has the same words, which therefore tell nothing


def sliced(scenes: list[Rendering], tmp_path: Path) -> tuple[str, str]:
    """Write predictions that are wrong for every scene with an odd number, and their truth."""
    maps = maps_of("depth", scenes)
    noise = np.random.default_rng(0)
    wrong = [each if at % 2 == 0 else noise.random(each.shape) for at, each in enumerate(maps)]
    captions = [f"a {'cat & dog' if at % 2 else 'house'} <script>" for at in range(COUNT)]
    images = pa.array([{"bytes": encoded_image(at), "path": None} for at in range(COUNT)], MEDIA)
    extra: Mapping[str, Any] = {"caption": captions, "image": images, "odd": [at % 2 == 1 for at in range(COUNT)]}
    predictions = write(tmp_path / "p.parquet", "depth", "depth", wrong, **extra)
    return predictions, write(tmp_path / "t.parquet", "depth", "depth", maps)


def test_parts_of_the_set_and_the_page(
    scenes: list[Rendering], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truth = sliced(scenes, tmp_path)
    page = tmp_path / "page.html"
    arguments = ["--condition", "depth", "--predictions", predictions, "--truth", truth, "--page", str(page)]
    found = evaluated(tmp_path, *arguments, "--slice-by", "odd", "--slice-by-word", "--intervals")
    parts = {(part["by"], part["value"]): part for part in found["slices"]}
    assert parts["odd", "False"]["numbers"]["abs_rel"] < 0.01 < parts["odd", "True"]["numbers"]["abs_rel"]
    assert list(parts) == [("odd", "False"), ("odd", "True"), ("word", "cat"), ("word", "dog"), ("word", "house")]
    assert parts["word", "cat"] == {**parts["odd", "True"], "by": "word", "value": "cat"}
    told = capsys.readouterr().out
    assert "95% interval" in told and "by word" in told
    text = page.read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text and "&lt;b&gt;01&lt;/b&gt;" in text
    assert len(re.findall("<article>", text)) == 12 and len(re.findall("data:image/webp", text)) == 36
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert text.index("01&lt;/b&gt;") < text.index("Best samples") < text.index("00&lt;/b&gt;")
    evaluated(tmp_path, *arguments)  # replaces its own page
    page.write_text("mine")
    with pytest.raises(SystemExit):
        _cli.finish(lambda: evaluate.main(arguments))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: evaluate.main([*arguments]))
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_wrong_settings(scenes: list[Rendering], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, truth = sliced(scenes, tmp_path)
    datasets = ["--condition", "depth", "--predictions", predictions, "--truth", truth]
    assert "must have the columns key and z" in refused(capsys, *datasets, "--truth-column", "z")
    assert "--slice-by 'place': neither" in refused(capsys, *datasets, "--slice-by", "place")
    assert "ends in .html" in refused(capsys, *datasets, "--page", str(tmp_path / "page"))
    assert "needs rendered scenes" in refused(capsys, *datasets, "--picture", str(tmp_path / "x.png"))
    assert "--page needs --measure accuracy" in refused(
        capsys, *datasets, "--measure", "correlation", "--page", str(tmp_path / "x.html")
    )
    assert "--compare-with" in refused(capsys, *datasets, "--compare-with", str(tmp_path / "result.json"))
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    plain = write_tar(tmp_path / "plain.tar", [("a.png", (tmp_path / "plain.png").read_bytes())])
    assert "must have a member .z or .z.png" in refused(
        capsys, *datasets[:4], "--truth", str(plain), "--truth-column", "z"
    )
