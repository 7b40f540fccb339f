"""SentencePiece vocabularies: from a GGUF file, or a `tokenizer.model`. Needs the extra `tokenizers`.

`sentencepiece` loads a vocabulary as a protocol buffer (sentencepiece_model.proto). This module writes the few fields
that it needs: a byte-pair model with byte fallback, whose only normalisation replaces spaces by U+2581.
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from batuta_cli.errors import InvalidInputError, MissingDependencyError
from batuta_cli.files import StrPath, display, read_limited
from batuta_cli.serve.tokens.tokenizer import ControlTokens, Tokenizer, check_text

if TYPE_CHECKING:
    import sentencepiece

MAX_MODEL: Final = 64 * 1024 * 1024
"""Bytes of a `tokenizer.model`. The largest in use have about 5 MiB."""

_NORMAL, _UNKNOWN, _CONTROL, _UNUSED, _BYTE = 1, 2, 3, 5, 6  # SentencePiece.Type
_BYTE_PAIR = 2  # TrainerSpec.ModelType.BPE


class SentencePieceTokenizer:
    """A SentencePiece model. Exact."""

    exact = True

    def __init__(
        self, name: str, processor: "sentencepiece.SentencePieceProcessor", control: ControlTokens, *, add_blank: bool
    ) -> None:
        """`add_blank`: insert a space before the text and after each control token, as llama.cpp does."""
        self.name = name
        self._processor: Any = processor
        self._control = control
        self._add_blank = add_blank

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The model's ids."""
        check_text(text)
        found: list[int] = []
        blank = self._add_blank
        for part in self._control.split(text, special=special):
            if isinstance(part, int):
                found.append(part)
                blank = self._add_blank
            else:
                found += self._processor.encode(" " + part if blank else part)
                blank = False
        return found

    def count(self, text: str, *, special: bool = False) -> int:
        """How many tokens."""
        return len(self.encode(text, special=special))


def from_vocabulary(
    path: str, vocabulary: Sequence[tuple[str, float, int]], control: ControlTokens, *, add_blank: bool
) -> Tokenizer:
    """A tokenizer of (text, score, type) by id. Raises `InvalidInputError` that names `path`."""
    unknown = next((number for number, entry in enumerate(vocabulary) if entry[2] == _UNKNOWN), 0)
    pieces = []
    for number, (text, score, given) in enumerate(vocabulary):
        kind = given
        if given not in (_NORMAL, _BYTE):
            # The package allows one unknown token. Further ones are split off before, like control tokens.
            kind = _UNKNOWN if number == unknown else _CONTROL if given != _UNUSED else _NORMAL
        pieces.append(_message(1, _piece(text, score, kind)))
    model = b"".join(pieces)
    model += _message(2, _number(3, _BYTE_PAIR) + _number(35, 1) + _number(40, unknown))  # trainer_spec
    model += _message(3, _message(1, b"identity") + _number(3, 0) + _number(4, 0) + _number(5, 1))  # normalizer_spec
    return SentencePieceTokenizer(
        "the model's own tokenizer (SentencePiece)", _load(model, path), control, add_blank=add_blank
    )


def from_file(path: StrPath) -> Tokenizer:
    """The tokenizer of a `tokenizer.model`. Raises `InvalidInputError`."""
    processor: Any = _load(read_limited(path, MAX_MODEL), path)
    control = {processor.id_to_piece(n): n for n in range(len(processor)) if processor.is_control(n)}
    return SentencePieceTokenizer(
        "the model's own tokenizer (SentencePiece)", processor, ControlTokens(control), add_blank=False
    )


def _load(model: bytes, path: StrPath) -> "sentencepiece.SentencePieceProcessor":
    try:
        import sentencepiece
    except ImportError:
        raise MissingDependencyError(
            f"{display(path)}: its tokenizer needs the package sentencepiece",
            hint="pip install 'batuta-cli[tokenizers]'",
        ) from None
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, OSError, ValueError):
        raise InvalidInputError(f"{display(path)}: not a SentencePiece vocabulary") from None


def _piece(text: str, score: float, kind: int) -> bytes:
    return _message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """https://protobuf.dev/programming-guides/encoding/#varints"""
    groups: list[int] = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
