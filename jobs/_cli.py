"""What the commands share: argument types, errors that help, exit codes."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipelines.errors import SettingError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors name the closest option and do not drown it in the usage."""

    def __init__(self, description: str, epilog: str) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and what may have been meant; exit code 2."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        name = unknown[1].split("=")[0] if unknown else self._unknown_option()
        hint = ""
        if name is not None:
            close = difflib.get_close_matches(name, self._option_strings(), n=1, cutoff=0.5)
            message = f"there is no option {name}" if name.startswith("-") else f"stray argument {name!r}"
            hint = f" Did you mean {close[0]}?" if close else ""
        print(f"error: {message}.{hint} --help shows all options.", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does; remembers the words for the error message."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_args(args, namespace)

    def _option_strings(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _unknown_option(self) -> str | None:
        """The first word that looks like an option and is none: argparse complains about missing options first."""
        options = (word.split("=")[0] for word in self._words if word.startswith("--"))
        return next((option for option in options if option not in self._option_strings()), None)


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


def finish(run: Callable[[], int]) -> NoReturn:
    """Run a job and leave the process with its exit code; a wrong setting is one line, not a traceback."""
    try:
        code = run()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted before any work began", file=sys.stderr)
        code = 130
    raise SystemExit(code)
