"""A model's own chat template and special tokens, from its files.

A GGUF file, a directory as Hugging Face lays it out (a snapshot of its cache too), or one of the files that hold a
template: `chat_template.jinja`, `chat_template.json`, `tokenizer_config.json`. Nothing is rendered here.

Files are hostile until they have been read: sizes are bounded, only regular files are opened, and what is not as it
should be is an `InvalidInputError` that names the file. `NotFoundError` and `OperationError` as for any file.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display, errors_named, open_regular, read_limited

MAX_JSON: Final = 16 * 1024 * 1024
"""Bytes of a `tokenizer_config.json`. The largest in use, with 50,000 added tokens in them, take about 10 MiB."""

MAX_TEMPLATE: Final = 1024 * 1024
"""Bytes of a template. The largest published ones have 30 KiB."""

MAX_TOKEN: Final = 1024
"""Characters of a special token."""

_CONFIG, _TOKENS = "tokenizer_config.json", "special_tokens_map.json"
_TEMPLATES = ("chat_template.jinja", "chat_template.json", _CONFIG)  # as transformers prefers them
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_SNAPSHOT = re.compile(r"models--(?:.+--)?([^/]+)/snapshots/[^/]+$")


@dataclass(frozen=True)
class ModelFiles:
    """What the files of a model say. Template and tokens are None where they say nothing."""

    source: str
    """The file that was read, and the part of it; escaped for showing."""
    template: str | None
    bos_token: str | None
    eos_token: str | None
    names: tuple[str, ...]
    """What the model is called, for when it has no template; the likeliest first."""


def read_model_files(path: Path) -> ModelFiles:
    """What the model at `path` (which exists) says of its chat format."""
    return _of_directory(path) if path.is_dir() else _of_file(path)


def _of_directory(path: Path) -> ModelFiles:
    holder = next(
        (path / name for name in _TEMPLATES if os.path.lexists(path / name) and _has_template(path / name)), None
    )
    if holder is not None:
        return _of_template_file(holder, _names_of(path))
    models = _models_in(path)
    if len(models) == 1:
        return _of_gguf(models[0])
    return ModelFiles(display(path), None, None, None, _names_of(path))


def _has_template(path: Path) -> bool:
    return path.suffix == ".jinja" or _template_in(_json_object(path), path) is not None


def _models_in(path: Path) -> list[Path]:
    with errors_named(path):
        names = os.listdir(path)
    return [
        path / name
        for name in sorted(names)
        if name.lower().endswith(".gguf") and not name.lower().startswith("mmproj") and not _LATER_PART.search(name)
    ]


def _of_file(path: Path) -> ModelFiles:
    if path.suffix.lower() in (".jinja", ".jinja2", ".j2", ".json"):
        return _of_template_file(path, _names_of(path.parent))
    if path.suffix.lower() == ".gguf" or _begins_as_gguf(path):
        return _of_gguf(path)
    raise InvalidInputError(
        f"{display(path)}: neither a GGUF file nor a chat template",
        hint="give a GGUF file, the model's directory, chat_template.jinja or tokenizer_config.json",
    )


def _begins_as_gguf(path: Path) -> bool:
    from batuta_cli.serve.models.gguf import MAGIC

    descriptor = open_regular(path)
    try:
        with errors_named(path):
            return os.pread(descriptor, len(MAGIC), 0) == MAGIC
    finally:
        os.close(descriptor)


def _of_gguf(path: Path) -> ModelFiles:
    from batuta_cli.serve.models.gguf import read_metadata

    metadata = read_metadata(path)
    template = metadata.chat_template
    if template is not None:
        _check_template(template, path)
    said = metadata.text("general.name")
    return ModelFiles(
        source=f"tokenizer.chat_template of {display(path)}",
        template=template,
        bos_token=_checked_token(metadata.token("bos"), "bos_token", path),
        eos_token=_checked_token(metadata.token("eos"), "eos_token", path),
        names=(path.name, said) if said else (path.name,),
    )


def _of_template_file(path: Path, names: tuple[str, ...]) -> ModelFiles:
    """From a file that may hold a template; the special tokens also from the files beside it."""
    if path.suffix.lower() == ".json":
        document = _json_object(path)
        template, part = _template_in(document, path), "chat_template of "
    else:
        document, part = {}, ""
        template = _text(path, MAX_TEMPLATE)
        _check_template(template, path)
    tokens = _tokens_in(document, path)
    for beside in (path.with_name(_CONFIG), path.with_name(_TOKENS)):
        if None in tokens.values() and beside != path and os.path.lexists(beside):
            found = _tokens_in(_json_object(beside), beside)
            tokens = {key: found[key] if value is None else value for key, value in tokens.items()}
    return ModelFiles(f"{part}{display(path)}", template, tokens["bos_token"], tokens["eos_token"], names)


def _names_of(path: Path) -> tuple[str, ...]:
    """What the directory of a model is called; a snapshot in Hugging Face's cache bears the name higher up."""
    with errors_named(path):
        full = os.path.abspath(path)
    snapshot = _SNAPSHOT.search(full)
    return (snapshot[1],) if snapshot else (os.path.basename(full),)


def _template_in(document: Mapping[str, Any], path: Path) -> str | None:
    """The template for conversations among the one or several that a configuration has."""
    found = document.get("chat_template")
    if found is None:
        return None
    if isinstance(found, list) and all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in found):
        found = {item["name"]: item.get("template") for item in found}
    if isinstance(found, dict):
        found = _one_of(found, path)
    if not isinstance(found, str):
        raise InvalidInputError(f"{display(path)}: chat_template is neither a text nor a list of named ones")
    _check_template(found, path)
    return found


def _one_of(templates: Mapping[str, Any], path: Path) -> Any:
    for name in ("default", "tool_use"):
        if name in templates:
            return templates[name]
    if len(templates) == 1:
        return next(iter(templates.values()))
    names = ", ".join(display(name[:100]) for name in list(templates)[:20]) or "none at all"
    raise InvalidInputError(f"{display(path)}: none of its chat templates is the default one, there are: {names}")


def _check_template(template: str, path: Path) -> None:
    if len(_encoded(template, "the chat template", path)) > MAX_TEMPLATE:
        raise InvalidInputError(f"{display(path)}: a chat template of more than {MAX_TEMPLATE:,} bytes")
    if not template.strip():
        raise InvalidInputError(f"{display(path)}: the chat template is empty")


def _tokens_in(document: Mapping[str, Any], path: Path) -> dict[str, str | None]:
    tokens: dict[str, str | None] = {}
    for key in ("bos_token", "eos_token"):
        token = document.get(key)
        tokens[key] = _checked_token(token.get("content") if isinstance(token, dict) else token, key, path)
    return tokens


def _checked_token(token: object, key: str, path: Path) -> str | None:
    if token is None:
        return None
    if not isinstance(token, str) or len(token) > MAX_TOKEN:
        raise InvalidInputError(f"{display(path)}: {key} is not a short text")
    _encoded(token, key, path)
    return token


def _encoded(text: str, what: str, path: Path) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{display(path)}: {what} is not Unicode: it has half of a character") from error


def _json_object(path: Path) -> dict[str, Any]:
    text = _text(path, MAX_JSON)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{display(path)}: not JSON") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{display(path)}: not a JSON object")
    return document


def _text(path: Path, limit: int) -> str:
    try:
        return read_limited(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{display(path)}: not UTF-8") from error
