"""URIs: one spelling for each place, and links."""

from pathlib import Path

import pytest

from pipelines.storage.uris import Places, former_spelling, normalize


@pytest.mark.parametrize(
    "spelling",
    [
        "/x/a",
        "//x/a",
        "///x/a/",
        "/x/./b/../a",
        "file:///x/a",
        "FILE:///x/a",
        "file:/x/a",
        "file:////x/a",
        "local:///x/a",
    ],
)
def test_every_spelling_of_a_local_place_is_one_path(spelling: str) -> None:
    assert normalize(spelling) == "/x/a"


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("S3://Bucket/Key/", "s3://Bucket/Key"),
        ("s3a://b/k", "s3://b/k"),
        ("gcs://b/k", "gs://b/k"),
        ("abfss://c/k", "abfs://c/k"),
        ("az://c/k", "abfs://c/k"),
        ("s3://b//k", "s3://b//k"),
        ("https://host/a?b=//c", "https://host/a?b=//c"),
    ],
)
def test_one_scheme_a_store(spelling: str, expected: str) -> None:
    assert normalize(spelling) == expected


def test_the_spelling_of_version_0_1_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of that version contain hashes of these spellings."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "s3a://b/in": "s3a://b/in/a.tar",
        "s3://b/in/": "s3://b/in/a.tar",
        "gcs://b/in": "gcs://b/in/a.tar",
        "/in": "/in/a.tar",
        "//in": "//in/a.tar",
        "///in": "/in/a.tar",
        "file:////in": "//in/a.tar",
        "in": f"{tmp_path}/in/a.tar",
    }
    assert {text: former_spelling(f"{normalize(text)}/a.tar", text) for text in texts} == texts


def test_links_of_folders_are_followed_and_those_of_files_where_they_are_shards(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("a.tar", "blob", "x.jpg"):
        (tmp_path / "real" / name).touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "b.tar").symlink_to("link/a.tar")
    (tmp_path / "c.tar").symlink_to("real/blob")
    places = Places()
    assert places.folder(str(tmp_path / "link")) == str(tmp_path / "real")
    assert places.file(str(tmp_path / "link" / "x.jpg")) == str(tmp_path / "real" / "x.jpg")
    shards = {name: places.shard(f"{tmp_path}/{name}", lambda uri: uri.endswith(".tar")) for name in ("b.tar", "c.tar")}
    assert shards == {"b.tar": f"{tmp_path}/real/a.tar", "c.tar": f"{tmp_path}/c.tar"}
    assert places.is_below(f"{tmp_path}/link/sub/x.jpg", f"{tmp_path}/real")
    assert not places.is_below(f"{tmp_path}/real2/x.jpg", f"{tmp_path}/real")


def test_remote_places_are_taken_as_they_are_spelled() -> None:
    places = Places()
    assert places.folder("s3://b/tmp") == "s3://b/tmp"
    assert places.shard("s3://b/tmp/a.tar", lambda uri: True) == places.file("s3://b/tmp/a.tar") == "s3://b/tmp/a.tar"
