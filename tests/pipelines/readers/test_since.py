"""The option `--since`: the accepted times, and the shards that count as written since then."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs._arguments import parse_since
from pipelines.errors import SettingError
from pipelines.readers.shard_index import Shard
from pipelines.readers.shards import find_shards, modified_since
from tests.support.inputs import encoded_image, samples, write_folder, write_tar

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("36h", datetime(2026, 11, 24, 0, 0)),
        ("90M", datetime(2026, 11, 25, 10, 30)),
        ("7d", datetime(2026, 11, 18, 12, 0)),
        ("2w", datetime(2026, 11, 11, 12, 0)),
        ("2026-11-24", datetime(2026, 11, 24)),
        ("2026-11-24T18:00", datetime(2026, 11, 24, 18)),
        ("2026-11-24T18:00+02:00", datetime(2026, 11, 24, 16)),
        ("2026-11-24T18:00Z", datetime(2026, 11, 24, 18)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert parse_since(text, NOW) == expected.replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "7", "24 h", "-3d", "", "2026-13-01", "999999w"])
def test_what_is_no_moment_says_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time; expected a date .2026-11-24., .* 7d"):
        parse_since(text, NOW)


def test_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="'2027-01-01' is in the future; the current time is 2026-11-25T12:00 UTC"):
        parse_since("2027-01-01", NOW)


def test_shards_written_at_or_after_the_moment(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"old.jpg": encoded_image(), "new.jpg": encoded_image()})
    for name, seconds in (("a", -1), ("b", 0), ("c", 1)):
        path = write_tar(tmp_path / "in" / f"{name}.tar", samples(1))
        os.utime(path, (NOW.timestamp() + seconds, NOW.timestamp() + seconds))
    os.utime(tmp_path / "in" / "old.jpg", (0, 0))
    os.utime(tmp_path / "in" / "new.jpg", (NOW.timestamp(), NOW.timestamp()))
    found = modified_since(find_shards([str(tmp_path / "in")]), NOW)
    assert [shard.uri.removeprefix(str(tmp_path)) for shard in found] == ["/in/b.tar", "/in/c.tar", "/in"]
    assert len(found[-1].files) == 2, "the folder counts as a whole: what is done in it is known from its marks"


def test_a_storage_that_does_not_know_is_refused() -> None:
    shard = Shard(uri="x://a.tar", format="tar", size_bytes=1, fingerprint="f")
    with pytest.raises(SettingError, match="--since needs a storage that tells .* for x://a.tar it does not"):
        modified_since([shard], NOW)
