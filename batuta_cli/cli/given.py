"""Checks the values of the command line and of `BATUTA_…` variables for misplaced secrets, and withholds secrets.

The metavar of a parameter gives the kind of its value:

* `TEXT`, `PROMPT`: messages of a conversation. Any text is accepted. Results may repeat it, errors do not.
* `VAR`: the name of an environment variable. Any other value is refused, because it may be a secret that was given in
  place of the name.
* others: a private key is refused, unless a file has that name.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batuta_cli.cli import console
from batuta_cli.errors import UsageError
from batuta_cli.secrecy import Withheld, is_key, is_variable_name

CONVERSATION = ("TEXT", "PROMPT")
VARIABLE = "VAR"

_KEY_SOURCES = "FILE|env:VAR|-"  # the metavar of parameters that take a private key
_PREFIX = "BATUTA_"


def note(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Withhold the secrets of the command line, before it is parsed."""
    values = [*_words(arguments), *(value for name, value in environ.items() if name.startswith(_PREFIX))]
    console.settings.withheld = console.settings.withheld_from_results = Withheld(values)


def _words(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        yield argument
        if argument.startswith("-"):
            yield argument.partition("=")[2]
            yield argument[2:]  # -oFILE


def check(values: Iterable[tuple[Any, Any]]) -> None:
    """Check pairs of a parameter and its parsed value. Raises `UsageError` for a misplaced secret."""
    texts = [(parameter, text) for parameter, value in values for text in _texts(value)]
    others = [text for parameter, text in texts if parameter.metavar not in CONVERSATION]
    console.settings.withheld_from_results = Withheld(others)
    for parameter, text in texts:
        if parameter.metavar == VARIABLE and not is_variable_name(text) and text not in os.environ:
            raise UsageError(
                f"{_called(parameter)} takes the NAME of an environment variable; the value is not a valid name",
                hint=f"put the secret into a variable and give the variable's NAME: {_called(parameter)} MODEL_KEY",
            )
        if parameter.metavar not in CONVERSATION and is_key(text) and not os.path.lexists(text.replace("\0", "")):
            raise UsageError(f"{_called(parameter)} was given a private key", hint=_hint(parameter))


def _texts(value: Any) -> Iterator[str]:
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, str):
            yield text


def _called(parameter: Any) -> str:
    return str(parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar)


def _hint(parameter: Any) -> str:
    called = _called(parameter)
    if parameter.metavar == _KEY_SOURCES:
        words = f"{called} " if parameter.param_type_name == "option" else ""
        return f"{words}env:VAR reads the key from a variable, {words}- from stdin"
    return "give a private key as a file, a variable or stdin: batuta pacha sign --key FILE, env:VAR or -"
