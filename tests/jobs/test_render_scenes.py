"""The render_scenes command: its shards can be read by other tools, are reproducible, and are not rendered twice."""

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from jobs import _cli, render_scenes
from pipelines.dataset.tar_bytes import tar_bytes
from pipelines.readers.tar import index_tar, read_tar
from pipelines.readers.tar_samples import choose_member
from pipelines.scenes import render as scenes
from pipelines.scenes.people import decode_people, encode_people
from pipelines.scenes.render import default_shard_size, sample_files, shard_task
from pipelines.scenes.shards import SceneShard
from pipelines.scenes.tar_writer import write_tar_shard
from pipelines.storage.store import FsspecStore
from unicon.conditions import decode_depth
from unicon.pose import JOINTS
from unicon.scenes import render
from unicon.scenes.layout import sample_scene

SIZE_PX = (32, 24)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Scenes 3 to 6 of seed 5."""
    task = shard_task(str(tmp_path_factory.mktemp("scenes")), 5, SIZE_PX, 3, 7)
    assert write_tar_shard(task)["samples"] == 4
    return task.uri


def test_a_sample_holds_the_rendering(shard: str) -> None:
    assert index_tar(shard, compressed=False).duplicates == ()
    position, key, members = next(iter(read_tar(shard, False, 2, 4)))
    files = {member.extension: member.content or b"" for member in members}
    rendering = render(sample_scene(5, 5), *SIZE_PX)
    assert (position, key) == (2, "s5-00000005")
    assert (np.asarray(Image.open(io.BytesIO(files["png"]))) == rendering.image).all()
    assert (np.load(io.BytesIO(files["depth_m.npy"]), allow_pickle=False) == rendering.depth_m).all()
    stored = Image.open(io.BytesIO(files["depth.png"]))
    assert stored.mode == "I;16"
    np.testing.assert_allclose(decode_depth(stored), rendering.inverse_depth, atol=1 / 65535)
    assert (np.asarray(Image.open(io.BytesIO(files["edges.png"]))) == rendering.edges * 255).all()
    assert (np.asarray(Image.open(io.BytesIO(files["pose.png"]))) == rendering.pose).all()
    np.testing.assert_allclose(decode_people(files["people.json"]), rendering.people, atol=0.006)
    assert files["txt"].decode() == rendering.caption
    facts = json.loads(files["json"])
    assert (facts["seed"], facts["index"]) == (5, 5)
    assert facts["field_of_view_deg"] == sample_scene(5, 5).camera.field_of_view_deg


def test_people_are_listed_by_joint() -> None:
    people = np.arange(2 * len(JOINTS) * 3, dtype=np.float32).reshape(2, len(JOINTS), 3) / 4
    people[..., 2] = 1
    people[1, 3, 2] = 0
    listed = json.loads(encode_people(people))
    assert listed[0]["nose"] == [0, 0.25, 1] and listed[1]["right_elbow"][2] == 0
    assert (decode_people(encode_people(people)) == people).all()


def test_nobody_is_one_invisible_person() -> None:
    nobody = np.zeros((0, len(JOINTS), 3), np.float32)
    (person,) = json.loads(encode_people(nobody))
    assert set(person) == set(JOINTS) and not any(seen for _, _, seen in person.values())
    assert decode_people(encode_people(nobody)).shape == nobody.shape


def test_the_image_of_a_sample_is_the_image(shard: str) -> None:
    """The image is not mistaken for the depth map, whose extension also ends in .png."""
    for _, _, members in read_tar(shard, False, 0, 4):
        chosen = choose_member(members, None)
        assert chosen is not None and chosen.extension == "png"


def test_the_same_shard_is_the_same_bytes(shard: str, tmp_path: Path) -> None:
    again = shard_task(str(tmp_path), 5, SIZE_PX, 3, 7)
    assert tar_bytes(again.make()) == Path(shard).read_bytes()
    assert tar_bytes(shard_task(str(tmp_path), 6, SIZE_PX, 3, 7).make()) != Path(shard).read_bytes()


def test_hugging_face_reads_it(shard: str, tmp_path: Path) -> None:
    rows = datasets.load_dataset("webdataset", data_files=shard, split="train", cache_dir=str(tmp_path))
    row = rows[0]
    assert row["__key__"] == "s5-00000003"
    assert row["png"].size == row["depth.png"].size == row["pose.png"].size == SIZE_PX
    assert row["txt"] == render(sample_scene(5, 3), *SIZE_PX).caption
    assert set(row["people.json"][0]) == set(JOINTS)


def test_hugging_face_reads_a_shard_that_begins_with_nobody(tmp_path: Path) -> None:
    """The library infers the types of columns from the first five samples."""
    rendering = render(sample_scene(5, 3), *SIZE_PX)
    nobody = replace(rendering, people=np.zeros((0, len(JOINTS), 3), np.float32))
    somebody = replace(rendering, people=np.full((1, len(JOINTS), 3), 1.5, np.float32))
    samples = [(f"{number}", sample_files(nobody if number < 6 else somebody, {})) for number in range(7)]
    (tmp_path / "a.tar").write_bytes(tar_bytes(samples))
    rows = datasets.load_dataset(
        "webdataset", data_files=str(tmp_path / "a.tar"), split="train", cache_dir=str(tmp_path)
    )
    assert rows[6]["people.json"][0]["nose"] == [1.5, 1.5, 1]


def arguments(output: Path, *options: str) -> list[str]:
    return ["--output", str(output), "--seed", "5", "--size", "16x16", *options]


def tars(output: Path) -> list[tuple[int, int]]:
    """Return the ranges of the shards."""
    found = (SceneShard.parse(path.name) for path in output.glob("*.tar"))
    return sorted((shard.start, shard.stop) for shard in found if shard is not None)


def keys(output: Path) -> list[str]:
    """Return the keys of every sample in every shard."""
    names: list[str] = []
    for path in output.glob("*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    return sorted(name.removesuffix(".txt") for name in names if name.endswith(".txt"))


@dataclass(frozen=True)
class Interrupting(FsspecStore):
    """A store in which another command publishes a shard after or just before each listing, as long as it has any."""

    folder: str = ""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    is_seen: bool = False

    def list_uris(self, root: str) -> list[str]:
        before = super().list_uris(root)
        if root == self.folder and self.ranges:
            write_tar_shard(shard_task(self.folder, 5, (16, 16), *self.ranges.pop(0)))
        return super().list_uris(root) if self.is_seen else before

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Give workers the plain store."""
        return FsspecStore, ()


def test_a_larger_count_adds_what_is_missing(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shard_task(str(tmp_path), 5, (16, 16), 0, 3)
    write_tar_shard(first)
    written = Path(first.uri).stat().st_mtime_ns
    assert render_scenes.main(arguments(tmp_path, "--shard-size", "2", "--count", "7")) == 0
    assert "7 scenes; 3 rendered before, 4 to do in 3 shards" in capsys.readouterr().err
    assert tars(tmp_path) == [(0, 3), (3, 4), (4, 6), (6, 7)]
    assert Path(first.uri).stat().st_mtime_ns == written
    assert render_scenes.main(arguments(tmp_path, "--shard-size", "2", "--count", "7")) == 0
    assert "to do" not in capsys.readouterr().err
    assert render_scenes.main(arguments(tmp_path, "--shard-size", "2", "--count", "8")) == 0
    assert tars(tmp_path) == [(0, 3), (3, 4), (4, 6), (6, 7), (7, 8)]
    assert keys(tmp_path) == [f"s5-{index:08d}" for index in range(8)]


def test_the_first_shard_size_lasts(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render_scenes.main(arguments(tmp_path, "--shard-size", "3", "--count", "4")) == 0
    assert "not used" not in capsys.readouterr().err
    assert render_scenes.main(arguments(tmp_path, "--shard-size", "2", "--count", "7")) == 0
    assert "shards of 3 scenes, as this output was started; a shard size of 2 is not used" in capsys.readouterr().err
    assert tars(tmp_path) == [(0, 3), (3, 4), (4, 6), (6, 7)]


@pytest.mark.parametrize("late", [[(0, 4)], [(4, 6)], [(2, 6)], [(3, 7), (1, 5)], [(0, 2), (2, 4), (4, 8)]])
def test_scenes_of_another_command_at_the_same_time_stay_once(
    ray_cluster: None, tmp_path: Path, late: list[tuple[int, int]]
) -> None:
    """The larger count of another command, its late shards and shards of another size overlap with these."""
    store = Interrupting(folder=str(tmp_path), ranges=list(late))
    assert scenes.render_scenes(str(tmp_path), 5, (16, 16), 5, 4, store) == 0
    assert store.ranges == []
    last = max(stop for _, stop in [*late, (0, 5)])
    assert keys(tmp_path) == [f"s5-{index:08d}" for index in range(last)]


def test_overlaps_that_older_commands_left_are_resolved(ray_cluster: None, tmp_path: Path) -> None:
    for start, stop in ((0, 2), (2, 5), (4, 6), (2, 3)):
        write_tar_shard(shard_task(str(tmp_path), 5, (16, 16), start, stop))
    below = tmp_path / "kept"
    write_tar_shard(shard_task(str(below), 5, (16, 16), 0, 2))
    write_tar_shard(shard_task(str(tmp_path), 6, (16, 16), 0, 3))
    assert render_scenes.main(arguments(tmp_path, "--count", "3")) == 0
    assert keys(tmp_path) == [f"s5-{index:08d}" for index in range(6)] + [f"s6-{index:08d}" for index in range(3)]
    assert tars(below) == [(0, 2)]


def test_without_an_end_to_the_overlaps_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar_shard(shard_task(str(tmp_path), 5, (16, 16), 0, 2))
    store = Interrupting(folder=str(tmp_path), ranges=[(1, 2)] * 100, is_seen=True)
    assert scenes.render_scenes(str(tmp_path), 5, (16, 16), 2, 2, store) == 1
    assert "1 shard to remove, because other shards contain the same scenes" in capsys.readouterr().err
    assert render_scenes.main(arguments(tmp_path, "--count", "2")) == 0
    assert tars(tmp_path) == [(0, 2)]


@pytest.mark.slow
def test_two_commands_at_once_render_every_scene_once(tmp_path: Path) -> None:
    """Two processes, each with its own Ray, start with an empty output."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    script = str(Path(render_scenes.__file__))
    commands = [
        [sys.executable, script, *arguments(tmp_path, "--shard-size", size, "--count", count)]
        for size, count in (("10", "25"), ("7", "30"))
    ]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for command in commands]
    messages = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], messages
    assert keys(tmp_path) == [f"s5-{index:08d}" for index in range(30)]


def test_a_readme_of_the_user_stays(ray_cluster: None, tmp_path: Path) -> None:
    assert render_scenes.main(arguments(tmp_path, "--count", "1")) == 0
    assert (tmp_path / "README.md").read_text().startswith("# Rendered scenes")
    (tmp_path / "README.md").write_text("mine")
    assert render_scenes.main(arguments(tmp_path, "--count", "2")) == 0
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "argument --count: 0 is too small"),
        (["--size", "12"], "'12' is not a valid size; expected WIDTHxHEIGHT"),
        (["--size", "4x4000"], "each side must have 8 to 4096 pixels"),
        (["--output", "memory://x"], "memory:// exists in one process"),
        (["--size", "32x32"], "an output contains the scenes of a seed in one size"),
    ],
)
def test_wrong_settings(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(shard_task(str(tmp_path), 0, SIZE_PX, 0, 4).uri).touch()
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: render_scenes.main(["--output", str(tmp_path), "--count", "4", *options]))
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SystemExit):
        _cli.finish(lambda: render_scenes.main(["--output", str(tmp_path / "file" / "out"), "--count", "1"]))
    assert "cannot be written" in capsys.readouterr().err


def test_default_shards_fit_into_memory() -> None:
    assert default_shard_size(128, 128) == 1000
    assert default_shard_size(4096, 4096) == 2
    assert default_shard_size(512, 512) * 512 * 512 * 8 <= 256 << 20
