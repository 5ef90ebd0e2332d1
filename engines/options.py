"""The options of an engine, NAME=VALUE: what is known of each, and the parsing of values.

Tested in tests/engines/test_spec.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class EngineOption:
    """An option that an engine knows."""

    name: str
    help: str
    kind: type[bool] | type[int] | type[float] | type[str]
    """Type of its values."""
    default: Value | None = None
    """None: the model decides."""
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    """The possible values of a text; empty: any text."""

    def parse(self, text: str) -> Value:
        """Return the value that a text means. Raises ValueError."""
        try:
            value = _BOOLEANS[text.lower()] if self.kind is bool else self.kind(text)
        except (KeyError, ValueError):
            raise ValueError(f"{self.name}={text[:60]!r}: the value is {self.values}.") from None
        in_range = value in (self.choices or (value,)) if isinstance(value, str) else self.least <= value <= self.most
        if not in_range:
            raise ValueError(f"{self.name}={text[:60]!r}: the value is {self.values}.")
        return value

    @property
    def values(self) -> str:
        """The possible values, for people."""
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return " or ".join(self.choices) or "a text"
        number = "an integer" if self.kind is int else "a number"
        return f"{number} from {self.least:g} to {self.most:g}"


_BOOLEANS = {"true": True, "false": False}


def parse_options(texts: Iterable[str], known: Iterable[EngineOption], engine: str) -> Mapping[str, Value]:
    """Parse NAME=VALUE texts.

    Returns:
        The values that are not the defaults, sorted by name.

    Raises:
        ValueError: The engine does not know an option, it is given twice, or its value is out of range.
    """
    options = {option.name: option for option in known}
    found: dict[str, Value] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in options:
            there = f"its options are {', '.join(options)}" if options else "it has none"
            raise ValueError(f"the engine {engine} has no option {name[:60]!r}; {there}. Correct the name.")
        if not equals or not value:
            raise ValueError(f"{text!r}: write NAME=VALUE, such as {name}={_example(options[name])}.")
        if name in found:
            raise ValueError(f"the option {name} of the engine {engine} is given twice. Give it once.")
        found[name] = options[name].parse(value)
    return {name: found[name] for name in sorted(found) if found[name] != options[name].default}


def _example(option: EngineOption) -> str:
    value = option.default if option.default is not None else option.choices[0] if option.choices else 1
    return str(value).lower()
