"""The error for a request that no backend can take.

`Plan.error` covers the privacy tier, full queues and unhealthy backends. `routing_error` also covers the budget and
the context window, which matter only for a request that is to be sent.
"""

from collections.abc import Collection

from batuta_cli.config.kinds import did_you_mean
from batuta_cli.errors import (
    BatutaError,
    ContextOverflowError,
    DailyBudgetExceeded,
    InvalidInputError,
    NoBackendError,
    RequestTooExpensive,
    UnboundedCostError,
    UnknownPriceError,
)
from batuta_cli.files import display
from batuta_cli.serve.routing.gates import Candidate, GateName, GateResult
from batuta_cli.serve.routing.planning import Plan
from batuta_cli.serve.routing.router import Reason


def routing_error(
    plan: Plan, *, retry_after: int | None, max_request_cost: int, known_models: Collection[str] = ()
) -> BatutaError:
    """The error for a plan that rejects its request.

    A cause that passes with time comes first, then a cause that the caller can change. `retry_after`: seconds, None
    when waiting does not help. `max_request_cost`: nano-dollars. `known_models`: for the suggestion of another name.
    """
    error = plan.error() or NoBackendError("no backend is left that may take the request")
    if isinstance(error, NoBackendError):
        error.retry_after = retry_after
    if plan.reason != Reason.NO_BACKENDS or _refused(plan, GateName.COOLDOWN):
        return error
    if budget := _refused(plan, GateName.BUDGET):
        return _cost_error(*budget[0], max_request_cost, plan)
    if context := _refused(plan, GateName.CONTEXT):
        hint = "shorten it: batuta serve context --strategy sliding-window; or lower the output limit: --max-tokens"
        details = "; ".join(f"{display(candidate.backend)}: {gate.detail}" for candidate, gate in context)
        return ContextOverflowError(f"the conversation does not fit: {details}", hint=hint, result=plan.to_json())
    lacking = [(candidate, gate) for candidate in plan.candidates for gate in candidate.gates if gate.lacks]
    if lacking:
        details = "; ".join(f"{display(candidate.backend)}: {gate.detail}" for candidate, gate in lacking)
        hint = "leave it out, or use a model whose backend has it"
        return InvalidInputError(f"no backend can take the request: {details}", hint=hint, result=plan.to_json())
    if plan.model and plan.model not in known_models and (near := did_you_mean(plan.model, known_models)):
        error.hint = near.removeprefix(", ") + f" {error.hint}"
    return error


def _refused(plan: Plan, name: GateName) -> list[tuple[Candidate, GateResult]]:
    """The candidates whose first refusing gate is this one, with its result."""
    refused = ((candidate, candidate.refused_by) for candidate in plan.candidates)
    return [(candidate, gate) for candidate, gate in refused if gate is not None and gate.name is name]


def _cost_error(candidate: Candidate, gate: GateResult, max_request_cost: int, plan: Plan) -> BatutaError:
    message, result = f"{display(candidate.backend)}: {gate.detail}", plan.to_json()
    if gate.hint:
        return UnboundedCostError(message, hint=gate.hint, result=result)
    if gate.number is None:
        hint = "give the model a price under [models] in config.toml"
        return UnknownPriceError(message, hint=hint, result=result)
    if gate.number > max_request_cost:
        hint = "lower the output limit, or allow more: batuta serve budget set --max-request-cost USD"
        return RequestTooExpensive(message, hint=hint, result=result)
    hint = (
        "to see what was spent: batuta serve budget history; to allow more: batuta serve budget set --daily-budget USD"
    )
    return DailyBudgetExceeded(message, hint=hint, result=result)
