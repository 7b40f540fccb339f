"""The tables of the configuration: every key once, with its kind, its default and what it is for.

All the rest follows from here: what a file may say and `batuta config set` takes, the environment variables, and the
documented file that `batuta config init` writes. A new key is one field; it needs nothing else.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Annotated, Any, Literal

from batuta_cli.config.kinds import (
    BaseUrl,
    Boolean,
    EnvName,
    Fraction,
    IdentityKind,
    Integer,
    LedgerUrlKind,
    Line,
    Money,
    Names,
    Network,
    NetworksKind,
    OneOf,
    OptionalMoney,
    Origins,
    TimeZone,
    ValueKind,
)

Tier = Literal["standard", "private", "sovereign"]
Durability = Literal["normal", "full"]


@dataclass(frozen=True)
class Key:
    """What a field of a table may be, and what it is for."""

    kind: ValueKind[Any]
    doc: str


@dataclass(frozen=True)
class PachaSection:
    """`[pacha]`: signing and verifying."""

    allow_pacha1: Annotated[
        bool,
        Key(
            Boolean(),
            "Whether `pacha verify` accepts the .sig files of the Rust crate. They bind the content alone:\n"
            "name, signer and time in them are claims that nobody signed.",
        ),
    ] = False
    default_key: Annotated[
        str, Key(IdentityKind(), "Whose key `pacha sign` uses when there are several and none is named.")
    ] = ""


@dataclass(frozen=True)
class Budget:
    """`[budget]`: what requests may cost."""

    daily_budget_usd: Annotated[Decimal, Key(Money(), "US dollars to spend in a day, all requests together.")] = (
        Decimal("10.00")
    )
    warning_threshold: Annotated[
        float, Key(Fraction(), "The part of the daily budget, from 0 to 1, at which one warning is given.")
    ] = 0.8
    max_request_cost_usd: Annotated[Decimal, Key(Money(), "US dollars that a single request may cost.")] = Decimal(
        "1.00"
    )
    timezone: Annotated[
        str,
        Key(
            TimeZone(),
            "The time zone whose midnight begins a day, such as Europe/Berlin.\n"
            "Change it with `batuta serve budget set --timezone`, which changes the ledger too.",
        ),
    ] = "UTC"
    ledger: Annotated[
        str,
        Key(
            LedgerUrlKind(),
            "Where spending is kept: sqlite (this user's file), sqlite:////absolute/path, sqlite:///relative/path\n"
            "(relative to the current directory), or memory: (each process keeps its own and forgets it when it ends).",
        ),
    ] = "sqlite"
    durability: Annotated[
        Durability,
        Key(
            OneOf(("normal", "full")),
            "What the sqlite ledger survives: normal, that processes are killed; full, a power cut as well,\n"
            "at several times the cost of each request.",
        ),
    ] = "normal"


@dataclass(frozen=True)
class Privacy:
    """`[privacy]`: where requests may go."""

    tier: Annotated[
        Tier,
        Key(
            OneOf(("standard", "private", "sovereign")),
            "How far a request may go when it does not say so itself: sovereign (this machine and\n"
            "local_networks), private (these, private_networks, and the private clouds) or standard (anywhere).",
        ),
    ] = "standard"
    local_networks: Annotated[
        tuple[Network, ...],
        Key(NetworksKind(), 'Networks that count as local, such as ["10.1.0.0/16"]. The loopback always does.'),
    ] = ()
    private_networks: Annotated[
        tuple[Network, ...], Key(NetworksKind(), "NetworksKind that count as private, in addition to the local ones.")
    ] = ()


@dataclass(frozen=True)
class Router:
    """`[router]`: when to leave the local backend."""

    spillover_threshold: Annotated[
        int, Key(Integer(0, 1_000_000), "Queue depth of the local backend from which requests go to another one.")
    ] = 10
    max_queue_depth: Annotated[
        int, Key(Integer(1, 1_000_000), "Queue depth from which a backend takes no further request.")
    ] = 50
    local_backend: Annotated[
        str, Key(Line("a backend"), "The backend that requests go to first. Empty: the first local one that serves.")
    ] = ""
    spillover_backends: Annotated[
        tuple[str, ...],
        Key(Names("backends"), "Where requests go when it is busy, in this order. Empty: as the tier recommends."),
    ] = ()
    spillover_enabled: Annotated[bool, Key(Boolean(), "Whether requests may leave the local backend at all.")] = True


@dataclass(frozen=True)
class Net:
    """`[network]`: how requests reach what is beyond this machine."""

    proxy: Annotated[
        str,
        Key(
            BaseUrl(),
            "An HTTP proxy for requests of the standard tier, such as http://proxy.example:3128.\n"
            "Proxy variables of the environment are ignored.",
        ),
    ] = ""


@dataclass(frozen=True)
class GatewaySection:
    """`[gateway]`: the server that `batuta serve gateway` runs."""

    host: Annotated[
        str,
        Key(Line("a host"), "Where it listens. Beyond the loopback it starts only when there are client keys."),
    ] = "127.0.0.1"
    port: Annotated[int, Key(Integer(0, 65535), "The port; 0 for any that is free.")] = 8484
    workers: Annotated[int, Key(Integer(1, 64), "Processes that share the port.")] = 1
    origins: Annotated[
        tuple[str, ...],
        Key(Origins(), 'Web pages that may use it, such as ["http://localhost:3000"]; all others are refused.'),
    ] = ()
    max_body_bytes: Annotated[int, Key(Integer(1024, 1 << 30), "Largest body of one request, in bytes.")] = (
        32 * 1024 * 1024
    )
    max_bodies_bytes: Annotated[
        int,
        Key(Integer(1024, 1 << 40), "Largest sum of the bodies of all requests in progress in one process, in bytes."),
    ] = 256 * 1024 * 1024
    max_connections: Annotated[
        int, Key(Integer(1, 1_000_000), "Connections of one process; a further one closes an idle one or gets 429.")
    ] = 1000
    client_seconds: Annotated[
        int, Key(Integer(1, 3600), "Seconds a client may take to send a request, or to take a part of an answer.")
    ] = 60
    drain_seconds: Annotated[
        int, Key(Integer(0, 3600), "Seconds that answers under way have to finish when it is told to stop.")
    ] = 30


@dataclass(frozen=True)
class BackendSection:
    """`[backends.NAME]`: one server that runs models."""

    profile: Annotated[
        str,
        Key(Line("a backend"), "Which of the known backends it is, such as vllm. Empty: the one of that NAME."),
    ] = ""
    base_url: Annotated[
        str, Key(BaseUrl(), "Address of its API, such as http://127.0.0.1:8080/v1. Empty: the usual one of that NAME.")
    ] = ""
    models: Annotated[tuple[str, ...], Key(Names(), "Models it serves. Empty: whatever it says it has.")] = ()
    api_key_env: Annotated[
        str, Key(EnvName(), "Environment variable that holds its API key. The key itself is never in this file.")
    ] = ""


@dataclass(frozen=True)
class ModelSection:
    """`[models."NAME"]`: what batuta cannot know of a model by itself."""

    context_window: Annotated[
        int, Key(Integer(0, 1_000_000_000), "Tokens that prompt and answer have together. 0: as the tables know.")
    ] = 0
    output_reserve: Annotated[
        int, Key(Integer(0, 1_000_000_000), "Tokens of it that are kept for the answer. 0: as the tables know.")
    ] = 0
    input_usd_per_million: Annotated[
        Decimal | None, Key(OptionalMoney(), "US dollars for a million tokens of prompt. Empty: as the tables know.")
    ] = None
    output_usd_per_million: Annotated[
        Decimal | None, Key(OptionalMoney(), "US dollars for a million tokens of answer. Empty: as the tables know.")
    ] = None
    cached_input_usd_per_million: Annotated[
        Decimal | None,
        Key(OptionalMoney(), "US dollars for a million prompt tokens read from a cache. Empty: the price of input."),
    ] = None
    cache_write_usd_per_million: Annotated[
        Decimal | None,
        Key(OptionalMoney(), "The same for tokens written to a cache. Empty: 1.25 times the price of input."),
    ] = None
    cache_write_1h_usd_per_million: Annotated[
        Decimal | None,
        Key(OptionalMoney(), "The same for tokens written for an hour. Empty: twice the price of input."),
    ] = None
    reasoning_usd_per_million: Annotated[
        Decimal | None,
        Key(OptionalMoney(), "The same for tokens of reasoning. Empty: the price of output."),
    ] = None
    template: Annotated[
        str, Key(Line("a format"), "Its chat template, such as llama3; see batuta serve template --list.")
    ] = ""
    tokenizer: Annotated[
        str, Key(Line("a path"), "A GGUF file, a tokenizer.json or a directory that has its tokenizer.")
    ] = ""


@dataclass(frozen=True)
class Setting:
    """One key of a table."""

    table: str
    name: str
    kind: ValueKind[Any]
    doc: str
    default: Any


def _settings(table: str, declared: type) -> dict[str, Setting]:
    found = {}
    for field in fields(declared):
        key: Key = field.type.__metadata__[0]  # type: ignore[union-attr]
        found[field.name] = Setting(table, field.name, key.kind, key.doc, field.default)
    return found


@dataclass(frozen=True)
class Naming:
    """How the tables within a table are named, which is up to the user."""

    one: str
    """What one of them is called."""
    pattern: re.Pattern[str]
    rule: str
    example: str


BACKENDS = "backends"
MODELS = "models"

NAMED = {
    BACKENDS: Naming(
        "backend",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"),
        "has letters, digits, - and _, at most 64",
        "[backends.llamacpp]",
    ),
    MODELS: Naming(
        "model",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}"),
        "has letters, digits and . _ : / @ + -, at most 200",
        '[models."llama-3.3-70b"]',
    ),
}
"""The tables whose keys are tables of the user's own naming."""

TABLES: dict[str, type] = {
    "pacha": PachaSection,
    "budget": Budget,
    "privacy": Privacy,
    "router": Router,
    "network": Net,
    "gateway": GatewaySection,
    BACKENDS: BackendSection,
    MODELS: ModelSection,
}
"""Every table and the dataclass it becomes."""

SETTINGS: dict[str, dict[str, Setting]] = {table: _settings(table, declared) for table, declared in TABLES.items()}
"""Every key, by table and name; those of `NAMED` tables hold for each table within."""

TABLE_DOCS = {
    "pacha": "Signing and verifying: batuta pacha.",
    "budget": "What requests may cost.",
    "privacy": "Where requests may go.",
    "router": "When to leave the local backend for another one.",
    "network": "How requests reach what is beyond this machine.",
    "gateway": "The server that batuta serve gateway runs.",
    BACKENDS: "Servers that run models, one table each, under a name of your own.",
    MODELS: "What batuta does not know of a model, one table each; its name in quotes.",
}


def is_name(table: str, name: str) -> bool:
    """Whether a table within `table` may be called so."""
    return NAMED[table].pattern.fullmatch(name) is not None


def find(path: Sequence[str]) -> Setting | None:
    """The setting that a key's path means: (table, key), or (table, name, key) where the table is one of `NAMED`."""
    if len(path) == 2 and path[0] not in NAMED:
        return SETTINGS.get(path[0], {}).get(path[1])
    if len(path) == 3 and path[0] in NAMED and is_name(path[0], path[1]):
        return SETTINGS[path[0]].get(path[2])
    return None


def split(key: str) -> tuple[str, ...]:
    """The path of a key as it is written in one word: `table.key`, `models.llama-3.3-70b.context_window`."""
    table, _, rest = key.partition(".")
    if table in NAMED and rest.count(".") > 1:
        name, _, last = rest.rpartition(".")
        return table, name, last
    return tuple(key.split("."))


def variable(path: Sequence[str]) -> str:
    """The environment variable that overrides a key."""
    return re.sub(r"[^A-Z0-9_]", "_", "_".join(("BATUTA", *path)).upper())
