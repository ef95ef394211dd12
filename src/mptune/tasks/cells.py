"""What a cell of a row is, in every format: text, a number, missing, or refused. The one place that decides it."""

import difflib
import math
import numbers
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from mptune.terminal import warn_once

_WHOLE = re.compile(r"-?\d+\.0+")
EXACT = 2**53  # whole floats beyond it are not exact, and keep their exponent


class CellError(ValueError):
    """A cell that is neither text nor a number: its field, what it holds and what to do."""

    def __init__(self, field: str, held: str) -> None:
        super().__init__(f"{field} holds {held}")
        self.field = field


def cell(value: Any, field: str) -> str | None:
    """Return a cell as text; None where it is missing.

    A whole number is written without a point, since a column with gaps holds floats in some formats and not in others.

    Args:
        field: its name, for the error.

    Raises:
        CellError: it is nested, no finite number, or bytes that are no text.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | date | time | timedelta | UUID):  # a datetime is a date
        return str(value)
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise CellError(field, "bytes that are no text in UTF-8; write them as text") from None
    if isinstance(value, numbers.Real | Decimal):
        return _number(value, field)
    if isinstance(value, Mapping):
        parts = ", ".join(map(str, list(value)[:3])) or "nothing"
        raise CellError(field, f"an object with {parts}, where text is wanted; name a part, as {{{field}[key]}}")
    if isinstance(value, list | tuple):
        raise CellError(field, f"a list, where text is wanted; name a part, as {{{field}[0]}}")
    raise CellError(field, f"a value of type {type(value).__name__}; write it as text or as a number")


def text_cell(value: Any, field: str) -> str:
    """As `cell`, of a cell that may not be missing.

    Raises:
        KeyError: it is, with its name.
    """
    text = cell(value, field)
    if text is None:
        raise KeyError(field)
    return text


def label_key(value: Any, field: str = "label") -> str:
    """Return a row's label value as the text by which a verbalizer knows it; none where it is missing.

    1, 1.0, "1" and "1.0" are one label, and so are true, "true" and "True": files of each format hold their own.

    Raises:
        CellError: it is neither text nor a number.
    """
    text = unicodedata.normalize("NFC", cell(value, field) or "")
    if text.lower() in ("true", "false"):
        return text.lower()
    return text.rstrip("0").removesuffix(".") if _WHOLE.fullmatch(text) else text


def column_name(name: str) -> str:
    """Return a column's name without spaces around it, its letters composed: é is one letter, however it was typed."""
    return unicodedata.normalize("NFC", name.strip())


def is_missing(value: Any) -> bool:
    """Return whether a cell holds nothing: null, or the NaN, NA or NaT by which tables mark a gap."""
    if isinstance(value, Decimal):
        return value.is_nan()
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas, which is not imported for it
        return True
    return value is None or (isinstance(value, numbers.Real) and math.isnan(value))


def is_blank(value: Any) -> bool:
    """Return whether a cell is a text of nothing but spaces."""
    return isinstance(value, str | bytes) and not value.strip()


def is_empty(cells: Iterable[Any]) -> bool:
    """Return whether a row has nothing in it."""
    return all(is_missing(each) or is_blank(each) for each in cells)


def say_passed_over(place: str, numbers: Sequence[int]) -> None:
    """Say which rows have nothing in them, where there are any; spreadsheets leave them at their end."""
    if numbers:
        rows = f"{len(numbers)} rows, the first {numbers[0]}" if len(numbers) > 1 else f"row {numbers[0]}"
        warn_once(f"{place}: {rows} without anything in it, passed over")


@lru_cache(maxsize=64)
def meant(name: str, columns: tuple[str, ...]) -> str | None:
    """Return the column that is meant by a name that none has: one like it, or one of the same words and more.

    It is remembered, since a million rows may lack the same column.
    """
    folded = {" ".join(_words(column)): column for column in columns}
    words = _words(name)
    if near := difflib.get_close_matches(" ".join(words), folded, 1):
        return folded[near[0]]
    more = (column for fold, column in folded.items() if words and (longer := fold.split())
            and (set(words) <= set(longer) or set(longer) <= set(words)))  # fmt: skip
    return next(more, None)


def _words(name: str) -> list[str]:
    return re.sub(r"[\W_]+", " ", name.casefold()).split() or [name]


def _number(value: Any, field: str) -> str | None:
    if is_missing(value):
        return None
    if math.isinf(value):
        raise CellError(field, f"{value}, which is no finite number; correct it, or leave it out")
    whole = not isinstance(value, numbers.Integral) and abs(value) <= EXACT and value == int(value)
    return str(int(value)) if whole else str(value)
