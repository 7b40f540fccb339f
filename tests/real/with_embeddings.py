"""Asks a gateway for embeddings with the official clients and prints what it got, as JSON: `with_embeddings.py URL`.

Run by the interpreter of .venv/clients, which has the clients and nothing of batuta.
"""

import json
import sys
from typing import Any

import ollama  # type: ignore[import-not-found,unused-ignore]
import openai  # type: ignore[import-not-found,unused-ignore]

MODEL = "smollm2-135m"
TEXTS = ["The sky is blue.", "Zażółć gęślą jaźń"]
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none needed", max_retries=0)
local = ollama.Client(host=sys.argv[1])


def too_long() -> Any:
    try:
        client.embeddings.create(model=MODEL, input=["short", "word " * 700])
    except openai.BadRequestError as error:
        return [error.status_code, error.code]
    return None


done = client.embeddings.create(model=MODEL, input=TEXTS)
ids = client.embeddings.create(model=MODEL, input=[[504, 6376, 314, 4461, 30], [504]], encoding_format="float")
same = local.embed(MODEL, TEXTS)
print(
    json.dumps(
        {
            "openai": [each.embedding for each in done.data],
            "tokens": [done.usage.prompt_tokens, same.prompt_eval_count, ids.usage.prompt_tokens],
            "ids": [each.embedding for each in ids.data],
            "ollama": same.embeddings,
            "older": local.embeddings(MODEL, TEXTS[0]).embedding,
            "too_long": too_long(),
        }
    )
)
