"""A new configuration for a running gateway (SIGHUP).

`reconfigure` reads the configuration again and makes a pipeline from it that keeps the ledger, the audit log and the
state of the backends. Settings that need a restart keep their old values and are named in the result. Raises the errors
of `load`; the caller then goes on with the old pipeline. Client keys are not part of it: they are read at each request.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batuta_cli.serve.gateway.connection import ConnectionLimits
from batuta_cli.serve.gateway.key_throttle import KeyQueueSettings
from batuta_cli.serve.gateway.state import GatewaySettings
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.pipeline.pipeline import Pipeline

NEED_RESTART = {
    "budget": ("ledger", "durability", "timezone"),
    "gateway": ("host", "port", "workers", "max_connections", "client_seconds", "drain_seconds"),
}
"""Keys that are read only at the start, by table."""


@dataclass(frozen=True)
class Reconfigured:
    """A new pipeline, not yet open, and its settings."""

    pipeline: "Pipeline"
    settings: GatewaySettings
    need_restart: tuple[str, ...]
    """Changed keys that keep their old values until a restart, as `table.key`."""


def settings_of(config: "Config") -> GatewaySettings:
    """The gateway's settings in a configuration."""
    table = config.gateway
    limits = ConnectionLimits(
        body_bytes=table.max_body_bytes,
        all_bodies_bytes=table.max_bodies_bytes,
        client_seconds=table.client_seconds,
    )
    queue = KeyQueueSettings(table.key_queue, table.key_queue_wait)
    return GatewaySettings(PrivacyTier(config.privacy.tier), table.origins, limits, table.media_hosts, queue)


def reconfigure(load: "Callable[[], Config]", pipeline: "Pipeline") -> Reconfigured:
    """Read the configuration with `load` and make a pipeline that takes the place of `pipeline`."""
    config, changed = load(), []
    for name, keys in NEED_RESTART.items():
        old, new = getattr(pipeline.config, name), getattr(config, name)
        kept: dict[str, Any] = {key: getattr(old, key) for key in keys if getattr(old, key) != getattr(new, key)}
        changed += [f"{name}.{key}" for key in kept]
        config = replace(config, **{name: replace(new, **kept)})
    return Reconfigured(pipeline.reconfigured(config), settings_of(config), tuple(changed))
