"""Render conversations in a named format, with a template of this package.

The table of formats says what each format can express, so no trial rendering is needed. These templates are trusted
and rendered in this process.
"""

import datetime as dt
from collections.abc import Mapping
from functools import cache
from typing import Any

from batuta_cli.errors import TemplateError
from batuta_cli.serve.templates.formats import NamedFormat, named_format
from batuta_cli.serve.templates.render import Renderer, RenderError
from batuta_cli.serve.templates.template_input import Conversation, SystemFallback, as_own_context, expressed


class OwnTemplate:
    """The template of a named format."""

    def __init__(self, format: NamedFormat) -> None:
        self._format = format
        self._renderer = _renderer(format.name)

    def render(
        self, conversation: Conversation, fallback: SystemFallback, now: dt.datetime, options: Mapping[str, Any]
    ) -> str:
        """Return the prompt. Raises `TemplateError`."""
        conversation = expressed(conversation, self._format, fallback)
        context = {
            "tools": None,
            "documents": None,
            "messages": as_own_context(conversation),
            "bos_token": self._format.bos_token,
            "eos_token": self._format.eos_token,
            **options,
        }
        try:
            return self._renderer.render(context, now=now)
        except RenderError as error:
            raise TemplateError(f"the format {self._format.name} cannot be rendered: {error.reason}") from None

    def names(self) -> frozenset[str]:
        """Return the names of variables, attributes and keys that the template reads."""
        return _names(self._format.name)

    def close(self) -> None:
        """Do nothing: this template has no process."""


@cache
def _names(name: str) -> frozenset[str]:
    return _renderer(name).names()


@cache
def _renderer(name: str) -> Renderer:
    return Renderer(named_format(name).template, trusted=True)
