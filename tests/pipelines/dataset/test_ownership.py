"""Files beside the data: those of this program are replaced, those of users never."""

import io
from pathlib import Path

import pytest
from PIL import Image

from jobs import evaluate, import_adapter, train_adapter, train_mini
from pipelines import storage
from pipelines.dataset.card import Card, card_text
from pipelines.dataset.ownership import (
    check_replaceable,
    is_our_png,
    is_our_text,
    marked,
    marked_png,
    other_name,
    our_file,
    publish_beside,
)
from pipelines.dataset.preview import write_preview
from pipelines.dataset.row_formats import PARQUET
from pipelines.errors import SettingError
from pipelines.runs.report_page import write_report
from tests.support.in_process import World, images, keys
from tests.support.inputs import encoded_image, write_folder, write_parquet

CARD = Card(title="Depth maps", task="depth-estimation", columns={"`key`": "a name"}, previews={"image": ""})
OLD_CARD = card_text(CARD, {"job": "estimate_depth", "seed": 0}, ["seed"], 3, 1)
OLD_SCENES = "# Rendered scenes\n\nWebDataset tars of rooms and yards with simple solids\n"


def output(tmp_path: Path, scheme: str) -> str:
    return str(tmp_path) if scheme == "file" else f"memory://owned-{tmp_path.name}"


@pytest.mark.parametrize("scheme", ["file", "memory"])
@pytest.mark.parametrize("theirs", [b"# My photos\n", b"", b"\xff\xfe\x00", OLD_CARD.encode() + b"My own words.\n"])
def test_a_users_file_stays(tmp_path: Path, scheme: str, theirs: bytes) -> None:
    root = output(tmp_path, scheme)
    storage.publish(f"{root}/README.md", theirs)
    for text in ("one", "two"):
        messages: list[str] = []
        assert publish_beside(root, "README.md", marked(text), is_our_text, messages.append) == "README-unicon.md"
        assert storage.read_bytes(f"{root}/README.md") == theirs
        assert storage.read_bytes(f"{root}/README-unicon.md") == marked(text)
        (line,) = messages
        assert f"{root}/README.md was not written by this program" in line and "README-unicon.md" in line
    storage.publish(f"{root}/README-unicon.md", b"mine too")
    assert publish_beside(root, "README.md", marked("x"), is_our_text, messages.append) == ""
    assert (
        "the new one is not written" in messages[-1] and storage.read_bytes(f"{root}/README-unicon.md") == b"mine too"
    )


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_file_of_this_program_is_replaced_until_it_is_edited(tmp_path: Path, scheme: str) -> None:
    root = output(tmp_path, scheme)
    messages: list[str] = []

    def publish(text: str) -> str:
        return publish_beside(root, "README.md", marked(text), is_our_text, messages.append)

    assert [publish("one\n"), publish("two\n\n"), messages] == ["README.md", "README.md", []]
    ours = storage.read_bytes(f"{root}/README.md")
    assert ours.startswith(b"two\n<!-- written by unicon-data, ")
    for edited in (ours.replace(b"two", b"2"), b"two\n", ours + b"more\n"):
        storage.publish(f"{root}/README.md", edited)
        assert publish("three") == "README-unicon.md" and storage.read_bytes(f"{root}/README.md") == edited
    storage.publish(f"{root}/README.md", ours.replace(b"\n", b"\r\n"))
    assert publish("four") == "README.md", "line endings of another system do not count as an edit"


@pytest.mark.parametrize("old", [OLD_CARD, OLD_SCENES, '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
                                 "<title>x</title></head>\n<body></body></html>\n"])  # fmt: skip
def test_files_of_earlier_versions_are_recognized(old: str) -> None:
    assert is_our_text(old.encode())
    assert not is_our_text(f"My words first.\n{old}".encode())


def test_a_folder_of_the_same_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").mkdir()
    assert publish_beside(str(tmp_path), "README.md", b"x", is_our_text, print) == "README-unicon.md"
    (tmp_path / "link.md").symlink_to("theirs.md")
    (tmp_path / "theirs.md").write_text("theirs")
    assert publish_beside(str(tmp_path), "link.md", b"x", is_our_text, print) == "link-unicon.md"
    assert [other_name(name) for name in ("preview.png", "NOTES")] == ["preview-unicon.png", "NOTES-unicon"]
    assert (tmp_path / "theirs.md").read_text() == "theirs"


def rows(root: Path) -> Path:
    write_parquet(root / "data" / "a.parquet", {"image": [{"bytes": encoded_image(1), "path": "a.jpg"}]})
    return root


def test_a_users_preview_stays(tmp_path: Path) -> None:
    rows(tmp_path)
    theirs = encoded_image(3, kind="PNG")
    (tmp_path / "preview.png").write_bytes(theirs)
    messages: list[str] = []
    name = write_preview(str(tmp_path), {"image": ""}, PARQUET, messages.append)
    assert name == "preview-unicon.png" and (tmp_path / "preview.png").read_bytes() == theirs and len(messages) == 1
    assert "](preview-unicon.png)" in card_text(CARD, {}, ["seed"], 1, 0, PARQUET, preview=name)
    assert our_file(str(tmp_path), "preview.png", is_our_png) == (tmp_path / name).read_bytes()


def test_a_preview_of_this_program_is_replaced(tmp_path: Path) -> None:
    rows(tmp_path)
    for _ in range(2):
        assert write_preview(str(tmp_path), {"image": ""}) == "preview.png"
    buffer = io.BytesIO()
    Image.open(tmp_path / "preview.png").save(buffer, "PNG")
    assert b"Software" not in buffer.getvalue() and is_our_png(buffer.getvalue()), "as earlier versions wrote it"
    for content in (b"", b"junk", encoded_image(1), encoded_image(1, kind="PNG"), encoded_image(2, (900, 700), "PNG")):
        assert not is_our_png(content)
    white = io.BytesIO()
    Image.new("RGB", (300, 208), "white").save(white, "PNG")
    assert not is_our_png(white.getvalue())


def test_a_users_report_stays(tmp_path: Path) -> None:
    world = World(tmp_path)
    images(world, keys(2))
    assert world.run() == 0
    write_report(str(world.output))
    first = (world.output / "report.html").read_bytes()
    assert is_our_text(first) and first.startswith(b"<!doctype html>")
    (world.output / "report.html").write_text("<p>my report</p>")
    messages: list[str] = []
    write_report(str(world.output), messages.append)
    assert (world.output / "report.html").read_text() == "<p>my report</p>" and len(messages) == 1
    assert is_our_text((world.output / "report-unicon.html").read_bytes())


def test_options_that_name_users_files_are_rejected_before_the_run(tmp_path: Path) -> None:
    theirs = write_folder(tmp_path, {"notes.json": b'{"mine": 1}', "cat.png": encoded_image(1, kind="PNG")})
    common = ["--condition", "depth", "--predictions", str(tmp_path / "p"), "--truth", str(tmp_path / "t")]
    for option, name in (("--json", "notes.json"), ("--picture", "cat.png"), ("--json", "")):
        with pytest.raises(SettingError, match=f"{option} .*not replaced"):
            evaluate.main([*common, option, str(theirs / name)])
    for option, name, reason in (
        ("--json", f"{theirs}/notes.json/x", "is a file, not a folder"),
        ("--picture", "foo://x.png", "Protocol not known"),
        ("--picture", f"{theirs}/new.jpg", "the file is a PNG"),
        ("--json", "http://h/x.json", "take no files"),
    ):
        with pytest.raises(SettingError, match=f"{option} .*{reason}"):
            evaluate.main([*common, option, name])
    (tmp_path / "ours.png").write_bytes(marked_png(Image.new("RGB", (4, 4))))
    check_replaceable("--picture", str(tmp_path / "ours.png"), is_our_png)
    check_replaceable("--picture", str(tmp_path / "new.png"), is_our_png)
    assert evaluate._is_our_json(b'{"protocol": "p", "metrics": {}}') and not evaluate._is_our_json(b"[1]")


def test_users_adapters_and_models_stay(tmp_path: Path) -> None:
    theirs = write_folder(tmp_path, {"lora.safetensors": b"theirs", "sd/unet/config.json": b"{}", "photos/a.jpg": b""})
    lora = str(theirs / "lora.safetensors")
    with pytest.raises(SettingError, match="not an adapter of this project and will not be replaced"):
        import_adapter.main(["unicon/models/mini/adapters/depth.safetensors", "--output", lora])
    options = ["--model", "m", "--images", str(theirs / "photos"), "--condition", "edge", "--work", str(theirs / "w")]
    with pytest.raises(SettingError, match="not an adapter of this project and will not be replaced"):
        train_adapter.main([*options, "--output", lora])
    with pytest.raises(SettingError, match="did not write and will not replace"):
        train_mini.main(["--work", str(theirs / "w2"), "--output", str(theirs / "sd")])
    train_mini.check_output(Path("unicon/models/mini"), theirs / "w2")
    assert (theirs / "lora.safetensors").read_bytes() == b"theirs"


def test_settings_of_a_work_folder_are_replaced_only_if_this_program_wrote_them(tmp_path: Path) -> None:
    from unicon.training.photograph_training import keep_settings

    settings = {"condition": "edge", "images": "x", "model_sha256": "y"}
    keep_settings(tmp_path, settings)
    keep_settings(tmp_path, settings)
    (tmp_path / "settings.json").write_text('{"editor.tabSize": 4}')
    with pytest.raises(ValueError, match="was not written by one and is not replaced"):
        keep_settings(tmp_path, settings)
