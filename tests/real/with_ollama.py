"""Chats through a gateway with the official `ollama` client and prints what it got, as JSON: `with_ollama.py URL`.

Run by the interpreter of .venv/clients, which has the client and nothing of batuta.
"""

import json
import sys

import ollama  # type: ignore[import-not-found,unused-ignore]

MODEL = "smollm2-135m"
FRANCE = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
SCHEMA = {"type": "object", "properties": {"capital": {"type": "string", "maxLength": 20}}, "required": ["capital"]}
client = ollama.Client(host=sys.argv[1])
exact = {"temperature": 0, "seed": 1}

parts = list(client.chat(MODEL, FRANCE, stream=True, options=exact))
cut = client.generate(MODEL, "Count to one hundred.", options={**exact, "num_predict": 4})
shaped = client.chat(MODEL, FRANCE, format=SCHEMA, options={**exact, "num_predict": 60})
probable = client.chat(MODEL, FRANCE, logprobs=True, top_logprobs=2, options={**exact, "num_predict": 3})
stopped = client.generate(MODEL, FRANCE[0]["content"], options={**exact, "stop": [" Paris"]})
longer = client.chat(MODEL, [{"role": "system", "content": "Be brief. " * 40}, *FRANCE], options=exact)
print(
    json.dumps(
        {
            "stream": "".join(part.message.content for part in parts),
            "pieces": len(parts),
            "counts": [parts[-1].prompt_eval_count, parts[-1].eval_count, longer.prompt_eval_count],
            "durations": [parts[-1].total_duration, parts[-1].prompt_eval_duration, parts[-1].eval_duration],
            "cut": [cut.done_reason, cut.eval_count],
            "shaped": json.loads(shaped.message.content),
            "logprobs": [[each.token, each.logprob, len(each.top_logprobs)] for each in probable.logprobs],
            "stopped": stopped.response,
            "window": list(client.show(MODEL).modelinfo.values()),
        }
    )
)
