"""Checkpoints at a URI: the latest counts, an interrupted save leaves the earlier one, other files do not matter."""

from contextlib import suppress
from pathlib import Path

from pipelines.storage.store import FsspecStore
from pipelines.training.checkpoints import StoredCheckpoints


class DyingStore(FsspecStore):
    """A store whose process dies before it removes a file."""

    def remove(self, uri: str) -> None:
        raise KeyboardInterrupt(uri)


def test_the_latest_state_replaces_earlier_ones(tmp_path: Path) -> None:
    checkpoints = StoredCheckpoints(str(tmp_path))
    assert (checkpoints.load(), checkpoints.step()) == (None, 0)
    checkpoints.save(500, b"first")
    checkpoints.save(100_000_000, b"second")
    (tmp_path / "training" / "log.jsonl").write_text("{}")
    assert (checkpoints.load(), checkpoints.step()) == (b"second", 100_000_000)
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == ["log.jsonl", "state-100000000.pt"]


def test_a_death_while_saving_loses_nothing(tmp_path: Path) -> None:
    StoredCheckpoints(str(tmp_path)).save(10, b"first")
    with suppress(KeyboardInterrupt):
        StoredCheckpoints(str(tmp_path), DyingStore()).save(20, b"second")
    checkpoints = StoredCheckpoints(str(tmp_path))
    assert (checkpoints.load(), checkpoints.step()) == (b"second", 20)
    (tmp_path / "training" / ".state-00000030.pt.0123abcd.tmp").write_bytes(b"half")
    assert checkpoints.step() == 20
