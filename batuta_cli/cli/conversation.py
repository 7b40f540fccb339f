"""Options that give a `serve` command its conversation: `--messages FILE`, or `--system` and `--user`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.serve.messages import ChatMessage, Role, read_request

MESSAGES_LIMIT = 256 * 1024 * 1024
"""Maximum bytes of a messages file: five times the text of a context window of ten million tokens."""

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
        help="The treatment of a system message that the format does not support: merge puts it into the first"
        " user message, drop omits it.",
    ),
]


@dataclass(frozen=True)
class ConversationSource:
    """The values of the options that give the conversation."""

    messages: str | None
    system: str | None
    user: str | None

    @property
    def given(self) -> bool:
        """Whether any of the options was given."""
        return any(value is not None for value in (self.messages, self.system, self.user))

    def read(self) -> list[ChatMessage]:
        """Read the conversation. Raises `UsageError` if the options conflict or are all missing."""
        return self.read_request()[0]

    def read_request(self) -> tuple[list[ChatMessage], dict[str, Any]]:
        """Read the conversation, and the other fields of the JSON object, such as `tools`. Raises as `read` does."""
        if [self.messages, self.system, self.user].count("-") > 1:
            raise UsageError("only one of --messages, --system and --user can read stdin")
        if self.messages is not None:
            if self.system is not None or self.user is not None:
                raise UsageError("--messages cannot be combined with --system or --user")
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
    with os.fdopen(open_stream(path), "rb") as file, errors_named(path):  # pipes are allowed: --messages <(jq …)
        data = file.read(MESSAGES_LIMIT + 1)
    if len(data) > MESSAGES_LIMIT:
        raise InvalidInputError(f"{display(path)}: more than {MESSAGES_LIMIT:,} bytes of messages")
    return data
