"""The tokenizers of GGUF files, held against llama.cpp's own answers."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.tokens.bytepair import BytePairTokenizer
from batuta_cli.serve.tokens.gguf_vocabulary import gguf_tokenizer, pretokenizers
from batuta_cli.serve.tokens.tokenizer import Tokenizer
from tests.serve.support_gguf import gguf as gguf_bytes
from tests.serve.tokens.support_tokens import ROWS, gpt2, mistral_v1


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> dict[str, Tokenizer]:
    directory = tmp_path_factory.mktemp("vocabularies")
    paths = {"smollm": gguf, "mistral-v1": mistral_v1(directory), "gpt-2": gpt2(directory)}
    return {name: gguf_tokenizer(path) for name, path in paths.items()}


@pytest.mark.parametrize("name", ["smollm", "mistral-v1", "gpt-2"])
def test_ids_and_counts_are_those_of_llama_cpp(tokenizers: dict[str, Tokenizer], name: str) -> None:
    rows = [row for row in ROWS if name in row]
    assert len(rows) >= 47
    for row in rows:
        assert tokenizers[name].encode(row["text"]) == row[name], row["text"]
        assert tokenizers[name].count(row["text"]) == len(row[name])


def test_control_tokens_are_read_in_a_rendered_prompt_and_nowhere_else(tokenizers: dict[str, Tokenizer]) -> None:
    rows = [row for row in ROWS if "smollm special" in row]
    assert any(row["smollm"] != row["smollm special"] for row in rows)
    for row in rows:
        assert tokenizers["smollm"].encode(row["text"], special=True) == row["smollm special"]
        assert tokenizers["smollm"].count(row["text"], special=True) == len(row["smollm special"])


def test_tokens_of_the_users_own_kind_are_found_in_any_text(tokenizers: dict[str, Tokenizer]) -> None:
    assert tokenizers["gpt-2"].encode("a<tool>b<|endoftext|>")[1] == 50257
    assert 50256 not in tokenizers["gpt-2"].encode("a<tool>b<|endoftext|>")
    assert tokenizers["gpt-2"].encode("a<tool>b<|endoftext|>", special=True) == [64, 50257, 65, 50256]


def spm_with(directory: Path, pieces: dict[str, int], **fields: Any) -> Tokenizer:
    """A small SentencePiece vocabulary: each byte, `pieces` with their types, and further fields."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    content = {
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("[str]", tokens),
        "tokenizer.ggml.scores": ("[f32]", [0.0] * len(tokens)),
        "tokenizer.ggml.token_type": ("[i32]", [2] + [6] * 256 + list(pieces.values())),
    }
    path = directory / "spm.gguf"
    path.write_bytes(gguf_bytes(content | fields))
    return gguf_tokenizer(path)


@pytest.mark.parametrize(
    ("pieces", "text", "plain", "special"),
    [
        ({"</s>": 4}, "</s>", 4, 1),  # a token that ends a text is a control token, whatever the file says
        ({"<|message|>": 3}, "<|message|>", 1, 1),
        ({"<PRE>": 1}, "<PRE>", 5, 1),
        ({"</s>": 3, "<|tool_response>": 3}, "</s>", 4, 4),
        ({"<|end|>": 3, "<|return|>": 3, "<|call|>": 3}, "<|end|>", 1, 1),
        ({"<|end|>": 3, "<|return|>": 3}, "<|end|>", 7, 1),
    ],
)
def test_kinds_that_llama_cpp_knows_by_the_text(
    tmp_path: Path, pieces: dict[str, int], text: str, plain: int, special: int
) -> None:
    tokenizer = spm_with(tmp_path, pieces, **{"tokenizer.ggml.add_space_prefix": ("bool", False)})
    assert (tokenizer.count(text), tokenizer.count(text, special=True)) == (plain, special)


def test_a_part_that_the_file_gives_to_another_token_is_not_guessed(tmp_path: Path) -> None:
    fields = {"tokenizer.ggml.add_space_prefix": ("bool", False), "tokenizer.ggml.fim_pre_token_id": ("u32", 7)}
    assert spm_with(tmp_path, {"<PRE>": 1}, **fields).count("<PRE>", special=True) == 5


@given(text=st.text())
def test_byte_pair_tokens_give_the_text_back(tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers["gpt-2"]  # SmolLM2's vocabulary lacks some bytes
    assert isinstance(tokenizer, BytePairTokenizer)
    assert tokenizer.decode(tokenizer.encode(text)).decode() == text


@pytest.mark.parametrize(
    ("kind", "splits"),
    [("bert", ""), ("t5", ""), ("rwkv", ""), ("plamo2", ""), ("\x1b[2J", ""), ("gpt2", "whitespace")],
)
def test_a_tokenizer_that_is_not_supported_is_estimated_and_named(tmp_path: Path, kind: str, splits: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({"tokenizer.ggml.model": ("str", kind), "tokenizer.ggml.pre": ("str", splits)}))
    tokenizer = gguf_tokenizer(path)
    assert not tokenizer.exact and tokenizer.count("Hello, world") >= 4
    assert (splits or kind) in tokenizer.name or not kind.isalnum()
    assert "upper estimate" in tokenizer.name and "m.gguf" in tokenizer.name and "\x1b" not in tokenizer.name


def test_a_file_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_bytes({"general.architecture": ("str", "llama")}))
    with pytest.raises(InvalidInputError, match="has no tokenizer"):
        gguf_tokenizer(tmp_path / "m.gguf")


GOOD: dict[str, tuple[str, Any]] = {
    "tokenizer.ggml.model": ("str", "gpt2"),
    "tokenizer.ggml.pre": ("str", "gpt-2"),
    "tokenizer.ggml.tokens": ("[str]", ["a", "b", "ab"]),
    "tokenizer.ggml.merges": ("[str]", ["a b"]),
}
SPM: dict[str, tuple[str, Any]] = {
    "tokenizer.ggml.model": ("str", "llama"),
    "tokenizer.ggml.tokens": ("[str]", ["<unk>", "a"]),
    "tokenizer.ggml.scores": ("[f32]", [0.0, 0.0]),
    "tokenizer.ggml.token_type": ("[i32]", [2, 1]),
}


@pytest.mark.parametrize(
    ("base", "field", "content"),
    [
        (GOOD, "tokenizer.ggml.tokens", ("[u8]", [1])),
        (GOOD, "tokenizer.ggml.tokens", ("[str]", [])),
        (GOOD, "tokenizer.ggml.merges", ("[str]", ["ab"])),
        (GOOD, "tokenizer.ggml.merges", ("[str]", ["", "a b"])),
        (GOOD, "tokenizer.ggml.merges", ("[str]", ["a \u3042"])),
        (GOOD, "tokenizer.ggml.token_type", ("[i32]", [1])),
        (GOOD, "tokenizer.ggml.token_type", ("str", "x")),
        (SPM, "tokenizer.ggml.scores", ("[f32]", [0.0])),
        (SPM, "tokenizer.ggml.scores", ("[u8]", [0, 0])),
        (SPM, "tokenizer.ggml.tokens", ("[str]", ["a", "a"])),
    ],
)
def test_a_damaged_vocabulary_is_an_error_that_names_the_file(
    tmp_path: Path, base: dict[str, Any], field: str, content: tuple[str, Any]
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(base | {field: content}))
    with pytest.raises(InvalidInputError, match=r"m\.gguf"):
        gguf_tokenizer(path)


def test_every_pattern_compiles_and_a_single_one_matches_every_character() -> None:
    import regex  # type: ignore[import-untyped]
    import tiktoken

    assert {"llama-bpe", "qwen2", "smollm", "gpt-2", "tekken", "deepseek-llm", "deepseek-v3", "default"} <= set(
        pretokenizers()
    )
    sample = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x30000, 7)]))
    ranks = {bytes([byte]): byte for byte in range(256)}
    for patterns in set(pretokenizers().values()):
        for pattern in patterns:
            regex.compile(pattern)
        if len(patterns) == 1:
            encoding = tiktoken.Encoding("x", pat_str=patterns[0], mergeable_ranks=ranks, special_tokens={})
            assert bytes(encoding.encode_ordinary(sample)) == sample.encode()


@given(st.data())
def test_no_change_of_a_vocabulary_does_more_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(gguf_bytes(data.draw(st.sampled_from([GOOD, SPM]))))
    at = data.draw(st.integers(24, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4)) or struct.pack("<I", 2)
    path = tmp_path_factory.getbasetemp() / "mutated-vocabulary.gguf"
    path.write_bytes(content)
    try:
        gguf_tokenizer(path).count("ab a\n")
    except InvalidInputError as error:
        assert "mutated-vocabulary.gguf" in error.message
