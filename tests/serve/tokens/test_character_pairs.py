"""Byte-pair vocabularies over characters, in the rules of llama.cpp."""

import sys
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import InvalidInputError, MissingDependencyError
from batuta_cli.serve.models.gguf import read_metadata
from batuta_cli.serve.tokens.gguf_vocabulary import gguf_tokenizer
from batuta_cli.serve.tokens.tokenizer import Tokenizer
from tests.serve.support_gguf import gguf as gguf_bytes
from tests.serve.tokens.support_tokens import gpt2, mistral_v1


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> dict[str, Tokenizer]:
    directory = tmp_path_factory.mktemp("vocabularies")
    paths = {"smollm": gguf, "mistral-v1": mistral_v1(directory), "gpt-2": gpt2(directory)}
    return {name: gguf_tokenizer(path) for name, path in paths.items()}


def gemma4(directory: Path, **fields: Any) -> Path:
    """A vocabulary whose merges are over characters."""
    words = ["\u2581", "a", "b", "\n", "\n\n", "\u2581a", "ab", "\u2581ab", "\u3042"]
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "<turn|>"]
    content = {
        "tokenizer.ggml.model": ("str", "gemma4"),
        "tokenizer.ggml.tokens": ("[str]", tokens),
        "tokenizer.ggml.token_type": ("[i32]", [2] + [6] * 256 + [1] * len(words) + [3]),
        "tokenizer.ggml.merges": ("[str]", ["a b", "\u2581 ab", "\u2581 a"]),
    }
    path = directory / "gemma4.gguf"
    path.write_bytes(gguf_bytes(content | fields))
    return path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ab ab", ["ab", "\u2581ab"]),
        ("a a  b", ["a", "\u2581a", "\u2581", "\u2581", "b"]),
        ("a\n\nb\n", ["a", "\n\n", "b", "\n"]),
        ("a\n\n\n", ["a", "\n", "\n", "\n"]),  # no token has three line breaks, and no merge makes two
        ("\u3042\u3044", ["\u3042", "<0xE3>", "<0x81>", "<0x84>"]),
        ("<turn|>", [*(f"<0x{byte:02X}>" for byte in b"<turn|>")]),
        ("", []),
    ],
)
def test_byte_pairs_over_characters(tmp_path: Path, text: str, names: list[str]) -> None:
    path = gemma4(tmp_path)
    tokens = [str(t) for t in read_metadata(path, arrays=["tokenizer.ggml.tokens"]).get("tokenizer.ggml.tokens") or ()]  # type: ignore[union-attr]
    tokenizer = gguf_tokenizer(path)
    assert [tokens[number] for number in tokenizer.encode(text)] == names and tokenizer.exact
    assert tokenizer.encode("<turn|>", special=True) == [len(tokens) - 1]


@pytest.mark.parametrize("merges", [["a c"], ["ab"], ["a a"]])
def test_merges_over_characters_that_are_damaged_are_an_error(tmp_path: Path, merges: list[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"gemma4\.gguf.*damaged vocabulary: merge 0"):
        gguf_tokenizer(gemma4(tmp_path, **{"tokenizer.ggml.merges": ("[str]", merges)}))


def test_without_its_package_a_vocabulary_over_characters_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"gemma4\.gguf"):
        gguf_tokenizer(gemma4(tmp_path))
