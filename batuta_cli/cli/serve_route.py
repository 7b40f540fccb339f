"""`batuta serve route`: which backend a request would go to, and why."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.conversation import ConversationSource, Messages, System, User
from batuta_cli.cli.ledger_option import LedgerOption, SetOption, load_config
from batuta_cli.cli.probing import named_backend, probed
from batuta_cli.errors import LedgerError, NoBackendError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batuta_cli.config import Config
    from batuta_cli.serve.backends import Backend
    from batuta_cli.serve.providers.probe import ProbeResult
    from batuta_cli.serve.routing.gates import PlanRequest, Snapshot
    from batuta_cli.serve.routing.planning import Plan
    from batuta_cli.serve.tokens.tokenizer import TokenCount

commands = typer.Typer()


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta serve route --model smollm2-135m",
        "batuta serve route --queue-depth 12 --explain",
        "batuta serve route --backend groq --privacy sovereign || echo refused",
        "batuta serve route --model gpt-4 --messages chat.json --max-output-tokens 500 --json",
    ),
)
def route(
    privacy: Annotated[
        str | None,
        typer.Option(
            metavar="sovereign|private|standard", help="The privacy tier; by default the one in the configuration."
        ),
    ] = None,
    latency: Annotated[
        str, typer.Option(metavar="realtime|interactive|batch", help="How soon a response is needed.")
    ] = "interactive",
    throughput: Annotated[
        str, typer.Option(metavar="low|medium|high", help="How many requests run at once.")
    ] = "medium",
    cost: Annotated[
        str, typer.Option(metavar="frugal|balanced|premium", help="Prefer cheap or hosted backends.")
    ] = "balanced",
    model: Annotated[str, typer.Option(metavar="NAME", help="The model of the request.")] = "",
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="Check only this backend.")] = None,
    queue_depth: Annotated[
        int | None,
        typer.Option(metavar="N", help="Assume this queue depth of the local backend; probe nothing."),
    ] = None,
    no_spillover: Annotated[bool, typer.Option("--no-spillover", help="Use only the local backend.")] = False,
    configured: Annotated[bool, typer.Option("--configured", help="Consider only configured backends.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the result of every gate for every backend.")
    ] = False,
    input_tokens: Annotated[int | None, typer.Option(metavar="N", help="The prompt's length in tokens.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(metavar="N", help="The output limit in tokens.")] = None,
    messages: Messages = None,
    system: System = None,
    user: User = None,
    ledger: LedgerOption = None,
    overrides: SetOption = None,
) -> console.CommandResult:
    """Print the name of the backend that a request would go to. The request is not sent.

    The backends are probed, except with --queue-depth or --backend. The exit codes are those of serve chat: 5 when the
    budget refuses or the price is unknown, 6 when the privacy tier refuses, 7 when no backend is available or all
    queues are full, 8 when the messages do not fit by an exact count. An estimate does not refuse.
    """
    from batuta_cli.serve.routing.gates import PlanRequest
    from batuta_cli.serve.routing.planning import plan
    from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier

    _check_numbers(queue_depth=queue_depth, input_tokens=input_tokens, max_output_tokens=max_output_tokens)
    settings = load_config(ledger, overrides)
    request = PlanRequest(
        privacy=PrivacyTier.parse(settings.privacy.tier if privacy is None else privacy),
        model=model,
        latency=LatencyTier.parse(latency),
        throughput=ThroughputTier.parse(throughput),
        cost=CostTier.parse(cost),
        input_tokens=_counted(settings, model, input_tokens, ConversationSource(messages, system, user)),
        max_output_tokens=max_output_tokens,
    )
    probing = queue_depth is None and backend is None
    backends = _backends(settings, request, probing=probing, configured=configured)
    if backend is not None:
        chosen = named_backend(backend, backends, configured=configured)
        request, backends = replace(request, backend=chosen.name), [chosen]
        settings = replace(settings, router=replace(settings.router, local_backend="", spillover_backends=()))
    if no_spillover:
        settings = replace(settings, router=replace(settings.router, spillover_enabled=False))
    probes = _probe(settings, request, backends) if probing else {}
    snapshot, trouble = _snapshot(settings, backends, request, probes, queue_depth)
    return _result(plan(request, snapshot), trouble, settings, backends, explain=explain)


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 0:
            raise UsageError(f"--{name.replace('_', '-')} must be 0 or more")


def _counted(settings: "Config", model: str, tokens: int | None, source: ConversationSource) -> "TokenCount | None":
    from batuta_cli.serve.tokens.tokenizer import TokenCount

    if tokens is not None:
        if source.given:
            raise UsageError("--input-tokens cannot be used with messages, whose tokens are counted")
        return TokenCount(tokens, True, "as given")
    if not source.given:
        return None
    if not model:
        raise UsageError("counting the messages needs the model", hint="add --model NAME")
    from batuta_cli.serve.pipeline import input_count
    from batuta_cli.serve.pipeline.request import ChatRequest
    from batuta_cli.serve.tiers import PrivacyTier

    messages, fields = source.read_request()
    return input_count.count(
        ChatRequest(model=model, messages=tuple(messages), privacy=PrivacyTier.STANDARD, options=fields),
        settings.models,
    )


def _backends(settings: "Config", request: "PlanRequest", *, probing: bool, configured: bool) -> "Sequence[Backend]":
    from batuta_cli.serve.backends import configured_backends
    from batuta_cli.serve.routing.snapshot import usual_backends

    if settings.backends:
        return configured_backends(settings)
    if configured:
        return ()
    if probing:
        console.note(
            "no backend is configured; probing local servers at their usual ports. To add one: batuta config init"
        )
    return usual_backends(settings, request, local=probing)


def _probe(settings: "Config", request: "PlanRequest", backends: "Sequence[Backend]") -> "Mapping[str, ProbeResult]":
    from batuta_cli.serve.routing.snapshot import expected_tier

    allowed = [b for b in backends if request.privacy.admits(expected_tier(settings, b).tier)]
    found = probed(allowed, request.privacy, settings)
    for result in found.values():
        if result.healthy or settings.backends:
            console.note(_state_of(result))
    return found


def _state_of(result: "ProbeResult") -> str:
    where = f"{result.backend.name} at {result.base_url}" if result.base_url else result.backend.name
    if not result.healthy:
        return f"{where}: {result.error or 'no response'}"
    depth = "queue depth not known" if result.queue_depth is None else f"queue depth {result.queue_depth}"
    return f"{where}: ready, {depth}"


def _snapshot(
    settings: "Config",
    backends: "Sequence[Backend]",
    request: "PlanRequest",
    probes: "Mapping[str, ProbeResult]",
    queue_depth: int | None,
) -> "tuple[Snapshot, LedgerError | None]":
    """The snapshot; when the ledger cannot be read, its error and a budget of 0."""
    import datetime as dt

    from batuta_cli.serve.budget.breaker import CostCircuitBreaker
    from batuta_cli.serve.routing.snapshot import Seen, take_snapshot

    seen = Seen(day=dt.datetime.now(dt.UTC).date(), probes=probes, queue_depth=queue_depth)
    snapshot = take_snapshot(settings, backends, request, seen)
    if not request.input_tokens or all(state.price is None or state.price.is_free for state in snapshot.backends):
        return snapshot, None  # the budget does not matter
    try:
        seen = replace(seen, budget=CostCircuitBreaker.from_config(settings.budget, settings.redis).status())
    except LedgerError as error:
        return replace(snapshot, budget_remaining=0), error
    return take_snapshot(settings, backends, request, seen), None


def _result(
    found: "Plan",
    trouble: LedgerError | None,
    settings: "Config",
    backends: "Sequence[Backend]",
    *,
    explain: bool,
) -> console.CommandResult:
    from batuta_cli.serve.budget.breaker import CircuitBreakerConfig
    from batuta_cli.serve.routing.errors import routing_error

    error = None
    if found.backend is None:
        most = CircuitBreakerConfig.from_config(settings.budget).max_request_cost
        error = routing_error(found, retry_after=None, max_request_cost=most)
    for warning in found.warnings:
        console.warn(display(warning))
    if trouble is not None and error is None:
        console.warn(f"{trouble.message}; requests that cost money are refused")
    if error is not None and error.kind == NoBackendError.kind and not settings.backends:
        error.hint = "to add a backend: batuta config init, then edit the file it writes"
    for each in backends:
        if each.name == found.backend and each.configured and each.api_key_env and not each.api_key():
            console.note(f"{each.name}: {each.api_key_env} is not set")
    name = display(found.backend or "")
    text = "\n\n".join(part for part in (name, _explained(found)) if part) if explain else name
    return console.CommandResult(found.to_json(), text, error=trouble if error and trouble else error)


def _explained(found: "Plan") -> str:
    lines = [f"{found.decision}: {found.reason}, queue depth {found.queue_depth}"]
    for candidate in found.candidates:
        lines += ["", display(candidate.backend)]
        for gate in candidate.gates:
            verdict = console.paint("passed ", "good") if gate.passed else console.paint("refused", "bad")
            lines.append(f"  {gate.name:<10}  {verdict}  {display(gate.detail)}")
    return "\n".join(lines)
