"""Read a model's chat template and special tokens from its files.

Accepted: a GGUF file, a Hugging Face model directory (also a snapshot in its cache), or one file that contains a
template: `chat_template.jinja`, `chat_template.json`, `tokenizer_config.json`. Nothing is rendered here.

Files are untrusted: sizes are bounded and only regular files are opened. A malformed file raises `InvalidInputError`
with its name; a missing or unreadable file raises `NotFoundError` or `OperationError`.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display, errors_named, read_limited

MAX_JSON: Final = 16 * 1024 * 1024
"""Maximum bytes of a `tokenizer_config.json`. Published ones with 50,000 added tokens take about 10 MiB."""

MAX_TEMPLATE: Final = 1024 * 1024
"""Maximum bytes of a template. The largest published templates have about 30 KiB."""

MAX_TOKEN: Final = 1024
"""Maximum characters of a special token."""

_CONFIG, _TOKENS = "tokenizer_config.json", "special_tokens_map.json"
_TEMPLATES = ("chat_template.jinja", "chat_template.json", _CONFIG)  # in the order that transformers uses
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_SNAPSHOT = re.compile(r"models--(?:.+--)?([^/]+)/snapshots/[^/]+$")


@dataclass(kw_only=True, frozen=True)
class ModelFiles:
    """Template and special tokens of a model; None where the files contain none."""

    source: str
    """The file that was read, and the field in it; escaped for display."""
    template: str | None
    bos_token: str | None
    eos_token: str | None
    names: tuple[str, ...]
    """Names of the model, the most likely first; used if there is no template."""
    adds_bos: bool | None = None
    """Whether the tokenizer puts a BOS before a text; None where the files do not say so."""


def read_model_files(path: Path) -> ModelFiles:
    """Read the files of the model at `path`, which must exist."""
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
    return ModelFiles(source=display(path), template=None, bos_token=None, eos_token=None, names=_names_of(path))


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
    from batuta_cli.serve.models.gguf import MAGIC, first_bytes

    return first_bytes(path) == MAGIC


def _of_gguf(path: Path) -> ModelFiles:
    from batuta_cli.serve.models.gguf import read_metadata

    metadata = read_metadata(path)
    template = metadata.chat_template
    if template is not None:
        _check_template(template, path)
    name = metadata.text("general.name")
    return ModelFiles(
        source=f"tokenizer.chat_template of {display(path)}",
        template=template,
        bos_token=_checked_token(metadata.token("bos"), "bos_token", path),
        eos_token=_checked_token(metadata.token("eos"), "eos_token", path),
        names=(path.name, name) if name else (path.name,),
        adds_bos=metadata.flag("tokenizer.ggml.add_bos_token"),
    )


def _of_template_file(path: Path, names: tuple[str, ...]) -> ModelFiles:
    """Read a file that may contain a template; missing special tokens are read from its neighbours."""
    if path.suffix.lower() == ".json":
        document = _json_object(path)
        template, part = _template_in(document, path), "chat_template of "
    else:
        document, part = {}, ""
        template = _text(path, MAX_TEMPLATE)
        _check_template(template, path)
    tokens, adds_bos = _tokens_in(document, path), _adds_bos(document)
    for beside in (path.with_name(_CONFIG), path.with_name(_TOKENS)):
        if (None in tokens.values() or adds_bos is None) and beside != path and os.path.lexists(beside):
            neighbour = _json_object(beside)
            found = _tokens_in(neighbour, beside)
            tokens = {key: found[key] if value is None else value for key, value in tokens.items()}
            adds_bos = _adds_bos(neighbour) if adds_bos is None else adds_bos
    return ModelFiles(
        source=f"{part}{display(path)}",
        template=template,
        bos_token=tokens["bos_token"],
        eos_token=tokens["eos_token"],
        names=names,
        adds_bos=adds_bos,
    )


def _adds_bos(document: Mapping[str, Any]) -> bool | None:
    flag = document.get("add_bos_token")
    return flag if isinstance(flag, bool) else None


def _names_of(path: Path) -> tuple[str, ...]:
    """Return the model's name from its directory; a snapshot in Hugging Face's cache has it in a parent."""
    with errors_named(path):
        full = os.path.abspath(path)
    snapshot = _SNAPSHOT.search(full)
    return (snapshot[1],) if snapshot else (os.path.basename(full),)


def _template_in(document: Mapping[str, Any], path: Path) -> str | None:
    """Return the conversation template of a configuration, which may contain several named ones."""
    found = document.get("chat_template")
    if found is None:
        return None
    if isinstance(found, list) and all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in found):
        found = {item["name"]: item.get("template") for item in found}
    if isinstance(found, dict):
        found = _one_of(found, path)
    if not isinstance(found, str):
        raise InvalidInputError(f"{display(path)}: chat_template must be text or a list of named templates")
    _check_template(found, path)
    return found


def _one_of(templates: Mapping[str, Any], path: Path) -> Any:
    for name in ("default", "tool_use"):
        if name in templates:
            return templates[name]
    if len(templates) == 1:
        return next(iter(templates.values()))
    names = ", ".join(display(name[:100]) for name in list(templates)[:20]) or "(no templates)"
    raise InvalidInputError(f"{display(path)}: no chat template named default or tool_use; found: {names}")


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
        raise InvalidInputError(f"{display(path)}: {key} must be text of at most {MAX_TOKEN:,} characters")
    _encoded(token, key, path)
    return token


def _encoded(text: str, what: str, path: Path) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{display(path)}: {what} is not Unicode: it contains a lone surrogate") from error


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
