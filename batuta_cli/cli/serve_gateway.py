"""`batuta serve gateway`: start the HTTP server for clients of OpenAI, Anthropic and Ollama."""

from typing import TYPE_CHECKING, Annotated

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.ledger_option import LedgerOption, SetOption, load_config, with_ledger
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
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one [8484].")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=64, help="Number of processes that share the port [1].")
    ] = None,
    ledger: LedgerOption = None,
    overrides: SetOption = None,
) -> console.CommandResult | int:
    """Start an HTTP server for clients of OpenAI, Anthropic and Ollama, within the privacy tier and the budget.

    Set a client's base URL to http://127.0.0.1:8484/v1 (OpenAI) or http://127.0.0.1:8484 (Anthropic). Without a client
    key only this machine is served. SIGTERM waits for requests in progress; SIGHUP reloads the configuration. The log
    is JSON on stderr, one object per line; the line "listening" has the address.
    """
    import signal

    from batuta_cli import config as configuration
    from batuta_cli.serve import gateway as package

    package.check_dependencies()
    from batuta_cli.serve.gateway import keys, server

    settings = load_config(ledger, overrides)
    table = settings.gateway
    host = host or table.host or "127.0.0.1"
    port = table.port if port is None else port
    entries = keys.load()  # a damaged list is an error on the loopback too
    if not server.is_loopback(host) and not any(entry.active(keys.now()) for entry in entries):
        raise UsageError(
            f"{display(host)} can be reached from other machines, and there is no active client key",
            hint="create one first: batuta serve keys create NAME",
        )
    processes = workers or table.workers
    if settings.budget.ledger == "memory:" and processes > 1:
        raise UsageError(
            f"with the ledger memory: each of the {processes} workers would have its own budget",
            hint="use --workers 1, or a shared ledger: --ledger sqlite",
        )
    _warn_of_ledger(settings)
    listener = server.bind(host, port)
    url = server.url_of(listener)
    hosting = server.Hosting(
        workers=processes,
        drain_seconds=table.drain_seconds,
        client_seconds=table.client_seconds,
        connections=table.max_connections,
        quiet=console.settings.quiet,
    )

    def reload() -> "Config":
        return with_ledger(configuration.load(overrides=overrides or ()), ledger)

    number = server.serve(lambda log: package.application(settings, log=log, load=reload), listener, hosting)
    if number == signal.SIGINT:
        return _INTERRUPTED
    return console.CommandResult({"url": url, "ended_by": signal.Signals(number).name})


def _warn_of_ledger(settings: "Config") -> None:
    """Warn at the start when the ledger cannot be used. Requests that cost nothing are served all the same."""
    from batuta_cli.serve.budget.breaker import CostCircuitBreaker

    breaker = CostCircuitBreaker.from_config(settings.budget, settings.redis)
    try:
        breaker.status()
    except LedgerError as error:
        console.warn(f"requests that cost money are refused: {error.message}\nhint: {error.hint}")
    finally:
        breaker.ledger.close()
