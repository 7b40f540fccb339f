"""Which chat format a model has by its own files; what is not as it should be is a clean error."""

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
from batuta_cli.serve.templates.detection import Detection, detect_format
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.formats import TemplateFormat, named_format, named_formats

# Templates as published with the models named.
OPENHERMES = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HERMES_3 = "{{bos_token}}" + OPENHERMES
QWEN_15 = OPENHERMES.replace(
    "{{'<|im_start|>'",
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>'",
    1,
)
ZEPHYR = (
    "{% for message in messages %}\n"
    "{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
GEMMA_2 = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL_V2_FIRST = (  # of Mistral-7B-Instruct-v0.2 before it took a system message
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MONARCH = (
    "{% for message in messages %}{{bos_token + message['role'] + '\n' + message['content'] + eos_token + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ bos_token + 'assistant\n' }}{% endif %}"
)


def model(home: Path, **config: Any) -> Path:
    """A directory with a `tokenizer_config.json`."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return home


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


@pytest.mark.parametrize(
    ("template", "bos", "eos", "name", "family"),
    [
        (OPENHERMES, "<s>", "<|im_end|>", "chatml", TemplateFormat.CHATML),
        (HERMES_3, "<|begin_of_text|>", "<|im_end|>", "chatml", TemplateFormat.CHATML),
        (QWEN_15, "", "<|im_end|>", "", TemplateFormat.CHATML),  # qwen2 has a full stop there
        (ZEPHYR, "<s>", "</s>", "zephyr", TemplateFormat.ZEPHYR),
        (ZEPHYR, "<|endoftext|>", "<|endoftext|>", "", None),  # stablelm-zephyr-3b
        (GEMMA_2, "<bos>", "<eos>", "gemma", TemplateFormat.GEMMA),
        (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>", "llama3", TemplateFormat.LLAMA3),
        (MISTRAL_V2_FIRST, "<s>", "</s>", "", TemplateFormat.MISTRAL),
        (MONARCH, "<s>", "</s>", "", None),
        ("{{ messages[0].content }}", "", "", "", None),
        ("{{ messages | map(attribute='content') | join('\n') }}", "", "", "", None),
        ("{{ nonsense( }} <|im_start|> <|im_end|>", "", "", "", TemplateFormat.CHATML),
    ],
)
def test_a_template_is_the_format_whose_prompts_it_writes(
    tmp_path: Path, template: str, bos: str, eos: str, name: str, family: TemplateFormat | None
) -> None:
    home = model(tmp_path / "m", chat_template=template, bos_token=bos, eos_token=eos)
    assert detect_format(home) == Detection(
        format=family,
        variant=None,
        name=name,
        evidence=f"chat_template of {home}/tokenizer_config.json",
        confidence="high",
        template=template,
        bos_token=bos,
        eos_token=eos,
    )


AMBIGUOUS = {
    "raw", "mistral-v2",
    "gemma", "phi3", "phi4-reasoning",  # alone they take a system message; it is the table of formats that refuses it
    "kimi-k2.5",  # differs from K2.6 only in a variable
    "lfm2", "lfm2.5",  # differ from ChatML only in BOS, with tools, and with thoughts
    "olmo3-instruct",  # differs from olmo3-instruct-sft only with an empty list of tools
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(named_formats()) - AMBIGUOUS))
def test_each_of_our_own_templates_is_recognised_also_without_tokens(tmp_path: Path, name: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(named_format(name).template, encoding="utf-8")
    found = detect_format(tmp_path)
    assert (found.name, found.variant) == (name, named_format(name).variant)
    assert (found.bos_token, found.eos_token) == (named_format(name).bos_token, named_format(name).eos_token)


def test_the_date_makes_no_other_format(tmp_path: Path) -> None:
    today = "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(today + named_format("llama3.1").template)
    assert detect_format(tmp_path).name == "llama3.1"


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


def test_a_template_that_never_ends_is_recognised_as_nothing(tmp_path: Path) -> None:
    endless = "".join(f"{{% for {letter} in range(10000) %}}" for letter in "abcd") + "{% endfor %}" * 4
    (tmp_path / "chat_template.jinja").write_text(endless)
    found = detect_format(tmp_path)
    assert (found.format, found.name, found.template) == (None, "", endless)


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
