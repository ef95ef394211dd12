"""Fixtures of all tests: no network, the command line in this process, tiny models, toy tasks."""

import io
import os
import socket
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

import mptune.cli
from mptune.model.backbone import Backbone
from mptune.tasks.task import Task
from mptune.terminal import warn_once
from support.made import make_all
from support.models import FAMILIES, make_backbone
from support.toys import make_task, make_tasks

torch.set_num_threads(1)  # of tiny tensors, two threads only wait for each other


@pytest.fixture(autouse=True)
def _nothing_was_warned_of():
    """What one test was told once, the next is told too."""
    warn_once.cache_clear()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Any connection but to this machine itself is a defect of the test."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "unix"
        if host not in ("127.0.0.1", "::1", "localhost", "unix"):
            raise AssertionError(f"a test reached for the network: {host}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run `mptune` in this process; return exit code, standard output and standard error."""

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["mptune", *map(str, arguments)])
        if arguments[:1] == ("serve",):
            from support.serving import end_at_once

            end_at_once(monkeypatch)
        if stdin is not None:
            text = stdin if isinstance(stdin, bytes) else stdin.encode()
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="cp1252"))
        with pytest.raises(SystemExit) as stopped:
            mptune.cli.main()
        said = capsys.readouterr()
        return stopped.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def terminal(monkeypatch):
    """Let rich take the captured stream for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def backbone() -> Backbone:
    """A T5 of two layers, random but seeded; every test gets its own."""
    return make_backbone("t5")


@pytest.fixture(params=FAMILIES)
def any_backbone(request) -> Backbone:
    """One backbone of every family."""
    return make_backbone(request.param)


@pytest.fixture
def toy_task(tmp_path) -> Task:
    """One toy task in files of its own."""
    return make_task(tmp_path, "toy")


@pytest.fixture
def toy_tasks(tmp_path) -> list[Task]:
    """Three toy tasks in files of their own."""
    return make_tasks(tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Two models, two tasks of the hub with local rows, teachers, a multitask prompt and a target prompt."""
    return make_all(tmp_path_factory.mktemp("made"))
