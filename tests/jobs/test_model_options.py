"""Invalid values of `--model`, `--adapter` and `--lora` end every command immediately with exit code 2."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobs import _cli, estimate, estimate_depth, generate_pairs, inpaint, synthesize, train_adapter
from pipelines.errors import SettingError
from tests.support.inputs import encoded_image, write_folder
from tests.support.paths import CASES, PROJECT_ROOT

ADAPTERS = CASES / "adapters"
JOBS: dict[ModuleType, list[str]] = {
    estimate: ["--condition", "depth"],
    estimate_depth: [],
    synthesize: ["--condition", "depth=depth"],
    generate_pairs: ["--prompts", "a cat", "--condition", "depth"],
    inpaint: ["--condition", "depth", "--mask-column", "mask"],
}


def command(job: ModuleType, folder: Path) -> list[str]:
    inputs = [] if job is generate_pairs else ["--input", str(write_folder(folder / "in", {"a.jpg": encoded_image()}))]
    return [*inputs, *JOBS[job], "--output", str(folder / "out")]


def told(job: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: job.main(arguments))
    text = capsys.readouterr().err
    assert exit_.value.code == 2, text
    assert "Traceback" not in text
    return text


WRONG = {
    "kohya": (["--adapter", str(ADAPTERS / "kohya.safetensors")], ["--adapter: ", "is a LoRA (kohya)", "--lora"]),
    "lcm": (["--adapter", str(ADAPTERS / "lcm")], ["--adapter: ", "folder of a LoRA", "--lora"]),
    "pointer": (["--adapter", str(ADAPTERS / "lfs.safetensors")], ["--adapter: ", "Git LFS pointer", "git lfs pull"]),
    "other-lora": (["--lora", str(ADAPTERS / "kohya.safetensors")], ["--lora: ", "match no layer of this model"]),
    "scale": (["--lora", "a.safetensors:nan"], ["--lora", "finite"]),
    "model": (["--model", str(ADAPTERS / "kohya.safetensors")], ["--model: ", "is a LoRA (kohya)", "--lora"]),
    "lora-folder": (["--model", str(ADAPTERS / "lcm")], ["--model: ", "is a LoRA", "--lora"]),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__.removeprefix("jobs."))
def test_what_cannot_work_is_said_at_once(
    job: ModuleType, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, words = WRONG[name]
    text = told(job, [*command(job, tmp_path), *options], capsys)
    assert all(word in text for word in words), text
    assert not (tmp_path / "out").exists()


def test_train_adapter_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "images", {"a.jpg": encoded_image(), "b.jpg": encoded_image()})
    arguments = ["--images", str(tmp_path / "images"), "--condition", "edge", "--work", str(tmp_path / "work")]
    arguments += ["--output", str(tmp_path / "a.safetensors")]
    text = told(train_adapter, [*arguments, "--model", str(ADAPTERS / "lcm")], capsys)
    assert "--model: " in text and "is a LoRA" in text


def test_a_model_is_judged_without_torch_and_ray() -> None:
    """Checking a model only takes the time to read headers."""
    code = (
        "import sys; from pipelines.tasks.model_identity import UniConModel, resolve_model\n"
        "resolve_model(UniConModel(model='mini', conditions=('depth',)))\n"
        "print(sorted({'torch', 'ray', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_place_for_compiled_code_needs_compiling() -> None:
    options = ["--input", "x", "--output", "y", "--compile", "never", "--compile-cache", "memory://compiled"]
    with pytest.raises(SettingError, match="--compile never compiles nothing. Remove one"):
        estimate.main(options)
