"""A server of tiny prompts, in this process, that clients reach over a real connection."""

import contextlib
import threading
import time
from pathlib import Path

import uvicorn

from mptune.serving.app import make_app
from mptune.serving.engine import Engine
from mptune.serving.keys import Gate
from mptune.serving.process import listener
from mptune.serving.settings import ServeConfig
from mptune.serving.store import Store
from mptune.tasks.task import Task
from support.prompts import random_prompt

MOOD = Task(name="mood", template="mood: {text}", verbalizer={"0": "bad", "1": "good"})
PAIR = Task(name="pair", template="{one} quite {two}", verbalizer={"n": "no", "y": "yes"})
LONG = Task(name="long", template="{text}", verbalizer={"a": "not very good", "b": "not very bad", "c": "maybe"})
FREE = Task(name="free", template="text: {text}", target="{label}")
SAID = Task(name="said", template="{text}", verbalizer={"0": "no", "1": "yes"}, scoring="generation")
TASKS = [MOOD, PAIR, LONG, FREE, SAID]


def prompts_folder(folder: Path, backbone, tasks=TASKS, length=3) -> Path:
    """A folder with a prompt of each task, each of its own numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, task in enumerate(tasks):
        random_prompt(backbone, [task], length, seed).save_pretrained(folder / task.name)
    return folder


def opened(folder, backbone, **limits) -> tuple[Store, Engine, ServeConfig]:
    """A store and an engine that is not started."""
    config = ServeConfig(**{"max_target_tokens": 6, **limits})
    return Store(folder, backbone, config.lengths, config.cache_megabytes), Engine(backbone, config), config


@contextlib.contextmanager
def serving(folder, backbone, keys=(), **limits):
    """The address of a server of a folder, and its engine and store."""
    store, engine, config = opened(folder, backbone, **limits)
    app = make_app(store, engine, Gate(tuple(keys)), config)
    server = uvicorn.Server(listener(app, port=0, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", engine, store
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server ends"


def end_at_once(monkeypatch) -> None:
    """Let a server that a command starts end when it has started, as if somebody had asked it to."""
    try:
        from mptune.serving import process
    except ImportError:  # of a test in which its libraries are not there
        return
    started = uvicorn.Server.startup

    async def starts(self, sockets=None):
        await started(self, sockets)
        self.should_exit = True

    monkeypatch.setattr(process.Server, "startup", starts)
