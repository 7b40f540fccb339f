"""The tokenizer of a GGUF model file. It counts as llama.cpp does with the same file.

A byte-pair vocabulary (`tokenizer.ggml.model` = `gpt2`) becomes a `tiktoken.Encoding` whose ranks are the order of the
merges. `pretokenizers.toml` has the patterns that split text first. A SentencePiece vocabulary (`llama`) is run by the
package `sentencepiece`, and one of byte pairs over characters (`gemma4`) by the package `tokenizers`, both from the
extra `tokenizers`. Any other type (`bert`, `t5`, `rwkv`, `plamo2`) is counted by an upper estimate that names it.

Raises `InvalidInputError`, and `MissingDependencyError` when a package is missing.
"""

import enum
import functools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import StrPath, display
from batuta_cli.serve.models.gguf import GgufMetadata, read_metadata
from batuta_cli.serve.tokens.tokenizer import ControlTokens, Tokenizer
from batuta_cli.serve.tokens.upper_estimate import METHOD, Estimator

_PREFIX: Final = "tokenizer.ggml."
_ARRAYS: Final = tuple(_PREFIX + name for name in ("tokens", "merges", "scores", "token_type"))
_HINT: Final = "set tokenizer of [models] in the config to a tokenizer.json of this model"
_KEEP_BLANKS: Final = ("<unk>", "<s>", "<|endoftext|>")

_CHARACTER_PAIRS: Final = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")
"""Values of `tokenizer.ggml.pre` whose merges are over characters. The type `gemma4` implies the first."""

_FIRST_MERGE: Final = 256
"""The rank of the first merge. Lower ranks are the single bytes."""


class TokenType(enum.IntEnum):
    """`tokenizer.ggml.token_type`. The numbers are those of SentencePiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def gguf_tokenizer(path: StrPath) -> Tokenizer:
    """The tokenizer in a GGUF file."""
    metadata = read_metadata(path, arrays=_ARRAYS)
    kind = metadata.text(_PREFIX + "model")
    splits = metadata.text(_PREFIX + "pre") or "default"
    if kind == "llama":
        return _sentence_piece(metadata)
    if kind == "gemma4" or (kind == "gpt2" and splits in _CHARACTER_PAIRS):
        return _character_pairs(metadata)
    if kind == "gpt2" and splits in pretokenizers():
        return _byte_pair(metadata, splits)
    if not kind:
        raise InvalidInputError(f"{display(metadata.path)}: the file has no tokenizer", hint=_HINT)
    what = f"pre-tokenizer {display(splits)}" if kind == "gpt2" else f"tokenizer type {display(kind)}"
    return Estimator(f"{METHOD}: the {what} of {display(metadata.path)} is not supported")


def _character_pairs(metadata: GgufMetadata) -> Tokenizer:
    from batuta_cli.serve.tokens.character_pairs import character_pairs

    tokens = _texts(metadata, "tokens")
    return character_pairs(metadata.path, tokens, _texts(metadata, "merges"), _control_tokens(metadata, tokens))


def _byte_pair(metadata: GgufMetadata, splits: str) -> Tokenizer:
    import tiktoken

    from batuta_cli.serve.tokens.bytepair import BytePairTokenizer

    patterns = pretokenizers()[splits]
    tokens = _texts(metadata, "tokens")
    ranks = _ranks(metadata, _texts(metadata, "merges"))
    numbers = {text: number for number, text in enumerate(tokens)}
    ids = [-1] * (max(ranks.values()) + 1)
    for token, rank in ranks.items():
        ids[rank] = numbers.get(_spelt(token), -1)
    # As in llama.cpp: a merged token that the vocabulary lacks becomes its bytes, and a byte that it lacks is lost.
    single_bytes = [numbers.get(_spelt(bytes([byte])), -1) for byte in range(256)]
    spelt = {rank: [single_bytes[byte] for byte in token] for token, rank in ranks.items() if ids[rank] < 0}
    single = len(patterns) == 1
    encoding = tiktoken.Encoding(
        splits, pat_str=patterns[0] if single else "(?s:.+)", mergeable_ranks=ranks, special_tokens={}
    )
    return BytePairTokenizer(
        f"the model's own tokenizer ({display(splits)})",
        encoding,
        patterns=() if single else patterns,
        ids=ids,
        spelt=spelt,
        control=_control_tokens(metadata, tokens),
    )


def _spelt(token: bytes) -> str:
    return token.decode("latin-1").translate(_SPELLING)


def _ranks(metadata: GgufMetadata, merges: Sequence[str]) -> dict[bytes, int]:
    """Rank by token: the value of a single byte, otherwise the number of the first merge that produces it."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for number, merge in enumerate(merges, _FIRST_MERGE):
        blank = merge.find(" ", 1)  # only in a damaged file does a token begin with a space
        try:
            token = (merge[:blank] + merge[blank + 1 :]).translate(_BYTES).encode("latin-1")
        except UnicodeEncodeError:
            token = b""
        if blank < 0 or len(token) < 2:
            raise InvalidInputError(f"{display(metadata.path)}: damaged vocabulary: merge {number - _FIRST_MERGE:,}")
        ranks.setdefault(token, number)
    return ranks


def _sentence_piece(metadata: GgufMetadata) -> Tokenizer:
    from batuta_cli.serve.tokens import sentencepieces

    tokens, types = _texts(metadata, "tokens"), _types(metadata)
    scores = metadata.get(_PREFIX + "scores")
    if not isinstance(scores, tuple) or len(scores) != len(tokens) or not all(isinstance(s, float) for s in scores):
        raise InvalidInputError(f"{display(metadata.path)}: damaged vocabulary: {_PREFIX}scores")
    add_blank = metadata.get(_PREFIX + "add_space_prefix")
    return sentencepieces.from_vocabulary(
        metadata.path,
        list(zip(tokens, map(float, scores), types, strict=True)),
        _control_tokens(metadata, tokens),
        add_blank=add_blank is not False,
    )


def _control_tokens(metadata: GgufMetadata, tokens: Sequence[str]) -> ControlTokens:
    types = _known_by_text(metadata, tokens)
    control: dict[str, int] = {}
    always: dict[str, int] = {}
    for number, (text, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN) and text:
            control[text] = number
        elif kind == TokenType.USER_DEFINED and text:
            always[text] = number
    return ControlTokens(control, always, _swallows_blanks(metadata))


def _known_by_text(metadata: GgufMetadata, tokens: Sequence[str]) -> list[int]:
    """The types of the tokens, corrected by `gguf_control.toml`."""
    types, table = _types(metadata), _table("gguf_control.toml")
    numbers = {text: number for number, text in enumerate(tokens)}
    control = set(table["ends"])
    for part, texts in table["parts"].items():
        if metadata.get(f"{_PREFIX}{part}_token_id") is None:
            control.update(texts)
    kinds = dict.fromkeys(control, TokenType.CONTROL) | dict.fromkeys(table["always"], TokenType.USER_DEFINED)
    for exception in table["exceptions"]:
        if all(text in numbers for text in exception["with"]):
            kinds[exception["token"]] = TokenType.USER_DEFINED if exception["always"] else TokenType.NORMAL
    for text, kind in kinds.items():
        if text in numbers:
            types[numbers[text]] = kind
    return types


def _swallows_blanks(metadata: GgufMetadata) -> Any:
    # llama.cpp also decides this by the name: src/llama-vocab.cpp, "set attributes by model name".
    name = (metadata.text("general.name") or "").lower()
    phi3 = "phi-3" in name or "phi3" in name
    return lambda text: phi3 and text not in _KEEP_BLANKS


def _types(metadata: GgufMetadata) -> list[int]:
    tokens, types = _texts(metadata, "tokens"), metadata.get(_PREFIX + "token_type")
    if types is None:
        return [TokenType.NORMAL] * len(tokens)
    if not isinstance(types, tuple) or len(types) != len(tokens) or not all(isinstance(t, int) for t in types):
        raise InvalidInputError(f"{display(metadata.path)}: damaged vocabulary: {_PREFIX}token_type")
    return [int(t) for t in types]


def _texts(metadata: GgufMetadata, name: str) -> Sequence[str]:
    found = metadata.get(_PREFIX + name)
    if not isinstance(found, tuple) or not found or not isinstance(found[0], str):
        raise InvalidInputError(f"{display(metadata.path)}: damaged vocabulary: {_PREFIX}{name} is missing")
    return [str(text) for text in found]


@functools.cache
def pretokenizers() -> Mapping[str, tuple[str, ...]]:
    """The patterns by the value of `tokenizer.ggml.pre`."""
    return {name: tuple(row["patterns"]) for row in _table("pretokenizers.toml")["splits"] for name in row["names"]}


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _spelling() -> dict[int, int]:
    """The character that GPT-2's vocabularies write for each byte: itself if printable in Latin-1, else from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: byte for byte in plain} | {byte: 0x100 + number for number, byte in enumerate(others)}


_SPELLING: Final = _spelling()
_BYTES: Final = {spelt: byte for byte, spelt in _SPELLING.items()}
