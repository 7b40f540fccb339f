"""Byte-pair vocabularies over characters, such as Gemma 4's. Needs the extra `tokenizers`.

Spaces become U+2581. Each line, and each run of line breaks, is merged as a whole, starting with its characters. A
character that the vocabulary lacks becomes its bytes (`<0xE3>`). llama.cpp does the same: src/llama-vocab.cpp, where
`byte_encode` is false.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from batuta_cli.errors import InvalidInputError, MissingDependencyError
from batuta_cli.faults import is_panic
from batuta_cli.files import display
from batuta_cli.serve.tokens.tokenizer import ControlTokens, Tokenizer, cannot_tokenize, check_text

_LINES: Final = re.compile(r"[^\n]+|\n+")
_SPACE: Final = "\u2581"


class CharacterPairTokenizer:
    """A byte-pair vocabulary over characters. Exact."""

    name = "the model's own tokenizer (byte pairs of characters)"
    exact = True

    def __init__(self, model: Any, numbers: Mapping[str, int], control: ControlTokens) -> None:
        """`model` is a `tokenizers.Tokenizer`; `numbers` has the ids by token."""
        self._model = model
        self._numbers = numbers
        self._control = control

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The model's ids."""
        check_text(text)
        found: list[int] = []
        for part in self._control.split(text, special=special):
            if isinstance(part, int):
                found.append(part)
            else:
                found += self._text(part)
        return found

    def count(self, text: str, *, special: bool = False) -> int:
        """How many tokens."""
        return len(self.encode(text, special=special))

    def _text(self, text: str) -> Iterator[int]:
        for line in _LINES.findall(text.replace(" ", _SPACE)):
            number = self._numbers.get(line) if line[0] == "\n" else None
            if number is not None:
                yield number
            else:
                yield from self._merged(line)

    def _merged(self, line: str) -> Sequence[int]:
        try:
            ids: list[int] = self._model.encode(line, add_special_tokens=False).ids
            return ids
        except BaseException as error:
            if not is_panic(error):
                raise
        raise cannot_tokenize(line)  # outside the except block, because the panic may quote the text


def character_pairs(path: str, tokens: Sequence[str], merges: Sequence[str], control: ControlTokens) -> Tokenizer:
    """A tokenizer of tokens by id and of merges (`left right`) in order.

    Raises `InvalidInputError` that names `path`, `MissingDependencyError`.
    """
    try:
        from tokenizers import Tokenizer as Model
        from tokenizers.models import BPE
    except ImportError:
        raise MissingDependencyError(
            f"{display(path)}: its tokenizer needs the package tokenizers", hint="pip install 'batuta-cli[tokenizers]'"
        ) from None
    numbers = {text: number for number, text in enumerate(tokens)}
    pairs = []
    for number, merge in enumerate(merges):
        blank = merge.find(" ", 1)
        pair = merge[:blank], merge[blank + 1 :]
        if blank < 0 or any(text not in numbers for text in (*pair, "".join(pair))):
            raise InvalidInputError(f"{display(path)}: damaged vocabulary: merge {number:,}")
        pairs.append(pair)
    try:
        model = Model(BPE(vocab=numbers, merges=pairs, byte_fallback=True))
    except Exception:  # its errors have no type
        raise InvalidInputError(f"{display(path)}: damaged vocabulary: its merges contradict its tokens") from None
    return CharacterPairTokenizer(model, numbers, control)
