"""Who comes in, how much they may bring, and how they are told no: the same shape for every refusal, OpenAI's."""

import asyncio
import base64
import binascii
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

from mptune.errors import ArtifactError, DataError, MptuneError, UnknownNameError, UsageError
from mptune.serving.bodies import check, is_json, slip
from mptune.serving.engine import Busy, Draining, TooLate
from mptune.serving.keys import Gate
from mptune.serving.meters import Meters
from mptune.serving.settings import LOOPBACK, ServeConfig
from mptune.terminal import visible

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger = logging.getLogger("mptune.serving")

OPEN = frozenset({"/health/live"})  # without a key: what restarts a process asks only whether it lives
PAGE = "/page/"  # its files want a key and are not counted: opening the page takes some twenty, and none computes
SLOWEST, LONGEST = 20.0, 120.0  # seconds for the next part of a body, and for all of it
MOST_AT_ONCE = 2_000  # requests
METHODS = ("DELETE", "GET", "POST", "PUT")
KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error",
         415: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error",
         431: "invalid_request_error", 503: "overloaded_error"}  # fmt: skip
CLOSE = {"Connection": "close"}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:]+)\]|([^:\[\]]*))(?::\d*)?")
LONGEST_TOLD = 1_000  # characters of a message, which may repeat what came


class Refused(Exception):
    """A request that is told no."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}
        super().__init__(message)


def body_of(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return a refusal as OpenAI's clients read it."""
    kind = KINDS.get(status, "server_error")
    message = visible(message)[:LONGEST_TOLD]
    return {"error": {"message": message, "type": kind, "param": param, "code": code or kind}}


async def refused(request: Request, error: Exception) -> JSONResponse:
    """Return what is told of an error."""
    if isinstance(error, RequestValidationError):
        place, told = slip(error.errors(), error.body)
        message = f"{place}: {told}" if place else f"the body is no JSON of this route: {told}"
        status = 422 if place else 400
        return JSONResponse(body_of(status, message, param=visible(place)[:100] or None), status)
    if isinstance(error, StarletteHTTPException) and error.status_code in (404, 405):
        error = _no_route(request)
    status, message, code, headers = _of_error(error)
    message = message.replace(f"{request.app.state.folder}{os.sep}", "")  # where prompts lie on this side is nobody's
    return JSONResponse(body_of(status, message, code), status, headers)


def _no_route(request: Request) -> Refused:
    """Return what is told of a path that nobody answers, or not by this method."""
    path, routes = request.url.path[:200], request.app.routes
    takes = [m for m in METHODS if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes)]
    if not takes:
        return Refused(404, f"there is no {path} here; GET /docs shows what there is")
    listed = ", ".join(takes)
    return Refused(405, f"{path} takes {listed}; got {request.method[:20]}", headers={"Allow": listed})


def told_of(error: Exception) -> dict[str, Any]:
    """Return what is told of an error where its status was sent before."""
    status, message, code, _ = _of_error(error)
    return body_of(status, message, code)


def _of_error(error: Exception) -> tuple[int, str, str | None, dict[str, str]]:
    if isinstance(error, Refused):
        return error.status, error.message, error.code, error.headers
    if isinstance(error, StarletteHTTPException):
        return error.status_code, str(error.detail), None, dict(error.headers or {})
    if isinstance(error, Busy):
        return 429, str(error), "queue_full", {"Retry-After": str(error.seconds)}
    if isinstance(error, Draining | TooLate):
        return 503, str(error), None, {"Retry-After": "5"}
    if isinstance(error, UnknownNameError):
        return 404, str(error), "model_not_found", {}
    if isinstance(error, UsageError | DataError | ArtifactError):
        return 400, str(error), None, {}
    if isinstance(error, MptuneError):
        return 500, str(error), None, {}
    return 500, "something went wrong on this side; the server's log says what", None, {}


class Door:
    """Checks key, rate and size of every request, counts it and writes a line of it, without its text."""

    def __init__(self, app: Any, gate: Gate, config: ServeConfig, meters: Meters) -> None:
        self._app, self._gate, self._config, self._meters = app, gate, config, meters
        self._inside = 0  # requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        self._inside += 1

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
        except Refused as error:
            response = JSONResponse(body_of(error.status, error.message, error.code), error.status, error.headers)
            await response(scope, receive, counted)
        else:
            await self._app(scope, _replayed(body, receive), counted)
        finally:
            self._inside -= 1
            self._count(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        found = scope.get("route")
        route = getattr(found, "path", None) or "(none)"
        self._meters.requests.labels(route, str(status)).inc()
        self._meters.seconds.labels(route).observe(seconds)
        key, path = scope.get("mptune.key"), visible(scope["raw_path"].decode("latin-1"))[:200]
        whose = f" key={key.name}" if key else ""
        task = f" task={scope['mptune.task']}" if "mptune.task" in scope else ""
        method = scope["method"][:20]  # a word that a client has chosen
        logger.info("%s %s %d %.1f ms%s%s", method, path, status, 1000 * seconds, whose, task)

    def _check(self, scope: Scope) -> None:
        """Refuse who has no key, or asks too often with it; and what a page of another site sends from a browser.

        A browser adds the key that it knows to such a request, and needs none where there are no keys.
        """
        if self._inside > MOST_AT_ONCE:
            raise Refused(503, f"{MOST_AT_ONCE:,} requests are being answered; come again in 5 s", None,
                          {"Retry-After": "5"})  # fmt: skip
        headers = {name.lower(): value for name, value in scope["headers"]}
        if scope["method"] not in ("GET", "HEAD") and _from_elsewhere(headers):
            raise Refused(403, "a page of another site may not ask this server from a browser")
        if self._gate.is_open:
            # A page of a stranger may have its own name lead to this machine, and would then read what is answered.
            host = headers.get(b"host", b"").decode("latin-1")
            if _without_port(host) not in LOOPBACK:
                raise Refused(403, f"without keys this server answers to {', '.join(LOOPBACK)}; got Host: "
                              f"{host[:80]}")  # fmt: skip
            return
        if scope["path"] in OPEN:
            return
        key = self._gate.key(_given(headers.get(b"authorization", b"")))
        if key is None:
            # A browser asks for a name and a password then; the key is the password.
            raise Refused(401, "wants a key: Authorization: Bearer KEY", "invalid_api_key",
                          {"WWW-Authenticate": 'Basic realm="mptune", charset="UTF-8"'})  # fmt: skip
        scope["mptune.key"] = key
        if scope["path"] == "/" or scope["path"].startswith(PAGE):
            return
        if wait := self._gate.wait(key):
            seconds = str(int(wait) + 1)
            raise Refused(429, f"the key {key.name} may ask {key.per_minute} times a minute; come again in {seconds} s",
                          "rate_limit_exceeded", {"Retry-After": seconds})  # fmt: skip

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return a request's body; who brings too much, too slowly, or no JSON, is refused before it is looked at."""
        most = self._config.max_body
        headers = {name.lower(): value for name, value in scope["headers"]}
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said) > most:
            raise Refused(413, f"a body has at most {most:,} bytes; got {int(said):,}. Send several requests")
        parts, size, more, ends = [], 0, True, time.monotonic() + LONGEST
        while more:
            left = min(SLOWEST, ends - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                told = f"a body wants to come within {LONGEST:g} s, and its next part within {SLOWEST:g} s"
                raise Refused(408, told, None, CLOSE) from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "the client is gone")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise Refused(413, f"a body has at most {most:,} bytes. Send several requests", None, CLOSE)
            more = message.get("more_body", False)
        body = b"".join(parts)
        if body:
            _look_at(body, headers.get(b"content-type", b"").decode("latin-1"))
        return body


def _look_at(body: bytes, content_type: str) -> None:
    if not is_json(content_type):
        raise Refused(415, f"wants Content-Type: application/json; got {content_type[:80] or 'none'}")
    try:
        check(body)
    except ValueError as error:
        raise Refused(400, str(error)) from None


def _from_elsewhere(headers: MutableMapping[bytes, bytes]) -> bool:
    """Return whether a page of another site has a browser send a request.

    Browsers tell it of what goes over TLS or to this machine; of the rest they tell where the page came from.
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site in (b"cross-site", b"same-site")
    return origin is not None and _place_of(origin) != headers.get(b"host", b"").decode("latin-1").lower()


def _place_of(origin: bytes) -> str:
    try:
        return urlsplit(origin.decode("latin-1")).netloc.lower()
    except ValueError:  # brackets that hold no address
        return ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that has been read, and then waits for the client to go."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _given(header: bytes) -> str | None:
    """Return the key of a request: as a bearer's, or as the password that a browser asks for."""
    scheme, _, value = header.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _without_port(host: str) -> str:
    """Return the name or address of a Host header, which may have a port, and brackets around an address."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""
