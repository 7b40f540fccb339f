"""The metadata of GGUF files: a real one, ones made by hand, and hostile ones."""

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.serve.models import gguf as module
from batuta_cli.serve.models.gguf import read_metadata
from tests.serve.support_gguf import gguf, string, value

MODEL = {
    "general.architecture": ("str", "llama"),
    "llama.context_length": ("u32", 4096),
    "tokenizer.ggml.bos_token_id": ("u32", 1),
    "tokenizer.ggml.tokens": ("[str]", ["<unk>", "<s>", "</s>", "▁é"]),
    "tokenizer.ggml.scores": ("[f32]", [0.0, 0.5, -1.0, -2.5]),
    "tokenizer.ggml.eos_token_id": ("u32", 2),
    "tokenizer.chat_template": ("str", "{{ messages }}"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def test_a_real_model_says_what_it_is(gguf: Path) -> None:
    metadata = read_metadata(gguf)
    assert (metadata.architecture, metadata.context_length) == ("llama", 8192)
    assert (metadata.token("bos"), metadata.token("eos")) == ("<|im_start|>", "<|im_end|>")
    assert "<|im_start|>" in (metadata.chat_template or "")
    assert metadata.get("tokenizer.ggml.tokens") is None
    tokens = read_metadata(gguf, arrays=["tokenizer.ggml.tokens"]).get("tokenizer.ggml.tokens")
    assert isinstance(tokens, tuple) and len(tokens) == 49152 and tokens[1] == "<|im_start|>"


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(file: Path, version: int) -> None:
    file.write_bytes(gguf(MODEL, version=version))
    metadata = read_metadata(file, arrays=["tokenizer.ggml.scores"])
    assert metadata.version == version
    assert metadata.get("tokenizer.ggml.scores") == (0.0, 0.5, -1.0, -2.5)
    assert "tokenizer.ggml.tokens" not in metadata.values
    assert (metadata.token("bos"), metadata.token("eos"), metadata.token("padding")) == ("<s>", "</s>", None)


@pytest.mark.parametrize(
    ("kind", "content"),
    [("u8", 255), ("i8", -128), ("u16", 65535), ("i16", -2), ("u32", 2**32 - 1), ("i32", -1), ("f32", 0.5),
     ("bool", True), ("u64", 2**64 - 1), ("i64", -(2**63)), ("f64", 1e300), ("str", "naïve 🎉")],
)  # fmt: skip
def test_every_type_of_value_is_read(file: Path, kind: str, content: object) -> None:
    file.write_bytes(gguf({"a": (kind, content), "after": ("u8", 7)}))
    metadata = read_metadata(file)
    assert metadata.get("a") == content and metadata.get("after") == 7


def test_a_token_outside_the_vocabulary_is_no_token(file: Path) -> None:
    file.write_bytes(
        gguf(MODEL | {"tokenizer.ggml.eos_token_id": ("u32", 4), "tokenizer.ggml.bos_token_id": ("i32", -1)})
    )
    assert read_metadata(file).special_tokens == {}


@pytest.mark.parametrize(
    ("field", "ask"),
    [("general.architecture", "architecture"), ("llama.context_length", "context_length"),
     ("tokenizer.chat_template", "chat_template")],
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_named(file: Path, field: str, ask: str) -> None:
    file.write_bytes(gguf(MODEL | {field: ("bool", True)}))
    with pytest.raises(InvalidInputError, match=field):
        getattr(read_metadata(file), ask)


def damaged(field: bytes) -> bytes:
    """A file whose second field is `field`."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + string("a") + value("u8", 1) + field


HOSTILE = {
    "nothing": (b"", "not a GGUF file"),
    "another file": (b"PK\x03\x04" + b"x" * 100, "not a GGUF file"),
    "before GGUF": (b"lmgg" + b"x" * 100, "older than GGUF"),
    "version 1": (b"GGUF" + struct.pack("<III", 1, 0, 0), "version 1"),
    "version 4": (gguf({}, version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "only a magic": (b"GGUF", "ends beyond the file"),
    "2^60 fields": (gguf({}, count=2**60), "claims"),
    "fewer fields than claimed": (gguf(MODEL, count=8), "field 8 ends beyond"),
    "a name of 2^63 bytes": (damaged(struct.pack("<Q", 2**63)), "at most 65,535"),
    "a name that is not UTF-8": (damaged(string(b"\xff") + value("u8", 1)), "field 2 is not UTF-8"),
    "a text of 2^63 bytes": (damaged(string("b") + struct.pack("<IQ", 8, 2**63)), "b has"),
    "a text that is not UTF-8": (damaged(string("b") + value("str", b"\xc3")), "b is not UTF-8"),
    "a name twice": (damaged(string("a") + value("u8", 1)), "a appears twice"),
    "an unknown type": (damaged(string("b") + struct.pack("<I", 13)), "unknown type 13"),
    "an array of an unknown type": (damaged(string("b") + struct.pack("<IIQ", 9, 99, 1)), "unknown type 99"),
    "an array of arrays": (damaged(string("b") + struct.pack("<IIQ", 9, 9, 1)), "array of arrays"),
    "an array of 2^63 numbers": (damaged(string("b") + struct.pack("<IIQ", 9, 10, 2**63)), "ends beyond"),
    "an array of 2^63 texts": (damaged(string("b") + struct.pack("<IIQ", 9, 8, 2**63)), "ends beyond"),
    "a text in an array of 2^64-1 bytes": (
        damaged(string("b") + struct.pack("<IIQQQ", 9, 8, 2, 2**64 - 1, 0)), "ends beyond"),
    "neither true nor false": (damaged(string("b") + struct.pack("<IB", 7, 2)), "neither true nor false"),
    "a control character in a name": (damaged(string("\x1b[2J") + struct.pack("<I", 13)), r"\\x1b"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_at_little_cost(file: Path, case: str) -> None:
    content, message = HOSTILE[case]
    file.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_metadata(file, arrays=["b"] if "wanted" in case else [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(file) in caught.value.message
    assert peak < 8 * 1024 * 1024


def test_an_array_that_is_asked_for_has_a_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 3)
    file.write_bytes(gguf(MODEL))
    read_metadata(file)
    with pytest.raises(InvalidInputError, match=r"tokenizer\.ggml\.scores has 4 items; at most 3"):
        read_metadata(file, arrays=["tokenizer.ggml.scores"])


def test_metadata_has_a_limit_however_large_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_METADATA", 200)
    file.write_bytes(gguf({"a": ("[u8]", [0] * 300)}))
    with pytest.raises(InvalidInputError, match="beyond the 200 bytes"):
        read_metadata(file)


def test_a_special_token_has_a_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOKEN", 2)
    file.write_bytes(gguf(MODEL))
    with pytest.raises(InvalidInputError, match="token 1 of"):
        read_metadata(file)


def test_a_later_part_of_a_split_model_sends_to_the_first(tmp_path: Path) -> None:
    part = tmp_path / "m-00002-of-00003.gguf"
    part.write_bytes(gguf({"split.no": ("u16", 1), "split.count": ("u16", 3)}))
    with pytest.raises(InvalidInputError, match="part 2 of 3") as caught:
        read_metadata(part)
    assert "m-00001-of-00003.gguf" in (caught.value.hint or "")
    part.write_bytes(gguf(MODEL | {"split.no": ("u16", 0), "split.count": ("u16", 3)}))
    assert read_metadata(part).architecture == "llama"


def test_a_missing_file_a_directory_and_a_fifo_are_errors(tmp_path: Path) -> None:
    import os

    with pytest.raises(NotFoundError):
        read_metadata(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="directory"):
        read_metadata(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidInputError, match="FIFO"):
        read_metadata(tmp_path / "fifo")


@given(st.data())
def test_no_change_of_bytes_does_more_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(gguf(MODEL))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 8))] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(content[: data.draw(st.integers(4, len(content)))])
    try:
        metadata = read_metadata(path, arrays=["tokenizer.ggml.tokens", "tokenizer.ggml.scores"])
        _ = metadata.architecture, metadata.context_length, metadata.chat_template, metadata.token("bos")
    except InvalidInputError as error:
        assert "mutated.gguf" in error.message
