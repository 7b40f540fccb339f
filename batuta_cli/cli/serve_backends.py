"""`batuta serve backends`: every backend with its address, its privacy tier and its state."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.probing import probed

if TYPE_CHECKING:
    from batuta_cli.serve.backends import Backend
    from batuta_cli.serve.privacy.gate import Networks, Verdict
    from batuta_cli.serve.providers.probe import ProbeResult
    from batuta_cli.serve.tiers import PrivacyTier

commands = typer.Typer()

_MODELS_SHOWN = 3


@commands.command(
    "backends",
    cls=Command,
    epilog=examples(
        "batuta serve backends",
        "batuta serve backends --probe",
        "batuta serve backends --privacy sovereign --probe --json",
        "batuta serve backends --all",
    ),
)
def backends(
    privacy: Annotated[
        str | None,
        typer.Option(
            metavar="sovereign|private|standard",
            help="The privacy tier to judge by; by default the one in the configuration.",
        ),
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Probe every backend that the tier admits.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="List every known kind, configured or not.")] = False,
) -> console.CommandResult:
    """List the backends: tier, address, state; with --probe also queue depth and models.

    The tier of a backend depends on its address, not on its name. Without a configuration every kind is listed, and
    --probe probes the local ones at their usual addresses. A hosted backend that is not configured is never probed.
    """
    from batuta_cli import config
    from batuta_cli.serve.backends import ServingBackend, configured_backends, default_backend
    from batuta_cli.serve.privacy.gate import Networks
    from batuta_cli.serve.tiers import PrivacyTier

    settings = config.load()
    tier = PrivacyTier.parse(privacy if privacy is not None else settings.privacy.tier)
    networks = Networks.configured(settings)
    known = configured_backends(settings)
    if not settings.backends:
        shown = "local kinds are" if probe and not everything else "every known kind is"
        console.note(f"no backend is configured; {shown} listed. To add one: batuta config init")
    if everything or not (settings.backends or probe):
        kinds = {backend.kind for backend in known}
        known += tuple(default_backend(kind) for kind in ServingBackend if kind not in kinds and kind.has_usual_address)
    verdicts = {backend.name: _verdict(backend, tier, networks) for backend in known}
    found: dict[str, ProbeResult] = {}
    if probe:
        found = probed(
            [b for b in known if verdicts[b.name].allowed and (b.configured or b.kind.is_local)], tier, settings
        )
    result = [_described(b, verdicts[b.name], found.get(b.name)) for b in known]
    columns = ("NAME", "TIER", "ADDRESS", "STATE", *(("QUEUE", "MODELS") if probe else ()))
    rows = [_row(b, verdicts[b.name], found.get(b.name), probe) for b in known]
    return console.CommandResult({"privacy": str(tier), "backends": result}, console.Table(columns, rows))


def _verdict(backend: "Backend", tier: "PrivacyTier", networks: "Networks") -> "Verdict":
    from batuta_cli.serve.privacy.gate import Verdict, foresee

    if not backend.base_urls:  # judged by the kind's usual tier
        return Verdict(tier.admits(backend.kind.tier), backend.kind.tier, "its usual address")
    return foresee(tier, backend.base_urls[0], networks=networks)


def _described(backend: "Backend", verdict: "Verdict", probed: "ProbeResult | None") -> dict[str, Any]:
    return {
        "name": backend.name,
        "backend": str(backend.kind),
        "configured": backend.configured,
        "tier": str(verdict.tier),
        "allowed": verdict.allowed,
        "reason": verdict.reason,
        "addresses": list(backend.base_urls),
        "missing": list(backend.missing),
        "api_key_env": backend.api_key_env or None,
        "note": backend.profile.note or None,
        "probe": None
        if probed is None
        else {
            "address": probed.base_url or None,
            "reachable": probed.reachable,
            "identified_as": None if probed.identified_as is None else str(probed.identified_as),
            "healthy": probed.healthy,
            "loading": probed.loading,
            "queue_depth": probed.queue_depth,
            "slots": probed.slots,
            "models": list(probed.models),
            "remote_models": list(probed.remote_models),
            "context_length": probed.context_length,
            "error": probed.error,
            "latency_ms": None if probed.latency_ms is None else round(probed.latency_ms, 1),
        },
    }


def _row(backend: "Backend", verdict: "Verdict", probed: "ProbeResult | None", probe: bool) -> tuple[str, ...]:
    from batuta_cli.serve.names import normalised

    address = (probed.base_url if probed else "") or (backend.base_urls[0] if backend.base_urls else "")
    place = address or f"set {' and '.join(backend.missing)}"
    # A name that is not the kind's needs the kind beside it.
    name = backend.name if normalised(backend.name) == normalised(backend.kind) else f"{backend.name} ({backend.kind})"
    row = (name, str(verdict.tier), place)
    if not verdict.allowed or probed is None:
        state = "refused" if not verdict.allowed else "not probed" if probe else "allowed"
        return (*row, state, *(("-", "-") if probe else ()))
    state = "ready" if probed.healthy else probed.error or "-"
    queue = "-" if probed.queue_depth is None else str(probed.queue_depth)
    if probed.queue_depth is not None and probed.slots is not None:
        queue += f" ({probed.slots} slots)"
    shown = [f"{name} (remote)" if name in probed.remote_models else name for name in probed.models[:_MODELS_SHOWN]]
    more = len(probed.models) - len(shown)
    return (*row, state, queue, ", ".join(shown) + (f" and {more} more" if more else "") or "-")
