"""Template and tokens are read from a model's own files; what is not as it should be is a clean error."""

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError, NotFoundError, OperationError, UsageError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates.detection import detect_format
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from tests.serve.templates.model_files import GEMMA_2, LLAMA_3, OPENHERMES, ZEPHYR, model


def gguf(path: Path, **fields: str | int | list[str]) -> Path:
    """A GGUF file of version 3 with metadata alone; `__` in a name stands for a dot."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields))
    for name, value in fields.items():
        data += text(name.replace("__", "."))
        if isinstance(value, str):
            data += struct.pack("<I", 8) + text(value)
        elif isinstance(value, int):
            data += struct.pack("<II", 4, value)
        else:
            data += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    path.write_bytes(data)
    return path


def test_the_own_template_counts_for_more_than_the_name(tmp_path: Path) -> None:
    home = model(tmp_path / "Mistral-7B-Instruct-v0.1", chat_template=OPENHERMES)
    assert detect_format(home).name == "chatml"
    assert detect_format("Mistral-7B-Instruct-v0.1").name == "mistral-v1"


def test_the_engine_renders_with_the_own_template_and_its_tokens(tmp_path: Path) -> None:
    home = model(
        tmp_path / "m", chat_template=ZEPHYR, bos_token="<|endoftext|>", eos_token={"content": "<|endoftext|>"}
    )
    engine = ChatTemplateEngine.from_model(str(home))
    assert engine.apply([ChatMessage.user("Hi")]) == "<|user|>\nHi<|endoftext|>\n<|assistant|>\n"
    engine.close()


def test_a_gguf_file_tells_its_template_and_tokens(tmp_path: Path) -> None:
    path = gguf(
        tmp_path / "anything.gguf",
        general__architecture="llama",
        tokenizer__chat_template=LLAMA_3,
        tokenizer__ggml__tokens=["<|begin_of_text|>", "a", "<|eot_id|>"],
        tokenizer__ggml__bos_token_id=0,
        tokenizer__ggml__eos_token_id=2,
    )
    for place in (path, str(path), tmp_path):
        found = detect_format(place)
        assert (found.name, found.bos_token, found.eos_token) == ("llama3", "<|begin_of_text|>", "<|eot_id|>")
        assert found.evidence == f"tokenizer.chat_template of {path}"


def test_a_directory_with_one_model_is_that_model(tmp_path: Path) -> None:
    for part in (1, 2):
        gguf(
            tmp_path / f"m-Q8_0-0000{part}-of-00002.gguf",
            general__architecture="llama",
            tokenizer__chat_template=LLAMA_3,
        )
    gguf(tmp_path / "mmproj-model-f16.gguf", general__architecture="clip")
    assert detect_format(tmp_path).evidence.endswith("/m-Q8_0-00001-of-00002.gguf")
    gguf(tmp_path / "other.gguf", general__architecture="llama", tokenizer__chat_template=OPENHERMES)
    with pytest.raises(UsageError, match="it has no chat template"):
        detect_format(tmp_path)


def test_files_without_a_template_are_known_by_their_names(tmp_path: Path) -> None:
    blob = gguf(tmp_path / "zephyr-7b-beta.Q4_K_M.gguf", general__architecture="llama")
    found = detect_format(blob)
    assert (found.name, found.template) == ("zephyr", None)
    assert found.evidence == f"no template in {blob}; the table of known models: zephyr-7b-beta.Q4_K_M.gguf"
    titled = gguf(tmp_path / "model.gguf", general__architecture="llama", general__name="Vicuna 7B v1.5")
    assert detect_format(titled).name == "vicuna"
    with pytest.raises(UsageError, match=r"model-2\.gguf: it has no chat template, and its name is not"):
        detect_format(gguf(tmp_path / "model-2.gguf", general__architecture="llama", general__name="Mistral-7B-v0.1"))


def test_a_snapshot_of_hugging_faces_cache_is_a_model(tmp_path: Path) -> None:
    home = tmp_path / "models--meta-llama--Llama-2-7b-chat-hf"
    config = model(home / "blobs", bos_token="<s>", eos_token="</s>") / "tokenizer_config.json"
    snapshot = home / "snapshots" / "f5db02db724555f92da89c216ac04704f23d4590"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer_config.json").symlink_to(config)
    found = detect_format(snapshot)
    assert found.name == "llama2"
    assert "the table of known models: Llama-2-7b-chat-hf" in found.evidence


def test_a_file_of_its_own_is_preferred_and_the_tokens_stand_beside_it(tmp_path: Path) -> None:
    home = model(tmp_path / "m", chat_template=OPENHERMES, bos_token={"content": "<b>"}, eos_token=None)
    (home / "special_tokens_map.json").write_text('{"bos_token": "<other>", "eos_token": {"content": "<e>"}}')
    assert detect_format(home).bos_token == "<b>"
    assert detect_format(home).eos_token == "<e>"
    (home / "chat_template.json").write_text(json.dumps({"chat_template": LLAMA_3}))
    assert detect_format(home).name == "llama3"
    (home / "chat_template.jinja").write_text(GEMMA_2)
    for place in (home, home / "chat_template.jinja"):
        found = detect_format(place)
        assert (found.name, found.bos_token, found.eos_token) == ("gemma", "<b>", "<e>")
        assert found.evidence == str(home / "chat_template.jinja")
    assert detect_format(home / "tokenizer_config.json").name == "chatml"


@pytest.mark.parametrize(
    ("templates", "name"),
    [
        ([{"name": "tool_use", "template": LLAMA_3}, {"name": "default", "template": OPENHERMES}], "chatml"),
        ([{"name": "rag", "template": LLAMA_3}, {"name": "tool_use", "template": OPENHERMES}], "chatml"),
        ([{"name": "rag", "template": LLAMA_3}], "llama3"),
        ({"default": OPENHERMES, "rag": LLAMA_3}, "chatml"),
    ],
)
def test_the_template_for_conversations_is_taken_among_several(tmp_path: Path, templates: object, name: str) -> None:
    assert detect_format(model(tmp_path / "m", chat_template=templates)).name == name


def _deep(path: Path) -> None:
    path.write_text('{"chat_template": ' + "[" * 100_000)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(17 * 1024 * 1024)


def _raw(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _config(**config: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_deep, "not JSON"),
        (_sparse, "larger than 16,777,216 bytes"),
        (_raw(b""), "not JSON"),
        (_raw(b"\xff\xfe{}"), "not UTF-8"),
        (_raw(b'{"chat_template": "\\ud800"}'), "lone surrogate"),
        (_raw(b'{"chat_template": "x", "bos_token": "\\ud800"}'), "lone surrogate"),
        (_raw(b'["chat_template"]'), "not a JSON object"),
        (_config(chat_template=5), "must be text or a list"),
        (_config(chat_template=["x"]), "must be text or a list"),
        (_config(chat_template=[{"name": 1, "template": "x"}]), "must be text or a list"),
        (_config(chat_template=[{"name": "default"}]), "must be text or a list"),
        (_config(chat_template=[]), "found: .no templates"),
        (_config(chat_template={"a\x1b": "x", "b": "y"}), re.escape("found: a\\x1b, b")),
        (_config(chat_template=" \n"), "empty"),
        (_config(chat_template="x" * 1024 * 1024 + "x"), "more than 1,048,576 bytes"),
        (_config(chat_template="x", bos_token=["<s>"]), "bos_token must be text of at most"),
        (_config(chat_template="x", eos_token={"content": 7}), "eos_token must be text of at most"),
        (_config(chat_template="x", eos_token="e" * 2000), "eos_token must be text of at most"),
        (os.mkfifo, "is a FIFO, not a file"),
        (lambda path: path.mkdir(), "is a directory, not a file"),
    ],
)
def test_a_hostile_configuration_is_a_clean_error(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    path = tmp_path / "m" / "tokenizer_config.json"
    path.parent.mkdir()
    make(path)
    with pytest.raises(InvalidInputError, match=says) as caught:
        detect_format(tmp_path / "m")
    assert str(path) in caught.value.message


def test_links_that_lead_nowhere_are_clean_errors(tmp_path: Path) -> None:
    (tmp_path / "loop.gguf").symlink_to("loop.gguf")
    (tmp_path / "gone.gguf").symlink_to("nothing")
    with pytest.raises(OperationError, match=r"loop\.gguf"):
        detect_format(tmp_path / "loop.gguf")
    with pytest.raises(NotFoundError, match=r"gone\.gguf"):
        detect_format(str(tmp_path / "gone.gguf"))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "tokenizer_config.json").symlink_to("tokenizer_config.json")
    with pytest.raises(OperationError, match=r"tokenizer_config\.json"):
        detect_format(tmp_path / "m")


def test_what_is_no_model_is_a_clean_error(tmp_path: Path) -> None:
    (tmp_path / "dir.gguf").mkdir()
    with pytest.raises(UsageError, match=r"dir\.gguf: it has no chat template") as caught:
        detect_format(tmp_path / "dir.gguf")
    assert "chatml" in str(caught.value.hint)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidInputError, match="neither a GGUF file nor a chat template"):
        detect_format(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(InvalidInputError, match="is a FIFO"):
        detect_format(tmp_path / "pipe.gguf")
    (tmp_path / "short.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidInputError, match=r"short\.gguf"):
        detect_format(tmp_path / "short.gguf")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "template", "content", "default"]), inner)
    ),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("chat_template", "bos_token", "eos_token"), JSON)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_any_configuration_is_an_answer_or_a_clean_error(tmp_path: Path, config: dict[str, Any]) -> None:
    home = model(tmp_path / "some-model", **config)
    try:
        found = detect_format(home)
    except UsageError as error:
        assert str(home) in error.message
    else:
        assert found.template is not None
