"""`batuta serve chat`: one request through the whole pipeline."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.conversation import ConversationSource, Messages, System
from batuta_cli.cli.ledger_option import LedgerOption, SetOption, load_config
from batuta_cli.errors import UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.messages import ChatMessage
    from batuta_cli.serve.pipeline.request import ChatRequest
    from batuta_cli.serve.pipeline.response import Response

commands = typer.Typer()


@commands.command(
    "chat",
    cls=Command,
    epilog=examples(
        'batuta serve chat "Why is the sky blue?" --model smollm2-135m',
        'git diff | batuta serve chat --system "Write a commit message." --model qwen2.5-coder-7b --privacy sovereign',
        "batuta serve chat --messages chat.json --model gpt-4o --max-tokens 200 --json",
    ),
)
def chat(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="The user's message; without it, or with -, it is read from stdin."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-M", metavar="NAME", help="The model to ask.")] = None,
    system: System = None,
    messages: Messages = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", help="Limit the response to N tokens.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", metavar="T", help="Sampling temperature, 0 to 2.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Sampling seed, for repeatable responses.")
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Stream the response (default, except with --json)."),
    ] = None,
    privacy: Annotated[
        str | None,
        typer.Option(
            "--privacy",
            metavar="standard|private|sovereign",
            help="The privacy tier; by default the one in the configuration.",
        ),
    ] = None,
    backend: Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Use only this backend.")] = None,
    ledger: LedgerOption = None,
    overrides: SetOption = None,
) -> console.CommandResult:
    """Send one request to a model and print the response.

    The request goes to the first backend that the privacy tier, the context window and the budget allow and whose
    queue is not full; `batuta serve route --explain` shows the choice. When a backend fails during the response,
    another one continues the text if it can do so exactly. The last line on stderr names the backend, the tokens and
    the cost.

    A FILE of messages may be an OpenAI request: its sampling fields are sent, an option of the command wins, and
    fields that this command cannot show, such as tools, are refused.
    """
    import asyncio

    if console.settings.quiet and not console.settings.json:
        raise UsageError(
            "--quiet would suppress the response", hint="to hide only the notes: 2>/dev/null; for scripts: --json"
        )
    if not model:
        raise UsageError(
            "no model is given", hint="add --model NAME; to list the models: batuta serve backends --probe"
        )
    conversation, fields = _conversation(prompt, system, messages)
    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    request = _request(
        model,
        conversation,
        _sampling(fields) | {name: value for name, value in given.items() if value is not None},
        stream=not console.settings.json if stream is None else stream,
        privacy=privacy,
        backend=backend,
    )
    return asyncio.run(_run(request, load_config(ledger, overrides)))


def _conversation(
    prompt: list[str] | None, system: str | None, messages: str | None
) -> "tuple[tuple[ChatMessage, ...], dict[str, Any]]":
    """Return the messages, and the other fields of the file of messages."""
    if messages is not None and prompt:
        raise UsageError("--messages has the whole conversation; a PROMPT cannot be added")
    user = None if messages is not None else " ".join(prompt or ["-"])
    if user == "-" and sys.stdin.isatty():
        raise UsageError("no prompt is given", hint='batuta serve chat "Why is the sky blue?" --model NAME')
    conversation, fields = ConversationSource(messages, system, user).read_body()
    if messages is None and not conversation[-1].content.strip():
        raise UsageError(
            "the prompt is empty; nothing was sent", hint="check the output of the command before the pipe"
        )
    return tuple(conversation), fields


_OF_COMMAND = {"model": "--model", "stream": "--stream", "stream_options": "--stream"}
"""Fields of a file of messages that options of the command set."""


def _sampling(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a file of messages that the request takes. Raises `UsageError` for the others."""
    fields = {name: value for name, value in fields.items() if value is not None}
    if unused := [name for name in fields if name in _OF_COMMAND]:
        options = ", ".join(dict.fromkeys(_OF_COMMAND[name] for name in unused))
        console.warn(f"not used from the file of messages: {', '.join(unused)}; use {options}")
    fields = {name: value for name, value in fields.items() if name not in _OF_COMMAND}
    if not fields:
        return {}
    from batuta_cli.serve.gateway.dialects.openai_fields import CHAT_FIELDS, SAMPLING, SERVER_FIELDS
    from batuta_cli.serve.gateway.dialects.treatment import treat
    from batuta_cli.serve.gateway.http_errors import HttpError

    limits = ("max_completion_tokens", "max_tokens")
    known = {*SAMPLING, *SERVER_FIELDS, *limits, "response_format", "reasoning_effort", "verbosity"} - {"n"}
    if refused := [
        name for name, value in fields.items() if name not in known and value != [] and (name, value) != ("n", 1)
    ]:
        raise UsageError(
            f"serve chat has no place for {', '.join(display(name[:60]) for name in refused)} of the file of messages",
            hint="remove the fields, or send the file to `batuta serve gateway`, which takes the whole request",
        )
    try:
        treated = treat({name: value for name, value in fields.items() if name in known}, CHAT_FIELDS)
    except HttpError as error:
        raise UsageError(f"the file of messages: {error.message}") from None
    found = [fields[name] for name in limits if name in fields]
    if not all(type(limit) is int and limit == found[0] for limit in found):
        raise UsageError("max_tokens of the file of messages must be a whole number, the same in both of its fields")
    return {**treated.options, **({"max_tokens": found[0]} if found else {})}


def _request(
    model: str,
    conversation: "tuple[ChatMessage, ...]",
    sampling: dict[str, Any],
    *,
    stream: bool,
    privacy: str | None,
    backend: str | None,
) -> "ChatRequest":
    import uuid

    from batuta_cli import config
    from batuta_cli.serve.pipeline.request import ChatRequest
    from batuta_cli.serve.tiers import PrivacyTier

    limit = sampling.pop("max_tokens", None)
    if limit is not None and not 1 <= limit <= 10_000_000:
        raise UsageError("--max-tokens must be a whole number from 1 to 10000000")
    temperature = sampling.get("temperature")
    if temperature is not None and not 0 <= temperature <= 2:
        raise UsageError("--temperature must be from 0 to 2")
    return ChatRequest(
        request_id=uuid.uuid4().hex,
        model=model,
        messages=conversation,
        privacy=PrivacyTier.parse(privacy or config.load().privacy.tier),
        max_tokens=limit,
        stream=stream,
        options=sampling,
        backend=backend,
    )


async def _run(request: "ChatRequest", settings: "Config") -> console.CommandResult:
    from batuta_cli.cli.probing import warn_if_lost
    from batuta_cli.serve.pipeline.pipeline import Pipeline
    from batuta_cli.serve.privacy.audit import AuditLog, AuditPolicy

    audit = AuditLog(policy=AuditPolicy.from_config(settings.audit))
    async with Pipeline(settings, audit=audit) as pipeline:
        if not pipeline.config.backends:
            console.note(
                "no backend is configured; trying local servers at their usual ports. To add one: batuta config init"
            )
        await pipeline.monitor.refresh(tier=request.privacy, timeout=1.0)
        response = await pipeline.start(request)
        try:
            text = await _show(response, live=request.stream and not console.settings.json)
        finally:
            await response.aclose()
            warn_if_lost(audit)
        return _outcome(response, text)


async def _show(response: "Response", *, live: bool) -> str:
    """Print the text as it arrives, and return it."""
    parts = []
    on_terminal = sys.stdout.isatty()
    async for piece in response:
        parts.append(piece.text)
        if live and piece.text:
            sys.stdout.write(_safe(piece.text) if on_terminal else piece.text)
            sys.stdout.flush()
    if live and parts:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return "".join(parts)


def _safe(text: str) -> str:
    """The text with control characters escaped, so that a model cannot control the terminal."""
    return "".join(c if c in "\n\t" else display(c) for c in text)


def _outcome(response: "Response", text: str) -> console.CommandResult:
    from batuta_cli.serve.money import format_usd
    from batuta_cli.serve.usage import kinds_of

    summary = response.summary
    assert summary is not None  # noqa: S101 - set at the end of the text
    left = None if summary.budget_left is None else format_usd(summary.budget_left)
    result = {
        "text": text,
        "model": response.request.model,
        "fallback": bool(response.fallback),
        "backend": summary.backend,
        "finish_reason": response.finish_reason,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "kinds": kinds_of(summary.tokens),
        "exact": summary.exact,
        "cost_usd": format_usd(summary.cost),
        "budget_left_usd": left,
        "prompted": summary.prompted,
        "attempts": [
            {"backend": attempt.backend, "cost_usd": format_usd(attempt.cost), "failed": attempt.failed}
            for attempt in summary.attempts
        ],
    }
    tokens = (
        f"{summary.input_tokens:,} + {summary.output_tokens:,} tokens{'' if summary.exact else ' (counted by batuta)'}"
    )
    cost = f"${format_usd(summary.cost)}" if summary.cost else "free"
    parts = [summary.backend, tokens, cost, *([f"${left} left today"] if left else [])]
    if response.fallback:
        parts.append(f"{display(response.fallback)} answered, because the model that was named cannot be reached")
    failed = [attempt.backend for attempt in summary.attempts if attempt.failed]
    if failed:
        parts.append(
            f"took over from {', '.join(failed)}" + (" with an instruction to continue" if summary.prompted else "")
        )
    if response.finish_reason == "length":
        limit = "the backend's output limit" if response.max_tokens is None else f"{response.max_tokens:,} tokens"
        console.warn(f"the response was cut at {limit}; to allow more: --max-tokens N")
    console.note("  ".join(parts))
    live = response.request.stream and not console.settings.json
    return console.CommandResult(result, "" if live else text)
