"""Which chat format a model has by its name: right on real names, and "unknown" before a wrong answer."""

import os
import re
import tomllib
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batuta_cli.config import ModelSection
from batuta_cli.errors import NotFoundError, UsageError
from batuta_cli.serve.templates.detection import Detection, detect_format
from batuta_cli.serve.templates.formats import TemplateFormat, named_formats

TABLE = tomllib.loads((Path(__file__).parent / "model_names.toml").read_text(encoding="utf-8"))
ANSWERS = {name: answer for answer, row in TABLE.items() for name in row}

FILE_ENDINGS = (".gguf", ".bin")
# As people say them: the chat model. Of a repository or a quantised copy: the base model.
CASUAL = re.compile(
    r"(.*/)?(llama-?2(-\d+b)?|llama-?3|mistral(-7b)?|mixtral|tinyllama|smollm2-\d+(\.\d)?[mb])(-bnb-4bit)?",
    re.IGNORECASE,
)
PLAIN = sorted(n for n in ANSWERS if ":" not in n and not n.endswith(FILE_ENDINGS) and not CASUAL.fullmatch(n))
QUANTISED = (
    "-GGUF",
    "-AWQ",
    "-GPTQ",
    "-GPTQ-Int4",
    "-4bit",
    "-8bit",
    "-bnb-4bit",
    "-unsloth-bnb-4bit",
    "-fp16",
    "-bf16",
    "-FP8",
    "-exl2",
    "-i1-GGUF",
    "-4.0bpw-exl2",
    "-AWQ-INT4",
    "-FP8-dynamic",
    "-quantized.w4a16",
    "-mlx-4Bit",
    "-MXFP4",
    ".Q4_K_M.gguf",
    "-q8_0.gguf",
    ".IQ2_XXS.gguf",
    "-Q5_K_S-00001-of-00003.gguf",
)


def answer(model: str) -> str:
    try:
        return detect_format(model).name
    except UsageError:
        return "unknown"


def test_the_table_has_enough_names_to_mean_something() -> None:
    assert len(ANSWERS) >= 600
    assert len(TABLE["unknown"]) >= 200
    assert set(TABLE) - {"unknown"} == set(named_formats()) - {"raw"}


@pytest.mark.parametrize("model", ANSWERS)
def test_a_real_name_has_its_right_answer(model: str) -> None:
    assert answer(model) == ANSWERS[model]


@given(st.data())
def test_case_separators_owner_and_quantisation_change_nothing(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(PLAIN))
    owner, slash, bare = model.rpartition("/")
    owner = data.draw(st.sampled_from([f"{owner}{slash}", "", "TheBloke/", "hf.co/bartowski/", "some_one/"]))
    separator = data.draw(st.sampled_from("-_. "))
    bare = "".join(separator if letter in "-_. " else letter for letter in bare)
    bare = data.draw(st.sampled_from([bare, bare.upper(), bare.lower(), bare.title()]))
    assert answer(owner + bare + data.draw(st.sampled_from(("", *QUANTISED)))) == ANSWERS[model]


@given(st.text() | st.text(alphabet="lamistrqwen23. -_:/47bchat", max_size=40))
@example("")
@example(" ")
@example("/")
@example(":")
@example("a:")
@example("a\0b")
@example("\ud800")
@example("llama-2-" * 1000)
def test_any_text_has_an_answer_or_a_clean_error_and_is_never_taken_for_certain(text: str) -> None:
    assume(not os.path.lexists(text))
    try:
        found = detect_format(text)
    except (UsageError, NotFoundError) as error:
        assert len(error.message) < 400
        assert all(unicodedata.category(letter) not in ("Cc", "Cs") for letter in error.message)
    else:
        assert found.confidence != "high"


PARTS = (
    "llama",
    "2",
    "3.1",
    "mistral",
    "qwen",
    "chat",
    "instruct",
    "7b",
    "v0.2",
    "base",
    "embed",
    "gguf",
    "q4_K_M",
    "-",
    "-",
    ":",
    "/",
    "x",
)


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=8))
def test_names_put_together_from_parts_of_names_have_an_answer_or_a_clean_error(parts: list[str]) -> None:
    name = "".join(parts)
    assume(not os.path.lexists(name))
    try:
        found = detect_format(name)
    except (UsageError, NotFoundError):
        return
    assert found.name in named_formats()
    assert not {"base", "embed"} & set(name.split("-"))


def test_a_name_that_leaves_the_version_open_says_so() -> None:
    found = detect_format("mistral")
    assert (found.format, found.variant, found.name, found.confidence) == (
        TemplateFormat.MISTRAL,
        "v3",
        "mistral-v3",
        "low",
    )
    assert "no version" in found.evidence


def test_the_casual_name_of_llama_2_is_the_chat_model_and_the_base_repository_is_not() -> None:
    assert detect_format("llama-2-70b") == Detection(
        format=TemplateFormat.LLAMA2,
        variant=None,
        name="llama2",
        evidence="the pattern of its name: llama-2-70b (the chat model; names of base models end in -hf)",
        confidence="medium",
        template=None,
        bos_token="<s>",
        eos_token="</s>",
    )
    for base in ("Llama-2-70b-hf", "meta-llama/Llama-2-70b"):
        with pytest.raises(UsageError, match="base model") as caught:
            detect_format(base)
        assert "--format raw" in str(caught.value.hint)


def test_the_config_has_the_first_word_on_a_model() -> None:
    models = {
        "llama-2-70b": ModelSection(template="chatml"),
        "our-own": ModelSection(template="gemma"),
        "gemma-2b": ModelSection(),
    }
    assert detect_format("llama-2-70b", models).name == "chatml"
    found = detect_format("our-own", models)
    assert (found.format, found.evidence, found.confidence) == (TemplateFormat.GEMMA, "the configuration", "high")
    assert detect_format("gemma-2b-it", models) == detect_format("gemma-2b-it")
    with pytest.raises(UsageError, match="llama9"):
        detect_format("x", {"x": ModelSection(template="llama9")})


def test_the_name_by_which_servers_call_smollm2_is_the_chat_model_and_the_repository_of_that_name_is_not() -> None:
    found = detect_format("smollm2-135m")
    assert (found.name, found.confidence) == ("smollm2", "medium")
    for base in ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M.Q4_K_M.gguf"):
        with pytest.raises(UsageError, match="base model"):
            detect_format(base)


def test_the_evidence_tells_a_known_name_from_a_pattern() -> None:
    known, pattern = detect_format("TheBloke/zephyr-7B-beta-GGUF"), detect_format("zephyr:7b")
    assert (known.confidence, pattern.confidence) == ("high", "medium")
    assert known.evidence == "the table of known models: TheBloke/zephyr-7B-beta-GGUF"
    assert pattern.evidence == "the pattern of its name: zephyr:7b"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("gpt-4o", "not public"),
        ("claude-3-opus-20240229", "not public"),
        ("bge-m3", "not a model for chat"),
        ("llava:7b", "image"),
        ("Meta-Llama-Guard-2-8B", "classifies"),
        ("codellama/CodeLlama-70b-Instruct-hf", "has no name here"),
        ("google/medgemma-4b-it", "similar to gemma3"),
        ("Hermes-3-Llama-3.1-70B", "default system message"),
        ("allenai/Olmo-3-7B-Thinker-Think", "has no name here"),
        ("baidu/ERNIE-4.5-21B-A3B-PT", "has no name here"),
        ("CohereLabs/c4ai-command-a-03-2025", "has no name here"),
        ("unsloth/gpt-oss-20b", "differs from every named format"),
        ("mistralai/Magistral-Small-2506", "v7-tekken"),
        ("deepseek-ai/DeepSeek-V3.2", "like deepseek-v3"),
        ("some/Model-8B-Thinking", "thought"),
    ],
)
def test_a_known_model_without_a_format_here_is_told_why(model: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        detect_format(model)
    assert caught.value.hint


def test_an_unknown_model_is_told_the_formats_and_the_nearest_known_name() -> None:
    with pytest.raises(UsageError) as caught:
        detect_format("Mistral-7B-Instrct-v0.3")
    assert caught.value.message == "unknown model Mistral-7B-Instrct-v0.3, did you mean Mistral-7B-Instruct-v0.3?"
    for name in named_formats():
        assert name in str(caught.value.hint)
    with pytest.raises(UsageError) as caught:
        detect_format("zzz\x1b[31m")
    assert caught.value.message == "unknown model zzz\\x1b[31m"


def test_text_that_can_only_be_a_path_is_not_taken_for_a_name(tmp_path: Path) -> None:
    for path in (
        "./llama-2-70b",
        "../mistral",
        "/models/zephyr-7b-beta.gguf",
        "~/gemma",
        tmp_path / "zephyr-7b-beta.gguf",
    ):
        with pytest.raises(NotFoundError, match="no such file"):
            detect_format(path)
