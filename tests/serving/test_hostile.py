"""What a stranger may send: each is told no in one shape, is one line of the log, and the next request is answered."""

import contextlib
import gc
import json
import logging
import os
import pickle
import re
import socket
import time
from typing import NamedTuple

import pytest

from mptune.serving import connection, door
from mptune.serving.app import make_app
from mptune.serving.journal import JOURNAL
from mptune.serving.keys import Gate
from support.hostile import (
    BODIES,
    CHUNKED,
    CLASSIFY,
    COMPLETE,
    KEYS,
    LIST,
    MOST_BODY,
    MOST_ROWS,
    POST,
    SECRET,
    SITE,
    SLOW,
    asks,
)
from support.models import make_backbone
from support.prompts import random_prompt
from support.serving import FREE, MOOD, opened, prompts_folder, serving


@pytest.fixture(scope="module")
def place(model, tmp_path_factory):
    """A folder of prompts, beside which and in which lies what must not come in."""
    place = tmp_path_factory.mktemp("hostile") / "prompts"
    prompts_folder(place, model)
    random_prompt(model, [MOOD]).save_pretrained(place.parent / "elsewhere")
    (place / "link").symlink_to(place.parent / "elsewhere")
    (place / "round").symlink_to(place / "round")
    random_prompt(make_backbone("t5", seed=5), [FREE]).save_pretrained(place / "foreign")
    whole = (place / "mood" / "prompt.safetensors").read_bytes()
    damaged = {"pickled": pickle.dumps({"prompt": [1.0]}), "cut": whole[: len(whole) // 2], "bare": b"",
               "aliased": b"\xff" * 8 + whole[8:]}  # a header of more bytes than there are  # fmt: skip
    for name, content in damaged.items():
        (place / name).mkdir()
        (place / name / "prompt.safetensors").write_bytes(content)
    (place / "hollow").mkdir()
    return place


@pytest.fixture(scope="module")
def guarded(model, place):
    """Host and port of a server with keys and small limits, which nothing of the list changes."""
    with serving(place, model, KEYS, max_body=MOST_BODY, max_rows=MOST_ROWS) as (address, _, store):
        before = store.names(), store.aliases(), [store.entry(name) for name in store.names()]
        host, port = address.removeprefix("http://").split(":")
        yield host, int(port)
        assert (store.names(), store.aliases(), [store.entry(name) for name in store.names()]) == before
        assert not (place / JOURNAL).exists()
        assert not (place / ".labelled").exists()


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes


def answers(line):
    """All that comes over a connection until it ends, or is silent after a whole answer."""
    got = b""
    with contextlib.suppress(ConnectionResetError):  # it hangs up on who still sends
        while not (got and parted(got)[1] == b"") and (part := line.recv(65_536)):
            got += part
    found, rest = parted(got)
    assert rest == b"", got
    return found


def parted(got):
    """Whole answers, and the bytes of one that is not whole."""
    found = []
    while b"\r\n\r\n" in got:
        head, _, rest = got.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            break
        found.append(Answer(int(first.split()[1]), headers, rest[:length]))
        got = rest[length:]
    return found, got


def sent(address, request):
    """What a server answers to bytes."""
    parts = request if isinstance(request, list) else [request]
    with socket.create_connection(address, timeout=20) as line:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for number, part in enumerate(parts):
                time.sleep(0.05 if number else 0)
                line.shutdown(socket.SHUT_WR) if part is None else line.sendall(part)
        return answers(line)


def lines_of(caplog, count):
    """The lines of the log, when there are as many as there should be: they are written behind the answers."""
    for _ in range(500):
        lines = [record.getMessage() for record in caplog.records if record.name == "mptune.serving"]
        if len(lines) >= count:
            break
        time.sleep(0.002)
    return lines


def is_told(answer, status, said):
    """Check a refusal: its status, its shape, and that it says something and nothing of this side."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.body) < 2_500
    (error,) = json.loads(answer.body).values()
    assert set(error) == {"message", "type", "param", "code"}
    assert said in error["message"]
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", error["message"])
    assert not any(word in error["message"] for word in ("Traceback", os.sep + "hostile", ".py", "site-packages"))


NEXT = asks("POST", "/v1/classify", {"model": "mood", "input": "good"})


@pytest.mark.parametrize("hostile", LIST, ids=lambda hostile: hostile.what)
def test_a_hostile_request_is_refused_and_the_next_is_answered(guarded, hostile, caplog, monkeypatch):
    if hostile in SLOW:
        monkeypatch.setattr(connection, "SLOWEST", 0.5)
        monkeypatch.setattr(door, "SLOWEST", 0.5)
        monkeypatch.setattr(door, "LONGEST", 1.0)
    with caplog.at_level(logging.INFO):
        (answer,) = sent(guarded, hostile.sent)
        (after,) = sent(guarded, NEXT)
        lines = lines_of(caplog, 2)
    is_told(answer, hostile.status, hostile.said)
    assert after.status == 200
    assert len(lines) == 2, lines
    assert re.search(rf" {hostile.status} ", lines[0])
    assert ("key=" + hostile.key in lines[0]) if hostile.key else ("key=" not in lines[0])
    assert len(lines[0]) < 400
    assert not re.search(f"{SECRET}|boss-key|[\x00-\x1f]", lines[0])
    assert [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info] == []


def test_the_list_is_long_and_its_requests_are_unlike_each_other():
    different = {(str(each.sent), each.status) for each in LIST}
    assert len(different) == len(LIST) >= 200


def test_every_route_is_on_the_list(model, place):
    """Also those that come later."""
    store, engine, config = opened(place, model)
    paths = make_app(store, engine, Gate(()), config).openapi()["paths"]
    asked = [each.sent.split(b" HTTP", 1)[0].decode("latin-1") for each in LIST if isinstance(each.sent, bytes)]
    for path, methods in paths.items():
        for method in methods:
            wanted = re.compile(f"{method.upper()} {re.sub('{.*?}', '[^/]+', path)}")
            if path != "/health/live":  # which asks for nothing and tells nothing
                assert any(wanted.fullmatch(each) for each in asked), f"{method} {path}"


@pytest.mark.parametrize(("what", "request_", "status"), [
    ("a head", b"GET /v1/models HTTP/1.1\r\nHost: s3cret", None),
    ("a body", POST + b'Content-Length: 500\r\n\r\n{"model": "s3cret', 400),
    ("chunks", CHUNKED + b"100\r\n{", 400),
    ("an answer", asks("POST", "/v1/completions", {**BODIES[COMPLETE], "stream": True, "max_tokens": 4_000}), 200),
])  # fmt: skip
def test_who_hangs_up_in_the_midst_is_a_line_at_most(guarded, caplog, what, request_, status):
    with caplog.at_level(logging.INFO):
        with socket.create_connection(guarded) as line:
            line.sendall(request_)
            time.sleep(0.05)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # by a reset
        (after,) = sent(guarded, NEXT)
        lines = lines_of(caplog, 2 if status else 1)
        gc.collect()  # what nobody waits for any more would be told of now
    assert after.status == 200
    assert sorted(each.split()[2] for each in lines) == sorted(filter(None, [status and str(status), "200"]))
    assert not any(SECRET in each for each in lines)
    assert [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info] == []


@pytest.mark.parametrize(("what", "sent_", "statuses"), [
    ("letters behind an answered request", NEXT + b"s3cret\r\n\r\n", [200, 400]),
    ("a request in a request's body", asks("POST", "/v1/classify", b"GET /metrics HTTP/1.1\r\n\r\n"), [400]),
    ("more than a length says", NEXT.replace(b"Length: 3", b"Length: 1") + b"\r\n\r\n", [400, 400]),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [401, 400]),
    ("letters behind a refused one", asks("GET", "/v1/models", key=None) + b"\x80\r\n\r\n", [401, 400]),
    ("a request without a key behind one with", NEXT + asks("GET", "/metrics", key=None), [200, 401]),
])  # fmt: skip
def test_what_comes_behind_a_request_is_looked_at_by_itself(guarded, caplog, what, sent_, statuses):
    with caplog.at_level(logging.INFO):
        with socket.create_connection(guarded, timeout=20) as line:
            line.sendall(sent_)
            found = []
            while len(found) < len(statuses):
                found += answers(line)
        lines = lines_of(caplog, len(statuses))
    assert [answer.status for answer in found] == statuses
    is_told(found[-1], statuses[-1], "")
    assert len(lines) == len(statuses)
    assert not any(SECRET in each for each in lines)
    assert [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info] == []


def test_a_connection_over_which_nothing_comes_ends_without_a_line(guarded, caplog, monkeypatch):
    monkeypatch.setattr(connection, "SLOWEST", 0.1)
    with caplog.at_level(logging.INFO), socket.create_connection(guarded, timeout=10) as idle:
        assert idle.recv(100) == b""
    assert lines_of(caplog, 0) == []


@pytest.mark.parametrize(("more", "host", "status", "said"), [
    ([], "evil.example", 403, "without keys this server answers to 127.0.0.1, ::1, localhost; got Host: evil.example"),
    (["X-Forwarded-Host: localhost"], "evil.example", 403, "got Host: evil.example"),
    (["Forwarded: host=localhost"], "localhost.evil.example", 403, "got Host: localhost.evil.example"),
    ([], "localhost@evil.example", 403, "got Host: localhost@evil.example"),
    ([], "", 403, "got Host: "),
    ([], "[::1", 403, "without keys"),
    ([], "[::2]", 403, "got Host: [::2]"),
    ([], "0.0.0.0", 403, "got Host: 0.0.0.0"),
    ([], "2130706433", 403, "got Host: 2130706433"),
    ([], "x" * 9_000, 403, "got Host: xxxx"),
    (["Origin: http://evil.example"], "localhost", 403, SITE),
    (["Origin: null"], "localhost", 403, SITE),
    (["Origin: http://localhost:1"], "localhost:2", 403, SITE),
    (["Sec-Fetch-Site: cross-site"], "localhost", 403, SITE),
    (["Origin: http://localhost:1"], "localhost:1", 200, ""),
    (["Sec-Fetch-Site: same-origin", "Origin: https://a.example"], "localhost", 200, ""),
])  # fmt: skip
def test_without_keys_a_stranger_cannot_ask_through_a_browser(served, caplog, more, host, status, said):
    address, port = served.removeprefix("http://").split(":")
    request = asks("POST", "/v1/classify", BODIES[CLASSIFY], key=None, more=more, host=host)
    with caplog.at_level(logging.INFO):
        (answer,) = sent((address, int(port)), request)
        lines = lines_of(caplog, 1)
    assert answer.status == status
    if status == 403:
        is_told(answer, status, said)
    assert len(lines) == 1
    assert SECRET not in lines[0]


def test_more_requests_at_once_than_there_may_be_are_told_when_to_come(guarded, monkeypatch):
    monkeypatch.setattr(door, "MOST_AT_ONCE", 0)
    (answer,) = sent(guarded, NEXT)
    is_told(answer, 503, "0 requests are being answered; come again in 5 s")
    assert answer.headers["retry-after"] == "5"
