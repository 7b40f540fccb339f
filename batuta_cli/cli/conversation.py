"""The conversation that a `serve` command works on: `--messages FILE`, or `--system` and `--user`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.serve.messages import ChatMessage, Role, read_request

MESSAGES_LIMIT = 256 * 1024 * 1024
"""Bytes of a messages file that are read; a context window of ten million tokens is a fifth of it."""

Messages = Annotated[
    str | None,
    typer.Option(
        "--messages",
        "-m",
        metavar="FILE",
        help='The conversation as JSON: a list of {"role", "content"}, or an object with "messages"; - is stdin.',
    ),
]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="The system message; - reads stdin.")]
User = Annotated[str | None, typer.Option("--user", metavar="TEXT", help="The user's message; - reads stdin.")]
Fallback = Annotated[
    str,
    typer.Option(
        "--system-fallback",
        metavar="error|merge|drop",
        help="What becomes of a system message that the format has no place for: merge puts it into the first"
        " user message.",
    ),
]


@dataclass(frozen=True)
class ConversationSource:
    """Where the messages come from, as the options said."""

    messages: str | None
    system: str | None
    user: str | None

    @property
    def given(self) -> bool:
        """Whether any of them was named."""
        return any(value is not None for value in (self.messages, self.system, self.user))

    def read(self) -> list[ChatMessage]:
        """The conversation. Raises `UsageError` when the options contradict each other, or none was given."""
        return self.read_request()[0]

    def read_request(self) -> tuple[list[ChatMessage], dict[str, Any]]:
        """The conversation, and the other fields of the JSON object in the file, such as `tools`. Raises as `read`."""
        if [self.messages, self.system, self.user].count("-") > 1:
            raise UsageError("only one of --messages, --system and --user can read stdin")
        if self.messages is not None:
            if self.system is not None or self.user is not None:
                raise UsageError("--messages has the whole conversation, so --system and --user cannot be added to it")
            return read_request(_read(self.messages))
        if not self.given:
            raise UsageError(
                "no messages were given",
                hint='--user "Hello", or --messages FILE, or --messages - to read JSON from stdin',
            )
        parts = ((Role.SYSTEM, "--system", self.system), (Role.USER, "--user", self.user))
        return [_message(role, option, text) for role, option, text in parts if text is not None], {}


def _message(role: Role, option: str, text: str) -> ChatMessage:
    try:
        return ChatMessage(role, _text(text))
    except InvalidInputError as error:
        raise InvalidInputError(f"{option} {error.message}", hint=error.hint) from None


def _text(value: str) -> str:
    if value != "-":
        return value
    try:
        return _read("-").decode()
    except UnicodeDecodeError:
        raise InvalidInputError("stdin is not UTF-8 text") from None


def _read(path: str) -> bytes:
    from batuta_cli.cli.models import read_stdin
    from batuta_cli.files import display, errors_named, open_stream

    if path == "-":
        return read_stdin(MESSAGES_LIMIT)
    with os.fdopen(open_stream(path), "rb") as file, errors_named(path):  # a pipe as well: --messages <(jq …)
        data = file.read(MESSAGES_LIMIT + 1)
    if len(data) > MESSAGES_LIMIT:
        raise InvalidInputError(f"{display(path)}: more than {MESSAGES_LIMIT:,} bytes of messages")
    return data
