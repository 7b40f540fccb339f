"""A model's own template is recognised by the prompts that it writes."""

from pathlib import Path

import pytest

from batuta_cli.serve.templates.detection import Detection, detect_format
from batuta_cli.serve.templates.formats import TemplateFormat, named_format, named_formats
from tests.serve.templates.model_files import GEMMA_2, LLAMA_3, OPENHERMES, ZEPHYR, model

HERMES_3 = "{{bos_token}}" + OPENHERMES
QWEN_15 = OPENHERMES.replace(
    "{{'<|im_start|>'",
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>'",
    1,
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
    "olmo2", "olmo2-32b",  # differ from one another only in their tokens
    "falcon3",  # differs from OLMo 2 only in its token and with tools
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


def test_a_template_that_never_ends_is_recognised_as_nothing(tmp_path: Path) -> None:
    endless = "".join(f"{{% for {letter} in range(10000) %}}" for letter in "abcd") + "{% endfor %}" * 4
    (tmp_path / "chat_template.jinja").write_text(endless)
    found = detect_format(tmp_path)
    assert (found.format, found.name, found.template) == (None, "", endless)
