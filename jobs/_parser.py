"""The argument parser of every command. It reports errors in one line that says how to fix them."""

import argparse
import difflib
import re
import sys
from argparse import Action
from collections.abc import Sequence
from typing import Any, NoReturn

TEXT_OPTIONS = frozenset({"--prompt", "--negative-prompt"})
"""Options whose value may be empty. For any other option an empty value points to an unset shell variable."""
LOCATION_METAVARS = frozenset({"URI", "PATH", "DIR", "FILE", "SOURCE"})
"""Metavars of options that take a path or a URI."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors suggest the closest option and leave out the usage."""

    def __init__(self, description: str, epilog: str) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._words: list[str] = []
        self._is_looking_for_unexpected = False

    def error(self, message: str) -> NoReturn:
        """Print the error with a suggestion, and exit with code 2."""
        if self._is_looking_for_unexpected:
            raise _NotParsedError
        hint = ""
        unknown = self._unknown_option()
        if unknown is None and (match := re.match(r"unrecognized arguments: (-\S*)", message)):
            unknown = match[1].split("=")[0]
        if unknown is not None:
            close = difflib.get_close_matches(unknown, self._option_strings(), n=1, cutoff=0.5)
            message = f"unknown option {unknown}"
            hint = f" Did you mean {close[0]}?" if close else ""
        elif unexpected := self._unexpected():
            message, hint = f"unexpected argument {unexpected[0]!r}", self._suggestion(unexpected)
        print(f"error: {message}.{hint} Use --help to list all options.", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as argparse does, but reject empty values of every type."""
        self._words = list(sys.argv[1:] if args is None else args)
        self._reject_empty_values()
        return super().parse_args(args, namespace)

    def _reject_empty_values(self) -> None:
        option = ""
        for word in self._words:
            value = word
            if word.startswith("--"):
                option, equals, value = word.partition("=")
                if not equals:
                    continue
            if not value.strip() and option not in TEXT_OPTIONS and option in (*self._option_strings(), ""):
                self.error(f"{option or 'an argument'} is empty; an unset shell variable is a common cause")

    def _option_strings(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _unknown_option(self) -> str | None:
        """The first word that looks like an option but is not one; argparse would report missing options first."""
        options = (word.split("=")[0] for word in self._words if word.startswith("--"))
        return next((option for option in options if option not in self._option_strings()), None)

    def _unexpected(self) -> list[str]:
        """The words that belong to no option; argparse would report missing options first."""
        required = [each for each in (*self._actions, *self._mutually_exclusive_groups) if each.required]
        self._is_looking_for_unexpected = True
        try:
            for action in required:
                action.required = False
            return [word for word in self.parse_known_args(self._words)[1] if not word.startswith("-")]
        except _NotParsedError:
            return []
        finally:
            self._is_looking_for_unexpected = False
            for action in required:
                action.required = True

    def _suggestion(self, unexpected: Sequence[str]) -> str:
        """Suggest the missing required options, in the order of the help, as the owners of the words."""
        needed = [action for action in self._actions if action.required]
        needed += [group._group_actions[0] for group in self._mutually_exclusive_groups if group.required]
        needed.sort(key=self._actions.index)
        locations = [action for action in needed if action.option_strings and _is_location(action)]
        given = {word.split("=")[0] for word in self._words}
        missing = [action.option_strings[0] for action in locations if action.option_strings[0] not in given]
        if missing:
            meant = " ".join(f"{option} {word}" for option, word in zip(missing, unexpected, strict=False))
            return f" Paths are given as options: did you mean {meant}?"
        many = [action.option_strings[0] for action in locations if action.nargs == "+"]
        more = f"; list several inputs after one {many[0]}" if many else ""
        return f" Every value must follow an option{more}."


class _NotParsedError(Exception):
    """The command line cannot be parsed at all."""


def _is_location(action: Action) -> bool:
    return str(action.metavar).split(".")[0] in LOCATION_METAVARS
