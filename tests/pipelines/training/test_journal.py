# protobuf makes its classes when it is imported.
# pyright: reportAttributeAccessIssue=false
"""The log of a training: lines after the checkpoint are dropped when it goes on, and so are events for TensorBoard."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from pipelines.training.journal import Journal, TensorBoard


def journal(work: Path, first_step: int = 0) -> Journal:
    return Journal(work=str(work), first_step=first_step, sinks=(TensorBoard(str(work), first_step),))


def events(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield (step, name of the value) of the events in all files."""
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack("<Q", content[at : at + 8])
            event = Event.FromString(content[at + 12 : at + 12 + size])
            yield from ((event.step, value.tag) for value in event.summary.value)
            at += 16 + size


def steps(work: Path, name: str) -> list[int]:
    return [json.loads(line)["step"] for line in (work / "training" / name).read_text().splitlines()]


def test_a_training_that_goes_on_replaces_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    first = journal(tmp_path)
    for step in (10, 20):
        first.metrics(step, {"loss": 1 / step, "image": float("nan")})
    first.validation(20, {"canny_error": 0.5}, {"canny": Image.new("RGB", (4, 4))})
    first.publish()
    first.metrics(30, {"loss": 0.1})
    first.publish()
    assert steps(tmp_path, "log.jsonl") == [10, 20, 30]
    assert json.loads((tmp_path / "training" / "log.jsonl").read_text().splitlines()[0])["image"] is None

    again = journal(tmp_path, first_step=20)
    for step in (30, 40):
        again.metrics(step, {"loss": 0.2})
    again.publish()
    assert (steps(tmp_path, "log.jsonl"), steps(tmp_path, "validation.jsonl")) == ([10, 20, 30, 40], [20])
    assert (tmp_path / "training" / "validation-000020.png").exists()
    found = list(events(tmp_path / "tensorboard"))
    assert [step for step, name in found if name == "train/loss"] == [10, 20, 30, 40]
    assert (20, "validation/canny_error") in found and (20, "validation/canny") in found


def test_every_adapter_has_its_picture(tmp_path: Path) -> None:
    written = journal(tmp_path)
    pictures = {name: Image.new("RGB", (4, 4)) for name in ("canny", "depth")}
    written.validation(5, {}, pictures)
    names = sorted(path.name for path in (tmp_path / "training").glob("*.png"))
    assert names == ["validation-000005-canny.png", "validation-000005-depth.png"]
