"""The schema of the configuration: every key with its kind of value, default and documentation.

The checks of the file and of `batuta config set`, the environment variables, and the file of `batuta config init` are
derived from it. A new key is one field here.
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
    ModelName,
    Money,
    Names,
    Network,
    NetworksKind,
    OneOf,
    OptionalMoney,
    Origins,
    Seconds,
    TimeZone,
    ValueKind,
)

Tier = Literal["standard", "private", "sovereign"]
Durability = Literal["normal", "full"]
UnknownFields = Literal["pass", "refuse"]


@dataclass(frozen=True)
class Key:
    """The kind of value and the documentation of a key."""

    kind: ValueKind[Any]
    doc: str


@dataclass(frozen=True)
class PachaSection:
    """`[pacha]`: signing and verifying."""

    allow_pacha1: Annotated[
        bool,
        Key(
            Boolean(),
            "Whether `pacha verify` accepts the .sig files of the Rust crate. They sign the content only:\n"
            "the name, signer and time in them are unsigned claims.",
        ),
    ] = False
    default_key: Annotated[
        str,
        Key(IdentityKind(), "The identity whose key `pacha sign` uses when there are several keys and none is named."),
    ] = ""


@dataclass(frozen=True)
class Budget:
    """`[budget]`: limits of the cost of requests."""

    daily_budget_usd: Annotated[Decimal, Key(Money(), "US dollars that all requests of a day may cost together.")] = (
        Decimal("10.00")
    )
    warning_threshold: Annotated[
        float, Key(Fraction(), "The part of the daily budget, from 0 to 1, at which one warning is sent.")
    ] = 0.8
    max_request_cost_usd: Annotated[Decimal, Key(Money(), "US dollars that one request may cost.")] = Decimal("1.00")
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
            "The ledger that stores spending: sqlite (this user's file), sqlite:////absolute/path, sqlite:///relative/path\n"
            "(relative to the current directory), redis://host:6379/0 or rediss://host:6379/0 (for all gateways;\n"
            "see [redis]), or memory: (separate for each process, lost when it ends).",
        ),
    ] = "sqlite"
    reservation_wait: Annotated[
        float,
        Key(
            Seconds(0, 60),
            "Seconds that a request waits while running requests have reserved the rest of the daily budget.\n"
            "Then it is refused: HTTP 429 with Retry-After.",
        ),
    ] = 2.0
    allow_unbounded_tools: Annotated[
        bool,
        Key(
            Boolean(),
            "Whether a request to a backend that costs money may have hosted tools without max_uses, whose cost\n"
            "nothing bounds.",
        ),
    ] = False
    unknown_fields: Annotated[
        UnknownFields,
        Key(
            OneOf(("pass", "refuse")),
            "What happens to fields of a request that batuta does not know, at backends that cost money. pass: they\n"
            "are sent on, with a warning in the log. refuse: HTTP 402.",
        ),
    ] = "pass"
    durability: Annotated[
        Durability,
        Key(
            OneOf(("normal", "full")),
            "What the sqlite ledger survives. normal: killed processes. full: a power cut too; each request then\n"
            "takes several times as long.",
        ),
    ] = "normal"


@dataclass(frozen=True)
class Privacy:
    """`[privacy]`: the backends to which requests may be sent."""

    tier: Annotated[
        Tier,
        Key(
            OneOf(("standard", "private", "sovereign")),
            "The privacy tier of requests that name none: sovereign (this machine and local_networks),\n"
            "private (also private_networks and the private clouds) or standard (any backend).",
        ),
    ] = "standard"
    local_networks: Annotated[
        tuple[Network, ...],
        Key(NetworksKind(), 'Networks that count as local, such as ["10.1.0.0/16"]. The loopback is always local.'),
    ] = ()
    private_networks: Annotated[
        tuple[Network, ...], Key(NetworksKind(), "Networks that count as private, in addition to the local ones.")
    ] = ()


@dataclass(frozen=True)
class Router:
    """`[router]`: when requests leave the local backend."""

    spillover_threshold: Annotated[
        int, Key(Integer(0, 1_000_000), "Queue depth of the local backend at which requests go to another backend.")
    ] = 10
    max_queue_depth: Annotated[
        int, Key(Integer(1, 1_000_000), "Queue depth at which a backend gets no further request.")
    ] = 50
    local_backend: Annotated[
        str, Key(Line("a backend"), "The backend that is tried first. Empty: the first local backend that is ready.")
    ] = ""
    spillover_backends: Annotated[
        tuple[str, ...],
        Key(
            Names("backends"),
            "Backends for requests when the local one is busy, in this order. Empty: those recommended for the tier.",
        ),
    ] = ()
    spillover_enabled: Annotated[
        bool, Key(Boolean(), "Whether requests may be sent to other backends than the local one.")
    ] = True


@dataclass(frozen=True)
class TimeoutsSection:
    """`[timeouts]`: how long a request waits, in seconds."""

    connect: Annotated[float, Key(Seconds(0.1, 600), "Seconds to connect to a backend.")] = 5.0
    first_token: Annotated[
        float,
        Key(
            Seconds(1, 86_400),
            "Seconds from the request to the first token, or to the whole response when it is not streamed.\n"
            "A long prompt on a slow machine takes minutes.",
        ),
    ] = 120.0
    idle: Annotated[
        float, Key(Seconds(1, 86_400), "Seconds without data within a stream. A backend's pings count as data.")
    ] = 60.0
    total: Annotated[float, Key(Seconds(1, 604_800), "Seconds that one response takes at most.")] = 3600.0


@dataclass(frozen=True)
class FailoverSection:
    """`[failover]`: what follows a backend's failure."""

    max_retries: Annotated[
        int, Key(Integer(0, 100), "Backends that a request tries after the first one has failed.")
    ] = 2
    prompted: Annotated[
        bool,
        Key(
            Boolean(),
            "Whether a backend that cannot continue an interrupted response exactly may be asked to do so by an\n"
            "instruction in the prompt. The response is then marked as prompted.",
        ),
    ] = False
    cooldown: Annotated[
        float,
        Key(
            Seconds(0.01, 3600),
            "Seconds for which a failed backend gets no request; doubled with each failure in a row.",
        ),
    ] = 1.0
    max_cooldown: Annotated[float, Key(Seconds(0.01, 86_400), "The longest cooldown, in seconds.")] = 60.0
    max_retry_after: Annotated[
        float, Key(Seconds(0, 86_400), "The longest Retry-After of a backend that is obeyed, in seconds.")
    ] = 3600.0


@dataclass(frozen=True)
class AuditSection:
    """`[audit]`: the files of the audit log."""

    rotate_bytes: Annotated[
        int, Key(Integer(65_536, 1 << 40), "Size in bytes at which a process begins a new file of the audit log.")
    ] = 64 * 1024 * 1024
    rotate_hours: Annotated[
        int, Key(Integer(0, 87_600), "Age in hours at which a process begins a new file. 0: no limit of age.")
    ] = 24
    keep_bytes: Annotated[
        int,
        Key(
            Integer(0, 1 << 50),
            "Size in bytes of all files together; the oldest files above it are deleted. 0: no limit.\n"
            "`batuta serve audit verify` reports the deleted files, and still verifies the others.",
        ),
    ] = 0
    keep_days: Annotated[
        int, Key(Integer(0, 36_500), "Days after its last record at which a file is deleted. 0: never.")
    ] = 0


@dataclass(frozen=True)
class Net:
    """`[network]`: connections to other machines."""

    proxy: Annotated[
        str,
        Key(
            BaseUrl(),
            "An HTTP proxy for requests of the standard tier, such as http://proxy.example:3128.\n"
            "Proxy variables of the environment are ignored.",
        ),
    ] = ""


@dataclass(frozen=True)
class RedisSection:
    """`[redis]`: the Redis server of a ledger `redis://` or `rediss://`."""

    username: Annotated[str, Key(Line("a Redis user"), "The user; empty for the default user.")] = ""
    password_env: Annotated[str, Key(EnvName(), "The environment variable that contains the password.")] = ""
    ca_file: Annotated[
        str,
        Key(Line("a file"), "Certificate authorities (PEM) for rediss://, instead of the system's; an absolute path."),
    ] = ""
    timeout: Annotated[
        float,
        Key(
            Seconds(0.1, 60), "Seconds to wait for a connection and for each response; then paid requests are refused."
        ),
    ] = 2.0


@dataclass(frozen=True)
class GatewaySection:
    """`[gateway]`: the server that `batuta serve gateway` runs."""

    host: Annotated[
        str,
        Key(Line("a host"), "The address on which it listens. An address beyond the loopback needs client keys."),
    ] = "127.0.0.1"
    port: Annotated[int, Key(Integer(0, 65535), "The port. 0: any free port.")] = 8484
    workers: Annotated[int, Key(Integer(1, 64), "Number of processes that share the port.")] = 1
    origins: Annotated[
        tuple[str, ...],
        Key(Origins(), 'Origins of web pages that may use it, such as ["http://localhost:3000"]; others are refused.'),
    ] = ()
    media_hosts: Annotated[
        tuple[str, ...],
        Key(
            Names("hosts"),
            'Hosts from which backends in your networks may fetch images and files, such as ["images.example.com"].\n'
            "A message with a URL at another host goes only to public services.",
        ),
    ] = ()
    max_body_bytes: Annotated[int, Key(Integer(1024, 1 << 30), "The largest request body, in bytes.")] = (
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
        int,
        Key(Integer(1, 3600), "Seconds that a client may take to send a request, or to receive a part of a response."),
    ] = 60
    key_queue: Annotated[
        int,
        Key(
            Integer(0, 10_000),
            "Requests of one client key that may wait, in each process, while the key is at its limit of requests a\n"
            "minute or at a time. 0: they get HTTP 429 at once.",
        ),
    ] = 0
    key_queue_wait: Annotated[
        float, Key(Seconds(0.1, 600), "Seconds that such a request waits at most; then it gets HTTP 429.")
    ] = 10.0
    drain_seconds: Annotated[
        int, Key(Integer(0, 3600), "Seconds for responses in progress to finish when the gateway is stopped.")
    ] = 30


@dataclass(frozen=True)
class BackendSection:
    """`[backends.NAME]`: one server that runs models."""

    profile: Annotated[
        str,
        Key(Line("a backend"), "The kind of backend, such as vllm. Empty: the kind called NAME."),
    ] = ""
    base_url: Annotated[
        str,
        Key(BaseUrl(), "Address of its API, such as http://127.0.0.1:8080/v1. Empty: the usual address of its kind."),
    ] = ""
    models: Annotated[tuple[str, ...], Key(Names(), "Models it serves. Empty: the models that the server lists.")] = ()
    api_key_env: Annotated[
        str, Key(EnvName(), "Environment variable that holds its API key. The key itself must not be in this file.")
    ] = ""


@dataclass(frozen=True)
class ModelSection:
    """`[models."NAME"]`: facts about a model that batuta's tables lack or have wrong."""

    context_window: Annotated[
        int, Key(Integer(0, 1_000_000_000), "Tokens of prompt and response together. 0: from batuta's tables.")
    ] = 0
    output_reserve: Annotated[
        int,
        Key(
            Integer(0, 1_000_000_000),
            "Tokens of the window that are reserved for the response. 0: from batuta's tables.",
        ),
    ] = 0
    input_usd_per_million: Annotated[
        Decimal | None, Key(OptionalMoney(), "US dollars for a million prompt tokens. Empty: from batuta's tables.")
    ] = None
    output_usd_per_million: Annotated[
        Decimal | None, Key(OptionalMoney(), "US dollars for a million response tokens. Empty: from batuta's tables.")
    ] = None
    cached_input_usd_per_million: Annotated[
        Decimal | None,
        Key(OptionalMoney(), "US dollars for a million prompt tokens read from a cache. Empty: the price of input."),
    ] = None
    cache_write_usd_per_million: Annotated[
        Decimal | None,
        Key(
            OptionalMoney(), "US dollars for a million tokens written to a cache. Empty: 1.25 times the price of input."
        ),
    ] = None
    cache_write_1h_usd_per_million: Annotated[
        Decimal | None,
        Key(
            OptionalMoney(),
            "US dollars for a million tokens written to a cache for an hour. Empty: twice the price of input.",
        ),
    ] = None
    reasoning_usd_per_million: Annotated[
        Decimal | None,
        Key(OptionalMoney(), "US dollars for a million reasoning tokens. Empty: the price of output."),
    ] = None
    template: Annotated[
        str, Key(Line("a format"), "Its chat template, such as llama3. batuta serve template --list shows the names.")
    ] = ""
    tokenizer: Annotated[
        str, Key(Line("a path"), "Its tokenizer: a GGUF file, a tokenizer.json or a directory with one.")
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
    """The rule for the names of tables within a table, which the user chooses."""

    one: str
    """The word for one of them."""
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
"""The tables that contain tables with names of the user's choice."""


@dataclass(frozen=True)
class EntryTable:
    """A table whose keys are names of the user's choice, with a value each."""

    one: str
    """The word for one of its entries."""
    kind: ValueKind[Any]
    default: Any
    doc: str
    key: str
    """The word for what its keys name."""
    example: str


ENTRY_TABLES = {
    "aliases": EntryTable(
        "alias",
        ModelName(),
        "",
        "Other names for models. An alias is followed once, and never hides a model that a backend has.",
        "The model that answers requests for this name.",
        '"gpt-4o-mini" = "smollm2-135m"',
    ),
    "fallbacks": EntryTable(
        "fallback",
        Names("models"),
        (),
        "Models that answer in the place of another one that is down, cooling down, not found (404) or busy (429),\n"
        "or whose backends fail (5xx), before the first byte. Each is judged by its own tier, window and budget.",
        "The models that are tried, in this order.",
        '"llama-3.3-70b" = ["qwen3-32b"]',
    ),
}
"""The tables whose keys are names of models."""

TABLES: dict[str, type] = {
    "pacha": PachaSection,
    "budget": Budget,
    "privacy": Privacy,
    "router": Router,
    "timeouts": TimeoutsSection,
    "failover": FailoverSection,
    "audit": AuditSection,
    "network": Net,
    "redis": RedisSection,
    "gateway": GatewaySection,
    BACKENDS: BackendSection,
    MODELS: ModelSection,
}
"""Every table and its dataclass."""

SETTINGS: dict[str, dict[str, Setting]] = {table: _settings(table, declared) for table, declared in TABLES.items()}
"""Every key by table and name. The keys of a `NAMED` table apply to each table within it."""

TABLE_DOCS = {
    "pacha": "Signing and verifying: batuta pacha.",
    "budget": "Limits of the cost of requests.",
    "privacy": "The backends to which requests may be sent.",
    "router": "When requests leave the local backend for another one.",
    "timeouts": "How long a request waits, in seconds.",
    "failover": "Retries and cooldowns after a backend's failure.",
    "audit": "The files of the audit log.",
    "network": "Connections to other machines.",
    "redis": "The Redis server of a ledger redis:// or rediss://.",
    "gateway": "The server that batuta serve gateway runs.",
    BACKENDS: "Servers that run models: one table each, with a name of your choice.",
    MODELS: "Facts about models that batuta's tables lack: one table each, its name in quotes.",
}


def is_name(table: str, name: str) -> bool:
    """Whether `name` is valid for a table within `table`."""
    return NAMED[table].pattern.fullmatch(name) is not None


def find(path: Sequence[str]) -> Setting | None:
    """The setting at a path: (table, key), or (table, name, key) when the table is in `NAMED`."""
    if len(path) == 2 and path[0] in ENTRY_TABLES:
        table = ENTRY_TABLES[path[0]]
        known = NAMED[MODELS].pattern.fullmatch(path[1])
        return Setting(path[0], path[1], table.kind, table.key, table.default) if known else None
    if len(path) == 2 and path[0] not in NAMED:
        return SETTINGS.get(path[0], {}).get(path[1])
    if len(path) == 3 and path[0] in NAMED and is_name(path[0], path[1]):
        return SETTINGS[path[0]].get(path[2])
    return None


def split(key: str) -> tuple[str, ...]:
    """The path of a dotted key: `table.key`, `models.llama-3.3-70b.context_window`, `aliases.gpt-4.1`."""
    table, _, rest = key.partition(".")
    if table in NAMED and rest.count(".") > 1:
        name, _, last = rest.rpartition(".")
        return table, name, last
    if table in ENTRY_TABLES and rest:
        return table, rest
    return tuple(key.split("."))


def variable(path: Sequence[str]) -> str:
    """The environment variable that overrides a key."""
    return re.sub(r"[^A-Z0-9_]", "_", "_".join(("BATUTA", *path)).upper())
