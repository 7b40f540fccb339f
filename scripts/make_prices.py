"""Make `serve/models/data/prices.json` from genai-prices: `make prices`, which runs this in a separate venv.

What is kept of each model: the rules by which a name means it, the context window, and what text costs at list price.
Of several prices in a day (off-peak hours) the dearest is kept, and of the prices of plain output that of citations
where it is dearer. Cached input, cache writes, reasoning and audio have separate prices (`KINDS`); a model whose
provider writes to a cache unasked, and bills that above input, is marked. Left out: batch, flex and priority variants,
tools such as web search, images.

The same version of genai-prices gives the same file: `as_of` changes only with the rest.

A model with a price for input alone makes embeddings: its output price is null. A model without a price, or with one
that is zero, is kept without prices: it must still hide the models after it, whose rules might be broader.

`--check` compares the table, as batuta reads it, with genai-prices itself, name by name and day by day.
"""

import argparse
import datetime as dt
import json
import random
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run by a Python that batuta is not installed in

TARGET = Path(__file__).resolve().parents[1] / "batuta_cli" / "serve" / "models" / "data" / "prices.json"
SOURCE = "https://github.com/pydantic/genai-prices"
LICENSE = "MIT, Copyright (c) Pydantic Services Inc. 2025 to present"

OUTPUT_KINDS = ("output_citation_mtok", "output_text_mtok")
KINDS = {
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
}
"""Kinds as `pricing.KindPrices` names them, and the prices of genai-prices."""
CACHE_ON_REQUEST = ("claude", "nova")
"""Families that write to a cache only where a request says so (`cache_control`)."""

NAMES_EVERYWHERE = """
    gpt-4 gpt-4-0613 gpt-4-32k gpt-4o gpt-4o-mini gpt-4o-2024-08-06 gpt-4-turbo gpt-4-turbo-2024-04-09 gpt-5
    gpt-5-mini gpt-3.5-turbo gpt-3.5-turbo-1106 o1 o3-mini claude-3-opus-20240229 claude-3-haiku
    claude-3-5-sonnet-20241022 claude-sonnet-4-20250514 claude-sonnet-4@20250514
    anthropic.claude-3-opus-20240229-v1:0 gemini-2.5-pro google/gemini-2.5-pro meta-llama/llama-3.1-8b-instruct
    mixtral-8x7b mistral-large-latest deepseek-chat
"""
TAILS = ("", "-latest", "-20260101", "-2026-01-01", "-0613", "-v1:0", "-mini", "-ultra", "-pro", "x", "-ft", "-nano")


def main() -> None:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the table in place with genai-prices")
    if parser.parse_args().check:
        check()
        return
    rows = [json.dumps(identifier) + ":" + provider for identifier, provider in sorted(provider_rows())]
    source = f"{SOURCE}, genai-prices {version('genai-prices')}"

    def table(as_of: str) -> str:
        head = {"source": source, "license": LICENSE, "as_of": as_of}
        return json.dumps(head)[:-1] + ', "providers": {\n' + ",\n".join(rows) + "\n}}\n"

    before = TARGET.read_text()
    text = table(json.loads(before)["as_of"])
    if text != before:
        text = table(dt.datetime.now(dt.UTC).date().isoformat())
        json.loads(text)
        TARGET.write_text(text)
    print(f"{TARGET}: {len(text):,} bytes, {sum(len(p.models) for p in providers()):,} models", file=sys.stderr)


def providers() -> list[Any]:
    """All providers of genai-prices."""
    return list(import_module("genai_prices.data").providers)


def provider_rows() -> Iterator[tuple[str, str]]:
    """Each provider's id with its JSON, one line a model."""
    for provider in providers():
        models = [compact([m.id, clause(m.match), m.context_window, list(prices(m))]) for m in provider.models]
        head = compact(
            {
                "match": clause(provider.model_match) if provider.model_match else [],
                "fallback": provider.fallback_model_providers or [],
            }
        )
        yield provider.id, head[:-1] + ',"models":[\n' + ",\n".join(models) + "\n]}"


def compact(value: Any) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def clause(rule: Any) -> Any:
    """A rule of genai-prices as `catalogue.Clause`."""
    if hasattr(rule, "or_"):
        inner = [clause(part) for part in rule.or_]
        return inner[0] if len(inner) == 1 else inner
    if hasattr(rule, "and_"):
        return {"and": [clause(part) for part in rule.and_]}
    if hasattr(rule, "regex"):
        return "~" + rule.regex
    for name, sign in (("equals", "="), ("starts_with", "^"), ("ends_with", "$"), ("contains", "*")):
        if hasattr(rule, name):
            return sign + getattr(rule, name).lower()
    raise TypeError(f"a rule that this script does not know: {rule!r}")


def prices(model: Any) -> Iterator[list[Any]]:
    """The list prices of a model, oldest first."""
    types = import_module("genai_prices.types")
    listed = model.prices if isinstance(model.prices, list) else [types.ConditionalPrice(prices=model.prices)]
    hourly = [isinstance(entry.constraint, types.TimeOfDateConstraint) for entry in listed]
    for number, entry in enumerate(listed):
        if hourly[number]:
            continue
        hours = [other for later, other in enumerate(listed) if later > number and hourly[later]]
        worst = dearest([price(e.prices, model.id) for e in (entry, *hours)])
        if worst is None:
            return
        dated = isinstance(entry.constraint, types.StartDateConstraint) and number > 0
        yield [entry.constraint.start_date.isoformat() if dated else "", *worst]


def price(listed: Any, model: str) -> list[Any] | None:
    """`[input, output, request, tiers, kinds, unasked]` of the table, or None for a price that cannot be relied on."""
    inputs = [p for p in (listed.input_mtok, listed.input_text_mtok) if p is not None]
    outputs = [p for p in (listed.output_mtok, *(getattr(listed, kind) for kind in OUTPUT_KINDS)) if p is not None]
    input_only = not outputs
    if not listed.input_mtok or not (listed.output_mtok or input_only):
        return None
    outputs = outputs or inputs
    kinds = {kind: p for kind, name in KINDS.items() if (p := getattr(listed, name)) is not None}
    everything = (*inputs, *outputs, *kinds.values())
    starts = sorted({tier.start for p in everything if hasattr(p, "tiers") for tier in p.tiers})
    per_request = (listed.requests_kcount or Decimal(0)) / 1000
    lengths = (0, *(start + 1 for start in starts))
    if not all(at(inputs, n) and at(outputs, n) for n in lengths):
        return None
    unasked = "cache_write" in kinds and not any(family in model for family in CACHE_ON_REQUEST)
    unasked = unasked and any(at([kinds["cache_write"]], n) > at(inputs, n) for n in lengths)
    tiers = []
    for start in starts:
        tier = [start, plain(at(inputs, start + 1)), plain(at(outputs, start + 1)), kinds_at(kinds, start + 1)]
        tiers.append(tier if tier[-1] else tier[:-1])
    output = None if input_only else plain(at(outputs, 0))
    return [plain(at(inputs, 0)), output, plain(per_request), tiers, kinds_at(kinds, 0), unasked]


def kinds_at(kinds: dict[str, Any], tokens: int) -> dict[str, str]:
    """The prices of the kinds for a prompt of so many tokens."""
    return {kind: plain(at([listed], tokens)) for kind, listed in kinds.items()}


def at(listed: Iterable[Any], tokens: int) -> Any:
    """The dearest of some prices for a prompt of so many tokens."""
    return max(
        max([p.base, *(tier.price for tier in p.tiers if tokens > tier.start)]) if hasattr(p, "tiers") else p
        for p in listed
    )


def dearest(rows: list[list[Any] | None]) -> list[Any] | None:
    """One row that bounds all of them, without the fields at its end that say nothing."""
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return None
    if len(known) > 1 and any(row[3] for row in known):
        raise ValueError("prices by the hour that have tiers as well: teach this script how")
    kinds = {kind: max((row[4][kind] for row in known if kind in row[4]), key=Decimal) for kind in known[0][4]}
    if any(set(row[4]) != set(kinds) for row in known):
        raise ValueError("prices by the hour that have other kinds of tokens: teach this script how")
    worst = [max((row[i] for row in known), key=Decimal) if known[0][i] is not None else None for i in range(3)]
    worst += [known[0][3], kinds, any(row[5] for row in known)]
    while len(worst) > 2 and worst[-1] in ("0", [], {}, False):
        worst.pop()
    return worst


def plain(amount: Decimal) -> str:
    """A decimal number without exponent and trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def check() -> None:
    """Exit 1 when the table says less than genai-prices would charge, or misses a name that it writes out."""
    from batuta_cli.serve.models.catalogue import catalogue
    from batuta_cli.serve.models.pricing import pricing
    from batuta_cli.serve.usage import CacheWrites

    table, snapshot = catalogue(), import_module("genai_prices.data_snapshot").get_snapshot()
    usage_of = import_module("genai_prices.types").Usage
    counts = dict.fromkeys(("names", "same", "dearer", "unknown here"), 0)
    wrong = []
    rng = random.Random(1)  # noqa: S311 - the same sample each time
    for provider in (None, *(p.id for p in providers())):
        for name in sorted(sample(provider)):
            counts["names"] += 1
            try:
                _, theirs = snapshot.find_provider_model(name, None, provider, None)
            except LookupError:
                theirs = None
            ours = table.find(name, provider)
            day = dt.date(2023, 1, 1) + dt.timedelta(days=rng.randrange(1600))
            listed = ours.price(day) if ours else None
            if listed is None:
                counts["unknown here"] += 1
                written_out = theirs and name.lower() in equals(theirs.match)
                if written_out and ours is None:
                    wrong.append(f"{provider} {name}: genai-prices writes it out as {theirs.id}")
                continue
            if ours is None or theirs is None or ours.id != theirs.id:
                wrong.append(f"{provider} {name}: {ours and ours.id} here, {theirs and theirs.id} there")
                continue
            usage = some_usage(rng, sells_output=listed.output is not None)
            counts_there = {"cache_read_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
            counts_there |= {"cache_write_1h_tokens": usage.cache_write_1h_tokens}
            counts_there |= {"output_reasoning_tokens": usage.reasoning_tokens}
            there = usage_of(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, **counts_there)
            when = dt.datetime.combine(day, dt.time(rng.randrange(24)), dt.UTC)
            bill = theirs.get_prices(when).calc_price(there)["total_price"] * 10**9
            price_here = pricing(listed)
            cost = price_here.charge(usage)
            if price_here.cost(usage.input_tokens, usage.output_tokens, writes=CacheWrites.HOUR) < cost:
                wrong.append(f"{provider} {name} on {day}: {usage} costs more than its bound")
            counts["same" if cost - bill < 2 else "dearer"] += 1
            if cost < bill:
                wrong.append(f"{provider} {name} on {day}: {cost} here, {bill} there")
    print(counts, file=sys.stderr)
    if wrong:
        sys.exit("\n".join(wrong))


def some_usage(rng: random.Random, *, sells_output: bool) -> Any:
    """Counts of every kind of text token, on both sides of the usual tiers."""
    from batuta_cli.serve.usage import Usage

    input, output = rng.choice((1, 1000, 100_001, 200_001, 272_001, 1_000_000)), rng.choice((0, 1, 5000)) * sells_output
    cached = rng.choice((0, rng.randint(0, input)))
    written = rng.choice((0, rng.randint(0, input - cached)))
    hour = rng.choice((0, written // 2))
    return Usage(
        input,
        output,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        reasoning_tokens=rng.choice((0, output // 2)),
    )


def sample(provider: str | None) -> set[str]:
    """Names to ask about: what the rules mention, with endings, and well-known names."""
    names = set(NAMES_EVERYWHERE.split())
    for found in providers():
        if provider in (None, found.id) or found.id in ("openai", "anthropic"):
            for model in found.models:
                names |= {model.id, *equals(model.match)}
                names |= {text + tail for text in texts(model.match) for tail in TAILS}
    return {name for name in names if name}


def texts(rule: Any) -> Iterator[str]:
    """The texts in a rule, but no regexes."""
    for part in getattr(rule, "or_", None) or getattr(rule, "and_", None) or ():
        yield from texts(part)
    for name in ("equals", "starts_with", "ends_with", "contains"):
        if hasattr(rule, name):
            yield getattr(rule, name)


def equals(rule: Any) -> set[str]:
    """The names that a rule writes out."""
    inner: set[str] = set().union(*(equals(part) for part in getattr(rule, "or_", ())))
    return inner | ({rule.equals.lower()} if hasattr(rule, "equals") else set())


if __name__ == "__main__":
    main()
