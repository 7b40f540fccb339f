"""Context windows: those of the design, and names that look like another model's."""

from pathlib import Path

import pytest

from batuta_cli.config import ModelSection
from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.serve.models.windows import default_reserve, known_model, require_model


def sizes(model: str) -> tuple[int, int] | None:
    """Window and reserve, or None for a model that is not known."""
    info = known_model(model)
    return (info.context_window, info.output_reserve) if info else None


@pytest.mark.parametrize(
    ("models", "window", "reserve"),
    [
        ("gpt-4-turbo gpt-4-turbo-2024-04-09 gpt-4-1106-preview GPT-4-Turbo", 128_000, 4_096),
        ("gpt-4 gpt-4-0613 GPT-4", 8_192, 2_048),
        ("claude-3-opus-20240229 claude-3-sonnet claude-3-haiku-latest", 200_000, 4_096),
        ("anthropic.claude-3-opus-20240229-v1:0 claude-3-haiku@20240307", 200_000, 4_096),
        ("llama-3-8b llama3 llama3:70b meta-llama/Meta-Llama-3-70B-Instruct", 8_192, 2_048),
        ("Meta-Llama-3-8B-Instruct.Q4_K_M.gguf llama-3-8b-instruct-q8_0 llama3-8b-8192", 8_192, 2_048),
        ("mixtral mixtral-8x7b mistralai/Mixtral-8x7B-Instruct-v0.1 mixtral-8x7b-32768", 32_768, 4_096),
        ("llama-2-70b llama2 llama2:13b-chat meta-llama/Llama-2-7b-chat-hf", 4_096, 1_024),
        ("llama-2-7b-chat.Q4_K_M.gguf TheBloke/Llama-2-13B-chat-GGUF", 4_096, 1_024),
    ],
)
def test_the_windows_of_the_design(models: str, window: int, reserve: int) -> None:
    for model in models.split():
        assert sizes(model) == (window, reserve), model


@pytest.mark.parametrize(
    ("models", "window"),
    [
        ("llama-3.1-8b llama3.1:70b meta-llama/Llama-3.1-8B-Instruct llama-3-1-8b llama-3.3-70b-versatile", 131_072),
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf llama3.2:3b meta-llama/Llama-3.2-1B", 131_072),
        ("gpt-4o gpt-4o-mini gpt-4o-2024-08-06", 128_000),
        ("gpt-4-32k gpt-4-32k-0613", 32_768),
        ("gpt-3.5-turbo", 16_385),
        ("mixtral:8x22b mistralai/Mixtral-8x22B-Instruct-v0.1", 65_536),
        ("claude-3-5-sonnet-20241022", 200_000),
        ("microsoft/Phi-3-mini-4k-instruct", 4_096),
        ("microsoft/Phi-3-mini-128k-instruct phi-3.5-mini-instruct", 131_072),
        ("mistral-7b-instruct-v0.1", 8_192),
        ("mistralai/Mistral-7B-Instruct-v0.3", 32_768),
        ("gemma-2-9b-it gemma:2b", 8_192),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 8_192),
    ],
)
def test_models_whose_names_begin_alike_have_windows_of_their_own(models: str, window: int) -> None:
    for model in models.split():
        found = sizes(model)
        assert found and found[0] == window, model


@pytest.mark.parametrize(
    "model",
    [
        "llama-2-7b-32k",
        "togethercomputer/LLaMA-2-7B-32K",
        "yarn-llama-2-7b-128k",
        "llama-3-8b-instruct-gradient-1048k",
        "Llama-3-8B-Instruct-262k",
        "gpt-4-mini",
        "phi-3-mini",  # comes with 4k and with 128k
        "llama",
        "nonsense",
        "",
        "gpt-4/",
        "gpt-4\0",
        "gpt-4\ud800",
        ".gguf",
        "x" * 100_000,
        "llama-2-7b" + "_q4" * 1000 + "!",
        "claude-3-opus" + "-2024-01-01" * 1000 + "!",
    ],
)
def test_a_model_that_is_not_known_is_an_error_that_says_how_to_give_a_window(model: str) -> None:
    assert known_model(model) is None
    with pytest.raises(UsageError) as caught:
        require_model(model)
    assert caught.value.exit_code == 2
    assert "--window" in (caught.value.hint or "") and "--reserve" in (caught.value.hint or "")
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("typed", "meant"), [("lama-2-7b", "llama-2-7b"), ("gpt4-turbo", "gpt-4-turbo"), ("mixtrl-8x7b", "mixtral-8x7b")]
)
def test_a_misspelt_model_is_mended(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        require_model(typed)


def test_a_table_says_what_it_knows_from_where_and_since_when() -> None:
    for model in ("llama-2-70b", "gpt-4o"):
        info = known_model(model)
        assert info and "http" in info.source and info.as_of >= "2026-11-23", model


def test_a_model_that_hosts_serve_with_different_windows_has_the_smallest() -> None:
    """131,072 at its largest, 128,000 at Bedrock, Azure and others."""
    assert sizes("openai/gpt-oss-120b") == (128_000, 4_096)


def test_the_config_overrides_what_the_tables_know() -> None:
    own = {
        "gpt-4": ModelSection(context_window=5000),
        "gpt-4o": ModelSection(output_reserve=999),
        "mine": ModelSection(context_window=100, output_reserve=10),
        "other": ModelSection(),
    }
    found = {name: known_model(name, own) for name in own}
    assert found["other"] is None
    assert {n: (i.context_window, i.output_reserve) for n, i in found.items() if i} == {
        "gpt-4": (5000, 1250),
        "gpt-4o": (128_000, 999),
        "mine": (100, 10),
    }


def test_a_gguf_file_says_its_window_itself(gguf: Path, tmp_path: Path) -> None:
    link = tmp_path / "llama-2-7b.gguf"  # a name of another window
    link.symlink_to(gguf)
    info = known_model(str(link))
    assert info is not None
    assert (info.context_window, info.source) == (8192, str(link))


def test_a_file_that_is_no_gguf_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "llama-2-7b.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(UsageError):
        known_model(str(path))


def test_a_gguf_file_may_have_any_name(gguf: Path, tmp_path: Path) -> None:
    """As the blobs of Ollama do."""
    link = tmp_path / "sha256-0123"
    link.symlink_to(gguf)
    assert sizes(str(link)) == (8192, 2048)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ('{"max_position_embeddings": 40960}', 40_960),
        ('{"text_config": {"max_position_embeddings": 131072}}', 131_072),
        ("{}", None),
        ('{"max_position_embeddings": -1}', None),
        ('{"max_position_embeddings": true}', None),
        ('{"max_position_embeddings": "4096"}', None),
        ('{"max_position_embeddings": 1e999}', None),
    ],
)
def test_a_model_folder_says_its_window_in_its_config(tmp_path: Path, text: str, window: int | None) -> None:
    (tmp_path / "config.json").write_text(text)
    info = known_model(str(tmp_path))
    assert (info and info.context_window) == window


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"text_config": 3}', "\x00"])
def test_a_damaged_config_of_a_model_folder_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInputError):
        known_model(str(tmp_path))


@pytest.mark.parametrize(("window", "reserve"), [(1, 0), (4_096, 1_024), (8_192, 2_048), (10**6, 4_096)])
def test_the_reserve_is_a_quarter_of_a_small_window(window: int, reserve: int) -> None:
    assert default_reserve(window) == reserve


def test_a_stranger_s_name_is_no_file(gguf: Path, tmp_path: Path) -> None:
    named = tmp_path / "nameless.gguf"
    named.symlink_to(gguf)
    assert known_model(str(named)) is not None
    assert known_model(str(named), files=False) is None
