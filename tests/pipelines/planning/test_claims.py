"""What is decided once for an output: the chunk size and the configuration."""

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
def test_later_runs_take_over_the_first_ones_chunk_size(scheme: str, tmp_path: Path) -> None:
    output = str(tmp_path) if scheme == "file" else f"memory://claims-{tmp_path.name}"
    told: list[str] = []
    assert agree_on_chunk_size(FILES, output, 64, told.append) == 64
    assert agree_on_chunk_size(FILES, output, 64, told.append) == 64
    assert told == []
    assert agree_on_chunk_size(FILES, output, 8, told.append) == 64
    assert "--chunk-size 8 is not used" in told[0]


def test_of_many_at_once_one_decides_and_all_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        agreed = list(
            pool.map(lambda size: agree_on_chunk_size(FILES, str(tmp_path), size, lambda text: None), range(1, 60))
        )
    assert len(set(agreed)) == 1
    assert [path.name for path in (tmp_path / "_chunks").iterdir()] == ["chunk-size.json"]


@pytest.mark.parametrize("content", [b"", b'{"chunk_', b"[]", b'{"chunk_size": 0}', b'{"chunk_size": "8"}'])
def test_a_damaged_chunk_size_is_decided_anew_by_all_alike(content: bytes, tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "_chunks" / "chunk-size.json"), content)
    sizes = [agree_on_chunk_size(FILES, str(tmp_path), size, lambda text: None) for size in (16, 4, 64)]
    assert sizes == [16, 16, 16]


def test_the_first_settings_are_the_outputs_own(tmp_path: Path) -> None:
    claim_configuration(FILES, str(tmp_path), {"steps": 10, "seed": 0})
    claim_configuration(FILES, str(tmp_path), {"seed": 0, "steps": 10})
    with pytest.raises(SettingError, match="steps was 10 and is now 20"):
        claim_configuration(FILES, str(tmp_path), {"steps": 20, "seed": 0})


def test_of_many_settings_at_once_one_is_taken(tmp_path: Path) -> None:
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


def test_settings_that_version_0_1_spelled_out_are_named(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "_chunks" / f"configuration-{'c' * 10}.json"), json.dumps({"steps": 10}).encode())
    with pytest.raises(SettingError, match="steps was 10 and is now 20"):
        check_configurations(FILES, str(tmp_path), {"c" * 10}, {"steps": 20})


def test_a_store_without_exclusive_creation_is_warned_about(tmp_path: Path) -> None:
    told: list[str] = []
    warn_without_exclusive_creation(FILES, str(tmp_path), "1", told.append)
    assert told == []
    warn_without_exclusive_creation(ForgetfulStore(), str(tmp_path), "2", told.append)
    assert "ignores conditional writes" in told[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_configuration_hash() -> None:
    settings = {"steps": 10, "seed": 0, "model": "mini"}
    assert configuration_hash(settings) == configuration_hash(dict(reversed(settings.items())))
    assert len({configuration_hash({**settings, "steps": steps}) for steps in (10, 11)}) == 2
    assert len(configuration_hash(settings)) == 16
