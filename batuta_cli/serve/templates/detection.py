"""Which chat format a model has, and how that is known.

    detect_format("llama-2-70b").name, detect_format("models/qwen.gguf").evidence

Evidence in this order: the config; the template in the model's own files, when `model` is a path; the table of known
names; patterns of names. A name tells less than a file: a wrong format is worse than none, so a model whose format has
no name here, a base model, or one that nobody knows, is a `UsageError` that says so.

Files that are not what they should be are `InvalidInputError`s, those that cannot be read `OperationError`s.
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

_SHOWN = 100  # characters of a name in a message


@dataclass(frozen=True)
class Detection:
    """The chat format of a model."""

    format: TemplateFormat | None
    """The family; None for a template of the model's own that resembles no known one."""
    variant: str | None
    name: str
    """The named format, or empty for a template of the model's own that is none of them."""
    evidence: str
    """What decided, in words."""
    confidence: Confidence
    """How sure it is that prompts made so are what the model was trained on: `high` from the model's own template or
    a row of the table, less from a pattern."""
    template: str | None
    """The model's own Jinja text, when it was found in its files."""
    bos_token: str
    eos_token: str


def detect_format(model: str | os.PathLike[str], models: Mapping[str, "ModelSection"] = {}) -> Detection:
    """The chat format of a model, by the path of its files or by its name.

    A path object, and text that begins with `/`, `./`, `../` or `~/`, is a path only; other text is one when it exists.
    `models` has the config's `[models]`, whose word comes first.

    Raises `UsageError` for a model whose format is not known, `NotFoundError` for a path that does not exist.
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

    said = read_model_files(path)
    if said.template is None:
        return _by_names_of(said.names, path)
    family, name = recognise(said.template, said.bos_token, said.eos_token)
    named = named_format(name) if name else None
    spare = (named.bos_token, named.eos_token) if named else ("", "")
    return Detection(
        format=family,
        variant=named.variant if named else None,
        name=name,
        evidence=said.source,
        confidence="high",
        template=said.template,
        bos_token=spare[0] if said.bos_token is None else said.bos_token,
        eos_token=spare[1] if said.eos_token is None else said.eos_token,
    )


def _by_names_of(candidates: Iterable[str], path: Path) -> Detection:
    """From what files without a template are called."""
    for candidate in candidates:
        found = known_models.known(candidate)
        if found and found[0].format:
            return _detection(candidate, *found, before=f"no template in {display(path)}; ")
    raise UsageError(
        f"{display(path)}: it has no chat template, and its name is not that of a model whose format is known",
        hint=_formats_hint(),
    )


def _by_name(model: str) -> Detection:
    found = known_models.known(model)
    if found and found[0].format:
        return _detection(model, *found)
    shown = display(model[:_SHOWN]) or "(empty)"
    if found and found[0].reason:
        reason, hint = known_models.reason(found[0].reason)
        raise UsageError(f"no chat format for {shown}: {reason}", hint=hint)
    near = known_models.near(model)
    raise UsageError(f"unknown model {shown}{f', did you mean {near}?' if near else ''}", hint=_formats_hint())


def _detection(model: str, known: known_models.Known, by: str, *, before: str = "") -> Detection:
    named = named_format(known.format or "")
    note = f" ({known.note})" if known.note else ""
    what = "the table of known models" if by == "table" else "the pattern of its name"
    return _of_format(named, f"{before}{what}: {display(model[:_SHOWN])}{note}", known.confidence)


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
    return f"give the model's GGUF file or directory, or --format with one of: {', '.join(named_formats())}"
