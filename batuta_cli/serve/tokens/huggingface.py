"""The tokenizer of a Hugging Face model: a `tokenizer.json`, or a directory with one or with a `tokenizer.model`.

A `tokenizer.json` needs the package `tokenizers`, from the extra of the same name.
"""

import os
import re
import threading
from typing import Any, Final

from batuta_cli.errors import InvalidInputError, MissingDependencyError
from batuta_cli.faults import is_panic
from batuta_cli.files import StrPath, display, read_limited
from batuta_cli.serve.tokens.tokenizer import Tokenizer, cannot_tokenize, check_text

MAX_JSON: Final = 128 * 1024 * 1024
"""Bytes of a `tokenizer.json`. The largest in use have about 35 MiB."""


LONGEST_RUN: Final = 4_000_000
"""White-space characters in a row that are passed to the package.

Its pattern engine, Oniguruma, panics with "retry-limit-in-match over" when one match backtracks 10,000,000 times, and
the patterns of models backtrack once or twice for each space. Llama 3's pattern still accepts 8,000,000 spaces.
"""

_BLANKS = re.compile(r"\s+")


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
        _check_runs(text)
        with self._lock:  # encode_special_tokens is state of the tokenizer, not an argument of the call
            self._tokenizer.encode_special_tokens = not special
            try:
                return self._tokenizer.encode(text, add_special_tokens=False)
            except BaseException as error:
                if not is_panic(error):
                    raise
        raise cannot_tokenize(text)  # outside the except block, because the panic may quote the text


def _check_runs(text: str) -> None:
    # A panic prints to stderr before Python sees it, so it must be prevented, not caught.
    if len(text) > LONGEST_RUN and any(m.end() - m.start() > LONGEST_RUN for m in _BLANKS.finditer(text)):
        raise cannot_tokenize(text)


def from_directory(path: StrPath) -> Tokenizer:
    """The tokenizer of a model's directory. Raises `InvalidInputError` when the directory has no tokenizer."""
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
    except BaseException as error:  # its own errors have no type
        if not (is_panic(error) or isinstance(error, Exception)) or isinstance(error, MemoryError):
            raise
        raise InvalidInputError(f"{display(path)}: not a tokenizer that the package tokenizers can read") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return JsonTokenizer(tokenizer)
