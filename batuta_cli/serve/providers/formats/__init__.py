"""The wire formats of backends: one module each, listed in `serve/backends/wire_formats.py`."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from batuta_cli.serve.backends.wire_formats import WireFormat
    from batuta_cli.serve.providers.wire import FormatModule


@cache
def format_module(wire: "WireFormat") -> "FormatModule":
    """The module that implements a format."""
    return cast("FormatModule", import_module(f"{__name__}.{wire.module}"))


@cache
def native_module() -> "FormatModule":
    """The module that sends a client's request as it came."""
    return cast("FormatModule", import_module(f"{__name__}.native"))
