"""SentencePiece vocabularies."""

import sys
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import MissingDependencyError
from batuta_cli.serve.tokens.gguf_vocabulary import gguf_tokenizer
from batuta_cli.serve.tokens.tokenizer import Tokenizer
from tests.serve.support_gguf import gguf as gguf_bytes
from tests.serve.tokens.support_tokens import gpt2, mistral_v1


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> dict[str, Tokenizer]:
    directory = tmp_path_factory.mktemp("vocabularies")
    paths = {"smollm": gguf, "mistral-v1": mistral_v1(directory), "gpt-2": gpt2(directory)}
    return {name: gguf_tokenizer(path) for name, path in paths.items()}


GOOD: dict[str, tuple[str, Any]] = {
    "tokenizer.ggml.model": ("str", "gpt2"),
    "tokenizer.ggml.pre": ("str", "gpt-2"),
    "tokenizer.ggml.tokens": ("[str]", ["a", "b", "ab"]),
    "tokenizer.ggml.merges": ("[str]", ["a b"]),
}


def test_a_sentence_piece_control_token_is_text_in_a_message(tokenizers: dict[str, Tokenizer]) -> None:
    # <s> is 1; "▁Hi" is 15359: each text after a control token begins with a blank of its own, as in llama.cpp.
    assert tokenizers["mistral-v1"].encode("<s>Hi</s>", special=True) == [1, 15359, 2]
    assert not {1, 2} & set(tokenizers["mistral-v1"].encode("<s>Hi</s>"))


def test_what_the_vocabulary_lacks_is_given_out_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(GOOD | {"tokenizer.ggml.tokens": ("[str]", ["a", "b"])}))
    assert gguf_tokenizer(path).encode("ab") == [0, 1]
    assert gguf_tokenizer(path).count("abx") == 2  # llama.cpp loses a byte that has no token


def test_without_its_package_a_sentence_piece_model_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingDependencyError) as caught:
        gguf_tokenizer(mistral_v1(tmp_path))
    assert caught.value.hint == "pip install 'batuta-cli[tokenizers]'"
