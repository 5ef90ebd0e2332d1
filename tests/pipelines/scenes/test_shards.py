"""Which shards of rendered scenes count, what is missing, and what concurrent commands leave behind."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from pipelines.errors import SettingError
from pipelines.scenes.shards import Range, SceneShard, Series, disjoint, on_grid, scenes_in, survey
from pipelines.storage.store import FsspecStore

SIZE_PX = (16, 8)


def shard(start: int, stop: int) -> SceneShard:
    return SceneShard(seed=1, size_px=SIZE_PX, start=start, stop=stop)


def shards(*ranges: Range) -> list[SceneShard]:
    return [shard(*scenes) for scenes in ranges]


def test_names_are_read_back() -> None:
    assert shard(0, 1000).name == "scenes-s1-16x8-00000000-00001000.tar"
    assert SceneShard.parse(shard(123_456_789, 123_456_790).name) == shard(123_456_789, 123_456_790)
    assert SceneShard.parse("scenes-s1-16x8-00000000-00001000.tar.tmp") is None


def test_of_shards_that_overlap_the_first_and_longest_count() -> None:
    assert disjoint(shards((20, 25), (0, 20), (20, 30))) == shards((0, 20), (20, 30))
    assert disjoint(shards((5, 15), (0, 10), (10, 20), (12, 14))) == shards((0, 10), (10, 20))


@pytest.mark.parametrize(
    ("listed", "count", "missing", "removable"),
    [
        ([], 3, [(0, 3)], []),
        ([(0, 4), (6, 8)], 10, [(4, 6), (8, 10)], []),
        ([(0, 4), (6, 8)], 3, [], []),
        ([(0, 20), (20, 25), (20, 30)], 25, [], [(20, 25)]),
        ([(0, 20), (15, 25)], 20, [(20, 25)], []),
        ([(0, 20), (15, 25), (20, 25)], 20, [], [(15, 25)]),
        ([(0, 20), (15, 25), (18, 30)], 22, [(20, 22), (22, 25), (25, 30)], []),
        ([(0, 10), (30, 40), (32, 36)], 5, [], [(32, 36)]),
    ],
)
def test_what_a_listing_says(listed: list[Range], count: int, missing: list[Range], removable: list[Range]) -> None:
    found = survey(shards(*listed), count)
    assert list(found.missing) == missing
    assert list(found.removable) == shards(*removable)
    assert found.is_complete == (not missing and not removable)


def test_ranges_are_cut_at_the_multiples_of_the_shard_size() -> None:
    assert on_grid([(3, 4), (7, 21)], 5) == [(3, 4), (7, 10), (10, 15), (15, 20), (20, 21)]
    assert on_grid([], 5) == []
    assert scenes_in([(3, 4), (7, 21)]) == 15


class Output:
    """The shards of a series in a store."""

    def __init__(self) -> None:
        self.shards: set[SceneShard] = set()

    def command(self, count: int, shard_size: int) -> Iterator[None]:
        """A command that pauses after each access, where another one may continue or it may be killed."""
        while not (found := survey(self.shards, count)).is_complete:
            yield
            for scenes in on_grid(found.missing, shard_size):
                self.shards.add(shard(*scenes))
                yield
            removable = survey(self.shards, count).removable
            yield
            for gone in removable:
                self.shards.discard(gone)
                yield

    def counts(self) -> list[int]:
        """Return how often each scene exists."""
        last = max((one.stop for one in self.shards), default=0)
        return [sum(one.start <= scene < one.stop for one in self.shards) for scene in range(last)]


@pytest.mark.parametrize("is_agreed", [True, False])
@pytest.mark.parametrize("seed", range(150))
def test_commands_that_interleave_and_are_killed_leave_every_scene_once(seed: int, is_agreed: bool) -> None:
    """With one shard size, the scenes of a finished command stay; with several, the last commands restore them."""
    random = Random(f"{seed} {is_agreed}")
    output = Output()
    size = random.randint(1, 12)
    commands = [(random.randint(1, 30), size if is_agreed else random.randint(1, 12)) for _ in range(3)]
    running = {number: output.command(*commands[number]) for number in range(3)}
    kills, promised = random.randint(0, 3), 0
    while running:
        number = random.choice(list(running))
        if kills and random.random() < 0.2:
            kills -= 1
            running[number] = output.command(*commands[number])
        elif next(running[number], "done") == "done":
            promised = max(promised, commands[number][0])
            del running[number]
        assert not is_agreed or 0 not in output.counts()[:promised]
    assert output.counts() == [1] * len(output.counts())
    assert len(output.counts()) >= promised == max(count for count, _ in commands)


class Recording(FsspecStore):
    """Records listings and what is made durable."""

    calls: ClassVar[list[tuple[str, str]]] = []

    def list_uris(self, root: str) -> list[str]:
        self.calls.append(("list", root))
        return super().list_uris(root)

    def settle(self, folders: Sequence[str]) -> None:
        self.calls.extend(("settle", folder) for folder in folders)


def test_what_is_listed_is_made_durable(tmp_path: Path) -> None:
    assert Series(output=str(tmp_path), seed=1, size_px=SIZE_PX, store=Recording()).shards() == []
    assert Recording.calls == [("list", str(tmp_path)), ("settle", str(tmp_path))]


def record(output: Path) -> Path:
    return output / "_scenes" / "seed-1.json"


def test_a_shard_size_is_agreed_on_once(tmp_path: Path) -> None:
    said: list[str] = []
    assert Series(output=str(tmp_path), seed=1, size_px=SIZE_PX).agree_on_shard_size(10, said.append) == 10
    assert Series(output=str(tmp_path), seed=1, size_px=SIZE_PX).agree_on_shard_size(10, said.append) == 10
    assert said == []
    assert Series(output=str(tmp_path), seed=1, size_px=SIZE_PX).agree_on_shard_size(7, said.append) == 10
    assert "shards of 10 scenes, as this output was started; a shard size of 7 is not used" in said[0]
    assert Series(output=str(tmp_path), seed=2, size_px=(4, 4)).agree_on_shard_size(7, said.append) == 7


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"shard_size": 0, "size_px": [16, 8]}', b"\xff"])
def test_a_damaged_record_is_written_again(tmp_path: Path, content: bytes) -> None:
    said: list[str] = []
    record(tmp_path).parent.mkdir()
    record(tmp_path).write_bytes(content)
    assert Series(output=str(tmp_path), seed=1, size_px=SIZE_PX).agree_on_shard_size(7, said.append) == 7
    assert "is damaged" in said[0]
    assert json.loads(record(tmp_path).read_bytes()) == {"shard_size": 7, "size_px": [16, 8]}


def test_images_of_another_size_are_refused_before_any_exists(tmp_path: Path) -> None:
    Series(output=str(tmp_path), seed=1, size_px=SIZE_PX).agree_on_shard_size(10, print)
    with pytest.raises(SettingError, match=r"--size 32x8: .* was started with scenes of 16x8"):
        Series(output=str(tmp_path), seed=1, size_px=(32, 8)).agree_on_shard_size(10, print)


def test_shards_of_other_seeds_and_in_folders_below_are_not_listed(tmp_path: Path) -> None:
    series = Series(output=str(tmp_path), seed=1, size_px=SIZE_PX)
    (tmp_path / "below").mkdir()
    for name in (shard(0, 4).name, f"below/{shard(4, 8).name}", shard(4, 8).name.replace("s1", "s2"), "other.tar"):
        (tmp_path / name).touch()
    assert series.shards() == shards((0, 4))
    assert Path(series.uri(shard(0, 4))) == tmp_path / shard(0, 4).name
