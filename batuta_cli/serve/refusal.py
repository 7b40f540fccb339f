"""Why a plan has nobody for a request, as the error that a user or a client gets."""

from batuta_cli.errors import (
    BatutaError,
    ContextOverflowError,
    DailyBudgetExceeded,
    NoBackendError,
    PrivacyError,
    QueueFullError,
    RequestTooExpensive,
    UnknownPriceError,
)
from batuta_cli.files import display
from batuta_cli.serve.planning import Candidate, Gate, GateName, Plan
from batuta_cli.serve.router import Reason


def refusal(plan: Plan, *, retry_after: int | None = None, max_request_cost: int | None = None) -> BatutaError:
    """The error for a plan that rejects.

    What waiting helps against comes first, then what the caller can change. `retry_after` is in seconds,
    `max_request_cost` in nano-dollars.
    """
    result = plan.to_json()
    if not plan.candidates:
        hint = "batuta serve backends lists them; batuta config init explains how to add one"
        return NoBackendError("no backend is there for the request", hint=hint, result=result)
    said = "; ".join(f"{display(c.backend)}: {gate.detail}" for c in plan.candidates if (gate := c.refused_by))
    if len(_refused(plan, GateName.TIER)) == len(plan.candidates):
        hint = "batuta serve route --explain shows every backend; --privacy chooses another tier"
        return PrivacyError(f"the privacy tier admits no backend: {said}", hint=hint, result=result)
    if plan.reason == Reason.QUEUE_FULL:
        return QueueFullError(f"every backend is busy: {said}", result=result, retry_after=retry_after)
    if _refused(plan, GateName.REST):
        return NoBackendError(f"no backend answers: {said}", result=result, retry_after=retry_after)
    if budget := _refused(plan, GateName.BUDGET):
        return _cost_error(*budget[0], max_request_cost, result)
    if _refused(plan, GateName.CONTEXT):
        hint = "shorten it: batuta serve context --strategy sliding-window; or ask for fewer tokens with --max-tokens"
        return ContextOverflowError(f"the conversation does not fit: {said}", hint=hint, result=result)
    hint = "batuta serve backends --probe shows what each backend has"
    return NoBackendError(f"no backend can take the request: {said}", hint=hint, result=result)


def _refused(plan: Plan, name: GateName) -> list[tuple[Candidate, Gate]]:
    """The candidates that this gate was the first to refuse."""
    refused = ((candidate, candidate.refused_by) for candidate in plan.candidates)
    return [(candidate, gate) for candidate, gate in refused if gate is not None and gate.name is name]


def _cost_error(candidate: Candidate, gate: Gate, max_request_cost: int | None, result: object) -> BatutaError:
    message = f"{display(candidate.backend)}: {gate.detail}"
    if gate.number is None:
        hint = "give the model a price under [models] in config.toml"
        return UnknownPriceError(message, hint=hint, result=result)
    if max_request_cost is not None and gate.number > max_request_cost:
        hint = "ask for fewer tokens, or allow more: batuta serve budget set --max-request-cost USD"
        return RequestTooExpensive(message, hint=hint, result=result)
    hint = "what it went to: batuta serve budget history; to allow more: batuta serve budget set --daily-budget USD"
    return DailyBudgetExceeded(message, hint=hint, result=result)
