"""The process that serves: it loads, listens, and ends without losing what it has accepted."""

import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from mptune.errors import UsageError, reason
from mptune.model.backbone import Backbone
from mptune.serving.app import make_app
from mptune.serving.connection import Connection
from mptune.serving.door import MOST_AT_ONCE
from mptune.serving.engine import Engine
from mptune.serving.keys import Gate
from mptune.serving.settings import ServeConfig
from mptune.serving.store import Store
from mptune.serving.watching import FolderWatch


class Server(uvicorn.Server):
    """Tells the engine at once when it is asked to end, so that rows that come later are refused with 503."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, at SIGTERM or ^C; at a second ^C, at once.

        uvicorn would raise the signal again at the end, and an orderly end would look like a kill.
        """
        self._engine.refuse_more()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def run(
    prompts: Path,
    load: Callable[[], Backbone],
    gate: Gate,
    config: ServeConfig,
    host: str,
    port: int,
    say: Callable[[str], None],
    *,
    log_requests: bool,
) -> None:
    """Serve until somebody ends it.

    Raises:
        UsageError: the port is taken.
    """
    listening = _listen(host, port)  # before the model loads: a taken port is said at once
    backbone = load()
    store = Store(prompts, backbone, config.lengths, config.cache_megabytes)
    engine = Engine(backbone, config)
    for folder, why in store.refused.items():
        logging.getLogger(__name__).warning("%s is not served: %s", folder, why)
    logging.getLogger("mptune.serving").setLevel(logging.INFO if log_requests else logging.WARNING)
    app = make_app(store, engine, gate, config)
    listening.listen(MOST_AT_ONCE)  # whoever reads the address may ask at once
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    say(f"{len(store.names()):,} tasks at {address}, OpenAPI at {address}/docs; ^C ends it")
    watch = FolderWatch(store, config.watch) if config.watch else None
    if watch is not None:
        watch.start()
    Server(listener(app, timeout_graceful_shutdown=int(config.timeout) + 1), engine).run([listening])
    if watch is not None:
        watch.stop()


def listener(app: Any, **more: Any) -> uvicorn.Config:
    """Return how connections are taken: HTTP/1.1 and nothing else, whatever else is installed."""
    return uvicorn.Config(app, http=Connection, ws="none", log_config=None, access_log=False, server_header=False,
                          timeout_keep_alive=30, **more)  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened at: {reason(error)}; take another --port") from None
    return listening
