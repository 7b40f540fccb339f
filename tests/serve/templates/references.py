"""Each format once more, in plain Python, written from the formats' own descriptions and not from our templates.

Sources: the chat templates in the model cards' tokenizer_config.json, mistral-common 1.13 for Mistral, FastChat's
conversation.py for Vicuna, Stanford's train.py for Alpaca. Conversations are taken to be ones that the format can
express.
"""

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from batuta_cli.serve.messages import ChatMessage, Role, ToolCall

Messages = Sequence[ChatMessage]
Reference = Callable[[Messages, bool], str]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _arguments(call: ToolCall) -> str:
    return _json(json.loads(call.arguments))


def _system(messages: Messages) -> tuple[str | None, Messages]:
    if messages[0].role is Role.SYSTEM:
        return messages[0].content, messages[1:]
    return None, messages


def llama2(messages: Messages, generate: bool) -> str:
    system, turns = _system(messages)
    prompt = ""
    for i, turn in enumerate(turns):
        content = turn.content
        if i == 0 and system is not None:
            content = f"<<SYS>>\n{system}\n<</SYS>>\n\n{content}"
        prompt += f"<s>[INST] {content.strip()} [/INST]" if turn.role is Role.USER else f" {content.strip()} </s>"
    return prompt


def _mistral(version: int, *, tekken: bool = False) -> Reference:
    def piece(text: str) -> str:  # SentencePiece writes a space before what it encodes, unless that is nothing
        return text if tekken or not text else f" {text}"

    def render(messages: Messages, generate: bool) -> str:
        systems = [m.content for m in messages if m.role is Role.SYSTEM and m.content]
        system = "\n\n".join(systems) if version < 7 else ""
        runs: list[tuple[Role, list[ChatMessage]]] = []
        for role, group in groupby(messages, key=lambda m: m.role):
            members = list(group)
            runs += [(role, members)] if role in (Role.USER, Role.ASSISTANT) else [(role, [m]) for m in members]
        users = [i for i, (role, _) in enumerate(runs) if role is Role.USER]
        bearer = users[0] if version == 1 else users[-1]
        prompt = "<s>"
        for i, (role, run) in enumerate(runs):
            content = "\n\n".join(m.content for m in run if m.content)
            if role is Role.USER:
                if i == bearer and system:
                    content = f"{system}\n\n{content}"
                prompt += f" [INST] {content} [/INST]" if version == 1 else f"[INST]{piece(content)}[/INST]"
            elif role is Role.ASSISTANT:
                prompt += piece(content if version == 1 else content.rstrip(" "))
                calls = [call for m in run for call in m.tool_calls]
                if calls:
                    listed = [{"name": c.name, "arguments": json.loads(c.arguments), "id": c.id} for c in calls]
                    prompt += f"[TOOL_CALLS]{piece(_json(listed))}"
                prompt += "</s>"
            elif role is Role.TOOL:
                if version < 7:
                    try:
                        value = json.loads(content or "{}")
                    except ValueError:
                        value = content
                    result = piece(_json({"content": value, "call_id": run[0].tool_call_id}))
                else:
                    result = f"{piece(str(run[0].tool_call_id))}[TOOL_CONTENT]{piece(content)}"
                prompt += f"[TOOL_RESULTS]{result}[/TOOL_RESULTS]"
            elif version >= 7:
                prompt += f"[SYSTEM_PROMPT]{piece(content)}[/SYSTEM_PROMPT]"
        return prompt

    return render


def chatml(messages: Messages, generate: bool) -> str:
    prompt = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    return prompt + "<|im_start|>assistant\n" * generate


def _chatml_with(default: str) -> Reference:
    def render(messages: Messages, generate: bool) -> str:
        told = messages[0].role is Role.SYSTEM
        return chatml(messages if told else [ChatMessage.system(default), *messages], generate)

    return render


def _qwen_results(run: Messages) -> str:
    return "".join(f"\n<tool_response>\n{m.content}\n</tool_response>" for m in run)


def _qwen_calls(calls: Sequence[ToolCall]) -> list[str]:
    return [f'<tool_call>\n{{"name": "{c.name}", "arguments": {_arguments(c)}}}\n</tool_call>' for c in calls]


def qwen25(messages: Messages, generate: bool) -> str:
    prompt = ""
    if messages[0].role is not Role.SYSTEM:
        prompt = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    for role, run in groupby(messages, key=lambda m: m.role):
        members = list(run)
        if role is Role.TOOL:
            prompt += f"<|im_start|>user{_qwen_results(members)}<|im_end|>\n"
            continue
        for m in members:
            parts = ([m.content] if m.content or not m.tool_calls else []) + _qwen_calls(m.tool_calls)
            prompt += f"<|im_start|>{role}" + "".join(f"\n{part}" for part in parts) + "<|im_end|>\n"
    return prompt + "<|im_start|>assistant\n" * generate


def qwq(messages: Messages, generate: bool) -> str:
    prompt = ""
    for role, run in groupby(messages, key=lambda m: m.role):
        members = list(run)
        if role is Role.TOOL:
            prompt += f"<|im_start|>user{_qwen_results(members)}<|im_end|>\n"
            continue
        for m in members:
            content = m.content
            if role is Role.ASSISTANT:
                content = content.rpartition("</think>")[2].lstrip("\n")
            parts = ([content] if m.content or not m.tool_calls else []) + _qwen_calls(m.tool_calls)
            prompt += f"<|im_start|>{role}" + "".join(f"\n{part}" for part in parts) + "<|im_end|>\n"
    return prompt + "<|im_start|>assistant\n<think>\n" * generate


def qwen3(messages: Messages, generate: bool) -> str:
    questions = [
        i
        for i, m in enumerate(messages)
        if m.role is Role.USER
        and not (m.content.startswith("<tool_response>") and m.content.endswith("</tool_response>"))
    ]
    last = questions[-1] if questions else len(messages) - 1
    prompt, i = "", 0
    while i < len(messages):
        m = messages[i]
        if m.role is Role.TOOL:
            end = next((j for j in range(i, len(messages)) if messages[j].role is not Role.TOOL), len(messages))
            prompt += f"<|im_start|>user{_qwen_results(messages[i:end])}<|im_end|>\n"
            i = end
            continue
        content, thought = m.content, ""
        if m.role is Role.ASSISTANT and "</think>" in content:
            thought = content.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
            content = content.split("</think>")[-1].lstrip("\n")
        calls = _qwen_calls(m.tool_calls)
        joined = "\n".join([content, *calls] if content else calls)
        if m.role is Role.ASSISTANT and i > last and (i == len(messages) - 1 or thought):
            stripped = thought.strip("\n")
            joined = "\n".join([content.lstrip("\n"), *calls] if content else calls)
            joined = f"<think>\n{stripped}\n</think>\n\n{joined}"
        prompt += f"<|im_start|>{m.role}\n{joined}<|im_end|>\n"
        i += 1
    return prompt + "<|im_start|>assistant\n" * generate


def qwen3_thinking(messages: Messages, generate: bool) -> str:
    return qwen3(messages, generate) + "<think>\n" * generate


def _llama3_turn(role: str, content: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"


def llama3(messages: Messages, generate: bool) -> str:
    prompt = "<|begin_of_text|>" + "".join(_llama3_turn(m.role, m.content.strip()) for m in messages)
    return prompt + "<|start_header_id|>assistant<|end_header_id|>\n\n" * generate


def llama31(messages: Messages, generate: bool) -> str:
    system, turns = _system(messages)
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    prompt = "<|begin_of_text|>" + _llama3_turn("system", dates + (system or "").strip())
    for m in turns:
        if m.role is Role.TOOL:
            prompt += _llama3_turn("ipython", _json(m.content))
        elif m.tool_calls:
            (call,) = m.tool_calls
            prompt += _llama3_turn("assistant", f'{{"name": "{call.name}", "parameters": {_arguments(call)}}}')
        else:
            prompt += _llama3_turn(m.role, m.content.strip())
    return prompt + "<|start_header_id|>assistant<|end_header_id|>\n\n" * generate


def gemma(messages: Messages, generate: bool) -> str:
    names = {Role.USER: "user", Role.ASSISTANT: "model"}
    turns = (f"<start_of_turn>{names[Role(m.role)]}\n{m.content.strip()}<end_of_turn>\n" for m in messages)
    return "<bos>" + "".join(turns) + "<start_of_turn>model\n" * generate


def gemma3(messages: Messages, generate: bool) -> str:
    system, turns = _system(messages)
    prompt = gemma(turns, generate)
    return prompt if system is None else prompt.replace("user\n", f"user\n{system}\n\n", 1)


def phi3(messages: Messages, generate: bool) -> str:
    forms = {Role.USER: "<|user|>\n{}<|end|>\n<|assistant|>\n", Role.ASSISTANT: "{}<|end|>\n"}
    return "<s>" + "".join(forms[Role(m.role)].replace("{}", m.content) for m in messages)


def phi35(messages: Messages, generate: bool) -> str:
    kept = [m for m in messages if m.content or m.role is not Role.SYSTEM]
    turns = "".join(f"<|{m.role}|>\n{m.content}<|end|>\n" for m in kept)
    return turns + ("<|assistant|>\n" if generate else "<|endoftext|>")


def phi4(messages: Messages, generate: bool) -> str:
    forms = {
        Role.SYSTEM: "<|im_start|>system<|im_sep|>{}<|im_end|>",
        Role.USER: "<|im_start|>user<|im_sep|>{}<|im_end|><|im_start|>assistant<|im_sep|>",
        Role.ASSISTANT: "{}<|im_end|>",
    }
    return "".join(forms[Role(m.role)].replace("{}", m.content) for m in messages)


def phi4_mini(messages: Messages, generate: bool) -> str:
    turns = "".join(f"<|{m.role}|>{m.content}<|end|>" for m in messages)
    return turns + ("<|assistant|>" if generate else "<|endoftext|>")


def zephyr(messages: Messages, generate: bool) -> str:
    return "".join(f"<|{m.role}|>\n{m.content}</s>\n" for m in messages) + "<|assistant|>\n" * generate


def deepseek_v2(messages: Messages, generate: bool) -> str:
    forms = {
        Role.SYSTEM: "{}\n\n",
        Role.USER: "User: {}\n\n",
        Role.ASSISTANT: "Assistant: {}<｜end▁of▁sentence｜>",
    }
    turns = "".join(forms[Role(m.role)].replace("{}", m.content) for m in messages)
    return "<｜begin▁of▁sentence｜>" + turns + "Assistant:" * generate


def deepseek_r1(messages: Messages, generate: bool) -> str:
    system, turns = _system(messages)
    prompt, first_call, first_result, open_results = "<｜begin▁of▁sentence｜>" + (system or ""), True, True, False
    end = "<｜end▁of▁sentence｜>"
    for m in turns:
        if m.role is Role.USER:
            open_results = False
            prompt += f"<｜User｜>{m.content}"
        elif m.role is Role.TOOL:
            open_results = True
            prompt += "<｜tool▁outputs▁begin｜>" if first_result else "\n"
            prompt += f"<｜tool▁output▁begin｜>{m.content}<｜tool▁output▁end｜>"
            first_result = False
        else:
            for call in m.tool_calls:
                prompt += "<｜Assistant｜><｜tool▁calls▁begin｜>" if first_call else "\n"
                prompt += f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n```json\n{call.arguments}\n```"
                prompt += "<｜tool▁call▁end｜>"
                first_call = False
            if m.tool_calls:
                prompt += "<｜tool▁calls▁end｜>" + end
                open_results = False
            if open_results:
                prompt += f"<｜tool▁outputs▁end｜>{m.content}{end}"
                open_results = False
            elif m.content or not m.tool_calls:
                prompt += "<｜Assistant｜>" + m.content.split("</think>")[-1] + end
    if open_results:
        return prompt + "<｜tool▁outputs▁end｜>"
    return prompt + "<｜Assistant｜><think>\n" * generate


def _deepseek_v3(*, thinks: bool) -> Reference:
    """V3-0324 and R1-0528, which leaves thoughts out and marks the turn of the assistant after a last question late."""

    def render(messages: Messages, generate: bool) -> str:
        system, turns = _system(messages)
        prompt, end, turn = "<｜begin▁of▁sentence｜>" + (system or ""), "<｜end▁of▁sentence｜>", "<｜Assistant｜>"
        for role, run in groupby(turns, key=lambda m: m.role):
            members = list(run)
            texts = [m.content for m in members]
            if role is Role.USER:
                prompt += "".join(f"<｜User｜>{text}{turn}" for text in texts)
            elif role is Role.TOOL:
                results = "\n".join(f"<｜tool▁output▁begin｜>{text}<｜tool▁output▁end｜>" for text in texts)
                prompt += f"<｜tool▁outputs▁begin｜>{results}<｜tool▁outputs▁end｜>"
            else:
                for m in members:
                    calls = "\n".join(
                        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{c.name}\n```json\n{c.arguments}\n```<｜tool▁call▁end｜>"
                        for c in m.tool_calls
                    )
                    prompt += m.content.rpartition("</think>")[2] if thinks else m.content
                    prompt += (f"<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>" if calls else "") + end
        last = messages[-1].role
        if last is Role.USER and thinks and not generate:
            return prompt.removesuffix(turn)
        return prompt + turn * (generate and last not in (Role.USER, Role.TOOL))

    return render


def vicuna(messages: Messages, generate: bool) -> str:
    system, turns = _system(messages)
    if system is None:
        system = (
            "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions."
        )
    prompt = f"{system} "
    for i, m in enumerate(turns):
        name, separator = ("USER", " ") if i % 2 == 0 else ("ASSISTANT", "</s>")
        prompt += f"{name}: {m.content}{separator}" if m.content else f"{name}:"
    return prompt + "ASSISTANT:" * generate


def alpaca(messages: Messages, generate: bool) -> str:
    system, turns = _system(messages)
    if system is None:
        system = (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        )
    blocks = [system]
    for m in turns:
        user = m.role is Role.USER
        blocks.append(f"### Instruction:\n{m.content}" if user else f"### Response:\n{m.content}</s>")
    return "".join(f"{block}\n\n" for block in blocks) + "### Response:" * generate


def gpt_oss(messages: Messages, generate: bool) -> str:
    system, turns = _system(messages)
    prompt = (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\nCurrent date: 2026-11-23\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    )
    if system:
        prompt += f"<|start|>developer<|message|># Instructions\n\n{system}\n\n<|end|>"
    called = ""
    for i, m in enumerate(turns):
        answered = any(t.role is Role.ASSISTANT and not t.tool_calls for t in turns[i + 1 :])
        if m.role is Role.USER:
            prompt += f"<|start|>user<|message|>{m.content}<|end|>"
        elif m.role is Role.TOOL:
            prompt += (
                f"<|start|>functions.{called} to=assistant<|channel|>commentary<|message|>{_json(m.content)}<|end|>"
            )
        elif m.tool_calls:
            (call,) = m.tool_calls
            called = call.name
            if m.content and not answered:
                prompt += f"<|start|>assistant<|channel|>analysis<|message|>{m.content}<|end|>"
            prompt += f"<|start|>assistant to=functions.{called}<|channel|>commentary json<|message|>"
            prompt += f"{_arguments(call)}<|call|>"
        else:
            end = "<|return|>" if i == len(turns) - 1 and not generate else "<|end|>"
            prompt += f"<|start|>assistant<|channel|>final<|message|>{m.content}{end}"
    return prompt + "<|start|>assistant" * generate


def raw(messages: Messages, generate: bool) -> str:
    return "\n".join(m.content for m in messages)


REFERENCES: dict[str, Reference] = {
    "llama2": llama2,
    "mistral-v1": _mistral(1),
    "mistral-v2": _mistral(2),
    "mistral-v3": _mistral(3),
    "mistral-v3-tekken": _mistral(3, tekken=True),
    "mistral-v7": _mistral(7),
    "mistral-v7-tekken": _mistral(7, tekken=True),
    "chatml": chatml,
    "qwen2": _chatml_with("You are a helpful assistant."),
    "qwen2.5": qwen25,
    "qwen3": qwen3,
    "qwen3-thinking": qwen3_thinking,
    "qwq": qwq,
    "smollm2": _chatml_with("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "llama3": llama3,
    "llama3.1": llama31,
    "gemma": gemma,
    "gemma3": gemma3,
    "phi3": phi3,
    "phi3.5": phi35,
    "phi4": phi4,
    "phi4-mini": phi4_mini,
    "zephyr": zephyr,
    "deepseek-v2": deepseek_v2,
    "deepseek-v3": _deepseek_v3(thinks=False),
    "deepseek-r1": deepseek_r1,
    "deepseek-r1-0528": _deepseek_v3(thinks=True),
    "vicuna": vicuna,
    "alpaca": alpaca,
    "gpt-oss": gpt_oss,
    "raw": raw,
}
