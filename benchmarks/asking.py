"""A client that costs little beside the server it asks: JSON over one kept connection, by hand.

On two cores, httpx's own work for 64 connections (15 ms of a core a request, the server's 3) was what was measured.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any


class Connection:
    """One connection, a request at a time."""

    def __init__(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = address.removeprefix("http://")
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, address: str) -> "Connection":
        """Connect to http://host:port."""
        host, _, port = address.removeprefix("http://").partition(":")
        return cls(address, *await asyncio.open_connection(host, int(port)))

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Return the status and what is answered."""
        content = json.dumps(body).encode()
        head = (f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n\r\n")  # fmt: skip
        self._writer.write(head.encode() + content)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        answer = json.loads(await self._reader.readexactly(int(headers["content-length"])))
        return int(first.split()[1]), answer


Request = tuple[str, Any]  # path and body
Heard = Callable[[int, int, Any, float], None]  # the request's number, status, answer, seconds


async def ask(address: str, requests: Iterator[tuple[int, Request]], clients: int, heard: Heard) -> float:
    """Let so many clients ask all requests, each one at a time; return the seconds that it took."""
    connections = [await Connection.to(address) for _ in range(clients)]

    async def asks(connection: Connection) -> None:
        for number, (path, body) in requests:
            began = time.perf_counter()
            status, answer = await connection.post(path, body)
            heard(number, status, answer, time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(asks, connections))
    return time.perf_counter() - began
