"""The options `--ledger` and `--set`, and the configuration that commands load with them."""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from batuta_cli.cli import console
from batuta_cli.errors import UsageError

if TYPE_CHECKING:
    from batuta_cli.config import Config

LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL",
        help="The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory,"
        " redis://host:6379/0, rediss://host:6379/0 or memory:.",
    ),
]


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the configuration, such as timeouts.first_token=300.",
    ),
]


def load_config(ledger: str | None = None, overrides: list[str] | None = None) -> "Config":
    """The configuration with `--ledger` and `--set` applied; warns of limits that contradict each other.

    Raises `ConfigError`, and `UsageError` for an invalid ledger URL, without repeating it.
    """
    from batuta_cli import config

    found = with_ledger(config.load(overrides=overrides or ()), ledger)
    warn_of_limits(found)
    return found


def warn_of_limits(found: "Config") -> None:
    """Warn of limits that contradict each other."""
    for warning in found.warnings:
        console.warn(warning)


def with_ledger(found: "Config", ledger: str | None) -> "Config":
    """The configuration with the ledger of `--ledger`. Raises `UsageError`, which does not repeat the URL."""
    from batuta_cli.config.ledger_url import LedgerUrlError, parse_ledger_url

    if ledger is None:
        return found
    try:
        parse_ledger_url(ledger)
    except LedgerUrlError as refused:
        raise UsageError(f"--ledger: {refused}", hint=refused.hint) from None
    return replace(found, budget=replace(found.budget, ledger=ledger))


def warn_of_new_limits() -> None:
    """As `warn_of_limits`, after a change of the file; ignores errors of the environment."""
    from batuta_cli import config
    from batuta_cli.errors import ConfigError

    with contextlib.suppress(ConfigError):
        warn_of_limits(config.load())


def require_file(settings: "Config") -> "Config":
    """The configuration, if its ledger is a file. Raises `UsageError` for `memory:`."""
    if settings.budget.ledger == "memory:":
        raise UsageError(
            "the ledger is memory:, which is lost when this command ends",
            hint="use a file: --ledger sqlite, or --ledger sqlite:////absolute/path",
        )
    return settings
