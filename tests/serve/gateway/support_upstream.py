"""A gateway over a real pipeline whose backends are scripted servers, asked without a socket."""

import asyncio
import io
import threading
from collections.abc import Coroutine, Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config, ModelSection, Privacy
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.gateway.app import Gateway
from batuta_cli.serve.gateway.keys import ClientKeys
from batuta_cli.serve.gateway.logs import Log
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.routing.health import BackendHealth
from tests.serve.gateway.support import Asking, Response
from tests.serve.support_backend import FaultServer, Script

MODEL = "test-model"
DOLLAR = Decimal("1")
PRICED = ModelSection(
    context_window=100_000, output_reserve=64, input_usd_per_million=DOLLAR, output_usd_per_million=DOLLAR
)


class Upstream:
    """A running gateway over one scripted backend; `answer` has its next steps, or a function of the request's body."""

    def __init__(
        self,
        tmp_path: Path,
        profile: str = "generic",
        *,
        more_models: tuple[str, ...] = (),
        tables: Mapping[str, Any] = MappingProxyType({}),
        **backend: Any,
    ) -> None:
        """`tables`: further tables of the configuration; `backend`: further keys of the backend's table."""
        self.answer: list[Any] = []
        self._path, self._profile, self._backend = tmp_path, profile, backend
        self._models, self._tables = (MODEL, *more_models), tables
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server = FaultServer(self._script)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server.__enter__()
        table = Table(profile=self._profile, base_url=self._server.base_url, models=self._models, **self._backend)
        config = Config(
            backends={"one": table},
            models=dict.fromkeys(self._models, PRICED),
            privacy=Privacy(tier="standard"),
            **self._tables,
        )
        self.pipeline = Pipeline(
            config,
            breaker=CostCircuitBreaker(CircuitBreakerConfig()),
            audit=AuditLog(self._path / "audit"),
            failover=FailoverConfig(max_retries=0),
        )
        written = io.BytesIO()
        log = Log(written)
        gateway = Gateway(lambda: self.pipeline, keys=ClientKeys(self._path / "keys.toml"), log=log)
        self._asking = Asking(gateway, self.pipeline, log, written)  # type: ignore[arg-type]
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[Any] = asyncio.Queue()
        self._life = self._run_soon(gateway({"type": "lifespan"}, self._to_app.get, self._from_app.put))
        assert self._tell("startup") == "lifespan.startup.complete"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell("shutdown")
        self._life.result(10)
        self._server.__exit__(None, None, None)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def sent(self) -> list[tuple[str, dict[str, str], Any]]:
        """The requests that the backend got."""
        return self._server.requests

    @property
    def log_text(self) -> str:
        return self._asking.log_text

    @property
    def log(self) -> list[dict[str, Any]]:
        return self._asking.log

    def ask(self, path: str, body: Mapping[str, Any] | None, *answer: Any, **more: Any) -> Response:
        """The gateway's response to a request that the backend answers so; earlier failures are forgotten."""
        self.answer = list(answer)
        self.pipeline.monitor.health = BackendHealth(FailoverConfig())
        response: Response = self._run_soon(self._asking.ask(path, body, **more)).result(30)
        return response

    def _script(self, path: str, headers: dict[str, str], body: Any) -> Script:
        if len(self.answer) == 1 and callable(self.answer[0]):
            script: Script = self.answer[0](body)
            return script
        return list(self.answer)

    def _tell(self, what: str) -> str:
        async def tell() -> Any:
            self._to_app.put_nowait({"type": f"lifespan.{what}"})
            return (await self._from_app.get())["type"]

        return str(self._run_soon(tell()).result(10))

    def _run_soon(self, work: "Coroutine[Any, Any, Any]") -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)
