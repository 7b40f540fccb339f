"""Options that give a `serve` command its conversation: `--messages FILE`, or `--system` and `--user`."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import typer

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.serve.messages import (
    ChatInput,
    ChatMessage,
    Role,
    check_json,
    read_messages,
    read_request,
    template_input_of,
)

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


Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--var",
        metavar="NAME=JSON",
        help="A variable of the chat template, such as enable_thinking=false; may be repeated.",
    ),
]

_OPTIONS = {
    "messages": "--messages",
    "add_generation_prompt": "--no-generation-prompt",
    "continue_final_message": "--continue",
    "system_fallback": "--system-fallback",
    "date": "--date, or --var date_string",
    "bos_token": "--bos with --template",
    "eos_token": "--eos with --template",
    "prompt": "another name",
}
"""Variables that options of the command set."""

_Parsed = TypeVar("_Parsed")


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

    def read_body(self) -> tuple[list[ChatMessage], dict[str, Any]]:
        """Read the conversation for a backend, and the other fields of the file's JSON object.

        The messages have known roles, text content, and further fields such as the reasoning. Raises `UsageError` if
        the options conflict or are all missing.
        """
        parsed = self._read(_read_texts)
        return parsed if isinstance(parsed, tuple) else (parsed, {})

    def read_template_request(self, variables: Sequence[str] = ()) -> tuple[list[ChatMessage], dict[str, Any]]:
        """Read the messages with all their fields, and the other fields of the JSON object.

        `variables` are values of `--var`; they become part of `chat_template_kwargs`. Raises as `read_body`.
        """
        parsed = self._read(lambda data: read_request(data, complete=True))
        messages, fields = parsed if isinstance(parsed, tuple) else (parsed, {})
        template_input_of(fields)  # raises if one of them is malformed
        if given := parse_variables(variables):
            fields = {**fields, "chat_template_kwargs": {**(fields.get("chat_template_kwargs") or {}), **given}}
        return messages, fields

    def read_input(self, variables: Sequence[str] = ()) -> ChatInput:
        """Read all that a chat template may use; `variables` are values of `--var`, which override the file's.

        Raises `UsageError` if the options conflict or are all missing.
        """
        messages, fields = self.read_template_request(variables)
        return replace(template_input_of(fields), messages=messages)

    def _read(self, parse: Callable[[bytes], _Parsed]) -> "_Parsed | list[ChatMessage]":
        if [self.messages, self.system, self.user].count("-") > 1:
            raise UsageError("only one of --messages, --system and --user can read stdin")
        if self.messages is not None:
            if self.system is not None or self.user is not None:
                raise UsageError("--messages cannot be combined with --system or --user")
            return parse(read_messages_file(self.messages))
        if not self.given:
            raise UsageError(
                "no messages were given",
                hint='--user "Hello", or --messages FILE, or --messages - to read JSON from stdin',
            )
        parts = ((Role.SYSTEM, "--system", self.system), (Role.USER, "--user", self.user))
        return [_message(role, option, text) for role, option, text in parts if text is not None]


def _read_texts(data: bytes) -> tuple[list[ChatMessage], dict[str, Any]]:
    read_messages(data)  # refuses other content than text
    messages, fields = read_request(data, complete=True)
    return [replace(message, parts=()) for message in messages], fields


def parse_variables(values: Sequence[str]) -> dict[str, Any]:
    """Parse the values of `--var`. Raises `UsageError` for a malformed one."""
    variables: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError("--var takes NAME=JSON", hint="--var enable_thinking=false")
        if name in _OPTIONS:
            raise UsageError(f"--var {name} is not possible: use {_OPTIONS[name]}")
        try:
            variables[name] = json.loads(value)
            check_json(variables[name], name)
        except (ValueError, RecursionError):
            hint = f"text needs double quotes: --var '{name}=\"high\"'"
            raise UsageError(f"the value of --var {name} is not JSON", hint=hint) from None
        except InvalidInputError as error:
            raise InvalidInputError(f"--var: {error.message}") from None
    return variables


def _message(role: Role, option: str, text: str) -> ChatMessage:
    try:
        return ChatMessage(role, _text(text))
    except InvalidInputError as error:
        raise InvalidInputError(f"{option} {error.message}", hint=error.hint) from None


def _text(value: str) -> str:
    if value != "-":
        return value
    try:
        return read_messages_file("-").decode()
    except UnicodeDecodeError:
        raise InvalidInputError("stdin is not UTF-8 text") from None


def read_messages_file(path: str) -> bytes:
    """Read a file of `--messages`; `-` is stdin. Raises `InvalidInputError` above `MESSAGES_LIMIT`."""
    from batuta_cli.cli.models import read_stdin
    from batuta_cli.files import display, errors_named, open_stream

    if path == "-":
        return read_stdin(MESSAGES_LIMIT)
    with os.fdopen(open_stream(path), "rb") as file, errors_named(path):  # pipes are allowed: --messages <(jq …)
        data = file.read(MESSAGES_LIMIT + 1)
    if len(data) > MESSAGES_LIMIT:
        raise InvalidInputError(f"{display(path)}: more than {MESSAGES_LIMIT:,} bytes of messages")
    return data
