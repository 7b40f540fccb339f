"""What is known of a kind of backend: one `profiles/<name>.toml` each, and the typed loader of them.

A profile is data: addresses, how a key is presented, the shape of the wire, how its server is told from others on a
shared port, where health and load are read, how it continues a text. Facts age, so none of them stands in code.

`parse` refuses an unknown key, a missing one and a value of another type with `ConfigError` that names file and key: a
misspelt fact must not go unnoticed.
"""

import tomllib
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from importlib import resources
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from batuta_cli.errors import ConfigError
from batuta_cli.files import display
from batuta_cli.serve.tiers import PrivacyTier, ThroughputTier

T = TypeVar("T")


@dataclass(frozen=True)
class AddressVariable:
    """A variable of the environment that says where the server is: `host`, `host:port`, or a URL."""

    name: str
    path: str = "/v1"
    """Appended when the variable has no path of its own."""
    port: int = 0
    """Used when the variable has neither scheme nor port; 0 when it must be a URL."""


@dataclass(frozen=True)
class Auth:
    """How a key is presented."""

    env: str = ""
    """The variable that holds the key; empty when there is usually none."""
    header: str = "Authorization"
    scheme: str = "Bearer"
    """Stands before the key, with a blank; empty for the key alone."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers of every request."""
    env_headers: dict[str, str] = field(default_factory=dict)
    """Further headers and the variables that hold their values, for services that take a key in several parts."""


@dataclass(frozen=True)
class ServerIdentity:
    """One way in which the server shows whose it is: GET `path`, then all that is given must hold.

    `path` counts from the root of the server. A JSON check looks at the answer of status 200 alone.
    """

    path: str
    header: str = ""
    """A response header..."""
    begins: str = ""
    """...and what its value begins with, or what the body begins with when `header` is empty."""
    has: tuple[str, ...] = ()
    """Keys of the JSON object."""
    owned_by: str = ""
    """The `owned_by` of an entry in the JSON object's `data`."""


@dataclass(frozen=True)
class LoadSignal:
    """Where the depth of the queue is read. Paths count from the root of the server."""

    metrics: str = ""
    """Prometheus text; the sum of `gauges` is the number of requests running and waiting."""
    gauges: tuple[str, ...] = ()
    slots: str = ""
    """A JSON list, in which `is_processing` marks the busy ones; read when there are no metrics."""


@dataclass(frozen=True)
class Describe:
    """Where the server says how much it takes; dotted names lead into the JSON object."""

    path: str
    slots: str = ""
    context_length: str = ""


@dataclass(frozen=True)
class CountRoutes:
    """The routes by which the server counts a prompt. Paths are relative to the root of the server."""

    tokenize: str
    """POST; returns `tokens` or `count`."""
    render: str = ""
    """POST; returns the `prompt` for messages, which `tokenize` then takes. Empty when `tokenize` takes messages."""


@dataclass(frozen=True)
class RemoteModels:
    """How the server admits that it sends a model's requests elsewhere: any of these."""

    path: str = ""
    """A JSON object that lists its models, from the root of the server."""
    entries: str = "models"
    name: str = "name"
    fields: tuple[str, ...] = ()
    """Fields of an entry that are there, and not empty, for a remote model alone."""
    values: dict[str, str] = field(default_factory=dict)
    """Fields of an entry and the value that gives it away."""
    suffixes: tuple[str, ...] = ()
    """What the name of a remote model ends with."""

    def has(self, model: str, remote: Collection[str]) -> bool:
        """Whether a server that sends the models `remote` elsewhere may do so with `model`.

        Ollama takes one model by many names: `mine`, `Mine:latest`, `registry.ollama.ai/library/mine`. So names are
        compared without case, path and digest; that another owner's model of the same name is refused, too, is safe.
        """
        name = _bare(model)
        return (bool(self.suffixes) and name.endswith(self.suffixes)) or any(name == _bare(other) for other in remote)


class ContinuationMethod(Enum):
    """How a backend goes on with a text that another one began."""

    FIELDS = "fields"  # a trailing assistant message, and fields in the body
    TRAILING = "trailing"  # a trailing assistant message alone
    COMPLETION = "completion"  # the route for raw text with our own rendered prompt
    NONE = "none"


@dataclass(frozen=True)
class Continuation:
    """Whether and how it continues a text exactly."""

    method: ContinuationMethod = ContinuationMethod.NONE
    path: str = ""
    """Of the raw route, for COMPLETION; relative to the base URL, or from the root with a leading slash."""
    body: dict[str, Any] = field(default_factory=dict)
    """Fields to add to the request."""
    models: tuple[str, ...] = ("*",)
    """Shell patterns of the models that can; others cannot."""
    trims_space: bool = False
    """White space at the end of the prefix is lost, so the seam has to be mended."""
    echoes: bool = False
    """The answer may begin with the prefix again, which has to be taken off."""


@dataclass(frozen=True, eq=False)
class Profile:
    """A kind of backend."""

    name: str
    """As in `ServingBackend`."""
    title: str
    tier: PrivacyTier
    """The strictest tier that it may be used under where it usually runs; what counts is the address."""
    wire: Literal["openai", "anthropic", "replicate"]
    cost_rank: int
    """0 is free; else its place among the hosted ones, cheapest first: by the list price of Llama 3.3 70B in
    data/prices.json, a router at its dearest; those that do not sell it by the token come after them."""
    throughput: ThroughputTier
    """How well it serves many requests at once."""
    base_urls: tuple[str, ...] = ()
    """Where it usually is, in the order in which they are tried; `{name}` is filled in from `placeholders`."""
    address_env: AddressVariable | None = None
    """Comes before `base_urls`."""
    output_limit: str = "max_tokens"
    """The field that limits an answer in OpenAI's shape; OpenAI's own newer models refuse the older name."""
    placeholders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Variables of the environment that fill in a placeholder, the first that is set."""
    note: str = ""
    """What a user who wants to reach it has to know."""
    auth: Auth = field(default_factory=Auth)
    health: str = ""
    """Answers 200 when ready, 503 while loading; relative to the base URL, or from the root with a leading slash."""
    models: str = ""
    """Lists the models; as `health`."""
    identity: tuple[ServerIdentity, ...] = ()
    """Any of them will do; none for a service that its certificate identifies."""
    embeds: tuple[str, ...] = ()
    """Other kinds whose server this one may contain, so that their identity is acceptable for it."""
    load: LoadSignal = field(default_factory=LoadSignal)
    describe: Describe | None = None
    count: CountRoutes | None = None
    remote_models: RemoteModels = field(default_factory=RemoteModels)
    continuation: Continuation = field(default_factory=Continuation)
    private_hosts: tuple[str, ...] = ()
    """Host names that are Private when reached over https with a verified certificate; `*` stands for a part of one
    label."""

    @property
    def is_local(self) -> bool:
        """Whether it usually runs on the user's own machine."""
        return self.tier is PrivacyTier.SOVEREIGN


def _bare(model: str) -> str:
    return model.strip().casefold().rpartition("/")[2].partition("@")[0].removesuffix(":latest")


def parse(text: str, file: str) -> Profile:
    """A profile from TOML. Raises `ConfigError` that names `file` and the key."""
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{display(file)}: not TOML: {display(error)}") from None
    return _build(Profile, document, f"{file}: ")


@cache
def load(stem: str) -> Profile:
    """The profile `profiles/<stem>.toml` of this package."""
    path = resources.files("batuta_cli.serve.backends") / "profiles" / f"{stem}.toml"
    return parse(path.read_text(encoding="utf-8"), path.name)


def _build(kind: type[T], table: object, where: str) -> T:
    if not isinstance(table, dict):
        raise ConfigError(f"{display(where.rstrip('.: '))}: must be a table")
    hints = get_type_hints(kind)
    declared = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    for name in table:
        if name not in declared:
            from batuta_cli.config.kinds import did_you_mean

            raise ConfigError(f"{display(where + name)}: unknown key{did_you_mean(name, declared)}")
    for name, each in declared.items():
        if name not in table and each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{display(where + name)}: is missing")
    return kind(**{name: _value(hints[name], value, where + name) for name, value in table.items()})


def _value(hint: Any, value: object, where: str) -> Any:
    if isinstance(hint, UnionType):  # X | None: what stands in a file is an X
        hint = get_args(hint)[0]
    if is_dataclass(hint):
        return _build(hint, value, where + ".")  # type: ignore[arg-type]
    origin = get_origin(hint)
    for matches, read in _READERS:
        if matches(hint, origin):
            return read(hint, value, where)
    if type(value) is not hint:
        raise ConfigError(f"{display(where)}: must be {_TYPES[hint]}")
    return value


def _tuple(hint: Any, value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{display(where)}: must be a list")
    return tuple(_value(get_args(hint)[0], item, f"{where}[{number}]") for number, item in enumerate(value, 1))


def _dict(hint: Any, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{display(where)}: must be a table")
    inner = get_args(hint)[1]
    return {key: item if inner is Any else _value(inner, item, f"{where}.{key}") for key, item in value.items()}


def _word(hint: Any, value: object, where: str) -> Any:
    choices = get_args(hint) or [member.value for member in hint]
    if value not in choices:
        raise ConfigError(f"{display(where)}: must be one of {', '.join(choices)}")
    return hint(value) if isinstance(hint, type) else value


_READERS: tuple[tuple[Callable[[Any, Any], bool], Callable[[Any, object, str], Any]], ...] = (
    (lambda hint, origin: origin is tuple, _tuple),
    (lambda hint, origin: origin is dict, _dict),
    (lambda hint, origin: origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)), _word),
)
_TYPES = {str: "text", int: "a whole number", bool: "true or false"}
