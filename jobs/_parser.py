"""The argument parser of every command: what it refuses, it refuses in one line that says the cure."""

import argparse
import difflib
import re
import sys
from argparse import Action
from collections.abc import Sequence
from typing import Any, NoReturn

TEXT_OPTIONS = frozenset({"--prompt", "--negative-prompt"})
"""Their value may be empty: it is text for the model. Any other empty value comes from a variable that is not set."""
PLACES = frozenset({"URI", "PATH", "DIR", "FILE", "SOURCE"})
"""Metavars of options that take a place."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors name the closest option and do not drown it in the usage."""

    def __init__(self, description: str, epilog: str) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._words: list[str] = []
        self._is_looking_for_strays = False

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and what may have been meant; exit code 2."""
        if self._is_looking_for_strays:
            raise _NotParsedError
        hint = ""
        unknown = self._unknown_option()
        if unknown is None and (match := re.match(r"unrecognized arguments: (-\S*)", message)):
            unknown = match[1].split("=")[0]
        if unknown is not None:
            close = difflib.get_close_matches(unknown, self._option_strings(), n=1, cutoff=0.5)
            message = f"there is no option {unknown}"
            hint = f" Did you mean {close[0]}?" if close else ""
        elif strays := self._strays():
            message, hint = f"stray argument {strays[0]!r}", self._cure(strays)
        print(f"error: {message}.{hint} --help shows all options.", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does; an empty value is refused whatever the option's type makes of it."""
        self._words = list(sys.argv[1:] if args is None else args)
        self._refuse_empty_values()
        return super().parse_args(args, namespace)

    def _refuse_empty_values(self) -> None:
        option = ""
        for word in self._words:
            value = word
            if word.startswith("--"):
                option, equals, value = word.partition("=")
                if not equals:
                    continue
            if not value.strip() and option not in TEXT_OPTIONS and option in (*self._option_strings(), ""):
                self.error(f"{option or 'an argument'} is empty; a shell variable that is not set gives such a value")

    def _option_strings(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _unknown_option(self) -> str | None:
        """The first word that looks like an option and is none: argparse complains about missing options first."""
        options = (word.split("=")[0] for word in self._words if word.startswith("--"))
        return next((option for option in options if option not in self._option_strings()), None)

    def _strays(self) -> list[str]:
        """The words that belong to no option; argparse complains about missing options first."""
        required = [action for action in self._actions if action.required]
        self._is_looking_for_strays = True
        try:
            for action in required:
                action.required = False
            return [word for word in self.parse_known_args(self._words)[1] if not word.startswith("-")]
        except _NotParsedError:
            return []
        finally:
            self._is_looking_for_strays = False
            for action in required:
                action.required = True

    def _cure(self, strays: Sequence[str]) -> str:
        """How the words may have been meant: as the required places, in the order of the help."""
        places = [action for action in self._actions if action.required and action.option_strings and _is_place(action)]
        given = {word.split("=")[0] for word in self._words}
        missing = [action.option_strings[0] for action in places if action.option_strings[0] not in given]
        if missing:
            meant = " ".join(f"{option} {word}" for option, word in zip(missing, strays, strict=False))
            return f" Paths belong to options: did you mean {meant}?"
        many = [action.option_strings[0] for action in places if action.nargs == "+"]
        more = f"; several inputs follow one {many[0]}" if many else ""
        return f" Every value belongs to an option{more}."


class _NotParsedError(Exception):
    """The words cannot be parsed at all."""


def _is_place(action: Action) -> bool:
    return str(action.metavar).split(".")[0] in PLACES
