"""The inpaint command, with a real Ray and a fake model."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import _cli, inpaint
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, encoded_image, samples, write_tar
from tests.support.run_fake_job import run_command


def mask() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.arange(32 * 48).reshape(32, 48) % 48 < 24).astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_masked_part_is_new(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [*samples(6), *((f"{number:05d}.mask.png", mask()) for number in range(5)), ("x.mask.png", mask())]
    write_tar(tmp_path / "in" / "a.tar", sorted(members))
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--mask-column", "mask.png"]
    arguments += ["--condition", "depth", "--image-column", "jpg", "--chunk-size", "3"]
    assert run_command(inpaint.parse(arguments), inpaint, FakeDepth(), "depth") == 0
    assert "7 of 7 samples: 5 rows in data/, 2 in errors/" in capsys.readouterr().err
    for row in all_rows(tmp_path / "out", "data"):
        new, old = (np.asarray(Image.open(io.BytesIO(row[name]["bytes"]))) for name in ("image", "original"))  # type: ignore[index]
        np.testing.assert_array_equal(new[:, 24:], old[:, 24:])
        assert (new[:, :24, 2] == 200).all()
        assert row["original"]["bytes"] == encoded_image(int(str(row["key"])))  # type: ignore[index]
        assert str(row["caption"]).startswith("caption")
    assert {row["reason"] for row in all_rows(tmp_path / "out", "errors")} == {
        "no member .mask.png: the sample has .jpg, .txt",
        "no member .jpg: the sample has .mask.png",
    }
    assert (tmp_path / "out" / "preview.png").exists()


def test_a_mask_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "a.tar", samples(2))
    arguments = ["--input", str(tmp_path / "a.tar"), "--output", str(tmp_path / "out"), "--mask-column", "mask.png"]
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: inpaint.main(arguments))
    assert exit_.value.code == 2
    assert "--mask-column mask.png: no .mask.png in the first samples" in capsys.readouterr().err
