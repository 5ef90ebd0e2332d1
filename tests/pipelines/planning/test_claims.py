"""Decisions that the first run makes for an output: the chunk size and the configuration."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.planning.claims import (
    agree_on_chunk_size,
    check_configurations,
    claim_configuration,
    configuration_hash,
    warn_without_exclusive_creation,
)
from pipelines.storage.store import FILES, FsspecStore


class ForgetfulStore(FsspecStore):
    """Ignores If-None-Match, as some S3 look-alikes do."""

    def create_once(self, uri: str, content: bytes) -> None:
        self.publish(uri, content)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_later_runs_use_the_chunk_size_of_the_first_one(scheme: str, tmp_path: Path) -> None:
    output = str(tmp_path) if scheme == "file" else f"memory://claims-{tmp_path.name}"
    messages: list[str] = []
    assert agree_on_chunk_size(FILES, output, 64, messages.append) == 64
    assert agree_on_chunk_size(FILES, output, 64, messages.append) == 64
    assert messages == []
    assert agree_on_chunk_size(FILES, output, 8, messages.append) == 64
    assert "--chunk-size 8 is not used" in messages[0]


def test_simultaneous_runs_agree_on_one_chunk_size(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        agreed = list(
            pool.map(lambda size: agree_on_chunk_size(FILES, str(tmp_path), size, lambda text: None), range(1, 60))
        )
    assert len(set(agreed)) == 1
    assert [path.name for path in (tmp_path / "_chunks").iterdir()] == ["chunk-size.json"]


@pytest.mark.parametrize("content", [b"", b'{"chunk_', b"[]", b'{"chunk_size": 0}', b'{"chunk_size": "8"}'])
def test_all_runs_replace_a_damaged_chunk_size_by_the_same_one(content: bytes, tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "_chunks" / "chunk-size.json"), content)
    sizes = [agree_on_chunk_size(FILES, str(tmp_path), size, lambda text: None) for size in (16, 4, 64)]
    assert sizes == [16, 16, 16]


def test_the_first_settings_are_those_of_the_output(tmp_path: Path) -> None:
    claim_configuration(FILES, str(tmp_path), {"steps": 10, "seed": 0})
    claim_configuration(FILES, str(tmp_path), {"seed": 0, "steps": 10})
    with pytest.raises(SettingError, match="steps was 10 and is now 20"):
        claim_configuration(FILES, str(tmp_path), {"steps": 20, "seed": 0})


def test_one_of_many_simultaneous_settings_is_recorded(tmp_path: Path) -> None:
    def claim(steps: int) -> bool:
        try:
            claim_configuration(FILES, str(tmp_path), {"steps": steps})
        except SettingError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(claim, range(60))) == 1


def test_rows_of_other_settings_are_not_added_to(tmp_path: Path) -> None:
    claim_configuration(FILES, str(tmp_path), {"steps": 10})
    mine = configuration_hash({"steps": 10})
    check_configurations(FILES, str(tmp_path), {mine, mine[:10]}, {"steps": 10})
    with pytest.raises(SettingError, match="steps was 10 and is now 20"):
        check_configurations(FILES, str(tmp_path), {mine}, {"steps": 20})


def test_settings_recorded_by_version_0_1_are_named(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "_chunks" / f"configuration-{'c' * 10}.json"), json.dumps({"steps": 10}).encode())
    with pytest.raises(SettingError, match="steps was 10 and is now 20"):
        check_configurations(FILES, str(tmp_path), {"c" * 10}, {"steps": 20})


def test_a_store_without_exclusive_creation_is_warned_about(tmp_path: Path) -> None:
    messages: list[str] = []
    warn_without_exclusive_creation(FILES, str(tmp_path), "1", messages.append)
    assert messages == []
    warn_without_exclusive_creation(ForgetfulStore(), str(tmp_path), "2", messages.append)
    assert "ignores conditional writes" in messages[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_configuration_hash() -> None:
    settings = {"steps": 10, "seed": 0, "model": "mini"}
    assert configuration_hash(settings) == configuration_hash(dict(reversed(settings.items())))
    assert len({configuration_hash({**settings, "steps": steps}) for steps in (10, 11)}) == 2
    assert len(configuration_hash(settings)) == 16
