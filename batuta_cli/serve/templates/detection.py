"""Find the chat format of a model, and report the evidence.

    detect_format("llama-2-70b").name, detect_format("models/qwen.gguf").evidence

Order of evidence: the configuration; the template in the model's files, if `model` is a path; the table of known
names; patterns of names. A wrong format is worse than no format: an unknown model, a base model, or a model whose
format has no name here raises `UsageError` with the reason.

A malformed file raises `InvalidInputError`, an unreadable file `OperationError`.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batuta_cli.errors import NotFoundError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.templates import known_models
from batuta_cli.serve.templates.formats import NamedFormat, TemplateFormat, named_format, named_formats
from batuta_cli.serve.templates.known_models import Confidence

if TYPE_CHECKING:
    from batuta_cli.config import ModelSection

_SHOWN = 100  # characters of a name shown in a message


@dataclass(kw_only=True, frozen=True)
class Detection:
    """The chat format of a model."""

    format: TemplateFormat | None
    """The family; None if the model's template belongs to no known family."""
    variant: str | None
    name: str
    """The named format; empty if the model's template equals no named format."""
    evidence: str
    """The source of the decision, for display."""
    confidence: Confidence
    """`high` for the model's own template or a row of the table; `medium` or `low` for a pattern of names."""
    template: str | None
    """The Jinja text from the model's files, if there is one."""
    bos_token: str
    eos_token: str


def detect_format(model: str | os.PathLike[str], models: Mapping[str, "ModelSection"] = {}) -> Detection:
    """Return the chat format of a model, given the path of its files or its name.

    A path object, or text that begins with `/`, `./`, `../` or `~/`, is always a path. Other text is a path if it
    exists, otherwise a name. `models` is the configuration's `[models]`, which takes precedence.

    Raises `UsageError` if the format is unknown, `NotFoundError` if the path does not exist.
    """
    text = os.fspath(model)
    own = models.get(text)
    if own is not None and own.template:
        return _of_format(named_format(own.template), "the configuration", "high")
    path = Path(text)
    if text and os.path.lexists(path):
        return _of_files(path)
    if not isinstance(model, str) or text.startswith(("/", "./", "../", "~/")):
        raise NotFoundError(f"{display(text)}: no such file or directory")
    return _by_name(text)


def _of_files(path: Path) -> Detection:
    from batuta_cli.serve.templates.evidence import read_model_files
    from batuta_cli.serve.templates.recognition import recognise

    files = read_model_files(path)
    if files.template is None:
        return _by_names_of(files.names, path)
    family, name = recognise(files.template, files.bos_token, files.eos_token)
    named = named_format(name) if name else None
    defaults = (named.bos_token, named.eos_token) if named else ("", "")
    return Detection(
        format=family,
        variant=named.variant if named else None,
        name=name,
        evidence=files.source,
        confidence="high",
        template=files.template,
        bos_token=defaults[0] if files.bos_token is None else files.bos_token,
        eos_token=defaults[1] if files.eos_token is None else files.eos_token,
    )


def _by_names_of(candidates: Iterable[str], path: Path) -> Detection:
    """Detect by the names of files that contain no template."""
    for candidate in candidates:
        match = known_models.known(candidate)
        if match and match[0].format:
            return _detection(candidate, *match, before=f"no template in {display(path)}; ")
    raise UsageError(
        f"{display(path)}: it has no chat template, and its name is not the name of a model with a known format",
        hint=_formats_hint(),
    )


def _by_name(model: str) -> Detection:
    match = known_models.known(model)
    if match and match[0].format:
        return _detection(model, *match)
    shown = display(model[:_SHOWN]) or "(empty)"
    if match and match[0].reason:
        reason, hint = known_models.reason(match[0].reason)
        raise UsageError(f"no chat format for {shown}: {reason}", hint=hint)
    near = known_models.near(model)
    raise UsageError(f"unknown model {shown}{f', did you mean {near}?' if near else ''}", hint=_formats_hint())


def _detection(model: str, known: known_models.Known, by: str, *, before: str = "") -> Detection:
    named = named_format(known.format or "")
    note = f" ({known.note})" if known.note else ""
    source = "the table of known models" if by == "table" else "the pattern of its name"
    return _of_format(named, f"{before}{source}: {display(model[:_SHOWN])}{note}", known.confidence)


def _of_format(named: NamedFormat, evidence: str, confidence: Confidence) -> Detection:
    return Detection(
        format=named.family,
        variant=named.variant,
        name=named.name,
        evidence=evidence,
        confidence=confidence,
        template=None,
        bos_token=named.bos_token,
        eos_token=named.eos_token,
    )


def _formats_hint() -> str:
    names = ", ".join(named_formats())
    return f"give a folder with its chat_template.jinja, its GGUF file, or --format with one of: {names}"
