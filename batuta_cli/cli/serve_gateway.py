"""`batuta serve gateway`: the server for OpenAI's and Anthropic's clients."""

from typing import TYPE_CHECKING, Annotated

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.ledger_option import LedgerOption, SetOption, load_config
from batuta_cli.errors import LedgerError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.config import Config

commands = typer.Typer()

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta serve gateway",
        "batuta serve gateway --port 0",
        "batuta serve keys create laptop && batuta serve gateway --host 0.0.0.0 --workers 2",
    ),
)
def gateway(
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Where to listen [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", min=0, max=65535, help="[8484]; 0: any free one.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=64, help="Processes that share the port [1].")
    ] = None,
    ledger: LedgerOption = None,
    overrides: SetOption = None,
) -> console.CommandResult | int:
    """Answer OpenAI's and Anthropic's clients over HTTP, within privacy and budget.

    Point a client's base URL at http://127.0.0.1:8484/v1 (OpenAI) or http://127.0.0.1:8484 (Anthropic). Without a
    client key only this machine is served. SIGTERM lets answers under way finish. The log goes to stderr, one JSON
    object a line; its line "listening" has the address.
    """
    import signal

    from batuta_cli.serve import gateway as package

    package.check_dependencies()
    from batuta_cli.serve.gateway import keys, server

    settings = load_config(ledger, overrides)
    table = settings.gateway
    host = host or table.host or "127.0.0.1"
    port = table.port if port is None else port
    entries = keys.load()  # also for the loopback: a list that cannot be relied upon refuses every request
    if not server.is_loopback(host) and not any(entry.revoked is None for entry in entries):
        raise UsageError(
            f"{display(host)} can be reached from other machines, and there is no client key",
            hint="batuta serve keys create NAME, then start it again",
        )
    processes = workers or table.workers
    if settings.budget.ledger == "memory:" and processes > 1:
        raise UsageError(
            f"the ledger is memory:, and each of {processes} workers would have a budget of its own",
            hint="--workers 1, or a ledger that they share: --ledger sqlite",
        )
    _warn_of_ledger(settings)
    listener = server.bind(host, port)
    url = server.url_of(listener)
    hosting = server.Hosting(
        workers=processes,
        drain_seconds=table.drain_seconds,
        client_seconds=table.client_seconds,
        quiet=console.settings.quiet,
    )
    number = server.serve(lambda log: package.application(settings, log=log), listener, hosting)
    if number == signal.SIGINT:
        return _INTERRUPTED
    return console.CommandResult({"url": url, "ended_by": signal.Signals(number).name})


def _warn_of_ledger(settings: "Config") -> None:
    """Say at the start what would else be said by the first paid request. Free requests are served all the same."""
    from batuta_cli.serve.budget.breaker import CostCircuitBreaker

    breaker = CostCircuitBreaker.from_config(settings.budget)
    try:
        breaker.status()
    except LedgerError as error:
        console.warn(f"requests that cost money are refused: {error.message}\nhint: {error.hint}")
    finally:
        breaker.ledger.close()
