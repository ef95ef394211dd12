"""Files as strangers, failing disks and slips of the keyboard leave them: bytes and JSON values changed by chance."""

import copy
import json
import random

WORDS = [
    b"\0", b"\x1b]0;owned\x07", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"\\ud83d", b"\\u0000", b"NaN",
    b"-Infinity", b"1e400", b"9" * 5000, b"[" * 5000, b"{" * 40, b"&a [*a]", b"*a", b"!!python/object:os.system {}",
    b"<<: ", b"{}", b"[]", b'"', b"'", b"\n", b"\r", b"\t", b",", b"\xe2\x80\xa8", b"{text!r}", b"{text.__class__}",
    b"null", b"~", b"- ", b"../", b"/",
]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 10**6, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", " ",
    "x", "\0", "\x1b]0;owned\x07", "\ud83d", "\u202e", "x" * 100_000, "{text}", "{", "{text[0]}", "{text!r}", "..", "/",
    "~", "a/b", "NaN", "1e400", [], {}, [[]], [None], {"": None}, {"a": {"b": []}},
]  # fmt: skip


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """The bytes with one to three changes: flipped, cut, doubled, moved, or with something foreign among them."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, to = sorted(draw.choices(range(len(content) + 1), k=2))
        to = min(to, at + draw.choice((1, 4, 30, 10_000)))
        part = content[at:to]
        word, noise = draw.choice(WORDS), draw.randbytes(draw.randint(1, 8))
        flipped = bytes(byte ^ 1 << draw.randrange(8) for byte in part[:4]) + part[4:]
        changed = (b"", part + part, part[::-1], word, word + part, noise, flipped)
        content = content[:at] + draw.choice(changed) + content[to:]
    return content


def changed_json(text: str, draw: random.Random) -> str:
    """A JSON text with one to three of its values of another type, without end, absent, doubled or renamed."""
    values = json.loads(text)
    for _ in range(draw.choice((1, 1, 2, 3))):
        values = _changed(values, draw)
    written = json.dumps(values, ensure_ascii=draw.random() < 0.9)
    if draw.random() < 0.1 and isinstance(values, dict) and values:  # a key twice
        key = draw.choice(list(values))
        written = written[:-1] + f", {json.dumps(key)}: {json.dumps(_value(draw, values[key]))}}}"
    return written


def _changed(value, draw):
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        return _value(draw, value)
    value = copy.copy(value)
    place = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
    kind = draw.random()
    if kind < 0.1:
        del value[place]
    elif kind < 0.2 and isinstance(value, dict):
        value[draw.choice(("", "x", "\x1b", "name", "\ud83d", "a" * 1000, str(place).upper()))] = value.pop(place)
    elif kind < 0.25 and isinstance(value, list):
        value *= draw.choice((2, 50))
    else:
        value[place] = _changed(value[place], draw)
    return value


def _value(draw, old):
    kind = draw.random()
    if kind < 0.05:
        deep = old
        for _ in range(draw.choice((3, 60, 400))):
            deep = draw.choice(([deep], {"a": deep}))
        return deep
    if kind < 0.15:
        return draw.choice((str(old), [old], {"0": old}, [old, old]))
    if kind < 0.25 and isinstance(old, str):
        return changed_bytes(old.encode("utf-8", "replace"), draw).decode("utf-8", "replace")
    alike = [value for value in VALUES if type(value) is type(old)]
    return draw.choice(alike if alike and draw.random() < 0.4 else VALUES)
