"""`batuta serve keys`: the client keys of the gateway."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.cli.ledger_option import LedgerOption, load_config
from batuta_cli.errors import LedgerError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    import datetime as dt

    from batuta_cli.serve.budget.breaker import ClientStatus
    from batuta_cli.serve.gateway.keys import ClientKey

group = command_group("keys", "Create, list and revoke the client keys of the gateway.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")]


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve keys create laptop",
        "KEY=$(batuta serve keys create ci)",
        "batuta serve keys create prometheus --admin",
        "batuta serve keys create team --daily-budget 5.00",
        "batuta serve keys create app --requests-per-minute 60 --concurrent 4 --expires 90d",
        "batuta serve keys create research --privacy private --models 'qwen*,llama-3*'",
    ),
)
def create(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="Also allow /metrics from other machines.")] = False,
    daily_budget: Annotated[
        str | None,
        typer.Option("--daily-budget", metavar="USD", help="What its requests of a day may cost together."),
    ] = None,
    privacy: Annotated[
        str | None,
        typer.Option(
            "--privacy", metavar="TIER", help="The loosest tier of its requests: sovereign, private, standard."
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--models", metavar="GLOB", help="Models that it may use, such as 'qwen*'; may be repeated."),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", metavar="N", help="Requests that it may send in a minute.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", metavar="N", help="Requests that it may have at a time.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="Its lifetime, such as 12h, 90d or 4w.")
    ] = None,
) -> console.CommandResult:
    """Create a client key and print it once; only its SHA-256 is stored.

    From the first key on, every request to the gateway needs one, also after all keys are revoked. The limits hold for
    all workers of a gateway together, the daily budget for all users of the ledger. It counts by the name of the key,
    and the budget of the day limits it too. To change a limit, revoke the key and create another one.
    """
    from batuta_cli.serve.gateway import key_limits, keys
    from batuta_cli.serve.money import to_nano
    from batuta_cli.serve.tiers import PrivacyTier

    if console.settings.quiet and not console.settings.json:
        raise UsageError("--quiet would hide the key, which is shown only once", hint="run the command without --quiet")
    limits = key_limits.KeyLimits(
        expires=None if expires is None else key_limits.expiry_after(expires, keys.now()),
        privacy=None if privacy is None else PrivacyTier.parse(privacy),
        models=key_limits.patterns_of(models or ()),
        requests_per_minute=requests_per_minute,
        concurrent=concurrent,
        daily_budget=None if daily_budget is None else to_nano(daily_budget, "--daily-budget"),
    )
    key, entry = keys.create(name, admin=admin, limits=limits)
    console.note(
        f"the key {display(name)} is shown only once; clients send it as Authorization: Bearer KEY or x-api-key: KEY"
    )
    return console.CommandResult(_entry(entry) | {"key": key}, raw=key.encode() + b"\n")


@group.command("list", cls=Command, epilog=examples("batuta serve keys list", "batuta serve keys list --json"))
def list_keys(ledger: LedgerOption = None) -> console.CommandResult:
    """List the client keys with their limits and today's spending, including revoked and expired keys.

    Keys of one name share their spending. A ledger that cannot be read is a warning.
    """
    from batuta_cli.serve.gateway import keys

    entries = keys.load()
    if not entries:
        console.note(
            "there are no client keys: only the loopback is served. To create one: batuta serve keys create NAME"
        )
    spending = _spending(entries, ledger)
    rows = [
        (
            e.name,
            _time(e.created) or "",
            _state(e),
            "admin" if e.admin else "models",
            e.sha256[:12],
            _today(spending.get(e.sha256)),
            _limits(e),
        )
        for e in entries
    ]
    found = [_entry(e) | {"today": status.to_json() if (status := spending.get(e.sha256)) else None} for e in entries]
    return console.CommandResult(
        found, console.Table(("NAME", "CREATED", "STATE", "SCOPE", "SHA-256", "TODAY", "LIMITS"), rows)
    )


@group.command(cls=Command, epilog=examples("batuta serve keys revoke laptop"))
def revoke(name: Name) -> console.CommandResult:
    """Revoke a client key; a running gateway refuses it from the next request on."""
    from batuta_cli.serve.gateway import keys

    entry = keys.revoke(name)
    return console.CommandResult(_entry(entry), f"revoked the key {display(name)}")


def _state(entry: "ClientKey") -> str:
    from batuta_cli.serve.gateway import keys

    if entry.revoked:
        return f"revoked {_time(entry.revoked)}"
    return "active" if entry.active(keys.now()) else "expired"


def _spending(entries: "tuple[ClientKey, ...]", ledger: str | None) -> "dict[str, ClientStatus]":
    """What the keys that are not revoked have spent today, by SHA-256; empty when the ledger cannot be read."""
    from batuta_cli.serve.budget.breaker import CostCircuitBreaker

    accounts = {entry.sha256: entry.limits.account(entry.name) for entry in entries if entry.revoked is None}
    if not accounts:
        return {}
    settings = load_config(ledger)
    breaker = CostCircuitBreaker.from_config(settings.budget, settings.redis)
    try:
        found = {sha256: breaker.status(account).client for sha256, account in accounts.items()}
    except LedgerError as error:
        console.warn(f"the spending is not known: {error.message}")
        return {}
    return {sha256: status for sha256, status in found.items() if status is not None}


def _today(status: "ClientStatus | None") -> str:
    from batuta_cli.serve.money import format_usd

    return "-" if status is None else f"${format_usd(status.spent)}"


def _limits(entry: "ClientKey") -> str:
    from batuta_cli.serve.money import format_usd

    limits = entry.limits
    shown = (
        f"until {_time(limits.expires)}" if limits.expires else "",
        str(limits.privacy or ""),
        "models " + " ".join(map(display, limits.models)) if limits.models else "",
        "" if limits.daily_budget is None else f"${format_usd(limits.daily_budget)} a day",
        f"{limits.requests_per_minute} a minute" if limits.requests_per_minute else "",
        f"{limits.concurrent} at a time" if limits.concurrent else "",
    )
    return ", ".join(filter(None, shown)) or "-"


def _entry(entry: "ClientKey") -> dict[str, Any]:
    from batuta_cli.serve.money import format_usd

    budget = entry.limits.daily_budget
    return {
        "name": entry.name,
        "sha256": entry.sha256,
        "created": _time(entry.created),
        "revoked": _time(entry.revoked),
        "admin": entry.admin,
        "expires": _time(entry.limits.expires),
        "privacy": entry.limits.privacy,
        "models": list(entry.limits.models),
        "requests_per_minute": entry.limits.requests_per_minute,
        "concurrent": entry.limits.concurrent,
        "daily_budget_usd": None if budget is None else format_usd(budget),
    }


def _time(time: "dt.datetime | None") -> str | None:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else None
