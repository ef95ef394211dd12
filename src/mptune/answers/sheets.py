"""Rows with their answers as a table: csv, tsv, xlsx or parquet, by the ending of its name, as spreadsheets open it."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mptune.errors import DataError
from mptune.tasks.cells import CellError, cell
from mptune.tasks.tables import MOST_ROWS, first_delimiter, write_sheet

TABLES = ("csv", "tsv", "xlsx", "parquet")
PORTION = 1000  # rows in memory at a time

Answered = tuple[Mapping[str, Any], Mapping[str, Any]]  # a row, and what was answered


def is_table(file: Path | None) -> bool:
    """Return whether answers into a file are a table; else they are JSON lines."""
    return file is not None and file.suffix.lower().removeprefix(".") in TABLES


def refuse_too_many(file: Path | None, rows: int) -> None:
    """Raise DataError where a table cannot hold so many rows."""
    if file is not None and file.suffix.lower() == ".xlsx" and rows >= MOST_ROWS:
        raise DataError(
            file.name,
            [f"a sheet has {MOST_ROWS:,} rows, and the rows are {rows:,}; name a .csv or .parquet file"],
            "the answers do not fit:",
        )


def write_table(
    file: Path,
    ending: str,
    answered: Iterable[Answered],
    columns: Sequence[str],
    words: Sequence[str] | None,
    source: Path | None,
) -> None:
    """Write rows with their answers beside them.

    All columns of the rows stay, as text, and in Parquet that comes from Parquet as they are; then ``answer`` and
    ``confidence``, the answer's probability, under other names where the rows have such columns.

    Args:
        file: where it is written.
        ending: of the name it will have.
        columns: those of the rows.
        words: label words whose probabilities get a column each; none where None.
        source: the file of the rows, whose delimiter a csv file takes over.

    Raises:
        DataError: a cell that is no text and no number.
    """
    more = answer_columns(columns, words)
    if ending == "parquet":
        _write_parquet(file, iter(answered), columns, more, source)
        return
    lines = _lines(answered, columns, more)
    if ending == "xlsx":
        write_sheet(file, [*columns, *more], lines)
        return
    delimiter = "\t" if ending == "tsv" else first_delimiter(source)
    with file.open("w", encoding="utf-8-sig", newline="") as opened:  # the mark tells spreadsheets that it is UTF-8
        table = csv.writer(opened, delimiter=delimiter)
        table.writerow([*columns, *more])
        table.writerows(lines)


def answer_columns(columns: Sequence[str], words: Sequence[str] | None) -> dict[str, str | None]:
    """Return the added columns' names, and of which word each holds the probability; None for the first two."""
    named: dict[str, str | None] = {}
    for name, word in [("answer", None), ("confidence", None), *((f"P({word})", word) for word in words or ())]:
        while name in columns or name in named:
            name += " (mptune)"
        named[name] = word
    return named


def _lines(answered: Iterable[Answered], columns: Sequence[str], more: Mapping[str, str | None]) -> Iterator[list[Any]]:
    for number, (row, answer) in enumerate(answered, start=1):
        try:
            kept = [_text(row.get(column), column) for column in columns]
        except CellError as error:
            raise DataError("the answers", [f"row {number}: {error}"]) from None
        yield [*kept, *_added(answer, more)]


def _text(value: Any, column: str) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return cell(value, column) or ""


def _added(answer: Mapping[str, Any], more: Mapping[str, str | None]) -> list[Any]:
    """Return an answer's cells: the answer, its probability, and those of words."""
    probabilities = {word: round(value, 4) for word, value in (answer.get("probabilities") or {}).items()}
    _, _, *words = more.values()
    confidence = probabilities.get(answer["answer"])
    return [answer["answer"], confidence, *(probabilities.get(word) for word in words)]


def _write_parquet(
    file: Path,
    answered: Iterator[Answered],
    columns: Sequence[str],
    more: Mapping[str, str | None],
    source: Path | None,
) -> None:
    import pyarrow as arrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    kinds = [arrow.field(name, arrow.string() if place == 0 else arrow.float64()) for place, name in enumerate(more)]
    from_parquet = source is not None and source.suffix.lower() == ".parquet"
    own = list(parquet.read_schema(source)) if from_parquet else [arrow.field(name, arrow.string()) for name in columns]
    schema = arrow.schema([*own, *kinds])
    with parquet.ParquetWriter(file, schema) as table:
        while portion := list(islice(answered, PORTION)):
            if from_parquet:
                rows = [{**row, **dict(zip(more, _added(answer, more), strict=True))} for row, answer in portion]
            else:
                rows = [dict(zip([*columns, *more], line, strict=True)) for line in _lines(portion, columns, more)]
            table.write_table(arrow.Table.from_pylist(rows, schema))
