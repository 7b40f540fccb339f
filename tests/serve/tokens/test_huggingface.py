"""Tokenizers of Hugging Face directories."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import MissingDependencyError
from batuta_cli.serve.tokens import tokenizer_for
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


def test_a_directory_and_its_tokenizer_json_are_one(directory: Path) -> None:
    for path in (directory, directory / "tokenizer.json"):
        tokenizer = tokenizer_for(str(path))
        assert tokenizer.exact
        assert tokenizer.encode("ababa") == [2, 2, 0], "truncation in the file is not the model's limit"
        assert tokenizer.count("ababa") == 3


def test_a_control_token_in_user_text_is_text_for_a_tokenizer_json(directory: Path) -> None:
    tokenizer = tokenizer_for(str(directory))
    assert tokenizer.encode("a<s>b") == [0, 4, 5, 6, 1]
    assert tokenizer.encode("a<s>b", special=True) == [0, 3, 1]
    assert tokenizer.encode("a<s>b") == [0, 4, 5, 6, 1]


def test_without_its_package_a_tokenizer_json_names_the_extra(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError) as caught:
        tokenizer_for(str(directory))
    assert caught.value.hint == "pip install 'batuta-cli[tokenizers]'"


def test_phi_3_swallows_the_blanks_after_its_control_tokens(tmp_path: Path) -> None:
    plain = tokenizer_for(str(gpt2(tmp_path)))
    assert plain.encode("<tool>\n\na", special=True) == [50257, 198, 198, 64]
    phi = tokenizer_for(str(gpt2(tmp_path, **{"general.name": ("str", "Phi-3 mini")})))
    assert phi.encode("<tool>\n\na", special=True) == [50257, 64]
    assert phi.encode("<|endoftext|>\n\na", special=True) == [50256, 198, 198, 64]
