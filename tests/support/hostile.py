"""Requests that a stranger may send, as bytes: no client mends a path, a header or a length on the way.

Of each is known which status it gets, a part of what is told, and whose key the log names.
"""

import base64
import json
from typing import NamedTuple

from mptune.serving.keys import ApiKey, hashed
from support.labelstudio import label_config

KEYS = [
    ApiKey(name="shop", sha256=hashed("shop-key"), tasks=("mood",)),
    ApiKey(name="boss", sha256=hashed("boss-key"), admin=True),
]
SECRET = "s3cret"  # of a client; no line of the log has it
MOST_BODY, MOST_ROWS = 300_000, 20


class Hostile(NamedTuple):
    """A request, its status, and a part of what is told."""

    what: str
    sent: bytes | list  # or parts with pauses between them; at the end None sends no more
    status: int
    said: str
    key: str | None = "boss"  # that the log names; None where it gets no further than the door


def asks(method, target, body=None, *, key="boss-key", more=(), host="x", kind="application/json"):
    """The bytes of a request."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"X-Note: {SECRET}", *more]
    if key:
        head.append(f"Authorization: {key if ' ' in key else f'Bearer {key}'}")
    if body is not None:
        head += [f"Content-Type: {kind}"] * bool(kind) + [f"Content-Length: {len(content)}"]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + content


# -- every route, and a body that it takes ----------------------------------------------------------------------------

TO_LABEL = {"tasks": [{"id": 1, "data": {"text": SECRET}}], "label_config": label_config(["bad", "good"])}
LABELLED = {"action": "ANNOTATION_CREATED", "task": {"id": 1, "data": {"text": SECRET}},
            "annotation": {"id": 1, "result": []}}  # fmt: skip
BODIES = {
    "POST /v1/classify": {"model": "mood", "input": SECRET},
    "POST /v1/render": {"model": "mood", "input": SECRET},
    "POST /v1/completions": {"model": "free", "prompt": SECRET},
    "POST /v1/chat/completions": {"model": "free", "messages": [{"role": "user", "content": SECRET}]},
    "POST /v1/tasks": {"folder": "mood"},
    "PUT /v1/tasks/mood": {"folder": "mood"},
    "PUT /v1/aliases/other": {"model": "mood"},
    "POST /label/mood/setup": {"schema": label_config(["bad", "good"])},
    "POST /label/mood/predict": TO_LABEL,
    "POST /label/mood/webhook": LABELLED,
}
BARE = [
    "GET /", "GET /page/main.js", "GET /docs", "GET /openapi.json", "GET /version", "GET /metrics", "GET /health/ready",
    "GET /v1/models", "GET /v1/models/mood", "GET /v1/models/mood/prompt", "GET /v1/tasks/mood/labelling",
    "DELETE /v1/tasks/mood", "POST /v1/tasks/mood/rollback", "DELETE /v1/aliases/other", "GET /label/mood/health",
    "POST /label/mood/health", "GET /health", "POST /health", "POST /setup", "POST /predict", "POST /webhook",
]  # fmt: skip
NO_KEY = [Hostile(f"{route} without a key", asks(*route.split(), BODIES.get(route), key=None), 401,
                  "wants a key: Authorization: Bearer KEY", None) for route in [*BODIES, *BARE]]  # fmt: skip

# -- bodies that no route takes ---------------------------------------------------------------------------------------

UNREADABLE = [
    ("nothing", b"", 400, "wants an object; got none"),
    ("null", b"null", 400, "wants an object; got none"),
    ("a list", b'["s3cret"]', 400, "the body is no JSON of this route"),
    ("a text", b'"s3cret"', 400, "got a text"),
    ("a number", b"12", 400, "got a number"),
    ("JSON that breaks off", b'{"model": "s3cret', 400, "the body is no JSON: Unterminated string"),
    ("two values", b"{} {}", 400, "the body is no JSON: Extra data"),
    ("a form", b"model=mood&input=s3cret", 400, "the body is no JSON: Expecting value: line 1 column 1"),
    ("Latin-1", b'{"model": "\xe9s3cret"}', 400, "a body wants UTF-8; got byte 0xe9 at 11"),
    ("UTF-16", '{"model": "s3cret"}'.encode("utf-16"), 400, "a body wants UTF-8; got byte 0xff at 0"),
    ("NULs", b"\0" * 50, 400, "the body is no JSON"),
    ("a key twice", b'{"model": "mood", "model": "s3cret"}', 400, "'model' stands twice"),
    ("NaN", b'{"model": NaN}', 400, "NaN is no finite number"),
    ("Infinity", b'{"model": [-Infinity]}', 400, "-Infinity is no finite number"),
    ("a number that is too large", b'{"model": 1e999}', 400, "1e999 is no finite number"),
    ("5,000 digits", b'{"model": ' + b"9" * 5_000 + b"}", 400, "a number has 5,000 digits, and may have 4,300"),
    ("40 objects in each other", b'{"model":' * 40 + b"1" + b"}" * 40, 400, "the body is nested deeper than 32"),
    ("lists without end", b"[" * 100_000, 400, "nested too deeply"),
    ("half a character", b'{"model": "\\ud83d s3cret"}', 400, "half a character"),
    ("a key of half a character", b'{"\\udc00": "s3cret"}', 400, "half a character"),
    ("too much", b" " * (MOST_BODY + 1), 413, "a body has at most 300,000 bytes; got 300,001. Send several requests"),
]
# All are looked at in one place, before any route; of some it is tried that no route is passed by.
EVERYWHERE = {"nothing", "null", "a list", "a key twice", "lists without end", "half a character", "too much"}
NO_BODY = [
    Hostile(f"{route} with {what}", asks(*route.split(), body), status, said)
    for route in BODIES for what, body, status, said in UNREADABLE if route.endswith("classify") or what in EVERYWHERE
]  # fmt: skip
NO_BODY += [Hostile(f"{what} on a route that takes no body", asks("POST", "/v1/tasks/mood/rollback", body), 400, said)
            for what, body, status, said in UNREADABLE if status == 400 and body and "Expecting" in said]  # fmt: skip
KINDS = ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json",
         "application/jsonp", "text/json", "application/json x", "application/\xe9"]  # fmt: skip
NO_BODY += [Hostile(f"JSON as {kind!r}", asks("POST", "/v1/classify", BODIES["POST /v1/classify"], kind=kind), 415,
                    f"wants Content-Type: application/json; got {kind[:11] or 'none'}") for kind in KINDS]  # fmt: skip

# -- fields of a wrong type, or out of their range: the route, what is changed, the status, what is told --------------

CLASSIFY, RENDER, COMPLETE, CHAT, ADD, PUT, ALIAS, SETUP, PREDICT, HOOK = BODIES
DEEP = "<View>" + "<a>" * 30_000
MANY = "<View>" + "<Choices>" * 5_000 + "<Choice/>" * 10_000 + "</Choices>" * 5_000 + "</View>"
LAUGHS = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><View>&c;</View>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><View>&b;</View>'
INSIDE = "wants a folder inside the prompts' folder"
SLIPS = [
    (CLASSIFY, {"model": 3}, 422, "model: Input should be a valid string; got a number"),
    (CLASSIFY, {"model": None}, 422, "model: Input should be a valid string; got null"),
    (CLASSIFY, {"model": ["mood"]}, 422, "model: Input should be a valid string; got a list"),
    (CLASSIFY, {"model": ""}, 404, "no task is called ''"),
    (CLASSIFY, {"model": "mod"}, 404, "no task is called 'mod'. Did you mean 'mood'? There are 5"),
    (CLASSIFY, {"model": "../mood"}, 404, "no task is called '../mood'"),
    (CLASSIFY, {"model": "mood\0"}, 404, "no task is called 'mood\\x00'"),
    (CLASSIFY, {"model": "mood\u202e"}, 404, "no task is called 'mood\\u202e'"),
    (CLASSIFY, {"model": "m" * 100_000}, 404, "no task is called 'mmmm"),
    (CLASSIFY, {"model": "free"}, 400, "free writes free text; ask POST /v1/completions"),
    (CLASSIFY, {"input": 3}, 422, "input: Input should be a valid string or Input should be a valid dictionary"),
    (CLASSIFY, {"input": None}, 422, "or Input should be a valid list; got null"),
    (CLASSIFY, {"input": True}, 422, "got true or false"),
    (CLASSIFY, {"input": []}, 400, "wants one input or more; got none"),
    (CLASSIFY, {"input": ["good", 3]}, 422, "input.1: Input should be a valid string"),
    (CLASSIFY, {"input": [[SECRET]]}, 422, "input.0: Input should be a valid string"),
    (CLASSIFY, {"input": {}}, 400, "input 0: no field 'text'"),
    (CLASSIFY, {"input": {"txt": SECRET}}, 400, "input 0: no field 'text'; it has txt"),
    (CLASSIFY, {"input": {"text": None}}, 400, "input 0: nothing to read, text is empty"),
    (CLASSIFY, {"input": {"text": {"$ne": 1}}}, 400, "input 0: text"),
    (CLASSIFY, {"input": {"text": [SECRET]}}, 400, "input 0: text"),
    (CLASSIFY, {"input": {"__class__": SECRET}}, 400, "input 0: no field 'text'"),
    (CLASSIFY, {"input": "  \n "}, 400, "input 0: nothing to read, text is empty"),
    (CLASSIFY, {"input": [SECRET] * 21}, 413, "a request has at most 20 inputs; got 21. Send several"),
    (CLASSIFY, {"inputs": SECRET}, 422, "inputs: Extra inputs are not permitted"),
    (CLASSIFY, {"model": "pair", "input": SECRET}, 400, "pair reads one, two: send {'one': ..., 'two': ...}"),
    (RENDER, {"model": "mod"}, 404, "Did you mean 'mood'?"),
    (RENDER, {"model": {}}, 422, "model: Input should be a valid string; got an object"),
    (RENDER, {"input": 1.5}, 422, "input: Input should be a valid string"),
    (RENDER, {"input": [SECRET] * 21}, 413, "a request has at most 20 inputs; got 21"),
    (RENDER, {"input": {"text": "{0.__class__}", "more": []}, "x": 1}, 422, "x: Extra inputs are not permitted"),
    (RENDER, {"model": "pair", "input": {"one": SECRET}}, 400, "input 0: no field 'two'"),
    (COMPLETE, {"model": "fre"}, 404, "Did you mean 'free'?"),
    (COMPLETE, {"prompt": 3}, 422, "prompt: Input should be a valid string"),
    (COMPLETE, {"prompt": [1, 2, 3]}, 422, "prompt.0: Input should be a valid string"),
    (COMPLETE, {"prompt": []}, 400, "wants one input or more; got none"),
    (COMPLETE, {"prompt": [SECRET] * 2, "n": 16}, 413, "a request has at most 20 inputs; got 32"),
    (COMPLETE, {"prompt": [SECRET] * 2, "stream": True}, 400, "stream wants one prompt and n=1"),
    (COMPLETE, {"stream": True, "n": 2}, 400, "stream wants one prompt and n=1"),
    (COMPLETE, {"stream": "yes"}, 422, "stream: Input should be a valid boolean; got a text"),
    (COMPLETE, {"stream": 1}, 422, "stream: Input should be a valid boolean; got a number"),
    (COMPLETE, {"stream_options": []}, 422, "stream_options: Input should be a valid dictionary; got a list"),
    (COMPLETE, {"stream_options": {"include_usage": "x"}}, 422, "stream_options.include_usage: Input should be"),
    (COMPLETE, {"max_tokens": 0}, 422, "max_tokens: Input should be greater than or equal to 1; got a number"),
    (COMPLETE, {"max_tokens": 4_097}, 422, "max_tokens: Input should be less than or equal to 4096"),
    (COMPLETE, {"max_tokens": 10**300}, 422, "max_tokens: "),
    (COMPLETE, {"max_tokens": "5"}, 422, "max_tokens: Input should be a valid integer; got a text"),
    (COMPLETE, {"max_tokens": 1.5}, 422, "max_tokens: Input should be a valid integer"),
    (COMPLETE, {"max_tokens": True}, 422, "max_tokens: Input should be a valid integer; got true or false"),
    (COMPLETE, {"temperature": -0.1}, 422, "temperature: Input should be greater than or equal to 0"),
    (COMPLETE, {"temperature": 2.1}, 422, "temperature: Input should be less than or equal to 2"),
    (COMPLETE, {"temperature": "hot"}, 422, "temperature: Input should be a valid number; got a text"),
    (COMPLETE, {"top_p": 0}, 422, "top_p: Input should be greater than 0"),
    (COMPLETE, {"top_p": 1.1}, 422, "top_p: Input should be less than or equal to 1"),
    (COMPLETE, {"top_p": {}}, 422, "top_p: Input should be a valid number; got an object"),
    (COMPLETE, {"n": 0}, 422, "n: Input should be greater than or equal to 1"),
    (COMPLETE, {"n": 17}, 422, "n: Input should be less than or equal to 16"),
    (COMPLETE, {"stop": list("abcde")}, 422, "stop: Input should be a valid string or List should have at most 4"),
    (COMPLETE, {"stop": [1]}, 422, "stop"),
    (COMPLETE, {"stop": 3}, 422, "stop: Input should be a valid string"),
    (COMPLETE, {"seed": 2**63}, 422, "seed: Input should be less than 9223372036854775808"),
    (COMPLETE, {"seed": -(2**63) - 1}, 422, "seed: Input should be greater than or equal to -9223372036854775808"),
    (COMPLETE, {"seed": 0.5}, 422, "seed: Input should be a valid integer"),
    (COMPLETE, {"logprobs": 2}, 422, "logprobs: Input should be less than or equal to 1"),
    (COMPLETE, {"logprobs": True}, 422, "logprobs: Input should be a valid integer"),
    (COMPLETE, {"user": 3}, 422, "user: Input should be a valid string; got a number"),
    (COMPLETE, {"best_of": 3}, 422, "best_of: Extra inputs are not permitted"),
    (CHAT, {"messages": []}, 422, "messages: List should have at least 1 item"),
    (CHAT, {"messages": SECRET}, 422, "messages: Input should be a valid list; got a text"),
    (CHAT, {"messages": None}, 422, "messages: Input should be a valid list; got null"),
    (CHAT, {"messages": [SECRET]}, 422, "messages.0: Input should be a valid dictionary"),
    (CHAT, {"messages": [{"content": SECRET}]}, 422, "messages.0.role: Field required"),
    (CHAT, {"messages": [{"role": "root", "content": SECRET}]}, 422, "messages.0.role: Input should be 'system', 'us"),
    (CHAT, {"messages": [{"role": "system", "content": SECRET}]}, 400, "messages wants one turn of the user"),
    (CHAT, {"messages": [{"role": "user", "content": SECRET}] * 2}, 400, "got user, user"),
    (CHAT, {"messages": [{"role": "user"}]}, 400, "content wants text; got none"),
    (CHAT, {"messages": [{"role": "user", "content": 3}]}, 422, "messages.0.content: Input should be a valid string"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "content wants text, or parts"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, 400, "content wants text"),
    (CHAT, {"messages": [{"role": "user", "content": SECRET, "x": 1}]}, 422, "messages.0.x: Extra inputs"),
    (CHAT, {"messages": [{"role": "user", "content": SECRET}] * 20_001}, 413, "a body has at most 300,000 bytes; got"),
    (CHAT, {"max_completion_tokens": 0}, 422, "max_completion_tokens: Input should be greater than or equal to 1"),
    (CHAT, {"logprobs": 1}, 422, "logprobs: Input should be a valid boolean; got a number"),
    (CHAT, {"tools": []}, 422, "tools: Extra inputs are not permitted"),
    (ADD, {"folder": None}, 422, "folder: Input should be a valid string; got null"),
    (ADD, {"folder": ["mood"]}, 422, "folder: Input should be a valid string; got a list"),
    (ADD, {"folder": ""}, 400, f"{INSIDE}; got ''"),
    (ADD, {"folder": "."}, 400, f"{INSIDE}; got '.'"),
    (ADD, {"folder": ".."}, 400, f"{INSIDE}; got '..'"),
    (ADD, {"folder": "../elsewhere"}, 400, f"{INSIDE}; got '../elsewhere'"),
    (ADD, {"folder": "/etc"}, 400, f"{INSIDE}; got '/etc'"),
    (ADD, {"folder": "mood/../../elsewhere"}, 400, f"{INSIDE}; got 'mood/../../elsewhere'"),
    (ADD, {"folder": "/proc/self/cwd"}, 400, INSIDE),
    (ADD, {"folder": "link"}, 400, f"{INSIDE}; got 'link'"),
    (ADD, {"folder": "link/."}, 400, f"{INSIDE}; got 'link/.'"),
    (ADD, {"folder": "round"}, 400, "round"),
    (ADD, {"folder": "mood\0"}, 400, f"{INSIDE}; got 'mood\\x00'"),
    (ADD, {"folder": "x" * 5_000}, 400, f"{INSIDE}; got 'xxxx"),
    (ADD, {"folder": "a/" * 5_000}, 400, f"{INSIDE}; got 'a/a/"),
    (ADD, {"folder": "..\\elsewhere"}, 400, "is no prompt folder"),
    (ADD, {"folder": "%2e%2e/elsewhere"}, 400, "is no prompt folder"),
    (ADD, {"folder": "C:\\Windows"}, 400, "is no prompt folder"),
    (ADD, {"folder": "~root"}, 400, "is no prompt folder"),
    (ADD, {"folder": "file:///etc"}, 400, "is no prompt folder"),
    (ADD, {"folder": "https://a.example/b"}, 400, "is no prompt folder"),
    (ADD, {"folder": "nowhere"}, 400, "is no prompt folder"),
    (ADD, {"folder": "\u202e\x1b[31m"}, 400, "\\u202e\\u001b[31m"),
    (ADD, {"folder": "hollow"}, 400, "is no prompt folder"),
    (ADD, {"folder": "mood/prompt.safetensors"}, 400, "is no prompt folder"),
    (ADD, {"folder": "foreign"}, 400, "a soft prompt fits no other model; this server has"),
    (ADD, {"folder": "pickled"}, 400, "is damaged or no prompt"),
    (ADD, {"folder": "cut"}, 400, "is damaged or no prompt"),
    (ADD, {"folder": "bare"}, 400, "bare"),
    (ADD, {"folder": "aliased"}, 400, "is damaged or no prompt"),
    (ADD, {"folder": "mood", "name": SECRET}, 422, "name: Extra inputs are not permitted"),
    (PUT, {"folder": "free"}, 400, "the prompt in free is of free, and not of mood"),
    (PUT, {"folder": "../elsewhere"}, 400, f"{INSIDE}; got '../elsewhere'"),
    (PUT, {"folder": "foreign"}, 400, "a soft prompt fits no other model"),
    (PUT, {"folder": 3}, 422, "folder: Input should be a valid string; got a number"),
    (ALIAS, {"model": "mod"}, 404, "no task is called 'mod'. Did you mean 'mood'?"),
    (ALIAS, {"model": None}, 422, "model: Input should be a valid string; got null"),
    (ALIAS, {"task": "mood"}, 422, "task: Extra inputs are not permitted"),
    (SETUP, {"schema": 3}, 422, "schema: Input should be a valid string; got a number"),
    (SETUP, {"schema": "s3cret"}, 400, "label_config is no XML: syntax error"),
    (SETUP, {"schema": "<View>"}, 400, "label_config is no XML: no element found"),
    (SETUP, {"schema": "<View/>"}, 400, "label_config wants Choices with a Choice for every label of mood: bad (or 0)"),
    (SETUP, {"schema": label_config(["bad"])}, 400, "got bad"),
    (SETUP, {"schema": LAUGHS}, 400, "label_config may declare nothing; got <!DOCTYPE"),
    (SETUP, {"schema": OUTSIDE}, 400, "label_config may declare nothing; got <!DOCTYPE"),
    (SETUP, {"schema": DEEP}, 400, "label_config is no XML: no element found"),
    (SETUP, {"schema": MANY}, 400, "label_config has 5,000 Choices, and may have 100"),
    (SETUP, {"schema": "<a/>" * 50_001}, 400, "label_config has 200,004 characters, and may have 200,000"),
    (SETUP, {"schema": "<View a='\0'/>"}, 400, "label_config is no XML"),
    (PREDICT, {"tasks": {}}, 422, "tasks: Input should be a valid list; got an object"),
    (PREDICT, {"tasks": [SECRET]}, 422, "tasks.0: Input should be a valid dictionary"),
    (PREDICT, {"tasks": [{}]}, 422, "tasks.0.data: Field required"),
    (PREDICT, {"tasks": [{"data": [SECRET]}]}, 422, "tasks.0.data: Input should be a valid dictionary; got a list"),
    (PREDICT, {"tasks": [{"id": 1, "data": {"x": SECRET}}]}, 400, "task 1: no field 'text'; it has x"),
    (PREDICT, {"tasks": [{"id": "../x", "data": {}}]}, 422, "tasks.0.id: Input should be a valid integer or String"),
    (PREDICT, {"tasks": [{"id": -1, "data": {}}]}, 422, "tasks.0.id: Input should be greater than or equal to 0"),
    (PREDICT, {"tasks": [{"id": 2**63, "data": {}}]}, 422, "tasks.0.id: Input should be less than 9223372036854775808"),
    (PREDICT, {"tasks": [{"id": 1, "data": {"text": SECRET}}] * 21}, 413, "a request has at most 20 texts; got 21"),
    (PREDICT, {"tasks": [{"id": 1, "data": {"text": [SECRET]}}]}, 400, "text"),
    (PREDICT, {"label_config": None}, 422, "label_config: Input should be a valid string; got null"),
    (PREDICT, {"label_config": LAUGHS}, 400, "label_config may declare nothing"),
    (HOOK, {"action": None}, 422, "action: Input should be a valid string; got null"),
    (HOOK, {"task": None}, 400, "ANNOTATION_CREATED wants annotation and task, as many of one as of the other"),
    (HOOK, {"annotation": []}, 400, "ANNOTATION_CREATED wants annotation and task"),
    (HOOK, {"annotation": [{"id": 1}, {"id": 2}]}, 400, "as many of one as of the other"),
    (HOOK, {"annotation": {"id": "../../x"}}, 422, "annotation.id: Input should be a valid integer"),
    (HOOK, {"annotation": {"id": "a\nb"}}, 422, "annotation.id: "),
    (HOOK, {"annotation": {"id": 1, "result": SECRET}}, 422, "annotation.result: Input should be a valid list"),
    (HOOK, {"annotation": {"id": 1, "was_cancelled": "no"}}, 422, "annotation.was_cancelled: Input should be a valid"),
    (HOOK, {"task": {"id": 1, "data": {"x": SECRET}}}, 400, "task 1: no field 'text'; it has x"),
    (HOOK, {"task": {"id": 1, "data": {"text": {"a": SECRET}}}}, 400, "text"),
    (HOOK, {"action": "ANNOTATIONS_DELETED", "annotation": None}, 400, "ANNOTATIONS_DELETED wants annotation or annot"),
    (HOOK, {"project": {"label_config": LAUGHS}}, 400, "label_config may declare nothing"),
    (HOOK, {"action": "PROJECT_UPDATED", "project": {"label_config": "<a>"}}, 400, "label_config is no XML"),
    (HOOK, {"project": []}, 422, "project: "),
]  # fmt: skip
WRONG = [Hostile(f"{route} {str(change)[:60]}", asks(*route.split(), {**BODIES[route], **change}), status, said)
         for route, change, status, said in SLIPS]  # fmt: skip

# -- names and places in a path, methods ------------------------------------------------------------------------------

NOBODY = "no task is called"
PLACES = [
    ("GET", "/nothing", 404, "there is no /nothing here; GET /docs shows what there is"),
    ("GET", "/../etc/passwd", 404, "there is no /../etc/passwd here"),
    ("GET", "/..%2f..%2fetc%2fpasswd", 404, "there is no /../../etc/passwd here"),
    ("GET", "/%252e%252e/etc", 404, "there is no /%2e%2e/etc here"),
    ("GET", "//etc/passwd", 404, "here; GET /docs"),
    ("GET", "/page/", 404, "here"),
    ("GET", "/page/../index.html", 404, "there is no /page/../index.html here"),
    ("GET", "/page/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, "there is no /page/../../etc/passwd here"),
    ("GET", "/page/%252e%252e%252fpasswd", 404, "the page has no file '%2e%2e%2fpasswd'"),
    ("GET", "/page/..", 404, "the page has no file '..'"),
    ("GET", "/page/..%5c..%5cboot.ini", 404, "the page has no file '..\\\\..\\\\boot.ini'"),
    ("GET", "/page/main.js%00.html", 404, "the page has no file 'main.js\\x00.html'"),
    ("GET", "/page/C:%5cx", 404, "the page has no file"),
    ("GET", "/page//etc/passwd", 404, "there is no /page//etc/passwd here"),
    ("GET", "/page/" + "x" * 9_000, 404, "the page has no file 'xxxx"),
    ("POST", "/page/main.js", 405, "/page/main.js takes GET; got POST"),
    ("DELETE", "/", 405, "/ takes GET; got DELETE"),
    ("GET", "/docs/../x", 404, "there is no /docs/../x here"),
    ("POST", "/docs", 405, "/docs takes GET; got POST"),
    ("PUT", "/openapi.json", 405, "/openapi.json takes GET; got PUT"),
    ("POST", "/metrics", 405, "/metrics takes GET; got POST"),
    ("POST", "/version", 405, "/version takes GET; got POST"),
    ("DELETE", "/health/live", 405, "/health/live takes GET; got DELETE"),
    ("POST", "/health/ready", 405, "/health/ready takes GET; got POST"),
    ("PUT", "/health", 405, "/health takes GET, POST; got PUT"),
    ("GET", "/v1/classify", 405, "/v1/classify takes POST; got GET"),
    ("PATCH", "/v1/classify", 405, "/v1/classify takes POST; got PATCH"),
    ("OPTIONS", "/v1/classify", 405, "/v1/classify takes POST; got OPTIONS"),
    ("TRACE", "/v1/models", 405, "/v1/models takes GET; got TRACE"),
    ("CONNECT", "a.example:443", 404, "there is no "),
    ("PROPFIND", "/v1/models/mood", 405, "/v1/models/mood takes GET; got PROPFIND"),
    ("get", "/v1/models", 405, "/v1/models takes GET; got get"),
    ("X" * 5_000, "/v1/models", 405, "/v1/models takes GET; got XXXXXXXXXXXXXXXXXXXX"),
    ("GET", "/v1/tasks", 405, "/v1/tasks takes POST; got GET"),
    ("POST", "/v1/tasks/mood", 405, "/v1/tasks/mood takes DELETE, PUT; got POST"),
    ("GET", "/v1/tasks/mood/rollback", 405, "takes POST; got GET"),
    ("POST", "/v1/aliases/x", 405, "/v1/aliases/x takes DELETE, PUT; got POST"),
    ("GET", "/label/mood/webhook", 405, "takes POST; got GET"),
    ("DELETE", "/predict", 405, "/predict takes POST; got DELETE"),
    ("POST", "/v1/classify/", 404, "there is no /v1/classify/ here"),
    ("GET", "/V1/models", 404, "there is no /V1/models here"),
    ("GET", "http://a.example/v1/models", 404, "there is no "),
    ("OPTIONS", "*", 404, "there is no "),
    ("GET", "/v1/models/mod", 404, f"{NOBODY} 'mod'. Did you mean 'mood'?"),
    ("GET", "/v1/models/%2e%2e", 404, f"{NOBODY} '..'"),
    ("GET", "/v1/models/..%2f..%2fetc", 404, "there is no /v1/models/../../etc here"),
    ("GET", "/v1/models/mood%00", 404, f"{NOBODY} 'mood\\x00'"),
    ("GET", "/v1/models/mood%0d%0aSet-Cookie:a=b", 404, f"{NOBODY} 'mood\\r\\nSet-Cookie:a=b'"),
    ("GET", "/v1/models/%ff%fe", 404, NOBODY),
    ("GET", "/v1/models/%zz", 404, f"{NOBODY} '%zz'"),
    ("GET", "/v1/models/%1b%5b31m", 404, f"{NOBODY} '\\x1b[31m'"),
    ("GET", "/v1/models/" + "m" * 9_000, 404, f"{NOBODY} 'mmmm"),
    ("GET", "/v1/models/mod/prompt", 404, f"{NOBODY} 'mod'. Did you mean 'mood'?"),
    ("GET", "/v1/tasks/mod/labelling", 404, f"{NOBODY} 'mod'. Did you mean 'mood'?"),
    ("GET", "/v1/tasks/free/labelling", 400, "free writes free text; only tasks whose label words are ranked"),
    ("GET", "/v1/tasks/..%5cmood/labelling", 404, f"{NOBODY} '..\\\\mood'"),
    ("DELETE", "/v1/tasks/mod", 404, f"{NOBODY} 'mod'. Did you mean 'mood'?"),
    ("DELETE", "/v1/tasks/..", 404, f"{NOBODY} '..'"),
    ("DELETE", "/v1/tasks/%2e%2e%2fmood", 404, "there is no /v1/tasks/../mood here"),
    ("DELETE", "/v1/tasks/*", 404, f"{NOBODY} '*'"),
    ("POST", "/v1/tasks/mood/rollback", 400, "mood has no version before mood; it cannot be rolled back"),
    ("POST", "/v1/tasks/%00/rollback", 404, f"{NOBODY} '\\x00'"),
    ("DELETE", "/v1/aliases/nobody", 404, "no alias is called 'nobody'. GET /v1/models lists them."),
    ("DELETE", "/v1/aliases/" + "x" * 9_000, 404, "no alias is called 'xxxx"),
    ("GET", "/label/mod/health", 404, f"{NOBODY} 'mod'. Did you mean 'mood'?"),
    ("GET", "/label/..%2fmood/health", 404, "there is no /label/../mood/health here"),
    ("GET", "/label/%00/health", 404, f"{NOBODY} '\\x00'"),
    ("GET", "/health", 404, "5 tasks are served here; give the labelling tool the address of one: /label/TASK"),
    ("POST", "/health", 404, "5 tasks are served here"),
]
ELSEWHERE = [Hostile(f"{method[:20]} {target[:60]}", asks(method, target), status, said,
                     None if target == "/health/live" else "boss")
             for method, target, status, said in PLACES]  # fmt: skip
ELSEWHERE += [
    Hostile(f"{route} {what}", asks(*route.split(), body), status, said) for what, route, body, status, said in [
        ("an alias of", "PUT /v1/aliases/..", {"model": "mood"}, 400, "an alias has up to 100 letters, digits"),
        ("an alias of", "PUT /v1/aliases/%00", {"model": "mood"}, 400, "got '\\x00'"),
        ("an alias of", "PUT /v1/aliases/a%0ab", {"model": "mood"}, 400, "got 'a\\nb'"),
        ("an alias of", "PUT /v1/aliases/" + 101 * "x", {"model": "mood"}, 400, "an alias has up to 100 letters"),
        ("the name of a task", "PUT /v1/aliases/pair", {"model": "mood"}, 400, "pair is a task of its own"),
        ("another task's prompt", "PUT /v1/tasks/mod", {"folder": "mood"}, 400, "is of mood, and not of mod"),
        ("a place", "PUT /v1/tasks/..", {"folder": "mood"}, 400, "is of mood, and not of .."),
        ("a text's task", "POST /label/free/predict", TO_LABEL, 400, "free writes free text; only tasks whose label"),
        ("nobody", "POST /label/mod/webhook", LABELLED, 404, "Did you mean 'mood'?"),
        ("nobody", "POST /label/mod/setup", {}, 404, "Did you mean 'mood'?"),
        ("no task", "POST /setup", {}, 404, "5 tasks are served here"),
        ("no task", "POST /predict", TO_LABEL, 404, "5 tasks are served here"),
        ("no task", "POST /webhook", LABELLED, 404, "5 tasks are served here"),
    ]
]  # fmt: skip

# -- keys and headers -------------------------------------------------------------------------------------------------


def basic(given):
    return "Basic " + base64.b64encode(given).decode()


WANTS_KEY = "wants a key: Authorization: Bearer KEY"
FALSE_KEYS = [
    "boss-ke", "boss-key2", "BOSS-KEY", "Bearer ", "Bearer boss-key x", "Bearer boss-key,boss-key", "Bearer null",
    "Bearer ' OR 1=1 --", "Bearer b\xf6ss-k\xe9y", "Token boss-key", "Digest username=boss-key", "Basic ", "Basic !!!",
    basic(b"boss-key"), basic(b"boss:"), basic(b"boss-key:"), basic(b"\xff\xfe:\xff"), hashed("boss-key"), "k" * 30_000,
]  # fmt: skip
BY_KEY = [Hostile(f"the key {key[:40]!r}", asks(*CLASSIFY.split(), BODIES[CLASSIFY], key=key), 401, WANTS_KEY, None)
          for key in FALSE_KEYS]  # fmt: skip
BY_KEY += [Hostile(what, sent, 401, WANTS_KEY, None) for what, sent in [
    ("a key in the query", asks("GET", "/v1/models?key=boss-key&api_key=boss-key", key=None)),
    ("a key in a cookie", asks("GET", "/v1/models", key=None, more=["Cookie: key=boss-key"])),
    ("a key by another name", asks("GET", "/v1/models", key=None, more=["X-Api-Key: boss-key"])),
    ("a key for a proxy", asks("GET", "/v1/models", key=None, more=["Proxy-Authorization: Bearer boss-key"])),
    ("a way round from what is open", asks("GET", "/health/live/../ready", key=None)),
    ("a way round, encoded", asks("GET", "/health/live%2f..%2fready", key=None)),
    ("what is open, with a slash", asks("GET", "/health/live/", key=None)),
    ("what is open, twice", asks("GET", "//health/live", key=None)),
    ("a page's file that is none", asks("GET", "/page/../version", key=None)),
    ("another path by a header", asks("GET", "/version", key=None, more=["X-Original-URL: /health/live"])),
]]  # fmt: skip
MAY_NOT = [
    (CLASSIFY, {"model": "pair", "input": SECRET}), (CLASSIFY, {"model": "nobody", "input": SECRET}),
    (RENDER, {"model": "pair", "input": SECRET}), (COMPLETE, BODIES[COMPLETE]), (CHAT, BODIES[CHAT]),
    ("GET /v1/models/pair", None), ("GET /v1/models/pair/prompt", None), ("GET /v1/tasks/pair/labelling", None),
    ("GET /label/pair/health", None), ("POST /label/pair/setup", {}), ("POST /label/pair/predict", TO_LABEL),
]  # fmt: skip
BY_KEY += [Hostile(f"{route} of {(body or {}).get('model')}, not the key's", asks(*route.split(), body, key="shop-key"),
                   403, "the key shop may not ask", "shop") for route, body in MAY_NOT]  # fmt: skip
BY_KEY += [Hostile(f"{route} without an administrator's key", asks(*route.split(), BODIES.get(route), key="shop-key"),
                   403, "the key shop may not change tasks; that takes one with admin", "shop")
           for route in (ADD, PUT, ALIAS, HOOK, "DELETE /v1/tasks/mood", "POST /v1/tasks/mood/rollback",
                         "DELETE /v1/aliases/x")]  # fmt: skip
SITE = "a page of another site may not ask this server from a browser"
ROLLBACK = ("POST", "/v1/tasks/mood/rollback")
BY_HEADER = [Hostile(f"{ROLLBACK[0]} with {more[0]}", asks(*ROLLBACK, more=more, host="here.example"), 403, SITE, None)
             for more in (["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"], ["Origin: http://evil.example"],
                          ["Origin: null"], ["Origin: http://["], ["Origin: http://here.example:1"],
                          ["Origin: http://here.example.evil.example"], ["Origin: here.example"],
                          ["Sec-Fetch-Site: cross-site", "Origin: http://here.example"])]  # fmt: skip
NOT_POST = "/v1/tasks/mood takes DELETE, PUT; got POST"
BY_HEADER += [
    Hostile(f"{method} {target} with {' and '.join(more)}", asks(method, target, more=more), status, said)
    for method, target, more, status, said in [
        ("POST", "/v1/tasks/mood", ["X-HTTP-Method-Override: DELETE"], 405, NOT_POST),
        ("POST", "/v1/tasks/mood", ["X-Method-Override: DELETE"], 405, NOT_POST),
        ("POST", "/v1/tasks/mood", ["X-HTTP-Method: DELETE"], 405, NOT_POST),
        ("POST", "/v1/tasks/mood?_method=DELETE", [], 405, NOT_POST),
        ("GET", "/v1/classify", ["Connection: upgrade", "Upgrade: websocket"], 405, "/v1/classify takes POST; got GET"),
        ("GET", "/v1/classify", ["Connection: Upgrade", "Upgrade: h2c"], 405, "/v1/classify takes POST; got GET"),
        ("GET", "/nothing", ["X-Rewrite-URL: /v1/models"], 404, "there is no /nothing here"),
        ("GET", "/nothing", ["X-Forwarded-Prefix: /v1/models", "X-Original-URL: /v1/models"], 404, "there is no /noth"),
    ]
]  # fmt: skip

# -- what is no HTTP, or lies about its length ------------------------------------------------------------------------

HTTP = "this is no request of HTTP/1.1: "
TOLD = f"Host: x\r\nAuthorization: Bearer boss-key\r\nX-Note: {SECRET}\r\nContent-Type: application/json\r\n".encode()
POST = b"POST /v1/classify HTTP/1.1\r\n" + TOLD
SIZED, CODED = POST + b"Content-Length: ", POST + b"Transfer-Encoding: "
CHUNKED = CODED + b"chunked\r\n\r\n"
LARGE = "a body has at most 300,000 bytes"
NO_HTTP = [
    Hostile(what, sent, status, said, None) for what, sent, status, said in [
        ("letters", b"s3cret s3cret\r\n\r\n", 400, f"{HTTP}illegal request line"),
        ("bytes", b"\x80\x81s3cret\r\n\r\n", 400, HTTP),
        ("blank lines", b"\r\n\r\n\r\n\r\n", 400, HTTP),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)) + b"\r\n\r\n", 400, HTTP),
        ("HTTP/0.9", b"GET /s3cret\r\n\r\n", 400, f"{HTTP}illegal request line"),
        ("SSH", b"SSH-2.0-s3cret\r\n\r\n", 400, HTTP),
        ("another protocol's verb", b"EHLO s3cret\r\n\r\n", 400, HTTP),
        ("a space in the target", b"GET /a s3cret HTTP/1.1\r\nHost: x\r\n\r\n", 400, HTTP),
        ("letters in the target that are not ASCII", "GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400, HTTP),
        ("a NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400, HTTP),
        ("no Host", b"GET /v1/models HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        ("two Hosts", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "Found multiple Host: headers"),
        ("a header without a colon", b"GET / HTTP/1.1\r\ns3cret\r\n\r\n", 400, f"{HTTP}illegal header line"),
        ("a space before a colon", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, f"{HTTP}illegal header line"),
        ("a NUL in a header", b"GET / HTTP/1.1\r\nHost: x\0\r\n\r\n", 400, f"{HTTP}illegal header line"),
        ("a line that goes on a header that is not there", b"GET / HTTP/1.1\r\n s3cret\r\n\r\n", 400, HTTP),
        ("a head of 100,000 bytes", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"s3cret" * 20_000, 431,
         "the head of a request is too long; a text goes into its body"),
        ("a target of 100,000 bytes", b"GET /" + b"s" * 100_000, 431, "the head of a request is too long"),
        ("a length below nothing", SIZED + b"-1\r\n\r\n", 400, f"{HTTP}bad Content-Length"),
        ("a length in letters", SIZED + b"s3cret\r\n\r\n", 400, f"{HTTP}bad Content-Length"),
        ("a length with a sign", SIZED + b"+5\r\n\r\n{}", 400, f"{HTTP}bad Content-Length"),
        ("a length in hexadecimal", SIZED + b"0x10\r\n\r\n{}", 400, f"{HTTP}bad Content-Length"),
        ("two lengths", SIZED + b"2\r\nContent-Length: 3\r\n\r\n{}", 400, "conflicting Content-Length"),
        ("two lengths in one", SIZED + b"2, 3\r\n\r\n{}", 400, "conflicting Content-Length"),
        ("a length of 5,000 digits", SIZED + b"9" * 5_000 + b"\r\n\r\n{}", 400, "bad Content-Length"),
        ("a coding that is none", CODED + b"s3cret\r\n\r\n", 400, f"{HTTP}Only Transfer-Enc"),
        ("compressed chunks", CODED + b"gzip, chunked\r\n\r\n", 400, f"{HTTP}Only Transfer-Encoding: chunked"),
        ("two codings", CODED + b"chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, HTTP),
        ("a head that ends with the connection", [b"GET /v1/models HTTP/1.1\r\nHost: s3c", None], 400,
         "the connection ended in a request's head"),
        ("a letter, and no more", [b"G", None], 400, "the connection ended in a request's head"),
    ]
]  # fmt: skip
LENGTHS = [
    Hostile(what, sent, status, said) for what, sent, status, said in [
        ("a length beyond the limit, and no body", SIZED + b"300001\r\n\r\n", 413, f"{LARGE}; got 300,001"),
        ("a length of 20 digits", SIZED + b"9" * 20 + b"\r\n\r\n", 413, LARGE),
        ("chunks beyond the limit", CHUNKED + b"10\r\n" + b"x" * 16 + b"\r\nffffff\r\n" + b"x" * MOST_BODY, 413,
         f"{LARGE}. Send several requests"),
        ("a chunk beyond all limits", CHUNKED + b"f" * 20 + b"\r\n" + b"x" * (MOST_BODY + 1), 413, LARGE),
        ("small chunks without end", CHUNKED + b"14\r\n01234567890123456789\r\n" * (MOST_BODY // 20 + 2), 413, LARGE),
        ("a chunk of a size that is none", CHUNKED + b"s3cret\r\n{}\r\n", 400, f"{HTTP}illegal chunk header"),
        ("a chunk of a size below nothing", CHUNKED + b"-1\r\n{}\r\n", 400, f"{HTTP}illegal chunk header"),
        ("a chunk that is longer than it says", CHUNKED + b"2\r\n{}s3cret\r\n0\r\n\r\n", 400, HTTP),
        ("chunks that are no JSON", CHUNKED + b"6\r\ns3cret\r\n0\r\n\r\n", 400, "the body is no JSON"),
        ("a length and chunks", SIZED + b"2\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n", 400,
         "the body is no JSON: Expecting property name"),
    ]
]  # fmt: skip
LATE_BODY = "a body wants to come within 1 s, and its next part within 0.5 s"
SLOW = [
    Hostile("half a head", [POST[:40]], 408, "a request's head wants to come within 0.5 s", None),
    Hostile("a head a letter at a time", [POST[n : n + 1] for n in range(14)], 408, "a request's head wants to", None),
    Hostile("a head without its end", [POST], 408, "a request's head wants to come within 0.5 s", None),
    Hostile("no body", [SIZED + b"50\r\n\r\n"], 408, LATE_BODY),
    Hostile("half a body", [SIZED + b"50\r\n\r\n", b'{"model": "s3cret'], 408, LATE_BODY),
    Hostile("a body a letter at a time", [SIZED + b"50\r\n\r\n", *[b"s"] * 25], 408, LATE_BODY),
    Hostile("chunks that stop", [CHUNKED, b"1\r\n{\r\n"], 408, LATE_BODY),
    Hostile("half a chunk", [CHUNKED + b"50\r\n{"], 408, LATE_BODY),
]
LIST = [*NO_KEY, *NO_BODY, *WRONG, *ELSEWHERE, *BY_KEY, *BY_HEADER, *NO_HTTP, *LENGTHS, *SLOW]
