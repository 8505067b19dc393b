"""The application: routes, errors, and the guard that every request passes."""

import asyncio
import contextlib
import functools
import secrets
import sys
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s_jax.explore.page import PATHS as PAGE_PATHS
from s2s_jax.serve.api import OPERATIONS, Operation, json_response
from s2s_jax.serve.config import LOOPBACK_NAMES, ServeConfig
from s2s_jax.serve.errors import RequestError
from s2s_jax.serve.service import Service

# without a token: a browser cannot send it before the page is there, which holds no secret
OPEN_PATHS = (*PAGE_PATHS, *(operation.path for operation in OPERATIONS if not operation.secret))
# a route of a page sets a Content-Security-Policy of its own; what else it sets is kept as well
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
CLIENT_LEFT = 499  # counted as nginx does; nobody reads the response


def create_app(service: Service, pages: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The application of a service.

    Args:
        pages: further routes, such as those of a page and its files; those in `OPEN_PATHS` take no token.
    """
    routes = [_route(service, operation) for operation in OPERATIONS]
    handlers: Any = {
        RequestError: lambda request, error: error_response(error),
        HTTPException: _http_error,
        ClientDisconnect: lambda request, error: Response(status_code=CLIENT_LEFT),
        Exception: lambda request, error: error_response(RequestError("internal_error", "the server failed")),
    }
    app = Starlette(
        routes=[*routes, *pages], exception_handlers=handlers, lifespan=functools.partial(_lifespan, service)
    )
    app.router.redirect_slashes = False
    return Guard(app, service, frozenset(route.path for route in app.routes if isinstance(route, Route)))


def _route(service: Service, operation: Operation) -> Route:
    async def endpoint(request: Request) -> Response:
        return await operation.answer(service, request)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.answer.__name__)


@contextlib.asynccontextmanager
async def _lifespan(service: Service, app: Starlette) -> AsyncIterator[None]:
    """Compile while the server runs; at its end compute what waits still."""
    stop_counting = service.batcher.metrics.count_compilations()
    service.batcher.start()
    compiling = asyncio.create_task(_compile(service))
    try:
        yield
    finally:
        compiling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await compiling
        service.explorations.stop()
        await service.batcher.stop()
        stop_counting()


async def _compile(service: Service) -> None:
    try:
        await service.compile()
    except Exception:
        traceback.print_exc(file=sys.stderr)
        service.failed = True


def error_response(error: RequestError) -> Response:
    """The response of an error."""
    return json_response(error.record, status=error.status, headers=error.headers)


def _http_error(request: Request, error: HTTPException) -> Response:
    """What Starlette refuses, in the same form."""
    if error.status_code == 405:
        refused = RequestError("method_not_allowed", f"{request.url.path} does not take {request.method}")
        response = error_response(refused)
        response.headers.update(error.headers or {})
        return response
    return error_response(RequestError("not_found", "there is no such address; /openapi.json lists them"))


class Guard:
    """Checks host and token of each request, adds headers to its response, and counts both."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]):
        self.app, self.service, self.config, self.paths = app, service, service.config, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            refused = refusal(self.config, scope)
            app = error_response(refused) if refused else self.app
            await app(scope, receive, guarded_send)
        finally:
            metrics = self.service.batcher.metrics
            path = scope["path"] if scope["path"] in self.paths else "other"
            metrics.requests.add(path, str(status or CLIENT_LEFT))
            metrics.latency.observe(time.monotonic() - started)


def refusal(config: ServeConfig, scope: Scope) -> RequestError | None:
    """Why a request is not let in: its host or its token; None where it is.

    On a loopback address the host must be one: a page of another site whose name is made to point here has its own
    name in that header, and is kept out (DNS rebinding).
    """
    headers = Headers(scope=scope)
    host = headers.get("host", "").lower()
    name = host[: host.rfind("]") + 1].strip("[]") if host.startswith("[") else host.partition(":")[0]
    if config.is_local and name not in (*LOOPBACK_NAMES, config.host):
        return RequestError("bad_host", f"this server is {config.host}, not {ascii(name)[:100]}")
    if not config.token or scope["path"] in OPEN_PATHS:
        return None
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secrets.compare_digest(token.strip().encode(), config.token.encode()):
        return None
    return RequestError("unauthorized", "send the token of the server: Authorization: Bearer TOKEN")
