"""`batuta serve context`: counts a conversation, checks whether it fits the context window, and shortens it."""

import contextlib
import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.conversation import ConversationSource, Fallback, Messages, System, User, Variables
from batuta_cli.errors import ContextOverflowError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batuta_cli.config import Config
    from batuta_cli.serve.context.manager import ContextManager, Server
    from batuta_cli.serve.context.truncation import TruncationStrategy
    from batuta_cli.serve.messages import ChatMessage
    from batuta_cli.serve.tokens import TokenCount

commands = typer.Typer()


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta serve context --model llama-2-70b --messages chat.json",
        "batuta serve context --model gpt-4 --messages chat.json --strategy sliding-window > short.json",
        "batuta serve context --model qwen3-8b --messages chat.json --var enable_thinking=false",
        "batuta serve context --model smollm2-135m --backend llamacpp --messages chat.json",
        "batuta serve context --model ./model.gguf --window 16384 --reserve 1024 --messages - --quiet < chat.json",
    ),
)
def context(
    model: Annotated[str, typer.Option(metavar="NAME", help="The model's name, or its GGUF file.")],
    messages: Messages = None,
    system: System = None,
    user: User = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="sliding-window|middle-out|error",
            help="Shorten the conversation to fit and print it: sliding-window drops the oldest turns, middle-out drops"
            " the oldest turns after the first, error drops nothing.",
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="The context window, for prompt and output together.")
    ] = None,
    reserve: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="The part of the window reserved for the output.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Count with this GGUF file, tokenizer.json or model folder."),
    ] = None,
    var: Variables = None,
    system_fallback: Fallback = "error",
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let this running llama.cpp or vLLM server count; its window is used where it is smaller.",
        ),
    ] = None,
    privacy: Annotated[
        str | None,
        typer.Option(
            metavar="sovereign|private|standard",
            help="The privacy tier of the request to --backend. Default: the config's.",
        ),
    ] = None,
) -> console.CommandResult:
    """Count the tokens of a conversation, as the model's template renders it, and check whether they fit.

    With --strategy the messages that fit are printed to stdout as JSON. System messages, the last user message and tool
    calls with their results are always kept. Of a request body the tools, documents, chat_template_kwargs and
    reasoning_effort are counted as the template writes them, and the response format as its JSON text. What the
    template does not read is reported as a warning.
    Exit 8 when the conversation, or the part that must be kept, does not fit by an exact count. When only an estimate
    exceeds the limit, a warning says so. With --backend the messages are sent to that server, which counts exactly.
    """
    from batuta_cli import config
    from batuta_cli.serve.context.manager import ContextManager
    from batuta_cli.serve.context.truncation import TruncationStrategy
    from batuta_cli.serve.templates.template_input import SystemFallback

    chosen = None if strategy is None else TruncationStrategy.parse(strategy)
    if tokenizer is not None and backend is not None:
        raise UsageError("--tokenizer and --backend were both given; give one of them")
    if privacy is not None and backend is None:
        raise UsageError("--privacy is for --backend; without it nothing is sent")
    conversation, fields = ConversationSource(messages, system, user).read_template_request(var or ())
    settings = config.load()
    with contextlib.ExitStack() as stack:
        manager = ContextManager.for_model(
            model,
            window=window,
            reserve=reserve,
            tokenizer=tokenizer,
            system_fallback=SystemFallback.parse(system_fallback),
            models=settings.models,
            server=None if backend is None else _server(stack, backend, model, privacy, settings),
        )
        outcome = _outcome(model, manager, chosen, conversation, fields)
        warnings = manager.unread(conversation, fields)
        for warning in warnings:
            console.warn(warning)
        return replace(outcome, result={**outcome.result, "warnings": warnings})


def _server(stack: contextlib.ExitStack, name: str, model: str, privacy: str | None, settings: "Config") -> "Server":
    """The running server called `name`, connected until `stack` is left."""
    from batuta_cli.cli.probing import named_backend, warn_if_lost
    from batuta_cli.serve.backends import configured_backends
    from batuta_cli.serve.context.manager import Server
    from batuta_cli.serve.privacy.audit import AuditLog
    from batuta_cli.serve.privacy.gate import Networks
    from batuta_cli.serve.providers.server_count import ServerCounter
    from batuta_cli.serve.tiers import PrivacyTier

    chosen = named_backend(name, configured_backends(settings))
    log = AuditLog()
    stack.callback(warn_if_lost, log)
    tier = PrivacyTier.parse(privacy or settings.privacy.tier)
    networks = Networks.configured(settings)
    counter = stack.enter_context(
        ServerCounter(chosen, tier, networks=networks, audit=log, proxy=settings.network.proxy)
    )
    label = f"{chosen.name} at {counter.base_url}"
    return Server(label, functools.partial(counter.count, model), counter.window)


def _outcome(
    model: str,
    manager: "ContextManager",
    chosen: "TruncationStrategy | None",
    conversation: "Sequence[ChatMessage]",
    fields: "Mapping[str, Any]",
) -> console.CommandResult:
    if chosen is None:
        return _judged(model, manager, manager.count(conversation, fields))
    try:
        kept = manager.truncate(conversation, chosen, fields)
    except ContextOverflowError as error:
        return console.CommandResult(
            {**_size(model, manager), **(error.result or {}), "fits": False, "dropped": []}, error=error
        )
    fits = _fits(kept.after, manager)
    if not kept.after.exact:
        console.note(f"an upper estimate: {_how(kept.after)}")
    if fits is None:
        console.warn(_uncertain(kept.after, manager))
    if kept.dropped:
        console.note(
            f"dropped {len(kept.dropped):,} of {len(conversation):,} messages: {_ranges(kept.dropped)};"
            f" {kept.before.tokens:,} tokens before, {kept.after.tokens:,} now"
        )
    listed = [message.to_dict() for message in kept.messages]
    result = {
        **_size(model, manager),
        **_count(kept.after),
        "missing": max(kept.after.tokens - manager.size.limit, 0),
        "fits": fits,
        "strategy": chosen.value,
        "tokens_before": kept.before.tokens,
        "dropped": list(kept.dropped),
        "messages": listed,
    }
    return console.CommandResult(result, raw=json.dumps(listed, indent=2).encode() + b"\n")


def _judged(model: str, manager: "ContextManager", counted: "TokenCount") -> console.CommandResult:
    from batuta_cli.serve.context.truncation import overflow

    size = manager.size
    left = size.limit - counted.tokens
    verdict = _fits(counted, manager)
    result = {**_size(model, manager), **_count(counted), "missing": max(-left, 0), "fits": verdict, "dropped": []}
    fits = {
        True: f"yes, {left:,} left",
        False: f"no, {-left:,} too many",
        None: f"not known, at most {-left:,} too many",
    }[verdict]
    if verdict is None:
        console.warn(_uncertain(counted, manager))
    dated = f", {manager.as_of}" if manager.as_of else ""
    lines = (
        ("tokens", f"{counted.tokens:,} ({'exact' if counted.exact else 'at most'}: {_how(counted)})"),
        ("window", f"{size.window:,} ({manager.source}{dated})"),
        ("reserve", f"{size.reserve:,}"),
        ("limit", f"{size.limit:,}"),
        ("fits", fits),
    )
    text = "\n".join(f"{name:<8} {display(value)}" for name, value in lines)
    return console.CommandResult(result, text, error=overflow(counted.tokens, size.limit) if verdict is False else None)


def _fits(counted: "TokenCount", manager: "ContextManager") -> bool | None:
    """Whether a prompt fits; None when only an estimate exceeds the limit."""
    if counted.tokens <= manager.size.limit:
        return True
    return False if counted.exact else None


def _uncertain(counted: "TokenCount", manager: "ContextManager") -> str:
    return (
        f"the count of {counted.tokens:,} tokens is an upper estimate, so the prompt may fit the limit of"
        f" {manager.size.limit:,}; --tokenizer FILE counts exactly"
    )


def _how(counted: "TokenCount") -> str:
    """The method of a count, for a line that already says that it is an estimate."""
    return counted.method.removeprefix("upper estimate: ")


def _size(model: str, manager: "ContextManager") -> dict[str, Any]:
    return {
        "model": model,
        "window": manager.size.window,
        "reserve": manager.size.reserve,
        "limit": manager.size.limit,
        "source": manager.source,
        "as_of": manager.as_of or None,
    }


def _count(counted: "TokenCount") -> dict[str, Any]:
    return {"tokens": counted.tokens, "exact": counted.exact, "method": counted.method}


def _ranges(numbers: tuple[int, ...]) -> str:
    """`2-5, 9`. Ranges after the tenth are only counted."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    shown = ["-".join(map(str, run)) for run in runs[:10]]
    return ", ".join(shown) + (f" and {len(runs) - 10:,} more ranges" if len(runs) > 10 else "")
