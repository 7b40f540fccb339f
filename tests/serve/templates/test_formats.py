"""The table of formats: names in any spelling, one plain format for each family, and the tokens of each."""

import pytest

from batuta_cli.errors import UsageError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.formats import NamedFormat, TemplateFormat, named_format, named_formats


@pytest.mark.parametrize("format", named_formats().values(), ids=lambda f: f.name)
def test_the_end_of_an_answer_and_the_tokens_of_a_prompt_are_in_the_table(format: NamedFormat) -> None:
    """Whatever a template adds to the texts and looks like a token is one that is looked for in the texts."""
    import re

    prompt = ChatTemplateEngine(format.name).apply([ChatMessage.user("a"), ChatMessage.assistant("b")])
    known = set(format.control_tokens)
    assert set(re.findall(r"<\|\w+\|>|<｜[^｜]+｜>|\[/?INST\]|</?s>|<bos>|<\w+_of_turn>", prompt)) <= known
    assert all(stop in known or stop in format.marks for stop in format.stop)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mistral", "mistral-v3"),
        ("Mistral_V3-Tekken", "mistral-v3-tekken"),
        ("LLAMA 3.1", "llama3.1"),
        ("GptOss", "gpt-oss"),
        ("DeepSeek", "deepseek-r1"),
        (TemplateFormat.CHATML, "chatml"),
    ],
)
def test_a_format_may_be_named_in_any_case_or_by_its_family(typed: str, meant: str) -> None:
    assert named_format(typed).name == meant


@pytest.mark.parametrize("family", TemplateFormat)
def test_every_family_has_one_format_that_its_plain_name_means(family: TemplateFormat) -> None:
    assert [f.plain for f in named_formats().values() if f.family is family].count(True) == 1
    assert ChatTemplateEngine(family).format is family


def test_an_unknown_format_is_named_with_its_nearest_and_all_others() -> None:
    with pytest.raises(UsageError, match="unknown format lama3, did you mean llama3") as failure:
        ChatTemplateEngine("lama3")
    assert all(name in str(failure.value.hint) for name in named_formats())
