"""The tokenizer of a Hugging Face model: a `tokenizer.json`, or a directory with it or with a `tokenizer.model`.

A `tokenizer.json` needs the package `tokenizers`, from the extra of the same name.
"""

import os
import threading
from typing import Any, Final

from batuta_cli.errors import InvalidInputError, MissingDependencyError
from batuta_cli.files import StrPath, display, read_limited
from batuta_cli.serve.tokens.interface import Tokenizer, check_text

MAX_JSON: Final = 128 * 1024 * 1024
"""Bytes of a `tokenizer.json`. The largest in use have about 35 MiB."""


class JsonTokenizer:
    """A `tokenizer.json`. Exact."""

    name = "the model's own tokenizer (tokenizer.json)"
    exact = True

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The model's ids."""
        return list(self._encoding(text, special).ids)

    def count(self, text: str, *, special: bool = False) -> int:
        """How many tokens."""
        return len(self._encoding(text, special))

    def _encoding(self, text: str, special: bool) -> Any:
        check_text(text)
        with self._lock:  # whether control tokens are found is a state of the tokenizer, not of the call
            self._tokenizer.encode_special_tokens = not special
            return self._tokenizer.encode(text, add_special_tokens=False)


def from_directory(path: StrPath) -> Tokenizer:
    """The tokenizer of a model's directory. Raises `InvalidInputError` when there is none in it."""
    if os.path.isfile(file := os.path.join(path, "tokenizer.json")):
        return from_json(file)
    if os.path.isfile(file := os.path.join(path, "tokenizer.model")):
        from batuta_cli.serve.tokens.sentencepieces import from_file

        return from_file(file)
    raise InvalidInputError(f"{display(path)}: has neither a tokenizer.json nor a tokenizer.model")


def from_json(path: StrPath) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`. Raises `InvalidInputError` or `MissingDependencyError`."""
    data = read_limited(path, MAX_JSON)
    try:
        import tokenizers
    except ImportError:
        raise MissingDependencyError(
            f"{display(path)}: needs the package tokenizers", hint="pip install 'batuta-cli[tokenizers]'"
        ) from None
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
    except Exception:  # its own errors have no type
        raise InvalidInputError(f"{display(path)}: not a tokenizer that the package tokenizers can read") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return JsonTokenizer(tokenizer)
