"""Rows that a program holds, as rows of a file are: pandas' DataFrames, data sets, lists of fields.

Neither library is imported: who has a DataFrame has pandas.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mptune.errors import UsageError
from mptune.tasks.cells import column_name, is_empty, say_passed_over


def rows_in_memory(given: Any, what: str) -> list[dict[str, Any]]:
    """Return the rows of a table, each as {column: value}; gaps of pandas are None, and a data set's classes names.

    Args:
        given: a pandas DataFrame, a ``datasets.Dataset``, or any iterable of mappings.
        what: it is called in messages.

    Raises:
        UsageError: it is none of these, or has two columns of one name.
    """
    if isinstance(given, str | bytes | Mapping):  # of mappings, a DatasetDict is one, and a whole table by columns
        hint = ""
        if isinstance(given, Mapping) and given:
            hint = f"; got a mapping of {', '.join(map(str, list(given)[:5]))}. Pass one split, or a DataFrame of it"
        raise UsageError(f"{what} wants rows: a DataFrame, a Dataset or a list of {{field: value}}{hint}")
    rows = _records(given)
    if rows is None:
        got = type(given).__name__
        raise UsageError(f"{what} wants rows: a DataFrame, a Dataset or a list of {{field: value}}; got {got}")
    named = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise UsageError(f"{what} row {number} wants {{field: value}}; got {row!r:.40}")
        named.append({column_name(str(column)): value for column, value in row.items()})
        if len(named[-1]) < len(row):
            raise UsageError(f"{what} has two columns of one name: {', '.join(map(str, row))}")
    return named


def numbered(rows: Iterable[dict[str, Any]], what: str) -> list[tuple[int, dict[str, Any]]]:
    """Return rows with their numbers, from 1, without those that have nothing in them, of which a line tells."""
    kept, empty = [], []
    for number, row in enumerate(rows, start=1):
        if is_empty(row.values()):
            empty.append(number)
        else:
            kept.append((number, row))
    say_passed_over(what, empty)
    return kept


def is_frame(given: Any) -> bool:
    """Return whether this is pandas' DataFrame."""
    return hasattr(given, "iloc") and hasattr(given, "columns")


def is_dataset(given: Any) -> bool:
    """Return whether this is a ``datasets.Dataset``."""
    return hasattr(given, "features") and hasattr(given, "add_column")


def _records(given: Any) -> Iterable[Any] | None:
    """Return a table's rows, by what each library calls them; None for what has none."""
    if is_frame(given):
        columns = [str(column) for column in given.columns]
        if twice := [column for column in columns if columns.count(column) > 1]:
            raise UsageError(f"the DataFrame has two columns of one name: {twice[0]!r}. Rename one of them")
        whole = given.astype(object)
        records: Iterable[Any] = whole.where(given.notna(), None).to_dict("records")
        return records
    classes = {
        column: kind.names
        for column, kind in (getattr(given, "features", None) or {}).items()
        if hasattr(kind, "names")
    }
    if classes:  # a data set's labels are numbers, with their names beside them; -1 is none
        return [{**row, **{c: _class_name(row[c], names) for c, names in classes.items()}} for row in given]
    return given if isinstance(given, Iterable) else None


def _class_name(value: Any, names: list[str]) -> Any:
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value
