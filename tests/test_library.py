"""What `from batuta_cli.serve import …` and `from batuta_cli.pacha import …` give a program, and what they cost it."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ["batuta_cli.pacha", "batuta_cli.serve"]

ISSUED = """
    ChatMessage Role TemplateFormat detect_format Detection ChatTemplateEngine ServingBackend PrivacyTier LatencyTier
    ThroughputTier CostTier BackendSelector CostCircuitBreaker CircuitBreakerConfig CostError DailyBudgetExceeded
    RequestTooExpensive TokenPricing open_ledger ContextWindow ContextManager TruncationStrategy FailoverManager
    FailoverConfig SpilloverRouter RouterConfig RoutingDecision plan PlanRequest Snapshot BackendState Plan
    Pipeline ChatRequest Response
"""


def _seen_by_a_type_checker(package: str) -> dict[str, str]:
    """Name to module, of the imports under `if TYPE_CHECKING:`."""
    tree = ast.parse(inspect.getsource(import_module(package)))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{node.module}" for node in imports for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_type_checker_sees_the_same_names_from_the_same_modules_as_a_program(package: str) -> None:
    module = import_module(package)
    seen = _seen_by_a_type_checker(package)
    assert sorted(seen) == sorted(module.__all__)
    for name, home in seen.items():
        assert getattr(module, name) is getattr(import_module(home), name)


def test_every_name_that_was_promised_is_there() -> None:
    assert set(ISSUED.split()) <= set(import_module("batuta_cli.serve").__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_import_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        import_module(package).Nothing  # noqa: B018 - being looked up is what it is for


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_the_package_imports_nothing_else_of_batuta(package: str) -> None:
    program = f"import sys, {package}; print(*sorted(name for name in sys.modules if name.startswith('batuta_cli')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["batuta_cli", package]
