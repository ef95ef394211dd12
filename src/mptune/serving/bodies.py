"""What a request's body may be: JSON of a route. And what is said of one that is not."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mptune.files import parsed

DEEPEST = 32  # lists and objects of a body in each other
# What JSON calls its values. Before int: a truth value is one for Python.
_KINDS = {bool: "true or false", int | float: "a number", str: "a text", list: "a list", dict: "an object"}


def is_json(content_type: str) -> bool:
    """Return whether a header says that a body is JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def check(body: bytes) -> None:
    """Refuse what is no JSON, or could exhaust who reads it.

    Raises:
        ValueError: and why.
    """
    try:
        text = body.decode("utf-8-sig")  # some programs of Windows begin a text with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"a body wants UTF-8; got byte 0x{body[error.start]:02x} at {error.start:,}") from None
    try:
        values = parsed(text, finite=True)
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is no JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"the body cannot be read: {error}") from None
    # Brackets in a text are letters, so that many say nothing; few are no depth.
    if text.count("[") + text.count("{") > DEEPEST and _depth(values) > DEEPEST:
        raise ValueError(f"the body is nested deeper than {DEEPEST}")


def _depth(values: Any) -> int:
    """Return how deep lists and objects lie in each other, a level after the other."""
    level, depth = [values], 0
    while level:
        level = [
            each for v in level if isinstance(v, dict | list) for each in (v.values() if isinstance(v, dict) else v)
        ]
        depth += 1
    return depth


def slip(problems: Sequence[Mapping[str, Any]], body: Any) -> tuple[str, str]:
    """Return where a body is no request of its route, empty where it is none at all, and what was wanted and came.

    Args:
        problems: as pydantic tells them; of a value that may be several things, one for each.
    """
    if body is None:
        return "", "wants an object; got none"
    places = [_place(each, body) for each in problems]
    first = places[0][0]
    # A list of which one part is wrong is told by that part, and not as what is no text.
    place, value = max((each for each in places if each[0][: len(first)] == first), key=lambda each: len(each[0]))
    told = [problem for problem, each in zip(problems, places, strict=True) if each[0] == place]
    wanted = " or ".join(dict.fromkeys(str(each["msg"]) for each in told))
    got = "" if told[0]["type"] in ("missing", "extra_forbidden") else f"; got {_kind(value)}"
    return ".".join(place), f"{wanted}{got}"


def _place(problem: Mapping[str, Any], body: Any) -> tuple[tuple[str, ...], Any]:
    """Return where a problem lies, and what stands there; of its path, what names a kind of value is left out."""
    parts, value = [], body
    for part in problem["loc"][1:]:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            parts.append(str(part))
            value = value[part]
    if problem["type"] == "missing":  # what is not there cannot be followed
        parts.append(str(problem["loc"][-1]))
    return tuple(parts), value


def _kind(value: Any) -> str:
    return next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "null")
