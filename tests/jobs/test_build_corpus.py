"""The corpus command: several engines in one pass, captions, filters, and what is recorded about all of it."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import _corpus, build_corpus
from pipelines.errors import SettingError
from pipelines.runs.status import read_status
from tests.support.fake_corpus import run_corpus_here, run_fake_corpus
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, encoded_image, samples, write_folder, write_parquet, write_tar
from tests.support.tiny_captioner import write_tiny_blip

BLUE, RED = (0, 0, 255), (255, 0, 0)


def png(color: tuple[int, int, int], size: tuple[int, int] = (48, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def depth_png(level: int, size: tuple[int, int] = (48, 32)) -> bytes:
    buffer = io.BytesIO()
    ramp = np.linspace(level, 65535, size[0] * size[1]).reshape(size[::-1]).astype(np.uint16)
    Image.fromarray(ramp).save(buffer, "PNG")
    return buffer.getvalue()


def arguments(root: Path, *more: str) -> list[str]:
    return ["--input", str(root / "in"), "--output", str(root / "out"), "--chunk-size", "4", *more]


def errors(root: Path) -> dict[str, tuple[str, str]]:
    """Key -> stage and reason."""
    return {row["key"]: (row["stage"], row["reason"]) for row in all_rows(root / "out", "errors")}


def parquet_input(root: Path) -> None:
    """Write ten rows with a label and a depth; one image is narrow, one has no label, one a depth of another shape."""
    sizes = [(16, 32) if number == 2 else (48, 32) for number in range(10)]
    depths = [depth_png(number, (32, 32) if number == 4 else size) for number, size in enumerate(sizes)]
    write_parquet(
        root / "in" / "a.parquet",
        {
            "key": [f"k{number}" for number in range(10)],
            "image": [encoded_image(number, size) for number, size in enumerate(sizes)],
            "truth": depths,
            "label": [None if number == 6 else ("dog" if number == 8 else f"cat {number}") for number in range(10)],
        },
    )


def test_real_engines_with_kept_columns_filters_and_a_template(tmp_path: Path) -> None:
    parquet_input(tmp_path)
    words = arguments(
        tmp_path, "--condition", "canny=controlnet-aux:canny,low_threshold=20", "--condition", "depth=unicon",
        "--views", "1", "--keep-column", "truth=depth:truth", "--caption-template", "a photo of {label}",
        "--min-size", "20", "--min-caption-words", "2", "--image-column", "image",
        "--keep", "label != 'dog' and agreement_depth_truth > -2",
    )  # fmt: skip
    said: list[str] = []
    assert run_corpus_here(words, said) == 0
    assert errors(tmp_path) == {
        "k2": ("filter", "shorter side below 20 px (16)"),
        "k4": ("read", "truth has another shape than the image (32 x 32 and 48 x 32 pixels)"),
        "k6": ("filter", "caption of fewer than 2 words (0)"),
        "k8": ("filter", "not label != 'dog' and agreement_depth_truth > -2"),
    }
    rows = {row["key"]: row for row in all_rows(tmp_path / "out", "data")}
    assert len(rows) == 6
    row = rows["k1"]
    assert [*row] == [
        "key", "image", "canny", "depth", "truth", "entropy", "sharpness", "phash", "agreement_depth_truth",
        "caption_by", "caption", "width", "height", "caption_note", "shard", "position", "canny_engine",
        "canny_engine_options", "canny_engine_package", "depth_engine", "depth_weights_sha256", "seed", "code_version",
    ]  # fmt: skip
    assert (row["caption"], row["caption_by"], row["width"]) == ("a photo of cat 1", "template", 48)
    assert (row["canny_engine"], row["depth_engine"]) == ("controlnet-aux:canny", "unicon:mini")
    assert row["truth"]["bytes"] == depth_png(1) and 0 <= row["entropy"] <= 8 and len(row["phash"]) == 64
    modes = {name: Image.open(io.BytesIO(row[name]["bytes"])) for name in ("canny", "depth")}
    assert {name: (image.mode, image.size) for name, image in modes.items()} == {
        "canny": ("L", (48, 32)),
        "depth": ("I;16", (48, 32)),
    }
    (path, *_) = sorted((tmp_path / "out" / "data").iterdir())
    metadata = pq.read_schema(path).metadata
    assert (metadata[b"canny_kind"], metadata[b"truth_kind"]) == (b"edge", b"depth")
    assert metadata[b"depth_encoding"].startswith(b"16-bit PNG")
    _check_reports(tmp_path, said)
    said.clear()
    assert run_corpus_here([*words, "--retry-errors"], said) == 0
    assert any("1 to do" in line for line in said), "only the sample that failed, not those that were filtered"
    with pytest.raises(SettingError, match="min_size was 20 and is now 21"):
        run_corpus_here([*words, "--min-size", "21"])


def _check_reports(root: Path, said: Sequence[str]) -> None:
    """Check that names, messages, status and card count the samples that filters have removed."""
    assert sorted(path.name.split(".", 1)[1] for path in (root / "out" / "errors").iterdir()) == [
        "ok1.bad1.filtered1.parquet",
        "ok2.bad2.filtered1.parquet",
        "ok3.bad1.filtered1.parquet",
    ]
    assert any("3 of those in errors/ were removed by filters, 1 failed" in line for line in said)
    status = read_status(str(root / "out"))
    assert (status.ok, status.bad, status.filtered, status.failed, status.exit_code) == (6, 4, 3, 1, 0)
    card = (root / "out" / "README.md").read_text()
    assert "| 10 | read |\n| 1 | read: truth has another shape than the image |\n" in card
    assert "| 1 | filter: shorter side below 20 px |\n| 6 | kept |\n" in card
    assert (root / "out" / "preview.png").exists()


def test_engines_with_their_own_actors(ray_cluster: None, tmp_path: Path) -> None:
    members = [("00003.png", png(BLUE)) if number == 3 else samples(1, first=number)[0] for number in range(14)]
    write_tar(tmp_path / "in" / "a.tar", members)
    words = arguments(tmp_path, "--actors", "edge=2", "--num-gpus-per-actor", "0.25", "--keep", "key != '00005'")
    assert run_fake_corpus(words, depth=FakeDepth(), edge=FakeDepth(raise_on_blue=True, delay_s=0.02)) == 0
    rows = {row["key"]: row for row in all_rows(tmp_path / "out", "data")}
    assert rows.keys() == {f"{number:05d}" for number in range(14)} - {"00003", "00005"}
    alone = tmp_path / "alone"
    assert run_fake_corpus(arguments(alone, "--input", str(tmp_path / "in")), in_process=True, edge=FakeDepth()) == 0
    edges = {row["key"]: row["edge"] for row in all_rows(alone / "out", "data")}
    assert {key: row["edge"] for key, row in rows.items()} == {key: edges[key] for key in rows}
    assert errors(tmp_path) == {
        "00003": ("model edge", "RuntimeError: the size of tensor a must match the size of tensor b"),
        "00005": ("filter", "not key != '00005'"),
    }
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("_chunks/runs/*.json"))
    assert record["cluster"]["actors"] == 3 and record["cluster"]["gpus_per_actor"] == 0.25
    engines = record["done"]["engines"]
    assert {name: use["actors"] for name, use in engines.items()} == {"model depth": 1, "model edge": 2}
    assert record["done"]["seconds"].keys() == {"read", "model depth", "model edge", "publish"}
    assert "<code>model edge</code>" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_a_sample_that_kills_one_engine_is_blamed_there(ray_cluster: None, tmp_path: Path) -> None:
    members = [("00002.png", png(RED)) if number == 2 else samples(1, first=number)[0] for number in range(8)]
    write_tar(tmp_path / "in" / "a.tar", members)
    words = arguments(tmp_path, "--num-gpus-per-actor", "0.25")
    assert run_fake_corpus(words, depth=FakeDepth(), edge=FakeDepth(die_on_red=True)) == 0
    assert errors(tmp_path) == {"00002": ("model edge", "the worker process died on this sample (3 attempts)")}
    assert {row["key"] for row in all_rows(tmp_path / "out", "data")} == {f"0000{at}" for at in (0, 1, 3, 4, 5, 6, 7)}


def test_near_duplicates_of_the_input_and_of_earlier_runs(ray_cluster: None, tmp_path: Path) -> None:
    images = {f"{number:02d}": encoded_image(number, (160, 120), "PNG") for number in range(4)}
    write_tar(tmp_path / "in" / "a.tar", [(f"{key}.png", content) for key, content in images.items()])
    words = arguments(tmp_path, "--drop-near-duplicates", "--num-gpus-per-actor", "0.25")
    assert run_fake_corpus(words, depth=FakeDepth()) == 0 and not (tmp_path / "out" / "errors").exists()
    smaller = io.BytesIO()
    Image.open(io.BytesIO(images["02"])).resize((80, 60)).save(smaller, "JPEG", quality=75)
    new = [("p.jpg", smaller.getvalue()), ("q.png", encoded_image(9, (160, 120), "PNG"))]
    write_tar(tmp_path / "in" / "0.tar", [*new, ("r.png", encoded_image(9, (160, 120), "PNG"))])
    assert run_fake_corpus(words, depth=FakeDepth()) == 0
    assert errors(tmp_path) == {
        "p": ("filter", "near-duplicate (of 02)"),
        "r": ("filter", "near-duplicate (of q)"),
    }
    assert {row["key"] for row in all_rows(tmp_path / "out", "data")} == {*images, "q"}


def test_captions_by_a_model_in_tars(tmp_path: Path) -> None:
    blip = write_tiny_blip(tmp_path / "blip")
    members = samples(5)[:-1]  # the last sample has no caption
    write_tar(tmp_path / "in" / "a.tar", members)
    words = arguments(tmp_path, "--captioner", str(blip), "--output-format", "webdataset", "--max-caption-words", "50")
    assert run_corpus_here(words) == 0
    found = _captions(tmp_path / "out")
    assert {key: by for key, (_, by) in found.items()} == {
        **dict.fromkeys(["00000", "00001", "00002", "00003"], "input"),
        "00004": "blip",
    }
    assert found["00000"][0] == "caption 0" and found["00004"][0]
    again = arguments(tmp_path / "again", "--input", str(tmp_path / "in"), "--captioner", str(blip), "--recaption")
    assert run_corpus_here([*again, "--max-caption-words", "1"]) == 0
    assert {reason.split(" (")[0] for _, reason in errors(tmp_path / "again").values()} == {
        "caption of more than 1 words"
    }
    assert len(errors(tmp_path / "again")) == 5


def _captions(output: Path) -> dict[str, tuple[str, str]]:
    from pipelines.dataset.webdataset import WebDataset

    rows = [row for path in sorted((output / "data").iterdir()) for row in WebDataset().read(str(path))]
    assert all("captioner_weights_sha256" in row for row in rows)
    return {row["key"]: (row["caption"], row["caption_by"]) for row in rows}


def test_fields_of_tars_and_folders(tmp_path: Path) -> None:
    labels = {"00000": {"label": "cat"}, "00001": {"label": "dog"}, "00002": {"other": 1}}
    images = {f"{key}.jpg": encoded_image(at) for at, key in enumerate(labels)}
    texts = {f"{key}.json": json.dumps(fields).encode() for key, fields in labels.items()}
    write_tar(tmp_path / "in" / "a.tar", sorted({**images, **texts, "00000.cls": b"7"}.items()))
    write_folder(tmp_path / "folder", {**images, **texts})
    for name, key, kept in (("in", "{}", "cls == 7 and label == 'cat'"), ("folder", "{}.jpg", "label == 'cat'")):
        words = arguments(tmp_path / name, "--input", str(tmp_path / name), "--caption-template", "a {label}")
        words += ["--keep", kept, "--keep-column", "copy=appearance:jpg"][: None if name == "in" else 2]
        assert run_fake_corpus(words, in_process=True, depth=FakeDepth()) == 0
        (row,) = all_rows(tmp_path / name / "out", "data")
        assert (row["key"], row["caption"]) == (key.format("00000"), "a cat")
        reasons = {key: reason for key, (_, reason) in errors(tmp_path / name).items()}
        assert reasons == dict.fromkeys([key.format("00001"), key.format("00002")], f"not {kept}")


def test_a_corpus_of_what_the_input_has(tmp_path: Path) -> None:
    parquet_input(tmp_path)
    assert run_fake_corpus(arguments(tmp_path, "--keep-column", "truth=depth:truth"), in_process=True) == 0
    rows = all_rows(tmp_path / "out", "data")
    assert len(rows) == 9 and {"truth", "entropy"} <= rows[0].keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--condition", "canny"], "--condition 'canny': expected NAME=ENGINE"),
        (["--condition", "a=nothing:x"], "--condition a=nothing:x: an engine is .*one of "),
        (["--condition", "a=controlnet-aux:canny,low=3"], "has no option 'low'"),
        (["--condition", "image=controlnet-aux:canny"], "'image' is the name of another column"),
        (["--condition", "my-edges=controlnet-aux:canny"], "letters, digits and underscores; got 'my-edges'"),
        (["--condition", "edges=unicon"], "none called edges"),
        (["--condition", "d=transformers:nowhere"], "--condition d=transformers:nowhere: .*there is no folder"),
        (["--keep-column", "truth=height:x"], "NAME=KIND:COLUMN with a kind of depth, edge"),
        (["--min-agreement", "depth:depth2=0.9"], "two columns of one kind of condition; there are none"),
        (["--keep-column", "truth=depth:t", "--min-agreement", "truth:depth=3"], "out of range"),
        (["--keep", "width >"], "Rule: comparisons of columns"),
        (["--caption-template", "a photo"], "it names no field"),
        (["--recaption"], "--recaption needs a --captioner"),
        (["--captioner", "nowhere"], "--captioner: .*there is no folder '.*nowhere'"),
        (["--min-caption-words", "3", "--max-caption-words", "2"], "nothing would be left"),
        (["--actors", "edge=2"], "there is no engine 'edge', only depth"),
        (["--actors", "depth=2", "--actors", "depth=3"], "has a number already"),
        (["--num-gpus-per-actor", "depth=some"], "'some' is not a number"),
    ],
)
def test_wrong_settings_are_refused_before_the_work_starts(words: list[str], message: str) -> None:
    options = build_corpus.parse(["--input", "in", "--output", "out", "--condition", "depth=unicon", *words])
    with pytest.raises(SettingError, match=message):
        _, engines = build_corpus.corpus_run(options)
        _corpus.request_of(options, engines)


def test_options_of_unicon_need_a_condition_of_it() -> None:
    words = ["--input", "in", "--output", "out", "--condition", "canny=controlnet-aux:canny"]
    with pytest.raises(SettingError, match="--views belongs to the engine unicon, which no --condition NAME=unicon"):
        build_corpus.parse([*words, "--views", "1"])
    assert build_corpus.parse([*words, "--condition", "depth=unicon", "--views", "1"]).views == 1


def test_a_corpus_without_anything_is_refused() -> None:
    with pytest.raises(SettingError, match="at least one --condition NAME=ENGINE"):
        build_corpus.parse(["--input", "in", "--output", "out"])


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_columns_that_the_input_does_not_have_are_refused(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        write_tar(tmp_path / "in" / "a.tar", samples(3))
    else:
        write_parquet(tmp_path / "in" / "a.parquet", {"image": [encoded_image()]})
    for words, message in (
        (["--keep", "label == 'cat'"], "label"),
        (["--caption-template", "a {label}"], "--caption-template 'label'" if kind == "tar" else "label"),
        (["--keep-column", "truth=depth:depth.png"], "--keep-column truth=depth:depth.png"),
    ):
        with pytest.raises(SettingError, match=message):
            run_fake_corpus(arguments(tmp_path, *words), in_process=True, depth=FakeDepth())


def test_settings_of_engines_are_part_of_the_configuration() -> None:
    def settings(*words: str) -> dict[str, Any]:
        options = build_corpus.parse(["--input", "in", "--output", "out", *words])
        return build_corpus.corpus_run(options)[0].settings

    canny = settings("--condition", "canny=controlnet-aux:canny")
    assert "canny_engine_package" not in canny
    assert settings("--condition", "canny=controlnet-aux:canny,low_threshold=100") == canny, "the default"
    assert settings("--condition", "canny=controlnet-aux:canny,low_threshold=99") != canny
    depth = settings("--condition", "depth=unicon")
    assert settings("--condition", "depth=unicon", "--views", "1")["unicon"] != depth["unicon"]
    assert settings("--condition", "depth=unicon", "--actors", "3", "--batch-size", "2") == depth
