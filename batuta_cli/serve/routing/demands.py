"""What a request asks of a backend, of the network and of the budget, beside text for text.

`Reach` is what leaves the gateway's control; a dialect finds it in a client's request. `Demands` is what a plan needs.
"""

from dataclasses import dataclass

from batuta_cli.serve.backends.wire_formats import ClientApi


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a request makes a backend do beyond the generation of text."""

    hosted: tuple[str, ...] = ()
    """Tools that the service runs: names of fields, or types of tools."""
    stored: tuple[str, ...] = ()
    """Fields that make the service keep the conversation, or read what it has kept."""
    urls: tuple[str, ...] = ()
    """URLs in the content, which the backend fetches."""
    unbounded: tuple[str, ...] = ()
    """Of `hosted`: those without a limit of their uses."""
    uses: int = 0
    """The most uses of the other ones. After each use the model reads the prompt again, with the tool's result."""
    call_cost: int = 0
    """Nano-dollars that these uses cost at most, beside tokens."""


NO_REACH = Reach()


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a plan needs to know of a request beside its text."""

    api: ClientApi | None = None
    """The client's API, when the request can be sent as it came."""
    native_only: tuple[str, ...] = ()
    """Parts of the request that only a backend with this API can take."""
    outside: tuple[str, ...] = ()
    """Hosted tools and stored state, which only the standard tier allows."""
    fetches: bool = False
    """The content has a URL whose host is not in `[gateway] media_hosts`."""
    images: int = 0
    windows: int = 0
    """How often the prompt may fill the whole context window, because of content or tools without a bound; 0: not."""
    price_percent: int = 100
    """The price of the service tier that the request asks for, in per cent of the standard one's."""
    call_cost: int = 0
    """Nano-dollars for the uses of hosted tools."""
    unbounded_tools: tuple[str, ...] = ()
    unknown_fields: tuple[str, ...] = ()


NO_DEMANDS = Demands()
