"""A connection: what comes over it and is no HTTP, or does not begin, is refused in the shape of every refusal."""

import asyncio
import json
import logging
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mptune.serving.door import CLOSE, SLOWEST, body_of

logger = logging.getLogger("mptune.serving")
# uvicorn warns of what a client does. That is a line of the server's log already, and whoever likes could fill a disk.
errors = logging.getLogger(__name__)
errors.setLevel(logging.ERROR)


class Connection(H11Protocol):
    """A client's connection. A request whose head has come is the door's; this is about what comes before."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.logger = errors
        self._head: asyncio.TimerHandle | None = None  # ends the time in which a request's head comes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        super().data_received(data)
        self._wait()

    def eof_received(self) -> None:
        """Tell who sends no more that a request has only begun."""
        if self._begun:
            self._refuse(400, "the connection ended in a request's head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuse what h11 cannot read. uvicorn calls this where that has raised, and says nothing of why."""
        error = sys.exception()
        if getattr(error, "error_status_hint", 400) == 431:
            self._refuse(431, "the head of a request is too long; a text goes into its body")
        else:
            self._refuse(400, f"this is no request of HTTP/1.1: {error}")

    @property
    def _begun(self) -> bool:
        """Whether a part of a request's head is there."""
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _wait(self) -> None:
        """Wait for a head, all of it, no longer than for a part of a body; the first begins with the connection."""
        waits = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if waits and self._head is None:
            self._head = self.loop.call_later(SLOWEST, self._late)
        elif not waits and self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        if self._begun:
            self._refuse(408, f"a request's head wants to come within {SLOWEST:g} s")
        self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Say no, write a line unless the door is about to, and hang up; where an answer has begun, only hang up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(body_of(status, message)).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *CLOSE.items()]
            answer = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            if self.cycle is None or self.cycle.response_complete:
                logger.info("- - %d no request", status)
        self.transport.close()
