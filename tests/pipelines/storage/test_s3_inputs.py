"""Inputs, outputs and models on a real S3 server: what is found and read, and how many requests it costs."""

import json
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.dataset import layout
from pipelines.errors import PassingError, SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.runs.record import RunRecord
from pipelines.runs.status import read_status
from pipelines.samples import Columns
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_identity import identify_model
from tests.support.inputs import encoded_image, samples, write_folder, write_parquet, write_tar
from tests.support.object_store import READER_KEY, READER_SECRET, Fault, ObjectStore, Proxy, object_store
from tests.support.s3_user import CLOSED, OPEN, Become, become, proxy, s3
from tests.support.tiny import write_tiny_model
from tests.support.versions import finish

__all__ = ["become", "object_store", "proxy", "s3"]


def test_one_bucket_by_two_schemes(s3: Proxy) -> None:
    storage.publish(f"{OPEN}/schemes/a.tar", b"x")
    found = find_shards(["s3a://open-bucket/schemes", f"S3{OPEN[2:]}/schemes/a.tar", f"{OPEN}/schemes/*"])
    assert [(shard.uri, shard.former_uri) for shard in found] == [
        (f"{OPEN}/schemes/a.tar", "s3a://open-bucket/schemes/a.tar")
    ]


def write_inputs(folder: Path) -> None:
    """Write the same six images in every format."""
    write_tar(folder / "plain" / "000.tar", samples(3))
    write_tar(folder / "plain" / "001.tar", samples(3, first=3))
    write_tar(folder / "packed" / "x.tar.gz", samples(6), compress=True)
    pictures = {f"{number:05d}.jpg": encoded_image(number) for number in range(6)}
    captions = [f"caption {number}" for number in range(6)]
    write_parquet(folder / "bytes" / "x.parquet", {"image": [*pictures.values()], "caption": captions})
    write_parquet(folder / "uris" / "x.parquet", {"url": [f"../loose/{name}" for name in pictures], "text": captions})
    captioned = dict(zip(pictures, captions, strict=True))
    lines = [json.dumps({"image": f"../loose/{name}", "text": text}) for name, text in captioned.items()]
    write_folder(folder / "lines", {"x.jsonl": "\n".join(lines).encode()})
    texts = {name.replace("jpg", "txt"): text.encode() for name, text in captioned.items()}
    write_folder(folder / "loose", {**pictures, **texts})


@pytest.fixture(scope="module")
def inputs(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.mark.parametrize(
    "pattern",
    ["plain/{000..001}.tar", "plain/*.tar", "**/00?.tar", "packed", "bytes/x.parquet", "uris", "lines", "loose"],
)
def test_inputs_of_every_kind(s3: Proxy, inputs: Path, tmp_path: Path, pattern: str) -> None:
    for file in storage.iter_files(str(inputs)):
        uri = f"{OPEN}/inputs{file.uri.removeprefix(str(inputs))}"
        if storage.stat(uri) is None:
            storage.publish(uri, storage.read_bytes(file.uri))
    output = f"{OPEN}/outputs/{tmp_path.name}"
    measured = measure(find_shards([f"{OPEN}/inputs/{pattern}"]), Columns(), output)
    plan = make_plan(measured, layout.list_output(output), "c" * 10, 4)
    found = [sample for chunk in plan.chunks for sample in read_chunk(chunk, Columns())]
    assert [sample.problem for sample in found] == [None] * 6
    assert [(sample.image, sample.caption) for sample in found] == [
        (encoded_image(number), f"caption {number}") for number in range(6)
    ]


def test_inputs_that_may_not_be_read_are_setting_errors(s3: Proxy, become: Become) -> None:
    with pytest.raises(SettingError, match="--input 's3://absent-bucket/x' cannot be read: .* no bucket"):
        find_shards(["s3://absent-bucket/x"])
    with pytest.raises(SettingError, match="there is nothing at s3://open-bucket/absent.tar"):
        find_shards([f"{OPEN}/absent.tar"])
    become(AWS_ACCESS_KEY_ID=READER_KEY, AWS_SECRET_ACCESS_KEY=READER_SECRET)
    for pattern in ("x.tar", "*.tar", "{0..1}.tar", ""):
        with pytest.raises(SettingError, match="access was refused"):
            find_shards([f"{CLOSED}/{pattern}"])


def test_status_costs_a_page_of_each_folder_and_a_record(s3: Proxy, tmp_path: Path) -> None:
    output = f"{OPEN}/status/{tmp_path.name}"
    write_tar(tmp_path / "a.tar", samples(30))
    measured = measure(find_shards([str(tmp_path / "a.tar")]), Columns(), output)
    plan = make_plan(measured, layout.list_output(output), "c" * 16, 1)
    for chunk in plan.chunks[:20]:
        finish(output, chunk)
    options = {"limit": None, "since": None, "max_error_rate": 1.0}
    record = RunRecord(output, {"job": "x", "configuration": "c" * 16, "options": options})
    record.planned(measured, plan, is_whole=True)
    s3.requests.clear()
    status = read_status(output)
    assert (status.ok, status.pending, status.exit_code) == (20, 10, 1)
    assert len(s3.requests) <= 9, s3.requests  # marks, data; errors, removed (each a file?); runs, record, plan


def test_finding_many_shards_costs_few_requests(s3: Proxy) -> None:
    for number in range(20):
        storage.publish(f"{OPEN}/many/{number:02d}.tar", b"x")
    for pattern, most in [("{00..19}.tar", 24), ("*.tar", 8), ("", 8)]:
        s3.requests.clear()
        assert len(find_shards([f"{OPEN}/many/{pattern}"])) == 20
        assert len(s3.requests) <= most, s3.requests


def test_a_refused_row_fails_and_one_whose_credentials_have_expired_waits(s3: Proxy, tmp_path: Path) -> None:
    storage.publish(
        f"{OPEN}/trouble/list.jsonl", b'{"image": "a.jpg"}\n{"image": "b.jpg"}\n{"image": "../../closed"}\n'
    )
    storage.publish(f"{OPEN}/trouble/a.jpg", b"a")
    measured = measure(find_shards([f"{OPEN}/trouble/list.jsonl"]), Columns(), str(tmp_path))
    (chunk,) = make_plan(measured, layout.list_output(str(tmp_path)), "c" * 10, 4).chunks
    assert [sample.problem is None for sample in read_chunk(chunk, Columns())] == [True, False, False]
    s3.faults = [Fault("403", 1, "GET /open-bucket/trouble/a.jpg")]
    (sample, *_) = read_chunk(chunk, Columns())
    assert sample.problem is not None and "access was refused" in sample.problem.reason
    assert not isinstance(sample.problem, PassingError)
    s3.faults = [Fault("expired", 1, "GET /open-bucket/trouble/a.jpg")]
    (sample, *_) = read_chunk(chunk, Columns())
    assert isinstance(sample.problem, PassingError) and sample.problem.is_shared
    assert "rejected as ExpiredToken" in sample.problem.reason


def test_a_model_lies_in_the_store(s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = write_tiny_model(tmp_path / "tiny")
    fs, _ = storage.filesystem(OPEN)
    fs.put(str(local), f"{OPEN.removeprefix('s3://')}/models/tiny", recursive=True)
    there, here = (identify_model(UniConModel(model=place, conditions=("depth",)))
                   for place in (f"{OPEN}/models/tiny", str(local)))  # fmt: skip
    assert (there.weights_sha256, there.recommended) == (here.weights_sha256, here.recommended)
