"""Find faults of a chat template by rendering conversations with it.

`RULES` lists the faults. A rule looks at prompts: at what the template writes, not how.

A prompt that is no token prefix of the longer conversation's prompt costs time: servers keep the state of the model for
the tokens of the last request, and compute only the tokens after them (prefix caching).
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from batuta_cli.files import display
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates.difference import Tokenize, common_length, excerpt
from batuta_cli.serve.templates.formats import named_formats
from batuta_cli.serve.templates.isolation import Allowance
from batuta_cli.serve.templates.probes import (
    ANSWER,
    ASK,
    CALL,
    CALLS,
    GROWING,
    MORE,
    RESULT,
    SYSTEM,
    TOOL,
    VALUE,
    VALUE_IN_PYTHON,
)
from batuta_cli.serve.templates.render import RenderError
from batuta_cli.serve.templates.subject import TemplateSubject
from batuta_cli.serve.templates.template_input import Content, Form


class FaultLevel(StrEnum):
    """The severity of a fault, as in SARIF. A note alone is no reason to refuse a template."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class FaultRule(NamedTuple):
    """A kind of fault."""

    level: FaultLevel
    summary: str


RULES: Final = {
    "cannot-render": FaultRule(FaultLevel.ERROR, "The template cannot render a user message."),
    "unbounded-work": FaultRule(FaultLevel.ERROR, "The work grows faster than the conversation, or has no bound."),
    "double-bos": FaultRule(FaultLevel.ERROR, "The prompt begins with two BOS tokens."),
    "missing-bos": FaultRule(FaultLevel.WARNING, "The model has a BOS token, and the prompt does not begin with it."),
    "not-a-prefix": FaultRule(
        FaultLevel.WARNING, "The prompt is no token prefix of the longer conversation's, so that caches do not help."
    ),
    "system-dropped": FaultRule(FaultLevel.ERROR, "The text of the system message is not in the prompt."),
    "system-refused": FaultRule(FaultLevel.NOTE, "The template refuses a system message."),
    "content-as-text": FaultRule(
        FaultLevel.WARNING, "Content given as text is lost; the template reads only a list of parts."
    ),
    "tools-unsupported": FaultRule(FaultLevel.NOTE, "The prompt does not contain the definitions of tools."),
    "calls-unsupported": FaultRule(
        FaultLevel.WARNING, "The prompt does not contain the tool calls of an earlier response."
    ),
    "results-unsupported": FaultRule(FaultLevel.WARNING, "The prompt does not contain the results of tool calls."),
    "arguments-as-text": FaultRule(
        FaultLevel.WARNING, "Arguments of tool calls given as JSON text, as in OpenAI's API, fail."
    ),
    "arguments-as-object": FaultRule(
        FaultLevel.WARNING, "Arguments of tool calls given as an object, as in transformers, fail."
    ),
    "date-dependent": FaultRule(FaultLevel.NOTE, "The prompt contains the current date."),
    "differs-from-format": FaultRule(FaultLevel.NOTE, "The template resembles a named format and differs from it."),
}


@dataclass(frozen=True)
class TemplateFault:
    """One fault of a template. `detail` says what was found."""

    rule: str
    detail: str

    @property
    def level(self) -> FaultLevel:
        """The severity."""
        return RULES[self.rule].level


_MANY: Final = 4_000
"""Messages of a long conversation. Work in proportion to it needs a tenth of the allowance."""

_DAYS: Final = (dt.datetime(2024, 7, 26), dt.datetime(2031, 2, 3))
_BEGINNING: Final = 24  # characters shown of a prompt's beginning


def lint(subject: TemplateSubject, tokenize: Tokenize | None = None) -> list[TemplateFault]:
    """Return the faults of a template, in the order of `RULES`.

    `tokenize` compares prompts by tokens; without it they are compared by characters.
    """
    found: list[TemplateFault] = []
    try:
        for fault in _Lint(subject, tokenize).faults():
            found.append(fault)  # those before a limit are kept
    except _Exhausted as error:
        found.append(TemplateFault("unbounded-work", str(error)))
    return sorted(found, key=lambda fault: list(RULES).index(fault.rule))


class _Exhausted(Exception):
    pass


_Pair = tuple[tuple[ChatMessage, ...], tuple[ChatMessage, ...], dict[str, Any]]  # and the options of both


class _Lint:
    def __init__(self, subject: TemplateSubject, tokenize: Tokenize | None) -> None:
        self._subject = subject
        self._tokenize = tokenize
        self._form = Form()
        self._with_tools = False  # definitions, calls and results reach the prompt

    def faults(self) -> Iterator[TemplateFault]:
        prompt, reason = self._try((ASK,))
        if prompt is not None and ASK.content not in prompt:
            typed, _ = self._try((ASK,), form=Form(Content.TYPED))
            if typed is not None and ASK.content in typed:
                self._form, prompt = Form(Content.TYPED), typed
                yield TemplateFault("content-as-text", "the text of the user message is not in the prompt")
        if prompt is None or ASK.content not in prompt:
            lost = "the text of the user message is not in the prompt"
            yield TemplateFault("cannot-render", lost if prompt is not None else reason)
            return
        yield from self._bos(prompt)
        yield from self._system()
        yield from self._tools()
        yield from self._prefixes()
        yield from self._dates()
        yield from self._resemblance()
        yield from self._work()

    def _try(self, messages: Sequence[ChatMessage], **options: Any) -> tuple[str | None, str]:
        """The prompt, or None and the reason. Raises `_Exhausted` at a limit."""
        try:
            return self._subject.render(messages, **{"form": self._form, **options}), ""
        except RenderError as error:
            if error.exhausted:
                raise _Exhausted(f"a conversation of {_messages(messages)}: {display(error.reason)}") from None
            verb = "refuses" if error.refused else "fails on"
            return None, f"the template {verb} it{': ' * bool(error.reason)}{display(error.reason)}"

    def _bos(self, prompt: str) -> Iterator[TemplateFault]:
        bos = self._subject.bos_token
        if not bos:
            return
        if prompt.startswith(bos + bos):
            yield TemplateFault("double-bos", f"the prompt begins with {display(bos + bos)}")
        elif not prompt.startswith(bos) and self._subject.adds_bos is not False:
            begins = f"the prompt begins with {excerpt(prompt[:_BEGINNING], 0)}, not with {display(bos)}"
            adds = "; tokenizers that add it do so only for plain text" if self._subject.adds_bos else ""
            yield TemplateFault("missing-bos", begins + adds)

    def _system(self) -> Iterator[TemplateFault]:
        prompt, reason = self._try((SYSTEM, ASK))
        if prompt is None:
            yield TemplateFault("system-refused", reason)
        elif SYSTEM.content not in prompt:
            yield TemplateFault("system-dropped", "no error, and the text of the system message is not in the prompt")

    def _tools(self) -> Iterator[TemplateFault]:
        prompt, reason = self._try((ASK,), tools=[TOOL])
        defined = prompt is not None and CALL.name in prompt
        if not defined:
            yield TemplateFault("tools-unsupported", reason or "the name of a tool is not in the prompt")
        forms = {text: self._form._replace(text_arguments=text) for text in (False, True)}
        calls = {text: self._try((ASK, CALLS), form=form) for text, form in forms.items()}
        written = {text: prompt for text, (prompt, _) in calls.items() if prompt is not None and _is_called(prompt)}
        if not written:
            if defined:
                yield TemplateFault("calls-unsupported", calls[False][1] or "a called tool is not in the prompt")
            return
        for text, rule in ((True, "arguments-as-text"), (False, "arguments-as-object")):
            if fault := _arguments(written, calls, text):
                yield TemplateFault(rule, fault)
                if not text:
                    self._form = self._form._replace(text_arguments=True)
        prompt, reason = self._try((ASK, CALLS, RESULT))
        if prompt is None or RESULT.content not in prompt:
            yield TemplateFault("results-unsupported", reason or "the text of a tool's result is not in the prompt")
        else:
            self._with_tools = defined

    def _prefixes(self) -> Iterator[TemplateFault]:
        pairs: list[_Pair] = [(*pair, {}) for pair in GROWING]
        if self._with_tools:
            pairs.append(((ASK,), (ASK, CALLS, RESULT), {"tools": [TOOL]}))
        for shorter, longer, options in pairs:
            before, after = self._try(shorter, **options)[0], self._try(longer, **options)[0]
            if before is None or after is None:
                continue
            if where := self._departs(before, after):
                using = " with tools" if options else ""
                sizes = f"the prompt of {_messages(shorter)}{using} is no prefix of the prompt of {_messages(longer)}"
                yield TemplateFault("not-a-prefix", f"{sizes}: {where}")
                return

    def _departs(self, before: str, after: str) -> str:
        """Where a prompt departs from the longer one; empty if it is a prefix."""
        at = common_length(before, after)
        if self._tokenize is None:
            if at == len(before):
                return ""
            place = f"from character {at + 1:,} of {len(before):,}"
        else:
            tokens = self._tokenize(before)
            token = common_length(tokens, self._tokenize(after))
            if token == len(tokens):
                return ""
            place = f"from token {token + 1:,} of {len(tokens):,}"
        return f"{place}, {excerpt(before, at)} becomes {excerpt(after, at)}"

    def _dates(self) -> Iterator[TemplateFault]:
        first, second = (self._try((SYSTEM, ASK), now=day)[0] for day in _DAYS)
        if first is None and second is None:
            first, second = (self._try((ASK,), now=day)[0] for day in _DAYS)
        if first is not None and second is not None and first != second:
            shown = excerpt(first, common_length(first, second))
            yield TemplateFault("date-dependent", f"on another day the prompt is another: {shown}")

    def _resemblance(self) -> Iterator[TemplateFault]:
        """Compare an untrusted template with the named format whose prompts are the most like its own."""
        if self._subject.own:
            return
        from batuta_cli.serve.templates.recognition import recognise

        subject = self._subject
        family, name = recognise(subject.text, subject.bos_token, subject.eos_token)
        if name or family is None:
            return
        conversations = [conversation for _, conversation in GROWING] + [(SYSTEM, ASK), (ASK,)]
        prompts = [self._try(conversation)[0] for conversation in conversations]
        found = []
        for named in named_formats().values():
            if named.family is family:
                other = TemplateSubject.of_format(replace(named, bos_token=subject.bos_token or named.bos_token))
                references = [_reference(other, conversation) for conversation in conversations]
                found.append((_likeness(prompts, references), named.name, references))
        (same, _), name, references = max(found, key=lambda item: item[0])
        triples = zip(conversations, prompts, references, strict=True)
        first = next((_difference(_messages(c), a, b) for c, a, b in triples if a != b), "")
        equal = f"{same} of {len(conversations)} conversations give the prompt of the format {name}"
        yield TemplateFault("differs-from-format", f"{equal}; {first}" if first else equal)

    def _work(self) -> Iterator[TemplateFault]:
        turns = [ASK, ANSWER] * (_MANY // 2)
        lengths = {}
        for count in (_MANY // 4, _MANY // 2, _MANY):
            messages = (*turns[: count - 2], MORE)
            prompt, _ = self._try(messages, allowance=Allowance.of(40 * count, count))
            lengths[count] = len(prompt or "")
        quarter, half, whole = lengths.values()
        if all(lengths.values()) and whole - half > 3 * (half - quarter):
            sizes = " and ".join(f"{size:,}" for size in (half, whole))
            detail = f"{_MANY // 2:,} and {_MANY:,} messages give prompts of {sizes} characters"
            yield TemplateFault("unbounded-work", detail)


def _reference(subject: TemplateSubject, conversation: Sequence[ChatMessage]) -> str | None:
    try:
        return subject.render(conversation)
    except RenderError:
        return None


def _likeness(prompts: Sequence[str | None], references: Sequence[str | None]) -> tuple[int, int]:
    """The number of equal prompts, and the characters before the differences."""
    pairs = list(zip(prompts, references, strict=True))
    return sum(a == b for a, b in pairs), sum(common_length(a or "", b or "") for a, b in pairs)


def _difference(messages: str, prompt: str | None, reference: str | None) -> str:
    if prompt is None or reference is None:
        return f"with {messages} only the {'format' if prompt is None else 'template'} renders"
    at = common_length(prompt, reference)
    return f"with {messages} it writes {excerpt(prompt, at)}, the format {excerpt(reference, at)}"


def _arguments(written: dict[bool, str], calls: dict[bool, tuple[str | None, str]], text: bool) -> str:
    """The fault with arguments as text or as an object; empty if they are supported."""
    prompt, other = written.get(text), written.get(not text)
    if prompt is None:
        return calls[text][1] or "the call is not in the prompt"
    if text:
        if prompt == other or CALL.arguments in prompt:
            return ""
        at = prompt.find(VALUE)
        return f"the prompt has {excerpt(prompt, at)}" if at >= 0 else "the arguments are not in the prompt"
    if VALUE_IN_PYTHON in prompt:
        return f"the prompt has them as Python writes them: {excerpt(prompt, prompt.find(VALUE_IN_PYTHON))}"
    return "" if VALUE in prompt else "the arguments are not in the prompt"


def _is_called(prompt: str) -> bool:
    return CALL.name in prompt or CALL.id in prompt  # Kimi writes the id, which has the name in it


def _messages(messages: Sequence[ChatMessage]) -> str:
    return f"{len(messages):,} message{'s' * (len(messages) != 1)}"
