"""Argument types of the commands. Each rejects bad values with a message that says what is expected."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.storage.uris import LOCAL

MIN_SIDE_PX, MAX_SIDE_PX = 8, 8192
"""Limits for each side of a requested image."""
MAX_ACTORS = 100_000
MAX_BATCH_SIZE = 65_536
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def integer(minimum: int, maximum: int = 2**63 - 1) -> Callable[[str], int]:
    """Return an argument type for an integer in [minimum, maximum]."""

    def parse(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; the minimum is {minimum}")
        if value > maximum:
            raise argparse.ArgumentTypeError(f"{text[:40]} is too large; the maximum is {maximum}")
        return value

    return parse


def number(minimum: float, maximum: float = sys.float_info.max) -> Callable[[str], float]:
    """Return an argument type for a finite number in [minimum, maximum]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not minimum <= value <= maximum:  # also true for NaN
            bounds = f"from {minimum:g} to {maximum:g}" if maximum < sys.float_info.max else f"of at least {minimum:g}"
            raise argparse.ArgumentTypeError(f"{text} is out of range; expected a finite number {bounds}")
        return value

    return parse


def actor_range(text: str) -> tuple[int, int]:
    """Parse a number of actors: `4`, or `1:8` for the minimum and the maximum."""
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most <= MAX_ACTORS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a number of actors; expected N or MIN:MAX, such as 4 or 1:8, from 1 to {MAX_ACTORS}"
        )
    return fewest, most


def batch_size(text: str) -> int | None:
    """Parse a number of images, or `auto` as None."""
    if text == "auto":
        return None
    try:
        return integer(1, MAX_BATCH_SIZE)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; expected 1 to {MAX_BATCH_SIZE} images, or auto") from None


def past_time(text: str) -> datetime:
    """Parse a time in the past, as `parse_since` does."""
    try:
        return parse_since(text, datetime.now(UTC))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size(text: str) -> tuple[int, int]:
    """Parse `WIDTHxHEIGHT` in pixels."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if match is None or not all(MIN_SIDE_PX <= int(side) <= MAX_SIDE_PX for side in match.groups()):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a valid size; expected WIDTHxHEIGHT, such as 512x768, with sides of {MIN_SIDE_PX} "
            f"to {MAX_SIDE_PX} pixels"
        )
    return int(match[1]), int(match[2])


def location(text: str) -> str:
    """Parse a path, a URI or a name; expands `~` and accepts schemes in any case (`S3://`)."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the value is empty; an unset shell variable is a common cause")
    if local := LOCAL.match(text):
        text = text[local.end() :]
    scheme, separator, rest = text.partition("://")
    return f"{scheme.lower()}://{rest}" if separator else os.path.expanduser(text)


def named_location(text: str) -> str:
    """Parse a location, optionally preceded by `NAME=`."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name:
        return location(text)
    if not (name.strip() and rest.strip()):
        raise argparse.ArgumentTypeError(
            f"{text!r} lacks a name or a path; expected NAME=PATH, such as depth=adapters/depth.safetensors"
        )
    return f"{name}={location(rest)}"


def local_path(text: str) -> Path:
    """Parse a path on this machine."""
    found = location(text)
    if "://" in found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is a URI, but this command needs a local path. Copy the data to this machine, or mount the store"
        )
    return Path(found)


def parse_since(text: str, now: datetime) -> datetime:
    """Parse a duration before `now` (`36h`, `7d`), or an ISO date or time (UTC unless it has a time zone).

    Raises:
        ValueError: The text has another form, or the time is after `now`.
    """
    span = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower())
    try:
        time = now - int(span[1]) * UNITS[span[2]] if span else datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; expected a date (2026-11-24), a time (2026-11-24T18:00 in UTC, or with +01:00), "
            "or how long ago: 90m, 36h, 7d, 2w"
        ) from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if time > now:
        raise ValueError(f"{text!r} is in the future; the current time is {now:%Y-%m-%dT%H:%M} UTC")
    return time.astimezone(UTC)
