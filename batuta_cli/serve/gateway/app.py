"""The gateway as an ASGI 3 application.

    app = Gateway(open_pipeline, settings)      # runs under any ASGI server that supports the lifespan protocol

A request passes the access check (`access`), then the route that `route_table` finds for its path; `http_errors` maps
errors to statuses. `/health` and `/ready` need no client key; every other path does, unknown paths included.

A stream that cannot be completed ends with an error event, and its HTTP message is left incomplete, so that no client
takes it for a complete one. An internal error is logged by its type; the client gets "internal error".
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from batuta_cli.serve.gateway import METRICS_DIRECTORY, info_routes, logs
from batuta_cli.serve.gateway.access import AccessCheck, read_headers
from batuta_cli.serve.gateway.connection import ClientLeftError, Connection, Receive, Scope, Send
from batuta_cli.serve.gateway.http_errors import HttpError, check_method, error_body, http_error_for
from batuta_cli.serve.gateway.keys import ClientKeys
from batuta_cli.serve.gateway.route_table import error_format, find_route
from batuta_cli.serve.gateway.state import GatewaySettings, GatewayState

if TYPE_CHECKING:
    from batuta_cli.serve.gateway.reload import Reconfigured
    from batuta_cli.serve.pipeline.pipeline import Pipeline

CLIENT_LEFT = 499
"""The status, in log and metrics, of a request whose client has disconnected. nginx uses the same number."""


class Gateway:
    """The application."""

    def __init__(
        self,
        open_pipeline: "Callable[[], contextlib.AbstractAsyncContextManager[Pipeline]]",
        settings: GatewaySettings | None = None,
        *,
        keys: ClientKeys | None = None,
        log: logs.Log | None = None,
        reconfigure: "Callable[[Pipeline], Reconfigured] | None" = None,
    ) -> None:
        """`reconfigure` is called by `reload`; without it `reload` does nothing."""
        settings = settings or GatewaySettings()
        access = AccessCheck(keys or ClientKeys(), settings.origins)
        self._open_pipeline = open_pipeline
        self._reconfigure = reconfigure
        self._reloading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._state = GatewayState(settings, access, log or logs.Log())
        self.startup_error: Exception | None = None
        """Why the pipeline could not be opened."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            state = self._state
            await self._serve(Connection(scope, receive, send, state.settings.limits, state.bodies))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        state = self._state
        await receive()
        try:
            state.pipeline = await self._open_pipeline().__aenter__()
            refresher = asyncio.create_task(self._refresh_gauges()) if os.environ.get(METRICS_DIRECTORY) else None
            await send({"type": "lifespan.startup.complete"})
            await receive()
            if refresher:
                refresher.cancel()
            async with self._reloading:
                pipeline, state.pipeline = state.pipeline, None
            await pipeline.__aexit__(None, None, None)
            await asyncio.gather(*self._retiring)
        except BaseException as raised:
            error = state.handled(raised)
            state.log.write("error", "pipeline", **logs.describe(error))
            self.startup_error = error
            phase = "startup" if state.pipeline is None and not state.draining else "shutdown"
            await send({"type": f"lifespan.{phase}.failed", "message": http_error_for(error).message})
            return
        state.log.flush()
        await send({"type": "lifespan.shutdown.complete"})

    async def _refresh_gauges(self) -> None:
        # Another worker may answer `/metrics`, and reads this worker's gauges from a file.
        while True:
            await self._state.refresh_gauges()
            await asyncio.sleep(1)

    async def drain(self, seconds: float) -> None:
        """Refuse new requests, wait up to `seconds` for open ones, then end those with an error."""
        state = self._state
        state.draining = True
        state.log.write("info", "draining", open_requests=len(state.open_requests))
        state.throttle.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await state.idle.wait()
        self.cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):  # time to write the error events
                await state.idle.wait()

    async def reload(self) -> None:
        """Read the configuration again and use it from the next request on; an invalid one changes nothing.

        Requests in progress keep the old configuration until they end.
        """
        state = self._state
        async with self._reloading:
            old = state.pipeline
            if old is None or state.draining or self._reconfigure is None:
                return
            try:
                new = await asyncio.to_thread(self._reconfigure, old)
                await new.pipeline.__aenter__()
            except BaseException as raised:
                state.log.write("error", "reload_failed", **logs.describe(state.handled(raised)))
                return
            state.pipeline = new.pipeline
            state.apply(new.settings)
            state.log.write("info", "reloaded", need_restart=list(new.need_restart) or None)
            retiring = asyncio.create_task(self._retire(old))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    async def _retire(self, pipeline: "Pipeline") -> None:
        try:
            await self._state.wait_until_unused(pipeline)
            await pipeline.__aexit__(None, None, None)
        except BaseException as raised:
            self._state.log.write("error", "pipeline", **logs.describe(self._state.handled(raised)))

    def cut(self) -> None:
        """End all open requests with an error."""
        for connection in tuple(self._state.open_requests):
            connection.cut()

    def connection_closed(self, limit: str) -> None:
        """Count a connection that the server closed because it exceeded `limit`."""
        self._state.metrics.connection_closed(limit)

    async def _serve(self, connection: Connection) -> None:
        state = self._state
        try:
            await self._route(connection)
        except ClientLeftError as left:
            connection.log_fields["left"] = left.reason
            connection.status = CLIENT_LEFT
            state.metrics.client_left()
        except BaseException as raised:
            error = state.handled(raised)
            try:
                await self._send_error(connection, error)
            except Exception as second:  # the request is logged all the same
                connection.status = connection.status or 500
                connection.log_fields["error_response_failed"] = type(second).__name__
        finally:
            connection.release_body()
        seconds = connection.seconds
        state.metrics.request(connection.route, connection.status, seconds)
        if connection.model is not None:
            state.metrics.model_request(connection.model, connection.client, connection.status)
        if connection.route in info_routes.PROBES:  # frequent, and counted in the metrics
            return
        is_broken = connection.status >= 500 or "broken" in connection.log_fields
        state.log.write(
            "error" if is_broken else "warning" if "unknown_fields" in connection.log_fields else "info",
            "request",
            request_id=connection.shown_id,
            id=connection.id if connection.id != connection.shown_id else None,
            method=connection.scope["method"],
            route=connection.route,
            status=connection.status,
            seconds=round(seconds, 6),
            client=connection.client or None,
            **connection.log_fields,
        )

    async def _send_error(self, connection: Connection, error: Exception) -> None:
        http_error = http_error_for(error)
        connection.log_fields["code"] = http_error.code
        if not isinstance(error, HttpError):
            connection.log_fields |= logs.describe(error)
        if connection.ended:
            return
        with contextlib.suppress(ClientLeftError):
            if connection.started and connection.reply is not None:
                self._state.metrics.broken()
                connection.log_fields["broken"] = True
                # The message is left incomplete: the server then closes the connection, which clients see as an error.
                await connection.last_part(connection.reply.broken(http_error, connection.shown_id))
            else:
                body = error_body(error_format(connection), http_error, connection.shown_id)
                await connection.respond(http_error.status, body, headers=http_error.all_headers)

    async def _route(self, connection: Connection) -> None:
        state, scope = self._state, connection.scope
        path, method = scope["path"], scope["method"]
        connection.headers = read_headers(scope["headers"])
        connection.take_id()
        if path in info_routes.PROBES:
            connection.route = path
            await info_routes.probe(state, connection)
            return
        connection.more_headers = state.access.cors(connection.headers)
        if method == "OPTIONS" and connection.more_headers:
            await info_routes.preflight(connection)
            return
        client = state.access.admit(scope.get("client"), connection.headers)
        connection.client, connection.admin = client.name, client.admin
        connection.limits, connection.account = client.limits, client.limits.account(client.name)
        found = find_route(path)
        if found is None:
            raise HttpError(404, "not_found", "there is no such route")
        connection.route, connection.path_rest, route = found
        if route.methods:
            check_method(method, route.methods)
        if not route.counted:
            await route.serve(state, connection)
            return
        async with state.throttle.admitted(client, connection):
            await route.serve(state, connection)
