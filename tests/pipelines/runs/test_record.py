"""The record of a run: how it ended, and no secrets."""

import gzip
import json
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines import VERSION
from pipelines.dataset import layout
from pipelines.errors import SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.runs.environment import Environment, in_a_thread
from pipelines.runs.progress import Progress
from pipelines.runs.record import RunRecord, command_line, recorded, versions, write_plan
from pipelines.samples import ChunkName, Columns
from tests.support.inputs import samples, write_tar
from tests.support.paths import PROJECT_ROOT

ABOUT = {"job": "test", "inputs": ["in"]}


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((output / "_chunks" / "runs").glob("*.json"))]


def only(output: Path) -> dict[str, Any]:
    (record,) = records(output)
    return record


def test_a_run_is_running_until_it_ends(tmp_path: Path) -> None:
    with recorded(str(tmp_path), ABOUT) as record:
        assert (only(tmp_path)["state"], only(tmp_path)["exit_code"]) == ("running", None)
        record.exit_code = 3
    found = only(tmp_path)
    assert (found["state"], found["exit_code"], found["job"]) == ("ended", 3, "test")
    assert found["started"] <= found["ended"]
    assert found["versions"] == versions() and None not in versions().values()


@pytest.mark.parametrize(
    ("error", "state", "exit_code", "trouble"),
    [
        (SystemExit(143), "interrupted", 143, None),
        (KeyboardInterrupt(), "interrupted", 130, None),
        (SettingError("no such column"), "refused", 2, "no such column"),
        (OSError("the disk is gone"), "failed", 1, "OSError: the disk is gone"),
    ],
)
def test_a_run_that_breaks_off_says_how(
    error: BaseException, state: str, exit_code: int, trouble: str | None, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), recorded(str(tmp_path), ABOUT):
        raise error
    found = only(tmp_path)
    assert (found["state"], found["exit_code"], found["trouble"]) == (state, exit_code, trouble)


def test_names_sort_by_time_and_differ(tmp_path: Path) -> None:
    names = [RunRecord(str(tmp_path), {"number": number}).name for number in range(20)]
    assert len({*names}) == 20
    assert [name[:15] for name in names] == sorted(name[:15] for name in names)


def test_the_record_is_kept_up_to_date(tmp_path: Path) -> None:
    progress = Progress(10)
    environment = Environment(heartbeat=partial(in_a_thread, interval_s=0.01))
    record = RunRecord(str(tmp_path), ABOUT, environment)
    record.working({"CPU": 2.0, "node:1.2.3.4": 1.0, "node:__internal_head__": 1.0}, 1, 0.0, progress)
    progress.add({"ok": 4, "bad": 1, "reasons": {"decode: broken: x": 1}, "seconds": {"read": 0.5}, "batch_size": 3})
    with record.heartbeat():
        while "done" not in only(tmp_path):
            pass
    done = only(tmp_path)["done"]
    assert (done["ok"], done["bad"], done["batch_size"], done["seconds"]) == (4, 1, 3, {"read": 0.5})
    assert done["errors"] == {"decode: broken": 1} and done["samples_per_s"] > 0
    assert only(tmp_path)["cluster"]["nodes"] == 1


def test_a_storage_that_fails_later_is_reported_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str, content: bytes) -> None:
        raise OSError("no space left")

    with recorded(str(tmp_path), ABOUT) as record:
        monkeypatch.setattr("pipelines.storage.publish", refuse)
        record.exit_code = 0
    assert "the record of this run cannot be written: no space left" in capsys.readouterr().err


def test_nothing_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/very+secret")
    secrets = ["s3://user:pass-word@host/x", "https://host/a?X-Amz-Signature=0123&sig=4567", "abc/very+secret"]
    monkeypatch.setattr("sys.argv", ["jobs/estimate_depth.py", "--input", *secrets])
    about = {"command": command_line(), "inputs": secrets, "settings": {"model": {"path": secrets}}}
    with pytest.raises(ValueError), recorded(str(tmp_path), about):
        raise ValueError(f"cannot read {secrets[0]}")
    text = next((tmp_path / "_chunks" / "runs").iterdir()).read_text()
    assert not [secret for secret in ("pass-word", "0123", "4567", "very+secret") if secret in text]
    assert only(tmp_path)["command"][:2] == ["jobs/estimate_depth.py", "--input"]
    assert "s3://***@host/x" in text


def test_runs_over_the_same_shards_share_their_plan(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    for number in range(3):
        write_tar(tmp_path / "in" / f"{number}.tar", samples(number + 1))
    measured = measure(find_shards([str(tmp_path / "in")]), Columns(), output)
    name = write_plan(output, measured)
    assert write_plan(output, measured) == name != write_plan(output, measured[:1])
    rows = json.loads(gzip.decompress(Path(layout.plan_uri(output, name)).read_bytes()))
    assert [row[4] for row in rows] == [1, 2, 3]
    plan = make_plan(measured, layout.list_output(output), "c" * 16, 2)
    names = [parsed for chunk in plan.chunks if (parsed := ChunkName.parse(chunk.name))]
    assert {row[0] for row in rows} == {parsed.shard for parsed in names}
    assert {row[3] for row in rows} == {parsed.fingerprint for parsed in names}


def test_the_version_is_the_projects() -> None:
    assert tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
