"""Claim: with the conversion of messages and all checks, one core renders at least 15,000 prompts/s of four messages in
a modern named format (Qwen 3's) and 4,000 of an untrusted template, and messages of 1 MB in a named format are at least
0.8 times as fast as from Jinja2's sandbox alone, which transformers uses. Simple templates, long conversations and the
first prompt of a template are measured for reference.

    python -m benchmarks.bench_templates [--seconds 0.5] [--runs 5] [--json]

Three contestants render the same template text and must agree to the byte: batuta with a built-in format, batuta with
an untrusted template (in its worker process, with the check that nothing is lost), and jinja2's sandbox as transformers
sets it up. All have compiled the template before, but for the table of first prompts. batuta's times hold
the conversion of messages and the checks; jinja2 gets its dicts ready-made. Contestants take turns, as everywhere;
--size is not used.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.formats import NamedFormat, named_format
from benchmarks.compare import BenchmarkError, Report, Spread, benchmark, parser
from benchmarks.programs import Programs

FORMATS = ("chatml", "llama2", "qwen3")
RATES = {"qwen3, 4 messages": {"batuta": 15_000, "batuta, an untrusted template": 4_000}}
"""Prompts a second that the claim promises, by table and contestant."""

RATIOS = {
    "qwen3, 4 messages": 0.8,
    "qwen3, 200 messages of 1 KB": 0.8,
    "chatml, 2 messages of 1 MB": 0.8,
    "llama2, 2 messages of 1 MB": 0.8,
    "qwen3, 2 messages of 1 MB": 0.8,
}
"""How many times as fast as Jinja2's sandbox a named format has to be, by table."""

CONVERSATIONS = {"4 messages": (4, 100), "200 messages of 1 KB": (200, 1000), "2 messages of 1 MB": (2, 1_000_000)}
"""How many messages, and bytes in each."""

Render = Callable[[], str]


def contestants(format: NamedFormat, messages: Sequence[ChatMessage], *, first: bool = False) -> dict[str, Render]:
    """Each renders the conversation once; with `first` it compiles the template each time."""

    def kept(make: Callable[[], Any]) -> Callable[[], Any]:
        return make if first else (lambda made: lambda: made)(make())

    named = kept(lambda: ChatTemplateEngine(format.name))
    untrusted = kept(lambda: ChatTemplateEngine.from_template(format.template, format.bos_token, format.eos_token))
    template = kept(lambda: _sandboxed(format.template))
    variables: dict[str, Any] = {
        "messages": [{"role": str(m.role), "content": m.content} for m in messages],
        "add_generation_prompt": True,
        "bos_token": format.bos_token,
        "eos_token": format.eos_token,
    }
    return {
        "batuta": lambda: named().apply(messages),
        "batuta, an untrusted template": lambda: untrusted().apply(messages),
        "jinja2's sandbox": lambda: str(template().render(variables)),
    }


def _sandboxed(source: str) -> Any:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(source)


def rate(render: Render, seconds: float) -> float:
    """Prompts a second."""
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or count == 0:
        render()
        count += 1
    return count / passed


def conversation(count: int, length: int) -> list[ChatMessage]:
    """So many messages of so many bytes, in turns."""
    return [(ChatMessage.assistant if i % 2 else ChatMessage.user)("word " * (length // 5)) for i in range(count)]


def race(report: Report, title: str, renders: Mapping[str, Render], options: argparse.Namespace) -> None:
    """Let the contestants take turns, and report medians and the ratios within the rounds."""
    if len({render() for render in renders.values()}) != 1:
        raise BenchmarkError(f"{title}: the prompts differ")
    samples: dict[str, list[float]] = {name: [] for name in renders}
    names = list(renders)
    for number in range(options.runs + 1):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            found = rate(renders[name], options.seconds)
            if number:
                samples[name].append(found)
    _report(report, title, samples)


def _report(report: Report, title: str, samples: dict[str, list[float]]) -> None:
    table = report.section(title, contestants=[])
    rows = []
    base = samples["jinja2's sandbox"]
    for name, series in samples.items():
        prompts = Spread.of(series)
        ratio = Spread.of([mine / other for mine, other in zip(series, base, strict=True)])
        rows.append(
            [name, f"{prompts.median:,.0f}", f"{prompts.least:,.0f}-{prompts.greatest:,.0f}", f"{ratio.median:.1f}"]
        )
        table["contestants"].append({"name": name, "prompts_per_second": prompts.as_dict(), "ratio": ratio.as_dict()})
    report.table(["", "prompts/s", "range", "times jinja2"], rows)
    for row in table["contestants"]:
        if wanted := RATES.get(title, {}).get(row["name"]):
            row["aim"] = {"prompts_per_second": wanted, "met": row["prompts_per_second"]["median"] >= wanted}
            verdict = "met" if row["aim"]["met"] else "MISSED"
            report.say(f"  {row['name']}: the aim is at least {wanted:,} prompts/s: {verdict}")
    if title in RATIOS:
        least = RATIOS[title]
        table["aim"] = {"times_faster": least, "met": table["contestants"][0]["ratio"]["median"] >= least}
        report.say(f"  the aim is at least {least:g} times: {'met' if table['aim']['met'] else 'MISSED'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options_of = parser(__doc__)
    options_of.add_argument("--seconds", type=float, default=0.5, help="of each run (default: 0.5)")
    options = options_of.parse_args(arguments)
    with benchmark("templates", options) as (report, directory):
        Programs(report, directory).batuta()
        for format in map(named_format, FORMATS):
            for title, size in CONVERSATIONS.items():
                race(report, f"{format.name}, {title}", contestants(format, conversation(*size)), options)
            short = conversation(*CONVERSATIONS["4 messages"])
            race(report, f"{format.name}, the first prompt", contestants(format, short, first=True), options)


if __name__ == "__main__":
    main()
