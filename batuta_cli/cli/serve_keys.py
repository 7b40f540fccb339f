"""`batuta serve keys`: the client keys of the gateway."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.errors import UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    import datetime as dt

    from batuta_cli.serve.gateway.keys import ClientKey

group = command_group("keys", "Create, list and revoke the client keys of the gateway.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")]


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve keys create laptop",
        "KEY=$(batuta serve keys create ci)",
        "batuta serve keys create prometheus --admin",
        "batuta serve keys create app --requests-per-minute 60 --concurrent 4 --expires 90d",
        "batuta serve keys create research --privacy private --models 'qwen*,llama-3*'",
    ),
)
def create(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="Also allow /metrics from other machines.")] = False,
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
    all workers of a gateway together. To change them, revoke the key and create another one.
    """
    from batuta_cli.serve.gateway import key_limits, keys
    from batuta_cli.serve.tiers import PrivacyTier

    if console.settings.quiet and not console.settings.json:
        raise UsageError("--quiet would hide the key, which is shown only once", hint="run the command without --quiet")
    limits = key_limits.KeyLimits(
        expires=None if expires is None else key_limits.expiry_after(expires, keys.now()),
        privacy=None if privacy is None else PrivacyTier.parse(privacy),
        models=key_limits.patterns_of(models or ()),
        requests_per_minute=requests_per_minute,
        concurrent=concurrent,
    )
    key, entry = keys.create(name, admin=admin, limits=limits)
    console.note(
        f"the key {display(name)} is shown only once; clients send it as Authorization: Bearer KEY or x-api-key: KEY"
    )
    return console.CommandResult(_entry(entry) | {"key": key}, raw=key.encode() + b"\n")


@group.command("list", cls=Command, epilog=examples("batuta serve keys list", "batuta serve keys list --json"))
def list_keys() -> console.CommandResult:
    """List the client keys with their limits, including revoked and expired ones."""
    from batuta_cli.serve.gateway import keys

    entries = keys.load()
    if not entries:
        console.note(
            "there are no client keys: only the loopback is served. To create one: batuta serve keys create NAME"
        )
    rows = [
        (e.name, _time(e.created) or "", _state(e), "admin" if e.admin else "models", e.sha256[:12], _limits(e))
        for e in entries
    ]
    return console.CommandResult(
        [_entry(e) for e in entries], console.Table(("NAME", "CREATED", "STATE", "SCOPE", "SHA-256", "LIMITS"), rows)
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


def _limits(entry: "ClientKey") -> str:
    limits = entry.limits
    shown = (
        limits.expires and f"until {_time(limits.expires)}",
        limits.privacy and str(limits.privacy),
        limits.models and "models " + " ".join(map(display, limits.models)),
        limits.requests_per_minute and f"{limits.requests_per_minute} a minute",
        limits.concurrent and f"{limits.concurrent} at a time",
    )
    return ", ".join(filter(None, shown)) or "-"


def _entry(entry: "ClientKey") -> dict[str, Any]:
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
    }


def _time(time: "dt.datetime | None") -> str | None:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else None
