"""What a request needs of a backend beside text."""

from batuta_cli.serve.backends.wire_formats import Need
from batuta_cli.serve.pipeline import content
from batuta_cli.serve.pipeline.request import ChatRequest


def needs_of(request: ChatRequest) -> frozenset[Need]:
    """The needs of a request, from its options, its content and its hosted tools."""
    options = request.options
    kind = options.get("response_format")
    needs = {
        Need.STREAMING: request.stream,
        Need.TOOLS: bool(options.get("tools")),
        Need.JSON: isinstance(kind, dict) and kind.get("type") not in (None, "text"),
        Need.CHOICES: (options.get("n") or 1) != 1,
        Need.EMBEDDINGS: bool(request.inputs),
    }
    return content.needs_of(request) | frozenset(need for need, is_needed in needs.items() if is_needed)
