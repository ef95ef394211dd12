"""Who comes in, and who does not: keys, sizes, rates, and what no program of good will sends."""

import base64
import contextlib
import json
import logging
import socket
import time

import httpx
import pytest

from mptune.serving import door
from mptune.serving.keys import ApiKey, hashed
from support.serving import serving

KEYS = [
    ApiKey(name="shop", sha256=hashed("shop-key"), tasks=("mood",)),
    ApiKey(name="slow", sha256=hashed("slow-key"), per_minute=3),
    ApiKey(name="boss", sha256=hashed("boss-key"), admin=True),
]
GOOD = {"model": "mood", "input": "good"}


@pytest.fixture(scope="module")
def guarded(model, folder):
    """The address of a server with keys and small limits."""
    with serving(folder, model, KEYS, max_body=10_000) as (address, _, _):
        yield address


def ask(address, method="POST", path="/v1/classify", key="boss-key", body=GOOD, **more):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, address + path, json=body, headers=headers, timeout=20, **more)


ROUTES = ["/", "/v1/models", "/v1/models/mood", "/version", "/metrics", "/docs", "/openapi.json", "/health/ready",
          "/nothing"]  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("key", [None, "shop-ke", "shop-key2", "Shop-key"])
def test_no_route_but_liveness_opens_without_a_key(guarded, path, key):
    headers = {} if key is None else {b"Authorization": f"Bearer {key}".encode()}
    answer = httpx.get(guarded + path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "wants a key: Authorization: Bearer KEY"
    assert httpx.get(f"{guarded}/health/live").status_code == 200


def test_a_browser_may_give_the_key_as_a_password(guarded):
    given = base64.b64encode(b"anybody:boss-key").decode()
    assert httpx.get(f"{guarded}/version", headers={"Authorization": f"Basic {given}"}).status_code == 200
    for wrong in ("!!!", base64.b64encode(b"boss-key").decode(), base64.b64encode(b"\xff\xfe").decode()):
        assert httpx.get(f"{guarded}/version", headers={"Authorization": f"Basic {wrong}"}).status_code == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_use_a_browsers_key(guarded, served, site):
    for address in (guarded, served):
        headers = {"Authorization": "Bearer boss-key", "Sec-Fetch-Site": site}
        for path in ("/v1/tasks/mood/rollback", "/v1/classify"):
            answer = httpx.post(address + path, json=GOOD, headers=headers)
            assert answer.status_code == 403
            assert answer.json()["error"]["message"] == "a page of another site may not ask this server from a browser"
        assert httpx.get(f"{address}/version", headers=headers).status_code == 200, "as a link leads here"
        same = {**headers, "Sec-Fetch-Site": "same-origin"}
        assert httpx.post(f"{address}/v1/classify", json=GOOD, headers=same, timeout=20).status_code == 200


def test_opening_the_page_costs_a_key_no_requests(model, folder):
    key = ApiKey(name="slow", sha256=hashed("slow-key"), per_minute=1)
    headers = {"Authorization": "Bearer slow-key"}
    with serving(folder, model, [key]) as (address, _, _):
        for path in ("/", "/page/main.js", "/page/style.css", "/"):
            assert httpx.get(address + path).status_code == 401
            assert httpx.get(address + path, headers=headers).status_code == 200
        assert [httpx.get(f"{address}/version", headers=headers).status_code for _ in range(2)] == [200, 429]


def test_a_key_opens_its_tasks_alone(guarded):
    assert ask(guarded, key="shop-key").status_code == 200
    for name in ("pair", "no such"):
        answer = ask(guarded, key="shop-key", body={"model": name, "input": "x"})
        assert answer.status_code == 403
        assert "the key shop may not ask" in answer.json()["error"]["message"]
    assert httpx.get(f"{guarded}/v1/models/pair", headers={"Authorization": "Bearer shop-key"}).status_code == 403


@pytest.mark.parametrize(("method", "path", "body"), [
    ("POST", "/v1/tasks", {"folder": "mood"}), ("PUT", "/v1/tasks/mood", {"folder": "mood"}),
    ("DELETE", "/v1/tasks/mood", None), ("POST", "/v1/tasks/mood/rollback", None),
    ("PUT", "/v1/aliases/x", {"model": "mood"}), ("DELETE", "/v1/aliases/x", None),
])  # fmt: skip
def test_only_an_admins_key_changes_tasks(guarded, method, path, body):
    answer = ask(guarded, method, path, "shop-key", body)
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == "the key shop may not change tasks; that takes one with admin"
    assert ask(guarded).status_code == 200


def test_a_key_asks_no_more_often_than_it_may(guarded):
    answers = [ask(guarded, key="slow-key") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].json()["error"]["message"].startswith("the key slow may ask 3 times a minute; come again in")
    assert ask(guarded).status_code == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(guarded):
    answer = ask(guarded, body={"model": "mood", "input": "x" * 20_000})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"].startswith("a body has at most 10,000 bytes; got 20,0")

    def endless():
        while True:
            yield b"x" * 1_000

    headers = {"Authorization": "Bearer boss-key"}
    with contextlib.suppress(httpx.TransportError):  # it may hang up on who still sends
        answer = httpx.post(f"{guarded}/v1/classify", content=endless(), headers=headers, timeout=20)
        assert answer.status_code == 413
    assert ask(guarded).status_code == 200


def test_a_client_that_sends_slowly_is_let_go(guarded, monkeypatch):
    monkeypatch.setattr(door, "SLOWEST", 0.2)
    host, port = guarded.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer boss-key\r\n"
                     b"Content-Length: 50\r\nContent-Type: application/json\r\n\r\n{")  # fmt: skip
        assert b" 408 " in line.recv(1_000)
    assert ask(guarded).status_code == 200


@pytest.mark.parametrize("content", [
    b"", b"{", b"\x00" * 100, b"\xff\xfe{", b"null", b"[]", b'"text"', b"[" * 5_000,
    b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
    b'{"model": "mood", "input": NaN}', b'{"model": "mood", "input": 1e999}', b'{"model": "mood", "input": "\\ud800"}',
    b'{"model": "../../etc/passwd", "input": "x"}', b'{"model": "mood\\u0000", "input": "x"}',
    b'{"model": "' + b"m" * 9_000 + b'", "input": "x"}', b'{"model": "mood", "input": {"text": {"$ne": 1}}}',
    b'{"model": "mood", "input": {"text": ["a"]}}', b'{"model": "mood", "input": {"text": null}}',
    b'{"model": "mood", "input": {"__class__": "x"}}', b'{"model": null, "input": null}',
], ids=lambda content: content[:40].decode("latin-1"))  # fmt: skip
def test_what_is_no_request_is_told_and_the_next_is_answered(guarded, content):
    headers = {"Authorization": "Bearer boss-key", "Content-Type": "application/json"}
    answer = httpx.post(f"{guarded}/v1/classify", content=content, headers=headers, timeout=20)
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert "Traceback" not in answer.text
    assert len(answer.text) < 2_000
    assert ask(guarded).status_code == 200


def test_every_request_is_a_line_of_the_log_without_its_text(guarded, caplog):
    with caplog.at_level(logging.INFO, "mptune.serving"):
        ask(guarded, body={"model": "mood", "input": "a secret of mine"})
        ask(guarded, body={"model": "mood\nforged line", "input": "a secret of mine"})
        httpx.get(guarded + "/v1/%0a%1b[31mforged", headers={"Authorization": "Bearer boss-key"})
        for _ in range(500):  # a line is written behind its answer
            lines = [record.getMessage() for record in caplog.records if record.name == "mptune.serving"]
            if len(lines) == 3:
                break
            time.sleep(0.01)
    assert len(lines) == 3
    assert lines[0].startswith("POST /v1/classify 200 ")
    assert lines[0].endswith("key=boss task=mood")
    assert not any("secret" in line or "boss-key" in line or "\n" in line or "\x1b" in line for line in lines)


def test_a_full_queue_says_when_to_come_again(model, folder):
    with serving(folder, model, max_queue=2) as (address, engine, store):
        engine._waiting = 5  # as if others were there
        answer = httpx.post(f"{address}/v1/classify", json=GOOD, timeout=20)
        engine._waiting = 0
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "queue_full"
        assert httpx.post(f"{address}/v1/classify", json=GOOD, timeout=20).status_code == 200
        assert store.names()


def test_who_drains_says_so(model, folder):
    with serving(folder, model) as (address, engine, _):
        engine.refuse_more()
        answer = httpx.post(f"{address}/v1/classify", json=GOOD, timeout=20)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert httpx.get(f"{address}/health/ready").status_code == 503
        assert httpx.get(f"{address}/health/live").status_code == 200


def test_an_error_of_this_side_is_told_without_what_it_was(model, folder, monkeypatch):
    from mptune.serving import engine as engine_module

    def failing(*_):
        raise RuntimeError("a secret of the server")

    with serving(folder, model) as (address, _, _):
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "label_scores", failing)
            answer = httpx.post(f"{address}/v1/classify", json=GOOD, timeout=20)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert json.loads(answer.text)["error"]["message"].startswith("something went wrong on this side")
        assert httpx.post(f"{address}/v1/classify", json=GOOD, timeout=20).status_code == 200


@pytest.mark.parametrize(("host", "status"), [
    ("evil.example", 403), ("evil.example:8000", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("localhost", 200),
    ("LOCALHOST:1", 200), ("[::1]:8000", 200),
])  # fmt: skip
def test_without_keys_no_other_name_leads_here(served, host, status):
    answer = httpx.get(f"{served}/version", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert "without keys this server answers to 127.0.0.1, ::1, localhost" in answer.json()["error"]["message"]
