"""`batuta serve budget`: shows and changes the daily budget, and checks whether a request fits it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.cli.ledger_option import LedgerOption, load_config, require_file, warn_of_new_limits, with_ledger
from batuta_cli.errors import (
    CostError,
    MissingLedgerError,
    NotFoundError,
    OperationError,
    OtherLedgerError,
    UnknownPriceError,
    UsageError,
)
from batuta_cli.files import display

if TYPE_CHECKING:
    from decimal import Decimal

    from batuta_cli.config import Change, Config
    from batuta_cli.serve.budget.breaker import BudgetStatus, ClientStatus, CostCircuitBreaker
    from batuta_cli.serve.client_account import ClientAccount

group = command_group("budget", "Limit and show the daily spending.")

_BAR = 50  # columns

_Model = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="The provider's name of the model.")]
_Backend = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", help="The backend: a configured one, or a kind such as Groq."),
]
_Input = Annotated[int | None, typer.Option("--input-tokens", metavar="N", min=0, help="Tokens of the prompt.")]
_Unpriced = Annotated[
    bool, typer.Option("--allow-unpriced", help="Count a model of unknown price as free, with a warning.")
]


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve budget status", "batuta serve budget status --json", "batuta serve budget status --key laptop"
    ),
)
def status(
    key: Annotated[str | None, typer.Option("--key", metavar="NAME", help="Show the sums of a client key.")] = None,
    ledger: LedgerOption = None,
) -> console.CommandResult:
    """Show the spent, reserved and remaining amounts of the day, and when the next day begins.

    Reserved is the highest cost of the requests that are running. Exit 1 when the ledger cannot be used, so that paid
    requests are refused: it is damaged, missing or not writable, or counts days in another time zone.
    """
    account = _account(key)
    found = _breaker(_config(ledger)).status(account)
    if found.ahead:
        console.warn(
            f"the ledger's newest day is {found.day}, which is after today by this clock, so paid requests are refused;"
            " set the clock, or repair the ledger: batuta serve budget reset"
        )
    if found.next_timezone:
        console.note(f"days are counted in {found.next_timezone} after the end of this day")
    return console.CommandResult(found.to_json(), _drawn(found))


def _account(key: str | None) -> "ClientAccount":
    """The limits of a client key that is not revoked, or of the last revoked one of that name."""
    from batuta_cli.serve.client_account import ANY_CLIENT

    if key is None:
        return ANY_CLIENT
    from batuta_cli.serve.gateway import keys

    named = [entry for entry in keys.load() if entry.name == key]
    if not named:
        raise NotFoundError(f"no client key is called {display(key)}", hint="batuta serve keys list")
    entry = next((entry for entry in named if entry.revoked is None), named[-1])
    return entry.limits.account(entry.name)


def _drawn(found: "BudgetStatus") -> str:
    from batuta_cli.serve.money import format_usd

    if found.client is not None:
        return _drawn_key(found, found.client)
    rows = [
        ("spent", f"${format_usd(found.spent)}"),
        ("reserved", f"${format_usd(found.reserved)}"),
        ("left", f"${format_usd(found.remaining)} of ${format_usd(found.daily_budget)}"),
        ("warning", f"at ${format_usd(found.warn_at)}" + (", reached" if found.warning else "")),
        ("a request", f"${format_usd(found.max_request_cost)} at most"),
        *_day_rows(found),
    ]
    return "\n".join([_bar(found), *(f"{name:<10} {value}" for name, value in rows)])


def _day_rows(found: "BudgetStatus") -> list[tuple[str, str]]:
    import datetime as dt

    wait = int((found.resets_at - dt.datetime.now(dt.UTC)).total_seconds() + 59) // 60
    return [
        ("day", f"{found.day} ({found.timezone})"),
        ("resets at", f"{found.resets_at:%Y-%m-%d %H:%M} (in {wait // 60} h {wait % 60} min)"),
    ]


def _drawn_key(found: "BudgetStatus", key: "ClientStatus") -> str:
    from dataclasses import replace

    from batuta_cli.serve.money import format_usd

    bars, left = [], "no separate budget"
    if key.daily_budget is not None and key.remaining is not None:
        budget = key.daily_budget
        bars = [_bar(replace(found, spent=key.spent, reserved=key.reserved, daily_budget=budget, warn_at=budget))]
        left = f"${format_usd(key.remaining)} of ${format_usd(key.daily_budget)}"
    rows = [
        ("key", display(key.name)),
        ("spent", f"${format_usd(key.spent)}"),
        ("reserved", f"${format_usd(key.reserved)}"),
        ("left", left),
        ("all keys", f"${format_usd(found.remaining)} of ${format_usd(found.daily_budget)} left"),
        *_day_rows(found),
    ]
    return "\n".join([*bars, *(f"{name:<10} {value}" for name, value in rows)])


def _bar(found: "BudgetStatus") -> str:
    """`[####==......|..]  24 %`: spent, reserved, left; `|` marks the warning threshold."""
    budget = found.daily_budget

    def column(amount: int) -> int:
        return min(_BAR, amount * _BAR // budget if budget else amount)

    spent = column(found.spent)
    used = max(spent, column(found.spent + found.reserved))
    cells = list("#" * spent + "=" * (used - spent) + "." * (_BAR - used))
    if budget and found.warn_at < budget:
        cells.insert(column(found.warn_at), "|")
    percent = f"{found.spent * 100 // budget} %" if budget else "the budget is 0"
    style = "bad" if found.remaining == 0 else "warn" if found.warning else "good"
    return f"[{console.paint(''.join(cells), style)}]  {percent}"


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve budget check --estimate 0.05 --quiet && ./ask-the-model",
        "batuta serve budget check --model gpt-4-turbo --input-tokens 12000 --max-output-tokens 1000",
        "batuta serve budget check --model llama-3.1-8b-instant --backend groq --input-tokens 90 --max-output-tokens 9",
    ),
)
def check(
    estimate: Annotated[
        str | None, typer.Option("--estimate", metavar="USD", help="The highest cost of the request, such as 0.42.")
    ] = None,
    model: _Model = None,
    backend: _Backend = None,
    input_tokens: _Input = None,
    max_output_tokens: Annotated[
        int | None, typer.Option("--max-output-tokens", metavar="N", min=0, help="Limit of the output tokens.")
    ] = None,
    allow_unpriced: _Unpriced = False,
    ledger: LedgerOption = None,
) -> console.CommandResult:
    """Check whether a request fits the budget: exit 0, or 5 when the budget refuses or the price is unknown.

    Give the highest cost, or the model with the numbers of tokens. Nothing is reserved, so another request may spend
    the amount before this one is sent. The library and the gateway reserve instead.
    """
    from batuta_cli.serve.money import format_usd, to_nano

    configuration = _config(ledger)
    request = (model, backend, input_tokens, max_output_tokens)
    if (estimate is None) == all(option is None for option in request):
        raise UsageError(
            "give either --estimate, or --model with --input-tokens and --max-output-tokens",
            hint="batuta serve budget check --estimate 0.42",
        )
    breaker = _breaker(configuration)
    try:
        if estimate is not None:
            cost = to_nano(estimate, "--estimate")
        elif model is None or input_tokens is None or max_output_tokens is None:
            raise UsageError(
                "give --model, --input-tokens and --max-output-tokens together",
                hint="batuta serve budget check --model gpt-4 --input-tokens 900 --max-output-tokens 100",
            )
        else:
            cost = _priced(configuration, model, backend, (input_tokens, max_output_tokens), allow_unpriced)
        breaker.check(_dollars(cost))
    except CostError as error:
        return console.CommandResult({"allowed": False, **(error.result or {})}, error=error)
    result: dict[str, Any] = {"allowed": True, "estimate_usd": format_usd(cost)}
    if not cost:
        return console.CommandResult(result, "allowed: it costs nothing")
    found = breaker.status()
    left = format_usd(found.remaining)
    keys = ("remaining_usd", "daily_budget_usd", "max_request_cost_usd", "resets_at")
    result |= {key: value for key, value in found.to_json().items() if key in keys}
    return console.CommandResult(
        result, f"allowed: ${format_usd(cost)} of the remaining ${left} of ${format_usd(found.daily_budget)}"
    )


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve budget record --cost 0.42 --model gpt-4 --backend OpenAI",
        "batuta serve budget record --model claude-3-haiku --backend Anthropic --input-tokens 900 --output-tokens 120",
    ),
)
def record(
    cost: Annotated[str | None, typer.Option("--cost", metavar="USD", help="The cost, such as 0.42.")] = None,
    model: _Model = None,
    backend: _Backend = None,
    input_tokens: _Input = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", metavar="N", min=0, help="Tokens of the response.")
    ] = None,
    allow_unpriced: _Unpriced = False,
    ledger: LedgerOption = None,
) -> console.CommandResult:
    """Record the cost of a request, as an amount or as tokens. It may exceed the budget; then the next check refuses.

    An amount such as 0.42 or 1e-05 is rounded up to a whole nano-dollar.
    """
    from batuta_cli.serve.money import format_usd, to_nano

    configuration = _config(ledger)
    tokens = (input_tokens or 0, output_tokens or 0)
    if cost is not None:
        spent = to_nano(cost, "--cost")
    elif model is None or input_tokens is None or output_tokens is None:
        raise UsageError(
            "give either --cost, or --model with --input-tokens and --output-tokens",
            hint="batuta serve budget record --cost 0.42",
        )
    else:
        spent = _priced(configuration, model, backend, tokens, allow_unpriced)
    breaker = _breaker(configuration)
    breaker.status()  # refuses another time zone than the ledger's, in which the cost would count on another day
    breaker.record(
        _dollars(spent),
        model=model,
        backend=_place_name(backend, configuration),
        input_tokens=tokens[0],
        output_tokens=tokens[1],
    )
    found = breaker.status()
    of = f"spent today: ${format_usd(found.spent)} of ${format_usd(found.daily_budget)}"
    return console.CommandResult(
        {"recorded_usd": format_usd(spent)} | found.to_json(), f"recorded ${format_usd(spent)}; {of}"
    )


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve budget history",
        "batuta serve budget history --days 7",
        "batuta serve budget history --by key",
        "batuta serve budget history --csv >spending.csv",
    ),
)
def history(
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=1, max=100_000, help="Number of days, today included.")
    ] = 30,
    by: Annotated[
        Literal["model", "key"],
        typer.Option("--by", help="model: a line for each model and backend. key: a line for each client key."),
    ] = "model",
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a line of headings, RFC 4180.")] = False,
    ledger: LedgerOption = None,
) -> console.CommandResult:
    """List the spending of each day by model and backend, or by client key, the newest day first.

    Forgiven spending is included.
    """
    from batuta_cli.serve.money import format_usd

    entries = _breaker(_config(ledger)).history(days)
    groups = {"model": ("model", "backend"), "key": ("client",)}[by]
    numbers = ("requests", "input_tokens", "output_tokens")
    sums: dict[tuple[str, ...], list[int]] = {}
    for entry in entries:
        counts = sums.setdefault((entry.day.isoformat(), *(getattr(entry, name) for name in groups)), [0, 0, 0, 0])
        for index, name in enumerate((*numbers, "cost")):
            counts[index] += getattr(entry, name)
    order = sorted(sorted(sums), key=lambda group: group[0], reverse=True)
    rows = [(*group, *map(str, sums[group][:3]), format_usd(sums[group][3])) for group in order]
    labels = {"model": ("model", "backend"), "key": ("key",)}[by]
    names = ("day", *labels, *numbers, "cost_usd")
    result = {
        "entries": [{n: int(v) if n in numbers else v for n, v in zip(names, row, strict=True)} for row in rows],
        "total_usd": format_usd(sum(entry.cost for entry in entries)),
    }
    if csv:
        return console.CommandResult(result, raw=_as_csv([names, *rows]))
    if not rows:
        console.note("no spending recorded")
        return console.CommandResult(result)
    totals = [str(sum(getattr(entry, name) for entry in entries)) for name in numbers]
    shown = [tuple(cell or "-" for cell in row) for row in rows]
    total = ("total", *("" for _ in labels), *totals, str(result["total_usd"]))
    headings = ("DAY", *map(str.upper, labels), "REQUESTS", "INPUT", "OUTPUT", "USD")
    return console.CommandResult(result, console.Table(headings, [*shown, total]))


def _as_csv(rows: list[tuple[str, ...]]) -> bytes:
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


@group.command(
    "set",
    cls=Command,
    epilog=examples(
        "batuta serve budget set --daily-budget 5.00 --max-request-cost 0.50",
        "batuta serve budget set --warning-threshold 0.5 --timezone Europe/Berlin",
    ),
)
def set_(
    daily_budget: Annotated[
        str | None, typer.Option("--daily-budget", metavar="USD", help="The limit of all requests of a day together.")
    ] = None,
    max_request_cost: Annotated[
        str | None, typer.Option("--max-request-cost", metavar="USD", help="The limit of one request.")
    ] = None,
    warning_threshold: Annotated[
        str | None,
        typer.Option(
            "--warning-threshold",
            metavar="PART",
            help="The part of the daily budget, from 0 to 1, at which one warning is sent.",
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone", metavar="ZONE", help="The time zone whose midnight begins a day, such as Europe/Berlin."
        ),
    ] = None,
    ledger: LedgerOption = None,
) -> console.CommandResult:
    """Write the limits to the configuration file: all of them, or none when one is invalid.

    --timezone changes the ledger too, from the next day on; today ends when it has ended in both time zones. A running
    gateway refuses paid requests from the next day on, until it is restarted.
    """
    from batuta_cli import config

    given = {
        "daily_budget_usd": daily_budget,
        "max_request_cost_usd": max_request_cost,
        "warning_threshold": warning_threshold,
        "timezone": timezone,
    }
    values = {f"budget.{key}": value for key, value in given.items() if value is not None}
    if not values:
        raise UsageError(
            "no limit was given", hint="batuta serve budget set --daily-budget 5.00 --max-request-cost 0.50"
        )
    config.check_values(values)
    changes, note = (config.set_values(values), None) if timezone is None else _rezoned(values, timezone, ledger)
    for change in changes:
        if change.overridden_by:
            console.warn(f"the environment variable {change.overridden_by} overrides it")
    if any(change.comments_lost for change in changes):
        console.warn("the comments of the file were lost, because it was written again as a whole")
    warn_of_new_limits()
    if note:
        console.note(note)
    lines = [f"{change.entry.key} = {change.entry.literal}  ({change.entry.origin})" for change in changes]
    return console.CommandResult({change.entry.path[-1]: change.entry.plain for change in changes}, "\n".join(lines))


def _rezoned(values: dict[str, str], timezone: str, ledger: str | None) -> "tuple[list[Change], str | None]":
    """Change the time zone of the ledger and the configuration, or neither."""
    from batuta_cli import config

    settings = with_ledger(config.load(), ledger)
    if settings.budget.ledger == "memory:":
        return config.set_values(values), None
    breaker = _breaker(settings)
    done = breaker.change_timezone(timezone)
    try:
        changes = config.set_values(values)
    except BaseException:
        breaker.change_timezone(done.before)
        raise
    if done.next_zone is None:
        return changes, None
    return changes, (
        f"the ledger counts today in {done.zone}, and in {done.next_zone} after today has ended in both time zones;"
        " restart a running gateway before that"
    )


@group.command(cls=Command, epilog=examples("batuta serve budget reset", "batuta serve budget reset --yes"))
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    ledger: LedgerOption = None,
) -> console.CommandResult:
    """Forgive today's spending, so that the whole budget is available again.

    The history keeps the spending, and running requests keep their reservations. Also repairs a ledger that is ahead of
    the clock, after the clock was set wrong: later days become today. Creates a new, empty ledger when the ledger's
    file is missing.
    """
    from batuta_cli.serve.money import format_usd

    breaker = _breaker(_config(ledger))
    try:
        found = breaker.status()
    except OtherLedgerError:
        return _use_other(breaker, yes)
    except MissingLedgerError:
        return _begin_anew(breaker, yes)
    if not found.spent and not found.ahead:
        return console.CommandResult(_reset(found.day.isoformat(), "0.00", []), "no spending today")
    what = f"forgive the ${format_usd(found.spent)} spent on {found.day}" + (", which becomes today" * found.ahead)
    if not yes and not console.confirm(f"{what}?", hint="--yes answers it"):
        raise OperationError("nothing was changed")
    done = breaker.reset()
    moved = [day.isoformat() for day in done.moved]
    text = f"forgave ${format_usd(done.forgiven)}; the whole budget of the day is available again"
    if moved:
        text += f"\n{', '.join(moved)} count as {done.day} from now on"
    return console.CommandResult(_reset(done.day.isoformat(), format_usd(done.forgiven), moved), text)


def _begin_anew(breaker: "CostCircuitBreaker", yes: bool) -> console.CommandResult:
    """Create a new ledger in place of a missing one."""
    question = "the ledger is missing, with today's spending and the history; create a new, empty one?"
    if not yes and not console.confirm(question, hint="--yes answers it"):
        raise OperationError("nothing was changed")
    done = breaker.reset()
    text = "created a new, empty ledger; restart a running gateway, so that it uses the new one"
    return console.CommandResult(_reset(done.day.isoformat(), "0.00", []), text)


def _use_other(breaker: "CostCircuitBreaker", yes: bool) -> console.CommandResult:
    """Use a ledger in Redis that is not the one that was used here."""
    from batuta_cli.serve.money import format_usd

    question = "the ledger is not the one that was used here; use it, and forgive the spending of the day in it?"
    if not yes and not console.confirm(question, hint="--yes answers it"):
        raise OperationError("nothing was changed")
    done = breaker.reset()
    text = f"uses this ledger, and forgave ${format_usd(done.forgiven)}; restart a gateway that still refuses it"
    moved = [day.isoformat() for day in done.moved]
    return console.CommandResult(_reset(done.day.isoformat(), format_usd(done.forgiven), moved), text)


def _reset(day: str, forgiven: str, moved: list[str]) -> dict[str, Any]:
    return {"day": day, "forgiven_usd": forgiven, "moved_days": moved}


def _config(ledger: str | None) -> "Config":
    return require_file(load_config(ledger))


def _breaker(configuration: "Config") -> "CostCircuitBreaker":
    from batuta_cli.serve.budget.breaker import CostCircuitBreaker

    return CostCircuitBreaker.from_config(
        configuration.budget, configuration.redis, on_alert=lambda alert: console.warn(alert.message)
    )


def _dollars(nano: int) -> "Decimal":
    from batuta_cli.serve.money import to_usd

    return to_usd(nano)


def _place_name(backend: str | None, configuration: "Config") -> str | None:
    from batuta_cli.serve.routing.request_price import backend_named

    return None if backend is None else backend_named(backend, configuration).name


def _priced(
    configuration: "Config", model: str, backend: str | None, tokens: tuple[int, int], allow_unpriced: bool
) -> int:
    """The price of the tokens in nano-dollars."""
    from batuta_cli.serve.routing.request_price import backend_named, price_at

    place = None if backend is None else backend_named(backend, configuration)
    try:
        return price_at(model, place, configuration).cost(*tokens)
    except UnknownPriceError as error:
        if not allow_unpriced:
            raise
        console.warn(f"{error.message}; it is counted as free")
        return 0
