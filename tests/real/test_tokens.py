"""Tokens of model files, held against llama.cpp itself on texts that nobody chose."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.serve.models.gguf import read_metadata
from batuta_cli.serve.tokens import Tokenizer, tokenizer_for
from tests.real.support_llamacpp import LlamaCpp, llama_cpp, tiny_model
from tests.serve.tokens.support_tokens import gpt2, mistral_v1

PRETOKENIZERS = [
    "smollm", "mistral-v1", "llama-bpe", "tekken", "deepseek-v3", "default", "minicpm5", "ufakzeka", "laguna", "jais-2",
    "exaone-moe", "granite-embed-multi-97m", "kimi-k2", "spark2_5", "youtu", "cohere2moe", "afmoe", "superbpe", "bloom",
    "viking", "chameleon", "modern-bert", "gemma4",
]  # fmt: skip
"""Every way of splitting text that has rules of its own, with GPT-2's vocabulary where the model's is not available."""

ARRAYS = {"tokens": "[str]", "merges": "[str]", "scores": "[f32]", "token_type": "[i32]"}


def vocabulary(path: Path, directory: Path, splits: str | None = None) -> Path:
    """A model that llama.cpp loads, with the vocabulary of `path`, split in the way `splits`."""
    names = {f"tokenizer.ggml.{name}": kind for name, kind in ARRAYS.items()}
    metadata = read_metadata(path, arrays=names)
    kinds = names | {"tokenizer.ggml.model": "str", "tokenizer.ggml.pre": "str"}
    fields = {name: (kind, metadata.get(name)) for name, kind in kinds.items() if metadata.get(name) is not None}
    if splits:
        fields["tokenizer.ggml.pre"] = ("str", splits)
    return tiny_model(directory / "tiny.gguf", fields)


def character_pairs(directory: Path) -> Path:
    """A model of the type `gemma4`, with the tokens of Mistral 7B and merges that make them."""
    names = {f"tokenizer.ggml.{name}": kind for name, kind in ARRAYS.items()}
    metadata = read_metadata(mistral_v1(directory), arrays=names)
    tokens = metadata.get("tokenizer.ggml.tokens")
    assert isinstance(tokens, tuple)
    known = {str(token) for token in tokens}
    merges = [
        f"{token[:at]} {token[at:]}"
        for token in map(str, tokens)  # in the order of their scores
        for at in range(1, len(token))
        if token[:at] in known and token[at:] in known and " " not in token
    ]
    fields: dict[str, tuple[str, Any]] = {name: (kind, metadata.get(name)) for name, kind in names.items()}
    fields = {name: field for name, field in fields.items() if field[1] is not None}
    fields |= {"tokenizer.ggml.model": ("str", "gemma4"), "tokenizer.ggml.merges": ("[str]", merges)}
    return tiny_model(directory / "tiny.gguf", fields)


@pytest.fixture(scope="module", params=PRETOKENIZERS)
def both(
    request: pytest.FixtureRequest, gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tokenizer, LlamaCpp]]:
    directory = tmp_path_factory.mktemp("model")
    if request.param == "smollm":
        path = gguf
    elif request.param == "gemma4":
        path = character_pairs(directory)
    elif request.param == "mistral-v1":
        path = vocabulary(mistral_v1(directory), directory)
    else:
        path = vocabulary(gpt2(directory), directory, request.param)
    with llama_cpp(path) as server:
        yield tokenizer_for(str(path)), server


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60),  # what is unassigned depends on the version
    st.text("etaoin shrdlu\n\t0123456789'.,!ABC", max_size=80),
    st.lists(
        st.sampled_from(
            ["the", " un", "ization", " Paris", "I'm", "we'LL", "café's", "<s>", "漢字", "豈", "ㄅ", "가나", "…", "!?",
             "। ", "1234567", "12 345", "٣٤٥٦", "IMGIMGABZ", "<sentinel:1>", "    ", "x_1",
             "</s>", "<|im_start|>", "<|endoftext|>", "½",
             "<tool>", "  ", "\n\n", "\r\n", "\t", "\u3000", "\u2028", "123456", "é", "e\u0301", "日本語", "привет",
             "🎉", "ﷺ"]
        ),
        max_size=30,
    ).map("".join),
)  # fmt: skip


@settings(max_examples=120)
@given(text=TEXTS, special=st.booleans())
def test_every_text_has_the_tokens_that_llama_cpp_makes_of_it(
    both: tuple[Tokenizer, LlamaCpp], text: str, special: bool
) -> None:
    tokenizer, server = both
    expected = server.tokenize(text, special=special)
    assert tokenizer.encode(text, special=special) == expected
    assert tokenizer.count(text, special=special) == len(expected)
