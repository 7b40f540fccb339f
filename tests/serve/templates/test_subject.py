"""What is examined: a file, a folder, a format or a model's name; and it is rendered without protections."""

import json
from pathlib import Path

import pytest

from batuta_cli.errors import NotFoundError, TemplateError, UsageError
from batuta_cli.serve.messages import ChatInput, ChatMessage
from batuta_cli.serve.templates.render import RenderError
from batuta_cli.serve.templates.subject import TemplateSubject
from batuta_cli.serve.templates.template_input import Content, Form

HELLO = ChatMessage.user("Hello")


def test_a_folder_has_its_template_its_tokens_and_the_flag_of_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
    tokens = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokens))
    for path in (tmp_path, tmp_path / "chat_template.jinja"):
        with TemplateSubject.of(str(path)) as subject:
            assert subject.render([HELLO]) == "<s>Hello</s>"
            assert (subject.adds_bos, subject.own, subject.path) == (False, False, str(path))


def test_a_gguf_file_has_its_template(gguf: Path) -> None:
    with TemplateSubject.of(str(gguf)) as subject:
        assert subject.render([HELLO]).endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
        assert subject.adds_bos is False


@pytest.mark.parametrize("name", ["llama2", "Llama2", "llama-2-70b"])
def test_a_name_is_a_format_or_a_known_model(name: str) -> None:
    with TemplateSubject.of(name) as subject:
        assert subject.render([HELLO]) == "<s>[INST] Hello [/INST]"
        assert subject.own and subject.path == "" and "llama2" in subject.source


def test_a_folder_without_a_template_is_judged_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "Llama-2-7b-chat-hf").mkdir()
    with TemplateSubject.of(str(tmp_path / "Llama-2-7b-chat-hf")) as subject:
        assert subject.own and subject.render([HELLO]) == "<s>[INST] Hello [/INST]"


def test_a_name_that_is_not_known_is_an_error() -> None:
    with pytest.raises(UsageError, match="unknown model"):
        TemplateSubject.of("no-such-model")
    with pytest.raises(NotFoundError):
        TemplateSubject.of("./no-such-file")


def test_a_message_that_is_left_out_is_left_out_here_and_refused_in_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    talk = [ChatMessage.system("Whisper."), HELLO]
    with TemplateSubject.of(str(tmp_path / "t.jinja")) as subject:
        assert subject.render(talk) == "Hello"
        with pytest.raises(TemplateError):
            subject.prompt(ChatInput(talk))
        with pytest.raises(UsageError, match="bos_token"):
            subject.prompt(ChatInput([HELLO], variables={"bos_token": "x"}))


def test_a_template_gets_contents_in_the_form_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}{{ add_generation_prompt }}")
    with TemplateSubject.of(str(tmp_path / "t.jinja")) as subject:
        assert subject.render([HELLO], form=Form(Content.TYPED)) == "[{'type': 'text', 'text': 'Hello'}]True"
        assert subject.render([HELLO], add_generation_prompt=False) == "HelloFalse"


def test_a_format_that_cannot_express_a_message_refuses_it() -> None:
    with TemplateSubject.of("gemma") as subject, pytest.raises(RenderError) as caught:
        subject.render([ChatMessage.system("Whisper."), HELLO])
    assert caught.value.refused and "no system messages" in caught.value.reason
