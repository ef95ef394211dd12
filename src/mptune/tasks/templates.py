"""Templates: text with ``{fields}`` of a row, and nothing else, since a template may come from a stranger's prompt.

Not Python's own format strings: these reach attributes, as ``{text.__class__}``, by which a template could read this
program's memory, and do not take the names that columns of spreadsheets have, as ``{Betreff: neu}``.
"""

import re
from collections.abc import Iterator

# A name is that of a column, as it stands; behind it may stand keys of what the column holds, as {answers[text][0]}.
_NAMED = re.compile(r"(?:(?!\.__)[^\[\]{}])*\S(\[[^\[\]]+\])*")
_FORMATTED = re.compile(r"![rsa]?(:|$)|:(?! )")  # as {text!r} and {text:>10}: nobody's column, and without effect here
_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")


def pieces(template: str) -> Iterator[tuple[str, str | None]]:
    """Yield the words of a template, each with the field that stands behind them; None behind the last.

    Raises:
        ValueError: a brace alone; ``{{`` and ``}}`` are written braces.
    """
    words, end = "", 0
    for piece in _PIECE.finditer(template):
        words += template[end : piece.start()]
        end = piece.end()
        if piece[0] in ("{{", "}}"):
            words += piece[0][0]
        elif len(piece[0]) == 1:
            raise ValueError(f"a {piece[0]} stands alone")
        else:
            yield words, piece[0][1:-1]
            words = ""
    yield words + template[end:], None


def fields(template: str) -> list[str]:
    """Return the fields of a template, in their order."""
    return [field for _, field in pieces(template) if field is not None]


def is_field(name: str) -> bool:
    """Return whether a field is a name, with or without keys behind it."""
    return _NAMED.fullmatch(name) is not None and _FORMATTED.search(name) is None


def plain(text: str) -> str:
    """Return a text as a template writes it."""
    return text.replace("{", "{{").replace("}", "}}")
