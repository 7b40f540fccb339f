"""Prompts, budgets, routing: what makes a model request correct, private and affordable.

    from batuta_cli.serve import ChatMessage, ChatTemplateEngine

    prompt = ChatTemplateEngine.from_model("llama-2-70b").apply([ChatMessage.user("Hello")])

Each name is imported from its module when it is first used, so that a program pays for what it uses alone.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "backends": ("BackendSelector", "ServingBackend"),
    "budget": (
        "Alert",
        "BudgetStatus",
        "CircuitBreakerConfig",
        "CostCircuitBreaker",
        "CostError",
        "DailyBudgetExceeded",
        "RequestTooExpensive",
        "Reservation",
    ),
    "context": ("ContextManager", "ContextWindow"),
    "failover": ("FailoverConfig", "FailoverManager", "FailoverRequest", "StreamingContext", "Takeover"),
    "ledger": ("open_ledger",),
    "messages": ("ChatMessage", "Role", "ToolCall", "read_messages"),
    # Not `plan`: a module of that name would take the place of the function.
    "planning": ("BackendState", "Need", "Plan", "PlanRequest", "Snapshot", "plan"),
    "pricing": ("TokenPricing", "price_for"),
    "router": ("Local", "Reject", "RouterConfig", "RoutingDecision", "Spillover", "SpilloverRouter"),
    "templates.control": ("Finding", "Injection", "scan_control_tokens"),
    "templates.conversation": ("SystemFallback",),
    "templates.detection": ("Detection", "detect_format"),
    "templates.engine": ("ChatTemplateEngine",),
    "templates.formats": ("NamedFormat", "TemplateFormat", "named_format", "named_formats"),
    "tiers": ("CostTier", "LatencyTier", "PrivacyTier", "ThroughputTier"),
    "tokens": ("TokenCount", "Tokenizer", "count_messages", "count_prompt", "tokenizer_for"),
    "truncation": ("Truncation", "TruncationStrategy"),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_WHERE)  # noqa: PLE0605 - made of the table above


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
