"""`batuta serve template`: render the prompt of a conversation for a model."""

import datetime as dt
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console, serve_template_faults
from batuta_cli.cli.command import CommandGroup, examples
from batuta_cli.cli.conversation import ConversationSource, Fallback, Messages, System, User, Variables
from batuta_cli.errors import InvalidInputError, TemplateError, UsageError
from batuta_cli.files import display, is_control, read_limited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batuta_cli.serve.messages import ChatInput, ChatMessage
    from batuta_cli.serve.models.lookup import ModelFacts
    from batuta_cli.serve.templates.detection import Detection
    from batuta_cli.serve.templates.engine import ChatTemplateEngine

group = typer.Typer(name="template", cls=CommandGroup, add_completion=False, rich_markup_mode=None)
group.add_typer(serve_template_faults.commands)

_TEMPLATE_LIMIT = (
    4 * 1024 * 1024
)  # bytes of a template file: UTF-8 needs at most four for each character that the engine accepts
_WARNED = 20  # control tokens listed on stderr


@group.callback(
    invoke_without_command=True,
    epilog=examples(
        'batuta serve template --model llama-2-70b --system "Be brief." --user "Hello"',
        "batuta serve template --model ./model.gguf --messages chat.json | llama-cli -no-cnv -f /dev/stdin",
        "batuta serve template --format mistral-v3 --messages chat.json --on-injection error",
        'batuta serve template --template chat.jinja --bos "<s>" --eos "</s>" --user "Hello"',
        'batuta serve template --format gemma --system "Be brief." --user "Hello" --system-fallback merge',
        'batuta serve template --model qwen3-8b --user "Hello" --var enable_thinking=false',
        "batuta serve template --model mistral-7b-instruct-v0.2 --detect",
    ),
)
def template(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name, its GGUF file or its folder.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of a format; --list prints them.")
    ] = None,
    template: Annotated[str | None, typer.Option(metavar="FILE", help="A Jinja template.")] = None,
    bos: Annotated[str, typer.Option(metavar="TOKEN", help="The value of bos_token in --template.")] = "",
    eos: Annotated[str, typer.Option(metavar="TOKEN", help="The value of eos_token in --template.")] = "",
    messages: Messages = None,
    system: System = None,
    user: User = None,
    no_generation_prompt: Annotated[
        bool,
        typer.Option(
            "--no-generation-prompt", help="Do not append the assistant header (add_generation_prompt=False)."
        ),
    ] = False,
    continued: Annotated[
        bool,
        typer.Option("--continue", help="End inside the assistant's last message, so that the model continues it."),
    ] = False,
    var: Variables = None,
    system_fallback: Fallback = "error",
    on_injection: Annotated[
        str,
        typer.Option(
            metavar="warn|error|escape|strip", help="The action for control tokens in the text of users and tools."
        ),
    ] = "warn",
    date: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="The date for templates that write the current date (default: today)."),
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print the number of tokens of the prompt instead.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a format that was found with low confidence (exit 2).")
    ] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the named formats.")] = False,
    detect: Annotated[
        bool,
        typer.Option(
            "--detect",
            help="Print what is known of --model: format, context window, tokenizer and price, with sources.",
        ),
    ] = False,
) -> console.CommandResult | None:
    """Render messages as the prompt a model was trained on, byte for byte.

    A pipe or file receives exactly the prompt, without a newline. The prompt contains its special tokens: do not let a
    tokenizer add another <s>. In --json, adds_bos is true if the prompt begins with one. The format comes from the
    template in the model's files, a table of known models, or patterns of names. A message that the format cannot
    express is an error. The object of --messages may also have tools, documents, chat_template_kwargs and
    reasoning_effort; what the template does not read is reported as a warning.
    """
    if context.invoked_subcommand is not None:
        return None
    if show_list:
        return _formats()
    if [model, format, template].count(None) != 2:
        raise UsageError(
            "give exactly one of --model, --format and --template",
            hint="for example --model llama-2-70b, --format chatml, or --template FILE; --list prints the formats",
        )
    if template is None and (bos or eos):
        raise UsageError("--bos and --eos can be used only with --template; a named format defines its tokens")
    if detect:
        if model is None:
            raise UsageError("--detect needs a --model")
        return _detected(model, strict)
    day = _date(date)
    engine, described = _engine(model, format, template, bos, eos, strict)
    return _prompt(
        engine,
        described,
        ConversationSource(messages, system, user).read_input(var or ()),
        on_injection,
        counted_for=(model or "this prompt") if count else None,
        fallback=system_fallback,
        options={
            "add_generation_prompt": not no_generation_prompt,
            "continue_final_message": continued,
            "date": day,
        },
    )


def _prompt(
    engine: "ChatTemplateEngine",
    described: dict[str, Any],
    chat: "ChatInput",
    on_injection: str,
    *,
    counted_for: str | None,
    fallback: str,
    options: dict[str, Any],
) -> console.CommandResult:
    from batuta_cli.serve.templates.control import guard

    messages, findings = guard(chat.messages, on_injection, engine)
    given = chat.arguments()
    warnings = [str(finding) for finding in findings[:_WARNED]]
    if len(findings) > _WARNED:
        warnings.append(f"and {len(findings) - _WARNED:,} or more further control tokens")
    try:
        prompt, change = _applied(engine, messages, fallback, {**given, **options})
        warnings += engine.unread(messages, prompt=prompt, **given)
    finally:
        engine.close()
    if change:
        warnings.append(change)
    for warning in warnings:
        console.warn(warning)
    result: dict[str, Any] = {
        "prompt": prompt,
        **described,
        "bos_token": engine.bos_token,
        "eos_token": engine.eos_token,
        "adds_bos": bool(engine.bos_token) and prompt.startswith(engine.bos_token),
        "warnings": warnings,
        "control_tokens": [
            {"message": f.message, "role": f.role, "field": f.field, "offset": f.offset, "token": f.token}
            for f in findings
        ],
    }
    if counted_for is not None:
        return _counted(prompt, counted_for, result)
    if sys.stdout.isatty():
        return console.CommandResult(result, _for_terminal(prompt))
    return console.CommandResult(result, raw=prompt.encode())


def _applied(
    engine: "ChatTemplateEngine", messages: "Sequence[ChatMessage]", fallback: str, options: dict[str, Any]
) -> tuple[str, str]:
    """Return the prompt, and a note if the system message was merged or dropped."""
    from batuta_cli.serve.templates.template_input import SystemFallback

    chosen = SystemFallback.parse(fallback)
    try:
        return engine.apply(messages, **options), ""
    except TemplateError:
        if chosen is SystemFallback.ERROR:
            raise
    prompt = engine.apply(messages, system_fallback=chosen, **options)
    change = "merged into the first user message" if chosen is SystemFallback.MERGE else "dropped"
    return prompt, f"the format does not support this system message; it was {change}"


def _counted(prompt: str, model: str, result: dict[str, Any]) -> console.CommandResult:
    from batuta_cli import config
    from batuta_cli.serve.tokens import count_prompt, tokenizer_for

    configured = config.load().models.get(model)
    path = configured.tokenizer if configured else ""
    counted = count_prompt(tokenizer_for(model, tokenizer_path=path or None), prompt)
    console.note(counted.method)
    numbers = {"tokens": counted.tokens, "exact": counted.exact, "method": counted.method}
    return console.CommandResult({**result, **numbers}, str(counted.tokens))


def _engine(
    model: str | None, format: str | None, path: str | None, bos: str, eos: str, strict: bool
) -> "tuple[ChatTemplateEngine, dict[str, Any]]":
    from batuta_cli.serve.templates.engine import ChatTemplateEngine

    if model is not None:
        detection = _detection(model, strict)
        return ChatTemplateEngine.from_detection(detection), _described(detection)
    if format is not None:
        from batuta_cli.serve.templates.formats import named_format

        named = named_format(format)
        family = {"format": named.family, "name": named.name, "variant": named.variant}
        return ChatTemplateEngine(named.name), {**family, "evidence": "--format", "confidence": "high"}
    try:
        text = read_limited(str(path), _TEMPLATE_LIMIT).decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{display(path)}: not UTF-8 text") from None
    own = {"format": None, "name": "", "variant": None, "evidence": "--template", "confidence": "high"}
    return ChatTemplateEngine.from_template(text, bos, eos), own


def _detection(model: str, strict: bool) -> "Detection":
    """Detect the format; low confidence is a warning, or an error with `--strict`."""
    from batuta_cli import config
    from batuta_cli.serve.templates.detection import detect_format

    detection = detect_format(model, config.load().models)
    if detection.confidence == "low":
        message = f"low confidence in the format {detection.name}: {detection.evidence}"
        hint = f"give a folder with its chat_template.jinja, its GGUF file, or --format {detection.name}"
        if strict:
            raise UsageError(message, hint=hint)
        console.warn(message)
    return detection


def _described(found: "Detection") -> dict[str, Any]:
    return {
        "format": found.format,
        "name": found.name,
        "variant": found.variant,
        "evidence": found.evidence,
        "confidence": found.confidence,
    }


def _detected(model: str, strict: bool) -> console.CommandResult:
    from batuta_cli import config
    from batuta_cli.serve.models.lookup import look_up

    if strict:
        _detection(model, strict)
    facts = look_up(model, config.load().models)
    if facts.template_error and not (facts.window or facts.tokenizer or facts.price):
        raise facts.template_error
    lines: list[tuple[str, str]] = []
    result: dict[str, Any] = {"model": model}
    if found := facts.template:
        own = f"{found.format}, the model's template" if found.format else "the model's template"
        lines += [
            ("format", found.name or own),
            ("family", found.format or "-"),
            ("evidence", found.evidence),
            ("confidence", found.confidence),
        ]
        result |= {**_described(found), "own_template": found.template is not None}
        result |= {"bos_token": found.bos_token, "eos_token": found.eos_token}
    rows, more = _rows(facts)
    text = "\n".join(f"{name:<11}{display(value)}" for name, value in [*lines, *rows])
    return console.CommandResult(result | more, text, error=facts.template_error)


def _rows(facts: "ModelFacts") -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Window, tokenizer and price: lines of text, and the fields of the JSON result."""
    from batuta_cli.serve.money import format_usd

    window, tokenizer, price = facts.window, facts.tokenizer, facts.price
    unknown = "not known"
    lines = [("window", unknown), ("tokenizer", unknown), ("price", unknown)]
    result: dict[str, Any] = {"window": None, "tokenizer": None, "price": None}
    if window:
        dated = f", {window.as_of}" if window.as_of else ""
        lines[0] = "window", f"{window.context_window:,} ({window.source}{dated})"
        result["window"] = {
            "tokens": window.context_window,
            "reserve": window.output_reserve,
            "source": window.source,
            "as_of": window.as_of or None,
        }
    if tokenizer:
        name, exact = tokenizer.tokenizer.name, tokenizer.tokenizer.exact
        lines[1] = "tokenizer", f"{name} ({tokenizer.source})"
        result["tokenizer"] = {"name": name, "exact": exact, "source": tokenizer.source}
    if price:
        input, output = (
            format_usd(amount) for amount in (price.price.input_per_million, price.price.output_per_million)
        )
        lines[2] = "price", f"${input} for a million tokens of input, ${output} of output ({price.source})"
        result["price"] = {
            "input_usd_per_million": input,
            "output_usd_per_million": output,
            "source": price.source,
        }
    return lines, result


def _formats() -> console.CommandResult:
    from batuta_cli.serve.templates.formats import named_formats

    result = [
        {
            "name": f.name,
            "format": f.family,
            "variant": f.variant,
            "system": f.system,
            "alternates": f.alternates,
            "tools": f.tool_calls > 0,
            "bos_token": f.bos_token,
            "eos_token": f.eos_token,
            "stop": list(f.stop),
        }
        for f in named_formats().values()
    ]
    rows = []
    for f in named_formats().values():
        order, tools = "in turns" if f.alternates else "any", "yes" if f.tool_calls else "no"
        rows.append((f.name, f.family, f.system, order, tools, " ".join(f.stop) or "-"))
    return console.CommandResult(result, console.Table(("NAME", "FAMILY", "SYSTEM", "ORDER", "TOOLS", "STOP"), rows))


def _date(text: str | None) -> dt.date | None:
    if text is None:
        return None
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise InvalidInputError(f"--date: {display(text)} is not a date", hint="--date 2026-11-23") from None


def _for_terminal(prompt: str) -> str:
    return "".join(display(c) if is_control(c) and c not in "\n\t" else c for c in prompt)
