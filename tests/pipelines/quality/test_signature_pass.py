"""Signatures of tars, Parquet files and folders, made once, and the duplicates that follow from them."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.dataset.layout import Listing
from pipelines.engine.attempts import Attempt
from pipelines.engine.ledger import AttemptPlan
from pipelines.images.codec import open_small
from pipelines.planning.plan import make_plan
from pipelines.quality.decisions import Duplicates
from pipelines.quality.signature_pass import DECODED_PX, SignaturePass
from pipelines.readers.sources import ImageShards
from pipelines.samples import Chunk, Columns
from tests.support.estimating import estimate
from tests.support.inputs import encoded_image, write_folder, write_parquet, write_tar

SOURCE = ImageShards(columns=Columns())


def shrunk(content: bytes) -> bytes:
    """Return a copy of half the size, in another format."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.resize((image.width // 2, image.height // 2)).save(buffer, "PNG")
    return buffer.getvalue()


def in_process(
    chunks: Iterable[Chunk], work: Callable[[Chunk, Attempt], Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    return (work(chunk, Attempt()) for chunk in chunks)


class Signed:
    """The signatures of an output after another run with these inputs."""

    def __init__(self, output: Path, *inputs: Path, limit: int | None = None) -> None:
        signing = SignaturePass(output=str(output), source=SOURCE, max_pixels=10_000_000)
        shards = SOURCE.find([str(path) for path in inputs], str(output))
        self.measured = SOURCE.measure(shards, str(output), limit)
        self.receipts: list[Mapping[str, Any]] = []
        signing.run(self.measured, self.receipts.append, in_process)
        self.found: Duplicates = signing.duplicates(self.measured)

    @property
    def made(self) -> int:
        return sum(receipt["ok"] for receipt in self.receipts)

    def duplicates(self) -> dict[tuple[str, int], str]:
        """Return (name of the shard, position) -> key of the kept sample, in chunks of three."""
        plan = make_plan(self.measured, Listing(finished=(), remains=()), "0" * 16, 3)
        return {
            (Path(chunk.shard_uri).name, at): key
            for chunk in plan.chunks
            for at, key in self.found.in_chunk(chunk).items()
        }


IMAGES = [encoded_image(seed, (96, 64)) for seed in range(8)]


def tar(path: Path, *contents: bytes) -> Path:
    return write_tar(path, [(f"{path.stem}-{at}.jpg", content) for at, content in enumerate(contents)])


def test_copies_in_shards_of_every_format(tmp_path: Path) -> None:
    first = tar(tmp_path / "a.tar", IMAGES[0], b"no image", IMAGES[1], shrunk(IMAGES[0]))
    second = write_parquet(tmp_path / "b.parquet", {"key": ["x", "y"], "image": [shrunk(IMAGES[1]), IMAGES[2]]})
    loose = {"one.jpg": IMAGES[3], "three.png": shrunk(IMAGES[2]), "two.png": shrunk(IMAGES[3])}
    folder = write_folder(tmp_path / "c", loose)
    signed = Signed(tmp_path / "out", first, second, folder)
    expected = {("a.tar", 3): "a-0", ("b.parquet", 0): "a-2", ("c", 1): "y", ("c", 2): "one.jpg"}
    assert signed.duplicates() == expected and len(signed.found) == 4
    assert [receipt["bad"] for receipt in signed.receipts] == [1, 0, 0]
    again = Signed(tmp_path / "out", first, second, folder)
    assert again.made == 0 and again.duplicates() == expected
    (folder / "four.jpg").write_bytes(IMAGES[4])
    more = Signed(tmp_path / "out", first, second, folder)
    assert more.made == 1 and len(more.found) == 4


def test_published_rows_stay_across_runs(tmp_path: Path) -> None:
    output, old, new = tmp_path / "out", tmp_path / "old.tar", tmp_path / "new.tar"
    tar(old, IMAGES[0], IMAGES[1])
    assert Signed(output, old).duplicates() == {}
    assert estimate([old], output).code == 0
    tar(new, IMAGES[2], shrunk(IMAGES[1]), IMAGES[3])
    assert Signed(output, new).duplicates() == {("new.tar", 1): "old-1"}
    assert Signed(output, new, old).duplicates() == {("new.tar", 1): "old-1"}
    tar(old, IMAGES[2], IMAGES[1])  # another content replaces the published rows
    assert Signed(output, new, old).duplicates() == {("old.tar", 0): "new-0", ("old.tar", 1): "new-1"}


def test_published_loose_images_stay(tmp_path: Path) -> None:
    output, folder = tmp_path / "out", write_folder(tmp_path / "b", {"one.jpg": IMAGES[0], "two.jpg": IMAGES[1]})
    assert estimate([folder], output).code == 0
    first = tar(tmp_path / "a.tar", shrunk(IMAGES[1]), IMAGES[2])
    assert Signed(output, first, folder).duplicates() == {("a.tar", 0): "two.jpg"}
    assert Signed(output, first).duplicates() == {("a.tar", 0): "two.jpg"}
    (folder / "two.jpg").write_bytes(IMAGES[3])  # another content replaces the published row
    assert Signed(output, first, folder).duplicates() == {}


def test_samples_beyond_the_limit_are_not_compared(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", IMAGES[0], IMAGES[1], shrunk(IMAGES[0]))
    assert Signed(tmp_path / "out", path).duplicates() == {("a.tar", 2): "a-0"}
    assert Signed(tmp_path / "out", path, limit=2).duplicates() == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_image_is_decoded_small(kind: str, tmp_path: Path) -> None:
    large, small = (encoded_image(5, size, kind) for size in ((1600, 1200), (400, 300)))
    assert open_small(large, 10_000_000, DECODED_PX).size == ((200, 150) if kind == "JPEG" else (1600, 1200))
    assert Signed(tmp_path / "out", tar(tmp_path / "a.tar", large, small)).duplicates() == {("a.tar", 1): "a-0"}


def test_an_image_on_which_processes_died_has_no_signature(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", IMAGES[0], IMAGES[1], shrunk(IMAGES[0]))
    signing = SignaturePass(output=str(tmp_path / "out"), source=SOURCE, max_pixels=10_000_000)
    measured = SOURCE.measure(SOURCE.find([str(path)], signing.output), signing.output, None)
    plan = AttemptPlan(one_by_one=True, given_up={0: "the worker process died 2 times"})
    receipts: list[Mapping[str, Any]] = []
    signing.run(measured, receipts.append, lambda chunks, work: (work(each, Attempt("task", plan)) for each in chunks))
    assert [(receipt["ok"], receipt["bad"]) for receipt in receipts] == [(2, 1)]
    assert len(signing.duplicates(measured)) == 0 and not signing.missing(measured)
