"""The registry of shard formats: names, endings, and what each format supports."""

import pytest

from pipelines.readers.formats import FORMATS, format_called, format_name, without_ending


@pytest.mark.parametrize(
    ("uri", "name", "stem"),
    [
        ("s3://b/a.tar", "tar", "s3://b/a"),
        ("/x/a.TAR.GZ", "tar.gz", "/x/a"),
        ("/x/a.b.tgz", "tar.gz", "/x/a.b"),
        ("/x/a.parquet", "parquet", "/x/a"),
        ("/x/a.pq", "parquet", "/x/a"),
        ("/x/a.ndjson", "jsonl", "/x/a"),
        ("/x.tar/a.jpg", None, "/x.tar/a.jpg"),
        ("/x/tar", None, "/x/tar"),
    ],
)
def test_the_format_of_a_file_is_known_by_its_ending(uri: str, name: str | None, stem: str) -> None:
    assert (format_name(uri), without_ending(uri)) == (name, stem)


def test_every_name_and_ending_belongs_to_one_format() -> None:
    names = [name for form in FORMATS for name in form.names]
    endings = [ending for form in FORMATS for ending in form.endings]
    assert len(set(names)) == len(names) and len(set(endings)) == len(endings)
    for form in FORMATS:
        assert {*form.endings.values()} <= {*form.names} and {*form.describes} <= {*names}
        assert all(format_called(name) is form for name in form.names)


def test_an_unknown_format_is_an_error() -> None:
    with pytest.raises(KeyError):
        format_called("zip")
