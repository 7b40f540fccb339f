"""Model requests: prompts, token counts, budgets, privacy, routing and failover (docs/python.md).

    from batuta_cli.serve import ChatMessage, ChatRequest, Pipeline

    request = ChatRequest(model="smollm2-135m", messages=[ChatMessage.user("Hello")], privacy="sovereign")
    print(Pipeline().complete(request).text)

Each name is imported from its module at its first use, so importing this package imports nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batuta_cli.serve.backends import BackendSelector, ServingBackend
    from batuta_cli.serve.budget.breaker import (
        Alert,
        BudgetStatus,
        CircuitBreakerConfig,
        CostCircuitBreaker,
        CostError,
        DailyBudgetExceeded,
        RequestTooExpensive,
        Reservation,
    )
    from batuta_cli.serve.budget.ledger import Ledger, open_ledger
    from batuta_cli.serve.context.manager import ContextManager, ContextWindow
    from batuta_cli.serve.context.truncation import Truncation, TruncationStrategy
    from batuta_cli.serve.messages import ChatMessage, Role, ToolCall, read_messages
    from batuta_cli.serve.models.pricing import TokenPricing, price_for
    from batuta_cli.serve.pipeline.failover import (
        FailoverManager,
        FailoverRequest,
        Obstacle,
        StreamingContext,
        Takeover,
        UnknownRequestError,
        continuation,
    )
    from batuta_cli.serve.pipeline.pipeline import Pipeline
    from batuta_cli.serve.pipeline.request import ChatRequest, Completion, Summary
    from batuta_cli.serve.pipeline.response import Response
    from batuta_cli.serve.retry import FailoverConfig
    from batuta_cli.serve.routing.gates import (
        BackendState,
        Candidate,
        GateName,
        GateResult,
        Need,
        PlanRequest,
        Snapshot,
    )
    from batuta_cli.serve.routing.planning import Plan, plan
    from batuta_cli.serve.routing.router import (
        Limits,
        Local,
        Reason,
        Reject,
        RouterConfig,
        RoutingDecision,
        Spillover,
        SpilloverRouter,
    )
    from batuta_cli.serve.templates.control import Finding, Injection, scan_control_tokens
    from batuta_cli.serve.templates.detection import Detection, detect_format
    from batuta_cli.serve.templates.engine import ChatTemplateEngine
    from batuta_cli.serve.templates.formats import NamedFormat, TemplateFormat, named_format, named_formats
    from batuta_cli.serve.templates.template_input import SystemFallback
    from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier
    from batuta_cli.serve.tokens import TokenCount, Tokenizer, count_messages, count_prompt, tokenizer_for

_MODULES = {
    "backends": ("BackendSelector", "ServingBackend"),
    "budget.breaker": (
        "Alert",
        "BudgetStatus",
        "CircuitBreakerConfig",
        "CostCircuitBreaker",
        "CostError",
        "DailyBudgetExceeded",
        "RequestTooExpensive",
        "Reservation",
    ),
    "context.manager": ("ContextManager", "ContextWindow"),
    "pipeline.failover": (
        "FailoverManager",
        "FailoverRequest",
        "Obstacle",
        "StreamingContext",
        "Takeover",
        "UnknownRequestError",
        "continuation",
    ),
    "retry": ("FailoverConfig",),
    "pipeline.pipeline": ("Pipeline",),
    "pipeline.request": ("ChatRequest", "Completion", "Summary"),
    "pipeline.response": ("Response",),
    "budget.ledger": ("Ledger", "open_ledger"),
    "messages": ("ChatMessage", "Role", "ToolCall", "read_messages"),
    "routing.gates": ("BackendState", "Candidate", "GateName", "GateResult", "Need", "PlanRequest", "Snapshot"),
    # Not `plan`: a module of that name would take the place of the function.
    "routing.planning": ("Plan", "plan"),
    "models.pricing": ("TokenPricing", "price_for"),
    "routing.router": (
        "Limits",
        "Local",
        "Reason",
        "Reject",
        "RouterConfig",
        "RoutingDecision",
        "Spillover",
        "SpilloverRouter",
    ),
    "templates.control": ("Finding", "Injection", "scan_control_tokens"),
    "templates.template_input": ("SystemFallback",),
    "templates.detection": ("Detection", "detect_format"),
    "templates.engine": ("ChatTemplateEngine",),
    "templates.formats": ("NamedFormat", "TemplateFormat", "named_format", "named_formats"),
    "tiers": ("CostTier", "LatencyTier", "PrivacyTier", "ThroughputTier"),
    "tokens": ("TokenCount", "Tokenizer", "count_messages", "count_prompt", "tokenizer_for"),
    "context.truncation": ("Truncation", "TruncationStrategy"),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Alert",
    "BackendSelector",
    "BackendState",
    "BudgetStatus",
    "Candidate",
    "ChatMessage",
    "ChatRequest",
    "ChatTemplateEngine",
    "CircuitBreakerConfig",
    "Completion",
    "ContextManager",
    "ContextWindow",
    "CostCircuitBreaker",
    "CostError",
    "CostTier",
    "DailyBudgetExceeded",
    "Detection",
    "FailoverConfig",
    "FailoverManager",
    "FailoverRequest",
    "Finding",
    "GateName",
    "GateResult",
    "Injection",
    "LatencyTier",
    "Ledger",
    "Limits",
    "Local",
    "NamedFormat",
    "Need",
    "Obstacle",
    "Pipeline",
    "Plan",
    "PlanRequest",
    "PrivacyTier",
    "Reason",
    "Reject",
    "RequestTooExpensive",
    "Reservation",
    "Response",
    "Role",
    "RouterConfig",
    "RoutingDecision",
    "ServingBackend",
    "Snapshot",
    "Spillover",
    "SpilloverRouter",
    "StreamingContext",
    "Summary",
    "SystemFallback",
    "Takeover",
    "TemplateFormat",
    "ThroughputTier",
    "TokenCount",
    "TokenPricing",
    "Tokenizer",
    "ToolCall",
    "Truncation",
    "TruncationStrategy",
    "UnknownRequestError",
    "continuation",
    "count_messages",
    "count_prompt",
    "detect_format",
    "named_format",
    "named_formats",
    "open_ledger",
    "plan",
    "price_for",
    "read_messages",
    "scan_control_tokens",
    "tokenizer_for",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
