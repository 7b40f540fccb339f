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
    ),
)
def create(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="Also allow /metrics from other machines.")] = False,
) -> console.CommandResult:
    """Create a client key and print it once; only its SHA-256 is stored.

    From the first key on, every request to the gateway needs one, also after all keys are revoked.
    """
    from batuta_cli.serve.gateway import keys

    if console.settings.quiet and not console.settings.json:
        raise UsageError("--quiet would hide the key, which is shown only once", hint="run the command without --quiet")
    key, entry = keys.create(name, admin=admin)
    console.note(
        f"the key {display(name)} is shown only once; clients send it as Authorization: Bearer KEY or x-api-key: KEY"
    )
    return console.CommandResult(_entry(entry) | {"key": key}, raw=key.encode() + b"\n")


@group.command("list", cls=Command, epilog=examples("batuta serve keys list", "batuta serve keys list --json"))
def list_keys() -> console.CommandResult:
    """List the client keys, including revoked ones."""
    from batuta_cli.serve.gateway import keys

    entries = keys.load()
    if not entries:
        console.note(
            "there are no client keys: only the loopback is served. To create one: batuta serve keys create NAME"
        )
    rows = [
        (e.name, _time(e.created) or "", _state(e), "admin" if e.admin else "models", e.sha256[:12]) for e in entries
    ]
    return console.CommandResult(
        [_entry(e) for e in entries], console.Table(("NAME", "CREATED", "STATE", "SCOPE", "SHA-256"), rows)
    )


@group.command(cls=Command, epilog=examples("batuta serve keys revoke laptop"))
def revoke(name: Name) -> console.CommandResult:
    """Revoke a client key; a running gateway refuses it from the next request on."""
    from batuta_cli.serve.gateway import keys

    entry = keys.revoke(name)
    return console.CommandResult(_entry(entry), f"revoked the key {display(name)}")


def _state(entry: "ClientKey") -> str:
    return f"revoked {_time(entry.revoked)}" if entry.revoked else "active"


def _entry(entry: "ClientKey") -> dict[str, Any]:
    return {
        "name": entry.name,
        "sha256": entry.sha256,
        "created": _time(entry.created),
        "revoked": _time(entry.revoked),
        "admin": entry.admin,
    }


def _time(time: "dt.datetime | None") -> str | None:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else None
