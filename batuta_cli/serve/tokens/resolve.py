"""The tokenizer of a model: `tokenizer_for`.

Order: the configured path; OpenAI's encodings, by the model's name; the model's own file, when the name is a path; an
upper estimate. A path without a tokenizer is an error, never an estimate.
"""

import functools
import os
from typing import Final

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import StrPath, display, errors_named
from batuta_cli.serve.models import gguf
from batuta_cli.serve.tokens.openai_models import openai_model, openai_tokenizer
from batuta_cli.serve.tokens.tokenizer import Tokenizer
from batuta_cli.serve.tokens.upper_estimate import METHOD, Estimator

_KEPT: Final = 8  # tokenizers of files in memory; a large one takes 100 MB


def tokenizer_for(model: str, *, tokenizer_path: StrPath | None = None) -> Tokenizer:
    """The tokenizer for a model's name, a GGUF file, a `tokenizer.json`, a `tokenizer.model` or a model's directory.

    `tokenizer_path` is the configured tokenizer of this model. A tokenizer is kept in memory; one from a file is read
    again when the file changes.

    Raises `InvalidInputError`, `NotFoundError`, `MissingDependencyError`.
    """
    if tokenizer_path:
        return _of_path(tokenizer_path)
    known = openai_model(model)
    if known is not None:  # a directory called gpt-4 must be named ./gpt-4
        return openai_tokenizer(known.encoding)
    if model.endswith((".gguf", ".json")) or ("\0" not in model and os.path.exists(model)):
        return _of_path(model)
    return Estimator(f"{METHOD}: the tokenizer of {display(model[:100])} is not known")


def _of_path(path: StrPath) -> Tokenizer:
    with errors_named(path):
        status = os.stat(path)
        return _read(os.path.abspath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(_KEPT)
def _read(path: str, *identity: int) -> Tokenizer:
    if os.path.isdir(path):
        from batuta_cli.serve.tokens.huggingface import from_directory

        return from_directory(path)
    start = gguf.first_bytes(path)
    if start == gguf.MAGIC:
        from batuta_cli.serve.tokens.gguf_vocabulary import gguf_tokenizer

        return gguf_tokenizer(path)
    if start.lstrip()[:1] == b"{":
        from batuta_cli.serve.tokens.huggingface import from_json

        return from_json(path)
    if start[:1] == b"\n":  # the first field of a SentencePiece model, a piece
        from batuta_cli.serve.tokens.sentencepieces import from_file

        return from_file(path)
    raise InvalidInputError(
        f"{display(path)}: not a tokenizer",
        hint="give a GGUF file, a tokenizer.json, a tokenizer.model or a model's folder",
    )
