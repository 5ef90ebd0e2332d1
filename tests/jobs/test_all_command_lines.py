"""Rules for the command line of every job: empty values, unexpected words, `~`, URIs, examples that can be typed."""

import importlib
import re
import shlex
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

from jobs import _cli
from jobs._parser import TEXT_OPTIONS
from pipelines.errors import SettingError
from pipelines.storage.errors import StorageError
from tests.support.paths import PROJECT_ROOT

JOBS = tuple(
    importlib.import_module(f"jobs.{path.stem}")
    for path in sorted(PROJECT_ROOT.glob("jobs/*.py"))
    if not path.stem.startswith("_")
)
BY_NAME = {job.__name__.removeprefix("jobs."): job for job in JOBS}
REQUIRED = {
    "build_corpus": "--input in --output out --condition depth=unicon",
    "estimate": "--input in --output out",
    "estimate_depth": "--input in --output out",
    "evaluate": "--condition depth --predictions p --truth t",
    "evaluate_depth": "--predictions p --truth t",
    "generate_pairs": "--prompts p.txt --output out",
    "import_adapter": "source --output a.safetensors",
    "inpaint": "--input in --output out --mask-column mask",
    "render_scenes": "--output out --count 3",
    "status": "--output out",
    "synthesize": "--input in --output out --condition depth=depth",
    "train_adapter": "--model m --images i --condition edge --output a.safetensors --work w",
    "train_decoder": "--model mini --work w",
    "train_mini": "--work w --output out",
}


def help_of(job: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        job.parse(["--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def refused(job: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        job.parse(words)
    assert exit_.value.code == 2, words
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def parsed(name: str, words: str) -> Namespace:
    return BY_NAME[name].parse(words.split())


def options_with_values(text: str) -> list[str]:
    """Return the options that take a value, found by the `--name METAVAR` lines of the help."""
    return sorted(set(re.findall(r"^  (--[a-z-]+) [A-Z\[{]", text, re.MULTILINE)))


def test_every_job_is_here() -> None:
    assert BY_NAME.keys() == REQUIRED.keys()
    for name, job in BY_NAME.items():
        job.parse(REQUIRED[name].split())


@pytest.mark.parametrize("name", REQUIRED)
def test_empty_values_are_refused_whatever_the_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    job, words = BY_NAME[name], REQUIRED[name].split()
    options = options_with_values(help_of(job, capsys))
    assert {word for word in words if word.startswith("--")} <= {*options}
    for option in options:
        if option in TEXT_OPTIONS:
            job.parse([*words, option, ""])
            continue
        for blank in ("", " ", "\t"):
            assert f"{option} is empty" in refused(job, [*words, option, blank], capsys)
        assert f"{option} is empty" in refused(job, [*words, f"{option}="], capsys)
    if name == "import_adapter":
        assert "is empty" in refused(job, ["", *words[1:]], capsys)


@pytest.mark.parametrize("name", ["estimate", "estimate_depth", "generate_pairs", "inpaint", "synthesize"])
@pytest.mark.parametrize("text", ["depth=", "=a.safetensors", "depth= ", "="])
def test_an_adapter_without_a_name_or_a_path(name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(BY_NAME[name], [*REQUIRED[name].split(), "--adapter", text], capsys)
    assert "expected NAME=PATH, such as depth=adapters/depth.safetensors" in text


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "estimate_depth",
            "photos/",
            "unexpected argument 'photos/'. Paths are given as options: did you mean --input photos/?",
        ),
        ("estimate", "photos/ out/", "did you mean --input photos/ --output out/?"),
        (
            "estimate",
            "--input a --output b photos/",
            "unexpected argument 'photos/'. Every value must follow an option",
        ),
        ("estimate", "photos/ --output b --steps 3", "did you mean --input photos/?"),
        ("generate_pairs", "prompts.txt --output b", "did you mean --prompts prompts.txt?"),
        ("synthesize", "depth/ out/", "did you mean --input depth/ --output out/?"),
        ("inpaint", "depth/", "did you mean --input depth/?"),
        ("evaluate", "p t --condition depth", "did you mean --predictions p --truth t?"),
        ("evaluate_depth", "p t", "did you mean --predictions p --truth t?"),
        ("render_scenes", "out --count 3", "did you mean --output out?"),
        ("status", "out", "did you mean --output out?"),
        ("train_adapter", "photos --condition edge --model m", "did you mean --images photos?"),
        ("train_mini", "w out", "did you mean --work w --output out?"),
        ("import_adapter", "a b --output c", "unexpected argument 'b'"),
        ("estimate", "--inptu a photos/", "unknown option --inptu. Did you mean --input?"),
    ],
)
def test_values_without_an_option(name: str, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(BY_NAME[name], words.split(), capsys)


def test_home_folders_and_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    options = parsed(
        "estimate",
        "--input ~/in S3://B/In file:///x --output=~/out --model=~/m --adapter=depth=~/a --adapter ~/b",
    )
    assert options.input == ["/home/me/in", "s3://B/In", "/x"]
    assert (options.output, options.model) == ("/home/me/out", "/home/me/m")
    assert options.adapter == ["depth=/home/me/a", "/home/me/b"]
    assert BY_NAME["generate_pairs"].parse(["--prompts=~/p.txt", "--output", "GS://b/x"]).input == ["/home/me/p.txt"]
    found = parsed("evaluate_depth", "--predictions ~/p --truth ~/t --json ~/j --picture S3://b/x.png")
    assert (found.predictions, found.truth, found.json, found.picture) == (
        "/home/me/p", "/home/me/t", "/home/me/j", "s3://b/x.png"
    )  # fmt: skip
    options = parsed(
        "train_adapter",
        "--model ~/m --images ~/i --condition edge --conditions ~/c --output ~/a.safetensors --work ~/w",
    )
    assert {str(options.images), str(options.conditions), str(options.output), str(options.work), options.model} == {
        f"/home/me/{name}" for name in ("i", "c", "a.safetensors", "w", "m")
    }
    options = parsed("train_mini", "--work ~/w --output ~/o --start-from ~/s")
    assert [str(each) for each in (options.work, options.output, options.start_from)] == [
        "/home/me/w", "/home/me/o", "/home/me/s"
    ]  # fmt: skip
    options = parsed("import_adapter", "~/src --output ~/a --base ~/b")
    assert (options.source, str(options.output), options.base) == ("/home/me/src", "/home/me/a", "/home/me/b")
    assert parsed("status", "--output ~/o --input ~/i").input == ["/home/me/i"]
    assert parsed("render_scenes", "--output ~/o --count 1").output == "/home/me/o"


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("train_adapter", "--images"),
        ("train_adapter", "--output"),
        ("train_decoder", "--work"),
        ("train_mini", "--work"),
        ("import_adapter", "--output"),
    ],
)
def test_commands_that_need_a_local_folder_say_so(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(BY_NAME[name], [*REQUIRED[name].split(), option, "s3://bucket/x"], capsys)
    assert "needs a local path" in text


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return (job, words) for every example in a help text, split as a shell does."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if re.search(r"(^|-- )python jobs/", line.strip())]
    found = []
    for line in lines:
        words = shlex.split(line.split(" | ")[0], comments=True)
        script = next(at for at, word in enumerate(words) if word.startswith("jobs/"))
        found.append((Path(words[script]).stem, words[script + 1 :]))
    return found


@pytest.mark.parametrize("name", REQUIRED)
def test_examples_of_the_help_can_be_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(BY_NAME[name], capsys)
    found = commands(text.split("examples:")[1])
    assert any(job == name for job, _ in found)
    for job, words in found:
        assert not any(word.startswith("\\") for word in words)
        BY_NAME[job].parse(words)


def test_no_help_or_message_of_a_command_is_about_python(capsys: pytest.CaptureFixture[str]) -> None:
    for job in JOBS:
        text = help_of(job, capsys)
        assert "adapters={" not in text.replace("UniCon.from_pretrained", "").replace('adapters={"edge"', "")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("estimate", "--actors 99999999999999999999", "is not a number of actors"),
        ("estimate", "--batch-size 0", "0 is too small; the minimum is 1; expected 1 to 65536 images, or auto"),
        ("synthesize", "--batch-size large", "'large' is not an integer; expected 1 to 65536 images, or auto"),
        ("estimate", "--num-gpus-per-actor 1e30", "out of range; expected a finite number from 0 to 1024"),
        ("train_mini", "--seed -1", "too small"),
        ("train_mini", "--batch-size 9999999", "too large"),
    ],
)
def test_numbers_that_no_machine_has(name: str, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(BY_NAME[name], [*REQUIRED[name].split(), *words.split()], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--device foo", "--device foo is not available"),
        ("--start-from nothing", "--start-from nothing is not a model folder"),
    ],
)
def test_train_mini_refuses_before_it_renders(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        BY_NAME["train_mini"].main(["--work", f"{tmp_path}/w", "--output", f"{tmp_path}/o", *words.split()])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("no usable credentials", "credentials"), 2),
        (StorageError("no answer", "unreachable"), 1),
        (PermissionError(13, "Permission denied", "/x/y"), 2),
    ],
)
def test_a_storage_that_fails_is_one_line(error: OSError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        raise error

    with pytest.raises(SystemExit) as exit_:
        _cli.finish(run)
    assert exit_.value.code == code and capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("s3://b/x --output {0}/a.safetensors", "is in an object store"),
        ("MINI --output {0}/file/a.safetensors", "--output .*is a file, not a folder"),
        ("MINI --output MINI --to published", "but an official adapter is a folder"),
    ],
)
def test_import_adapter_names_the_option(tmp_path: Path, words: str, message: str) -> None:
    (tmp_path / "file").write_text("x")
    mini = "unicon/models/mini/adapters/depth.safetensors"
    with pytest.raises(SettingError, match=message):
        BY_NAME["import_adapter"].main(words.format(tmp_path).replace("MINI", mini).split())
