"""Conversations by a format that has a name here, and a template of ours.

What the format can express is known from the table, so nothing has to be tried out; the template is trusted and
rendered in this process.
"""

import datetime as dt
import threading
from collections.abc import Mapping
from typing import Any

from batuta_cli.errors import TemplateError
from batuta_cli.serve.templates.formats import NamedFormat
from batuta_cli.serve.templates.render import Renderer, RenderError, fuel_for
from batuta_cli.serve.templates.template_input import Conversation, SystemFallback, as_own_context, expressed, size_of


class OwnTemplate:
    """The template of a named format."""

    def __init__(self, format: NamedFormat) -> None:
        self._format = format
        self._renderer = Renderer(format.template)
        self._lock = threading.Lock()  # a renderer knows one date and one bound at a time

    def render(
        self, conversation: Conversation, fallback: SystemFallback, now: dt.datetime, options: Mapping[str, Any]
    ) -> str:
        """The prompt. Raises `TemplateError`."""
        conversation = expressed(conversation, self._format, fallback)
        context = {
            "messages": as_own_context(conversation),
            "bos_token": self._format.bos_token,
            "eos_token": self._format.eos_token,
            **options,
        }
        fuel = fuel_for(*size_of(conversation))
        try:
            with self._lock:
                return self._renderer.render(context, fuel=fuel, now=now)
        except RenderError as error:
            raise TemplateError(f"the format {self._format.name} cannot be rendered: {error.reason}") from None

    def close(self) -> None:
        """There is nothing to close."""
