"""`batuta serve template lint` and `batuta serve template diff`: faults of a chat template, differences of two."""

import contextlib
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.errors import BatutaError, TemplateFaultsError, TemplatesDifferError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batuta_cli.serve.messages import ChatInput
    from batuta_cli.serve.templates.difference import Tokenize
    from batuta_cli.serve.templates.lint import TemplateFault
    from batuta_cli.serve.templates.subject import TemplateSubject
    from batuta_cli.serve.templates.template_diff import Disagreement

commands = typer.Typer()

_SUBJECT = "The model's GGUF file, its folder, its chat_template.jinja, its name, or the name of a format."
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Compare prompts by the tokens of this GGUF file, tokenizer.json or folder. Default: the model's own.",
    ),
]


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta serve template lint ./model.gguf",
        "batuta serve template lint chat_template.jinja --sarif > lint.sarif",
        "batuta serve template lint deepseek-r1 --ignore not-a-prefix",
    ),
)
def lint(
    template: Annotated[str, typer.Argument(metavar="MODEL|FILE", help=_SUBJECT)],
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="Do not look for this fault; may be repeated.")
    ] = None,
    tokenizer: TokenizerOption = None,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print a SARIF 2.1.0 log for code hosts.")] = False,
) -> console.CommandResult:
    """Look for faults of a chat template by rendering conversations with it.

    Faults: a double or missing BOS; a prompt that is no token prefix of the longer conversation's, which defeats prefix
    caches; system text that is dropped; tools, calls, results or forms of arguments that are not supported; dependence
    on the date; work without a bound; differences from the named format that it resembles. Exit 3 for an error or a
    warning, 0 otherwise; notes do not count. docs/templates.md describes the rules.
    """
    from batuta_cli.serve.names import unknown_name
    from batuta_cli.serve.templates.lint import RULES, FaultLevel
    from batuta_cli.serve.templates.lint import lint as find_faults

    if sarif and console.settings.json:
        raise UsageError("--sarif and --json were both given; give one of them")
    for name in ignore or ():
        if name not in RULES:
            raise unknown_name("rule", name, RULES)
    with _subject(template) as subject:
        tokenize, unit = _tokenize(tokenizer, subject)
        faults = [fault for fault in find_faults(subject, tokenize) if fault.rule not in (ignore or ())]
    counted = [fault for fault in faults if fault.level is not FaultLevel.NOTE]
    error = None
    if counted:
        many = f"{len(counted)} fault{'s' * (len(counted) != 1)}"
        error = TemplateFaultsError(f"{display(template)}: {many}")
    if sarif:
        return console.CommandResult(None, raw=_sarif(subject, faults), error=error)
    result = {
        "template": template,
        "source": subject.source,
        "compared_by": unit,
        "faults": [{"rule": fault.rule, "level": fault.level, "detail": fault.detail} for fault in faults],
    }
    return console.CommandResult(result, _listed(faults, subject), error=error)


def _listed(faults: "Sequence[TemplateFault]", subject: "TemplateSubject") -> str:
    from batuta_cli.serve.templates.lint import RULES

    if not faults:
        return f"no faults: {subject.source}"
    lines = []
    for fault in faults:
        lines += [f"{fault.level}: {fault.rule}: {RULES[fault.rule].summary}", f"  {fault.detail}"]
    return "\n".join(lines)


def _sarif(subject: "TemplateSubject", faults: "Sequence[TemplateFault]") -> bytes:
    from batuta_cli.serve.templates.sarif import to_sarif

    return json.dumps(to_sarif(subject, faults), indent=2, ensure_ascii=False).encode() + b"\n"


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta serve template diff ./model.gguf chat_template.jinja",
        "batuta serve template diff llama3 llama3.1",
        "batuta serve template diff ./qwen3-8b qwen3 --messages conversations.jsonl",
    ),
)
def diff(
    first: Annotated[str, typer.Argument(metavar="MODEL|FILE", help=_SUBJECT)],
    second: Annotated[str, typer.Argument(metavar="MODEL|FILE", help="The template to compare it with.")],
    messages: Annotated[
        str | None,
        typer.Option(
            "--messages",
            "-m",
            metavar="FILE",
            help="One conversation as JSON, a JSON list of conversations, or JSON Lines with one a line; - is stdin."
            " Default: nine conversations of the usual kinds.",
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
) -> console.CommandResult:
    """Show where the prompts of two chat templates first differ, for each conversation.

    The kind of a difference is bos, control-token, white-space, message (text of a message), text (other text of the
    template) or refusal (one template refuses the conversation). Exit 0 if all prompts are the same, 3 if one differs.
    """
    from batuta_cli.serve.templates.probes import CONVERSATIONS
    from batuta_cli.serve.templates.template_diff import compare

    chats: Sequence[ChatInput] = CONVERSATIONS if messages is None else _conversations(messages)
    with _subject(first) as one, _subject(second) as two:
        tokenize, unit = _tokenize(tokenizer, one, two)
        found = compare(one, two, chats, tokenize)
    result = {
        "first": {"template": first, "source": one.source},
        "second": {"template": second, "source": two.source},
        "conversations": len(chats),
        "compared_by": unit,
        "differences": [_described(disagreement) for disagreement in found],
    }
    if not found:
        many = f"{len(chats)} conversation{'s' * (len(chats) != 1)}"
        return console.CommandResult(result, f"the same prompts for {many}")
    error = TemplatesDifferError(f"the prompts differ: {len(found)} of {len(chats)} conversations")
    return console.CommandResult(result, "\n".join(_shown(disagreement) for disagreement in found), error=error)


def _described(found: "Disagreement") -> dict[str, Any]:
    made: dict[str, Any] = {"conversation": found.number, "messages": found.messages, "kind": found.kind}
    if found.difference is None:
        return {**made, "refusals": list(found.refusals)}
    where = found.difference
    return {**made, "offset": where.offset, "token": where.token, "first": where.first, "second": where.second}


def _shown(found: "Disagreement") -> str:
    head = f"conversation {found.number} ({found.messages} message{'s' * (found.messages != 1)}): {found.kind}"
    if found.difference is None:
        sides = [reason or "renders it" for reason in found.refusals]
    else:
        where = found.difference
        token = "" if where.token is None else f", token {where.token + 1:,}"
        head += f", character {where.offset + 1:,}{token}"
        sides = [where.first, where.second]
    return f"{head}\n  first   {sides[0]}\n  second  {sides[1]}"


def _subject(name: str) -> "TemplateSubject":
    from batuta_cli import config
    from batuta_cli.serve.templates.subject import TemplateSubject

    return TemplateSubject.of(name, config.load().models)


def _conversations(path: str) -> "list[ChatInput]":
    from batuta_cli.cli.conversation import read_messages_file
    from batuta_cli.serve.templates.template_diff import read_conversations

    return read_conversations(read_messages_file(path))


def _tokenize(path: str | None, *subjects: "TemplateSubject") -> "tuple[Tokenize | None, str]":
    """The tokenizer of --tokenizer or of the first model that has one, and its name; None and "characters" without."""
    from batuta_cli.serve.tokens import tokenizer_for

    if path is not None:
        found = tokenizer_for(path, tokenizer_path=path)
        return (lambda text: found.encode(text, special=True)), found.name
    for subject in subjects:
        if subject.path and not (os.path.isdir(subject.path) or subject.path.lower().endswith(".gguf")):
            continue
        with contextlib.suppress(BatutaError):  # no tokenizer beside the template, or of a type that is not supported
            own = tokenizer_for(subject.path or subject.name)
            if own.exact:
                return (lambda text, own=own: own.encode(text, special=True)), own.name
    return None, "characters"
