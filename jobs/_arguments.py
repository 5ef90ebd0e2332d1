"""Argument types of the commands: what they refuse, they refuse in words."""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime


def whole(minimum: int) -> Callable[[str], int]:
    """An argument type: a whole number of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; the least is {minimum}")
        return value

    return parse


def number(minimum: float, maximum: float = float("inf")) -> Callable[[str], float]:
    """An argument type: a number in [minimum, maximum]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{text} is outside {minimum:g} to {maximum:g}")
        return value

    return parse


def actor_range(text: str) -> tuple[int, int]:
    """An argument type: `4`, or `1:8` for the fewest and the most."""
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of actors and no range such as 1:8, from 1 up")
    return fewest, most


def moment(text: str) -> datetime:
    """An argument type: a moment of the past, see `pipelines.since`."""
    from pipelines.since import parse_since

    try:
        return parse_since(text, datetime.now(UTC))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size(text: str) -> tuple[int, int]:
    """An argument type: `WIDTHxHEIGHT` in pixels."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if match is None or min(int(match[1]), int(match[2])) < 8:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write WIDTHxHEIGHT in pixels, such as 512x768")
    return int(match[1]), int(match[2])
