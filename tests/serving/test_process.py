"""The command `mptune serve`: it starts, refuses to be open to others without keys, ends in order, survives a kill."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import httpx
import pytest

from mptune.serving import process
from mptune.serving.keys import Gate
from mptune.serving.settings import ServeConfig
from support.models import make_backbone, saved
from support.prompts import random_prompt
from support.serving import MOOD, PAIR, prompts_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model in a folder, and prompts of it."""
    folder = tmp_path_factory.mktemp("process")
    backbone = make_backbone("t5")
    saved(backbone, folder / "model")
    prompts_folder(folder / "prompts", backbone, [MOOD, PAIR])
    random_prompt(backbone, [MOOD], seed=8).save_pretrained(folder / "prompts" / "sub" / "mood2")
    return folder


class Served:
    """A server in a process of its own."""

    def __init__(self, place, *options):
        command = [sys.executable, "-m", "mptune", "serve", "prompts", "--backbone", "model", "--port", "0", *options]
        self.process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        self.said = self.process.stdout.readline()
        found = re.search(r"http://\S+?:\d+", self.said)
        assert found, self.said + self.process.stderr.read()
        self.address = found[0]  # which may be asked from now on

    def ends(self, how, seconds=20):
        self.process.send_signal(how)
        return self.process.wait(seconds)


@pytest.mark.slow
def test_it_answers_and_ends_when_it_is_asked_to(place):
    served = Served(place)
    assert served.said.startswith("2 tasks at http://127.0.0.1:")
    answer = httpx.post(f"{served.address}/v1/classify", json={"model": "mood", "input": "good"}, timeout=20)
    assert answer.status_code == 200
    assert served.ends(signal.SIGTERM) == 0
    assert "Traceback" not in served.process.stderr.read()


@pytest.mark.slow
def test_what_was_accepted_is_answered_before_it_ends(place):
    served, answers = Served(place), []

    def asks(number):
        body = {"model": ["mood", "pair"][number % 2],
                "input": [[{"text": "good"}, {"one": "a", "two": "b"}][number % 2]] * 100}  # fmt: skip
        try:
            answers.append(httpx.post(f"{served.address}/v1/classify", json=body, timeout=30).status_code)
        except httpx.TransportError:
            answers.append("refused")

    threads = [threading.Thread(target=asks, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    while not answers:
        time.sleep(0.002)
    assert served.ends(signal.SIGTERM) == 0
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert set(answers) <= {200, 503, "refused"}
    assert 200 in answers


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_acknowledged(place):
    served = Served(place)
    assert httpx.put(f"{served.address}/v1/tasks/mood", json={"folder": "sub/mood2"}).status_code == 200
    assert httpx.delete(f"{served.address}/v1/tasks/pair").status_code == 200
    assert served.ends(signal.SIGKILL) == -signal.SIGKILL
    again = Served(place)
    listed = httpx.get(f"{again.address}/v1/models").json()["data"]
    assert [(each["id"], each["root"]) for each in listed[1:]] == [("mood", "sub/mood2")]
    again.ends(signal.SIGTERM)
    (place / "prompts" / ".serving.json").unlink()


@pytest.mark.parametrize(("options", "code", "said"), [
    (["prompts", "--host", "0.0.0.0"], 2, "--host 0.0.0.0 lets other machines ask, and there are no keys; give "),
    (["prompts", "--api-keys", "nowhere.json"], 2, "the keys in nowhere.json cannot be read: No such file or"),
    (["nowhere"], 2, "nowhere is no folder; name the one that holds the prompts"),
    (["prompts/mood"], 2, "is a prompt itself; name the folder in which it lies"),
    (["prompts", "--port", "70000"], 2, "wants 65,535 or less; got 70000"),
])  # fmt: skip
def test_a_slip_is_told_before_anything_is_served(cli, place, monkeypatch, options, code, said):
    monkeypatch.chdir(place)
    free = [] if "--port" in options else ["--port", "0"]
    got, _, err = cli("serve", *options, *free, "--backbone", "model")
    assert got == code
    assert said in " ".join(err.split())


def test_a_port_that_is_taken_is_told_before_the_model_loads(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, err = cli("serve", "prompts", "--backbone", "nowhere", "--port", port)
    assert code == 2
    assert f"127.0.0.1:{port} cannot be listened at: Address already in use; take another --port" in err


def test_the_address_that_is_told_may_be_asked_at_once(place, monkeypatch):
    monkeypatch.setattr(process.Server, "run", lambda self, sockets: [each.close() for each in sockets])
    asked = []

    def say(line):
        port = int(re.search(r"http://127.0.0.1:(\d+)", line)[1])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        asked.append(port)

    load = partial(make_backbone, "t5")
    process.run(place / "prompts", load, Gate(()), ServeConfig(), "127.0.0.1", 0, say, log_requests=False)
    assert asked


def test_a_folder_is_watched_while_it_serves_and_only_if_somebody_asks(place, monkeypatch):
    told = []

    class Looks:
        def __init__(self, store, seconds):
            told.append((sorted(store.names()), seconds))

        def start(self):
            told.append("starts")

        def stop(self):
            told.append("stops")

    def serves(self, sockets):
        told.append("serves")
        sockets[0].close()

    monkeypatch.setattr(process, "FolderWatch", Looks)
    monkeypatch.setattr(process.Server, "run", serves)
    load = partial(make_backbone, "t5")
    for seconds in (0.0, 5.0):
        config = ServeConfig(watch=seconds)
        process.run(place / "prompts", load, Gate(()), config, "127.0.0.1", 0, lambda _: None, log_requests=False)
    assert told == ["serves", (["mood", "pair"], 5.0), "starts", "serves", "stops"]


def test_without_its_libraries_the_extra_is_named(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setitem(sys.modules, "mptune.serving.process", None)
    code, _, err = cli("serve", "prompts")
    assert code == 1
    assert "mptune serve needs more libraries. Install them: pip install 'mptune[serve]'" in err
    assert json.dumps(err)
