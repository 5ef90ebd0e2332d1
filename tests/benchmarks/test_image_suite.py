"""The accounting of the image suite finds lost and duplicated files."""

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.image_suite import account, write_suite
from tests.support.inputs import write_tar


def test_every_file_of_the_folder_is_a_separate_sample(tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "source.tar",
        [("x/Tests/images/a.png", b"1"), ("x/Tests/images/a.jpg", b"2"), ("x/src/b.png", b"3"),
         ("x/Tests/images/sub/none", b"4")],
    )  # fmt: skip
    names = write_suite(Path(archive), "Tests/images", tmp_path / "suite.tar")
    assert list(names.values()) == ["a.png", "a.jpg", "none"]
    with tarfile.open(tmp_path / "suite.tar") as suite:
        assert suite.getnames() == ["00000.png", "00001.jpg", "00002.none"]


def test_lost_and_duplicated_files_are_found(tmp_path: Path) -> None:
    for folder in ("data", "errors"):
        (tmp_path / folder).mkdir()
    pq.write_table(pa.table({"key": ["0", "1"]}), tmp_path / "data" / "a.parquet")
    pq.write_table(pa.table({"key": ["1"], "reason": ["broken"]}), tmp_path / "errors" / "a.parquet")
    found = account({"0": "a.png", "1": "b.png", "2": "c.png"}, tmp_path)
    assert found["lost"] == ["c.png"] and found["doubled"] == ["1"] and found["reasons"] == {"b.png": "broken"}
