"""The generate_pairs command, with a real Ray and a fake model."""

from pathlib import Path

import datasets
import pytest

from jobs import _cli, generate_pairs
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import write_folder
from tests.support.run_fake_job import run_command


def test_pairs_of_every_prompt(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "in", {"p.txt": b"a cat\na dog\n", "q.jsonl": b'{"prompt": "a bird"}\n{}\n'})
    arguments = ["--prompts", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--pairs-per-prompt", "5"]
    arguments += ["--condition", "depth", "--condition", "edge", "--size", "48x32", "--chunk-size", "4"]
    options = generate_pairs.parse(arguments)
    assert run_command(options, generate_pairs, FakeDepth(), "depth", "edge") == 0
    told = capsys.readouterr().err
    assert "20 of 20 samples: 15 rows in data/, 5 in errors/" in told
    assert "the prompt is empty" in told
    files = str(tmp_path / "out" / "data" / "*.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["key"])[:2] == ["p/00000000#0", "p/00000000#1"]
    assert len(set(rows["seed"])) == 15
    row = rows[0]
    assert [row[name].size for name in ("image", "depth", "edge")] == [(48, 32)] * 3
    assert (row["width"], row["height"], row["condition_guidance_scale"]) == (48, 32, 0.0)
    assert "5 x its number there + the pair's number" in (tmp_path / "out" / "README.md").read_text()
    assert run_command(options, generate_pairs, FakeDepth(), "depth", "edge") == 0
    assert "20 done before, 0 to do" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "48"], "'48' is not a valid size; expected WIDTHxHEIGHT"),
        (["--condition", "fog"], "none called fog. Name one of these as the condition"),
        (["--prompt-column", "p"], "--prompt-column 'p' is not in"),
        (["--prompts", "absent.txt"], "holds no prompts"),
        (["--sampler", "magic"], "argument --sampler: invalid choice: 'magic'"),
    ],
)
def test_wrong_settings(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.inputs import write_parquet

    path = write_parquet(tmp_path / "in.parquet", {"prompt": ["x"]})
    arguments = ["--prompts", str(path), "--output", str(tmp_path / "out"), *options]
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: generate_pairs.main(arguments))
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
