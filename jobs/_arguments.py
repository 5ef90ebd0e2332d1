"""Argument types of the commands: what they refuse, they refuse in words."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.storage.uris import LOCAL

MIN_SIDE_PX, MAX_SIDE_PX = 8, 8192
"""Of a picture that is asked for."""
MAX_ACTORS = 100_000


def whole(minimum: int, maximum: int = 2**63 - 1) -> Callable[[str], int]:
    """An argument type: a whole number in [minimum, maximum]."""

    def parse(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; the least is {minimum}")
        if value > maximum:
            raise argparse.ArgumentTypeError(f"{text[:40]} is too large; the most is {maximum}")
        return value

    return parse


def number(minimum: float, maximum: float = sys.float_info.max) -> Callable[[str], float]:
    """An argument type: a finite number in [minimum, maximum]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not minimum <= value <= maximum:  # so that NaN is refused
            most = f"to {maximum:g}" if maximum < sys.float_info.max else "and more, finite"
            raise argparse.ArgumentTypeError(f"{text} is outside {minimum:g} {most}")
        return value

    return parse


def actor_range(text: str) -> tuple[int, int]:
    """An argument type: `4`, or `1:8` for the fewest and the most."""
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most <= MAX_ACTORS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no number of actors and no range such as 1:8, from 1 to {MAX_ACTORS}"
        )
    return fewest, most


def moment(text: str) -> datetime:
    """An argument type: a moment of the past, see `pipelines.readers.shards`."""
    pass

    try:
        return parse_since(text, datetime.now(UTC))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size(text: str) -> tuple[int, int]:
    """An argument type: `WIDTHxHEIGHT` in pixels."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if match is None or not all(MIN_SIDE_PX <= int(side) <= MAX_SIDE_PX for side in match.groups()):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size; write WIDTHxHEIGHT, such as 512x768, each {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels"
        )
    return int(match[1]), int(match[2])


def place(text: str) -> str:
    """An argument type: a path, a URI or a name, with `~` for the home folder and schemes in any case (`S3://`)."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; a shell variable that is not set gives such a value")
    if local := LOCAL.match(text):
        text = text[local.end() :]
    scheme, separator, rest = text.partition("://")
    return f"{scheme.lower()}://{rest}" if separator else os.path.expanduser(text)


def named_place(text: str) -> str:
    """An argument type: `place`, or `NAME=` and a place."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name:
        return place(text)
    if not (name.strip() and rest.strip()):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=PATH, such as depth=adapters/depth.safetensors")
    return f"{name}={place(rest)}"


def local_path(text: str) -> Path:
    """An argument type: a path on this machine."""
    found = place(text)
    if "://" in found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is in an object store; this command needs a folder of this machine. Copy it, or mount it"
        )
    return Path(found)


UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_since(text: str, now: datetime) -> datetime:
    """`36h`, `7d` (before `now`), an ISO date or an ISO time, UTC unless it names its zone.

    Raises:
        ValueError: another spelling, or a moment after `now`.
    """
    span = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower())
    try:
        moment = now - int(span[1]) * UNITS[span[2]] if span else datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no moment; write a date (2026-11-24), a time (2026-11-24T18:00, UTC; or with +01:00), or how "
            "long ago: 90m, 36h, 7d, 2w"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now:
        raise ValueError(f"{text!r} is in the future; it is {now:%Y-%m-%dT%H:%M} UTC now")
    return moment.astimezone(UTC)
