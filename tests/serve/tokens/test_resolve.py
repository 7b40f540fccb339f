"""Which tokenizer a name or a path leads to."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.serve.tokens import tokenizer_for
from tests.serve.support_gguf import gguf as gguf_bytes
from tests.serve.tokens.support_tokens import gpt2

TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [
        {"id": 3, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
    ],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3, "<": 4, "s": 5, ">": 6}, "merges": [["a", "b"]],
    },
}  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return tmp_path


def test_a_sentence_piece_model_is_read(tmp_path: Path) -> None:
    import sentencepiece

    corpus = tmp_path / "corpus"
    corpus.write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "tokenizer"), vocab_size=60, model_type="bpe", minloglevel=2
    )
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        assert tokenizer_for(str(path)).encode("the lazy fox") == reference.encode("the lazy fox")
        assert tokenizer_for(str(path)).encode("<s>the</s>", special=True) == [1, *reference.encode("the"), 2]
        assert not {1, 2} & set(tokenizer_for(str(path)).encode("<s>the</s>"))


def test_a_path_without_a_tokenizer_is_an_error_and_no_estimate(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF")
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "bad.model").write_bytes(b"\n\x05abc")
    (tmp_path / "empty").mkdir()
    for name in ("x", "bad.json", "bad.model", "empty"):
        with pytest.raises(InvalidInputError, match=name):
            tokenizer_for(str(tmp_path / name))
    for missing in ("none.gguf", "none.json"):
        with pytest.raises(NotFoundError):
            tokenizer_for(str(tmp_path / missing))
    with pytest.raises(NotFoundError):
        tokenizer_for("gpt-4", tokenizer_path=tmp_path / "none")


@pytest.mark.parametrize("name", ["claude-3\0", "\ud800", "a/b/c", "x" * 5000])
def test_any_name_is_answered(name: str) -> None:
    assert not tokenizer_for(name).exact


def test_a_directory_called_like_a_model_of_openai_does_not_change_the_model(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)
    os.rename(directory, directory.parent / "gpt-4")
    assert tokenizer_for("gpt-4").name == "tiktoken cl100k_base"
    assert "tokenizer.json" in tokenizer_for("./gpt-4").name


def test_a_tokenizer_is_kept_until_its_file_changes(tmp_path: Path) -> None:
    path = gpt2(tmp_path)
    first = tokenizer_for(str(path))
    assert tokenizer_for(str(path)) is first
    os.utime(path, ns=(1, 1))
    assert tokenizer_for(str(path)) is not first
    path.write_bytes(gguf_bytes({"tokenizer.ggml.model": ("str", "bert")}))
    assert "bert" in tokenizer_for(str(path)).name
