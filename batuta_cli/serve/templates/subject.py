"""A chat template that is examined: a model's own, one in a file, or a named format.

`TemplateSubject` renders without the protections of `ChatTemplateEngine`: a message that the template omits is omitted.
An untrusted template is rendered in the worker process, with its limits.
"""

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatInput, ChatMessage
from batuta_cli.serve.names import normalised
from batuta_cli.serve.templates.engine import template_options
from batuta_cli.serve.templates.foreign import ForeignTemplate
from batuta_cli.serve.templates.formats import NamedFormat, named_format, named_formats
from batuta_cli.serve.templates.isolation import Allowance
from batuta_cli.serve.templates.own import OwnTemplate
from batuta_cli.serve.templates.render import RenderError
from batuta_cli.serve.templates.template_input import COMMON_FORM, Form, SystemFallback, numbered

if TYPE_CHECKING:
    from batuta_cli.config import ModelSection

DAY = dt.datetime(2024, 7, 26)
"""The time of `strftime_now`, unless another is given; the default date of Llama 3.1's template."""


class TemplateSubject:
    """A chat template, rendered as it is. A context manager, which ends its worker process."""

    def __init__(
        self,
        name: str,
        template: OwnTemplate | ForeignTemplate,
        *,
        source: str,
        bos_token: str,
        eos_token: str,
        path: str = "",
        text: str = "",
        adds_bos: bool | None = None,
    ) -> None:
        self.name = name
        """The name of the model or format, or the path, as it was given."""
        self.source = source
        """Where the template comes from, for display."""
        self.path = path
        """The file or folder; empty for a name."""
        self.text = text
        """The Jinja text of an untrusted template; empty for a named format."""
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.adds_bos = adds_bos
        """Whether the tokenizer puts a BOS before a text; None if the files do not say so."""
        self._template = template

    @classmethod
    def of(cls, name: str, models: Mapping[str, "ModelSection"] = {}) -> Self:
        """The template of a file or folder, a named format, or a model's name.

        `models` is the configuration's `[models]`. Raises `UsageError` for an unknown name, and the errors of
        `read_model_files`.
        """
        if os.path.lexists(name):
            return cls._of_files(Path(name), models)
        exact = next((found for found in named_formats().values() if normalised(found.name) == normalised(name)), None)
        if exact is not None:
            return cls.of_format(exact, name=name)
        return cls._by_name(name, models)

    @classmethod
    def of_format(cls, format: NamedFormat, *, name: str = "", path: str = "", source: str = "") -> Self:
        """The template of a named format."""
        return cls(
            name or format.name,
            OwnTemplate(format),
            source=source or f"the format {format.name}",
            bos_token=format.bos_token,
            eos_token=format.eos_token,
            path=path,
        )

    @classmethod
    def _of_files(cls, path: Path, models: Mapping[str, "ModelSection"]) -> Self:
        from batuta_cli.serve.templates.evidence import read_model_files

        files = read_model_files(path)
        if files.template is None:
            return cls._by_name(str(path), models, path=str(path))
        bos, eos = files.bos_token or "", files.eos_token or ""
        return cls(
            str(path),
            ForeignTemplate(files.template, bos, eos),
            source=files.source,
            bos_token=bos,
            eos_token=eos,
            path=str(path),
            text=files.template,
            adds_bos=files.adds_bos,
        )

    @classmethod
    def _by_name(cls, name: str, models: Mapping[str, "ModelSection"], path: str = "") -> Self:
        from batuta_cli.serve.templates.detection import detect_format

        found = detect_format(name, models)
        source = f"the format {found.name}, by {found.evidence}"
        return cls.of_format(named_format(found.name), name=name, path=path, source=source)

    @property
    def own(self) -> bool:
        """Whether this is a named format."""
        return isinstance(self._template, OwnTemplate)

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        form: Form = COMMON_FORM,
        now: dt.datetime = DAY,
        allowance: Allowance | None = None,
        **options: Any,
    ) -> str:
        """Return the prompt, with the assistant's header unless `options` says otherwise.

        `form` has no effect on a named format, which reads every form alike. Raises `RenderError`.
        """
        conversation, options = numbered(messages), {"add_generation_prompt": True, **options}
        if isinstance(self._template, ForeignTemplate):
            return self._template.render_as_given(conversation, form, now, options, allowance)
        try:
            return self._template.render(conversation, SystemFallback.ERROR, now, options)
        except TemplateError as error:
            raise RenderError(error.message, refused=True) from None

    def prompt(self, chat: ChatInput) -> str:
        """Return the prompt as `ChatTemplateEngine.apply` does, which refuses to lose a message.

        Raises `TemplateError`, and `UsageError` for a reserved variable.
        """
        options = template_options(chat.tools, chat.documents, chat.variables)
        options["add_generation_prompt"] = True
        return self._template.render(numbered(chat.messages), SystemFallback.ERROR, DAY, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._template.close()
