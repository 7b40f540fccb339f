"""`batuta serve route`: which backend a request would go to, and why."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.conversation import ConversationSource, Messages, System, User
from batuta_cli.cli.ledger_option import LedgerOption, SetOption, load_config
from batuta_cli.cli.probing import named_backend, probed
from batuta_cli.errors import BatutaError, LedgerError, NoBackendError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batuta_cli.config import Config
    from batuta_cli.serve.backends import Backend
    from batuta_cli.serve.providers.probe import ProbeResult
    from batuta_cli.serve.routing.gates import PlanRequest, Snapshot
    from batuta_cli.serve.routing.planning import Plan

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
    from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier

    _check_numbers(queue_depth=queue_depth, input_tokens=input_tokens, max_output_tokens=max_output_tokens)
    settings = load_config(ledger, overrides)
    request = PlanRequest(
        privacy=PrivacyTier.parse(settings.privacy.tier if privacy is None else privacy),
        model=model,
        latency=LatencyTier.parse(latency),
        throughput=ThroughputTier.parse(throughput),
        cost=CostTier.parse(cost),
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
    planner = _RoutePlanner(
        settings, backends, probes, queue_depth, input_tokens, ConversationSource(messages, system, user)
    )
    return _result(planner, planner.plan(request), explain=explain)


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 0:
            raise UsageError(f"--{name.replace('_', '-')} must be 0 or more")


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


@dataclass(frozen=True)
class _Routed:
    """A plan, the model it is for, and the error of the ledger when it cannot be read."""

    plan: "Plan"
    trouble: LedgerError | None
    alias: str = ""
    """The name in the request, when it is an alias."""
    instead_of: str = ""
    """The model that cannot be reached, when the plan is that of its fallback."""


class _RoutePlanner:
    """Plans a request as the pipeline does, with its aliases and fallbacks."""

    def __init__(
        self,
        settings: "Config",
        backends: "Sequence[Backend]",
        probes: "Mapping[str, ProbeResult]",
        queue_depth: int | None,
        tokens: int | None,
        source: ConversationSource,
    ) -> None:
        """`tokens`: the length of the prompt, instead of the messages of `source`."""
        if tokens is not None and source.given:
            raise UsageError("--input-tokens cannot be used with messages, whose tokens are counted")
        self.settings = settings
        self.backends = backends
        self._probes = probes
        self._queue_depth = queue_depth
        self._tokens = tokens
        self._messages, self._fields = source.read_template_request() if source.given else ([], {})

    def plan(self, request: "PlanRequest") -> _Routed:
        """The plan of a request, or of the fallback that would answer."""
        from batuta_cli.serve.routing.substitution import ModelNames, may_fall_back

        names = ModelNames(self.settings)
        model = names.resolve(request.model, self.models())
        routed = self._planned(replace(request, model=model))
        if model != request.model:
            routed = replace(routed, alias=request.model)
        error = self.error(routed)
        if error is not None and may_fall_back(error):
            for other in names.fallbacks(model):
                fallback = self._planned(replace(request, model=other))
                if fallback.plan.backend is not None:
                    return replace(fallback, alias=routed.alias, instead_of=model)
        return routed

    def models(self) -> frozenset[str]:
        """The models that the backends are known to have."""
        probes = self._probes
        return frozenset(
            name
            for each in self.backends
            for name in each.models or (probes[each.name].models if each.name in probes else ())
        )

    def error(self, routed: _Routed) -> "BatutaError | None":
        """The error of a plan without a backend."""
        from batuta_cli.serve.budget.breaker import CircuitBreakerConfig
        from batuta_cli.serve.routing.errors import routing_error

        if routed.plan.backend is not None:
            return None
        most = CircuitBreakerConfig.from_config(self.settings.budget).max_request_cost
        return routing_error(routed.plan, retry_after=None, max_request_cost=most, known_models=self.models())

    def _planned(self, request: "PlanRequest") -> _Routed:
        from batuta_cli.serve.routing.planning import plan

        request = self._complete(request)
        snapshot, trouble = self._snapshot(request)
        return _Routed(plan(request, snapshot), trouble)

    def _complete(self, request: "PlanRequest") -> "PlanRequest":
        """The request with the tokens and the needs of its messages."""
        from batuta_cli.serve.tokens.tokenizer import TokenCount

        if self._tokens is not None:
            return replace(request, input_tokens=TokenCount(self._tokens, True, "as given"))
        if not self._messages:
            return request
        if not request.model:
            raise UsageError("counting the messages needs the model", hint="add --model NAME")
        from batuta_cli.serve.pipeline import input_count
        from batuta_cli.serve.pipeline.needs import needs_of
        from batuta_cli.serve.pipeline.request import ChatRequest

        asked = ChatRequest(
            model=request.model,
            messages=tuple(self._messages),
            privacy=request.privacy,
            stream=self._fields.get("stream") is True,
            options=self._fields,
        )
        counted = input_count.count(asked, self.settings.models)
        return replace(request, input_tokens=counted, needs=needs_of(asked))

    def _snapshot(self, request: "PlanRequest") -> "tuple[Snapshot, LedgerError | None]":
        """The snapshot; when the ledger cannot be read, its error and a budget of 0."""
        import datetime as dt

        from batuta_cli.serve.budget.breaker import CostCircuitBreaker
        from batuta_cli.serve.routing.snapshot import Seen, take_snapshot

        day = dt.datetime.now(dt.UTC).date()
        seen = Seen(day=day, probes=self._probes, queue_depth=self._queue_depth)
        snapshot = take_snapshot(self.settings, self.backends, request, seen)
        if not request.input_tokens or all(state.price is None or state.price.is_free for state in snapshot.backends):
            return snapshot, None  # the budget does not matter
        try:
            seen = replace(
                seen, budget=CostCircuitBreaker.from_config(self.settings.budget, self.settings.redis).status()
            )
        except LedgerError as error:
            return replace(snapshot, budget_remaining=0), error
        return take_snapshot(self.settings, self.backends, request, seen), None


def _result(planner: _RoutePlanner, routed: _Routed, *, explain: bool) -> console.CommandResult:
    found, trouble, settings = routed.plan, routed.trouble, planner.settings
    error = planner.error(routed)
    for warning in found.warnings:
        console.warn(display(warning))
    if trouble is not None and error is None:
        console.warn(f"{trouble.message}; requests that cost money are refused")
    if error is not None and error.kind == NoBackendError.kind and not settings.backends:
        error.hint = "to add a backend: batuta config init, then edit the file it writes"
    for each in planner.backends:
        if each.name == found.backend and each.configured and each.api_key_env and not each.api_key():
            console.note(f"{each.name}: {each.api_key_env} is not set")
    names = list(_substitutions(routed))
    for line in names:
        console.note(line)
    name = display(found.backend or "")
    explanation = "\n".join([*names, _explained(found)])
    text = "\n\n".join(part for part in (name, explanation) if part) if explain else name
    result = found.to_json()
    if names:
        result |= {"model": found.model, "alias": routed.alias or None, "instead_of": routed.instead_of or None}
    return console.CommandResult(result, text, error=trouble if error and trouble else error)


def _substitutions(routed: _Routed) -> "Iterator[str]":
    """What was put in the place of the model that was named, in words."""
    if routed.alias:
        yield f"{display(routed.alias)} is an alias of {display(routed.instead_of or routed.plan.model)}"
    if routed.instead_of:
        yield f"{display(routed.plan.model)} answers, because {display(routed.instead_of)} cannot be reached"


def _explained(found: "Plan") -> str:
    lines = [f"{found.decision}: {found.reason}, queue depth {found.queue_depth}"]
    for candidate in found.candidates:
        lines += ["", display(candidate.backend)]
        for gate in candidate.gates:
            verdict = console.paint("passed ", "good") if gate.passed else console.paint("refused", "bad")
            lines.append(f"  {gate.name:<10}  {verdict}  {display(gate.detail)}")
    return "\n".join(lines)
