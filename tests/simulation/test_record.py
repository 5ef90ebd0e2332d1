import json
from pathlib import Path

from tests.simulation.campaign import Batch, Kind
from tests.simulation.record import Record

KIND = Kind(features="kill+limit", form="tar")


def test_invocations_on_the_same_code_add_up_and_take_new_seeds(tmp_path: Path) -> None:
    path = tmp_path / "campaign.json"
    first = Record.read(path)
    first.add(Batch(kind=KIND, first=0, count=25))
    first.write()
    second = Record.read(path)
    assert second.first == 25
    second.add(Batch(kind=KIND, first=25, count=25, broken=((30, "a row is lost"),)))
    second.write()
    content = json.loads(path.read_text())
    assert (content["schedules"], content["broken"], content["next_seed"]) == (50, 1, 50)
    assert Record.read(path).tallies[KIND].broken == {30: "a row is lost"}


def test_other_code_starts_from_nothing_with_new_seeds(tmp_path: Path) -> None:
    path = tmp_path / "campaign.json"
    before = Record(path=path, code="of another version")
    before.add(Batch(kind=KIND, first=0, count=25))
    before.write()
    now = Record.read(path)
    assert now.first == 25 and not now.tallies
