"""The options that name a model (`--model`, `--adapter`, `--lora`, `--vae`), parsed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipelines.errors import SettingError
from unicon.files.folder import EMBEDDED_NAMES
from unicon.files.hub import is_local, parse_hub_id
from unicon.files.loras import check_scale


@contextmanager
def named_in_errors(option: str) -> Iterator[None]:
    """Turn OSError and ValueError of the body into a SettingError that names an option."""
    try:
        yield
    except SettingError:
        raise
    except (OSError, ValueError) as error:
        raise SettingError(f"{option}: {error}") from error


def parse_model(text: str) -> tuple[str, str | None]:
    """Parse `--model` into (absolute path, URI, embedded name or hub id; revision of the hub)."""
    if text in EMBEDDED_NAMES or "://" in text:
        return text, None
    with named_in_errors("--model"):
        if is_local(text):
            return os.path.abspath(os.path.expanduser(text)), None
    name = parse_hub_id(text)
    return (text, None) if name is None or name.revision is None else (name._replace(revision=None).text, name.revision)


def parse_adapters(texts: Sequence[str], conditions: Sequence[str], option: str = "--adapter") -> dict[str, str]:
    """Parse the values of `--adapter`, or another option, into condition -> absolute path, URI or hub id.

    A value is NAME=PATH, or PATH alone if there is one condition. A path that exists has precedence over a hub id.

    Raises:
        SettingError: A condition is not used by the command or is given twice, or a path does not say which of several
            conditions it is for.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or (name not in conditions and "/" in name):  # a path with "=" in it
            name, path = (conditions[0], text) if len(conditions) == 1 else ("", text)
        if name not in conditions or not path:
            raise SettingError(
                f"{option} {text[:200]!r}: write NAME=PATH with a condition of this command "
                f"({', '.join(conditions)}), or PATH alone where there is one condition."
            )
        if name in found:
            raise SettingError(f"{option} {text!r}: {name} has an adapter already, {found[name]}. Give one for each.")
        with named_in_errors(option):
            found[name] = _place(path)
    return found


def parse_loras(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Parse `--lora` values, PATH or PATH:SCALE, into (absolute path, URI or hub id; scale).

    Raises:
        SettingError: A scale is not a finite number.
    """
    found: list[tuple[str, float]] = []
    for text in texts:
        place, colon, scale = text.rpartition(":")
        if not place or scale.startswith("//") or os.path.exists(os.path.expanduser(text)):
            place, scale = text, "1"
        try:
            value = check_scale(float(scale))
        except ValueError as error:
            raise SettingError(
                f"--lora {text[:200]!r}: {error} Write PATH or PATH:SCALE, like a.safetensors:0.8."
            ) from None
        if not place:
            raise SettingError("--lora '': write PATH or PATH:SCALE, like a.safetensors:0.8.")
        with named_in_errors("--lora"):
            found.append((_place(place), value))
    return tuple(found)


def parse_vae(text: str | None) -> str | None:
    """Parse `--vae` into an absolute path, URI or hub id; None for the model's own autoencoder."""
    if text is None:
        return None
    with named_in_errors("--vae"):
        return _place(text)


def _place(text: str) -> str:
    return text if "://" in text or not is_local(text) else os.path.abspath(os.path.expanduser(text))
