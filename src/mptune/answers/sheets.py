"""Rows with their answers as a table: csv, tsv, xlsx or parquet, by the ending of its name, as spreadsheets open it."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mptune.errors import DataError, UsageError
from mptune.tasks.cells import CellError, cell
from mptune.tasks.tables import MOST_ROWS, first_delimiter, write_sheet

TABLES = ("csv", "tsv", "xlsx", "parquet")
LINES = ("jsonl", "json", "ndjson")  # endings of JSON lines
PORTION = 1000  # rows in memory at a time

Held = tuple[str, str]  # what an added column holds, and of a probability the label word
Answered = tuple[Mapping[str, Any], Mapping[str, Any]]  # a row, and what was answered


def is_table(file: Path | None) -> bool:
    """Return whether answers into a file are a table; else they are JSON lines."""
    return file is not None and file.suffix.lower().removeprefix(".") in TABLES


def refuse_ending(file: Path) -> None:
    """Raise UsageError where a file's name promises what is not written, as .xls or .ods: nothing would open it."""
    if not is_table(file) and file.suffix.lower().removeprefix(".") not in LINES:
        tables, lines = (" ".join(f".{ending}" for ending in endings) for endings in (TABLES, LINES))
        raise UsageError(
            f"answers are written as a table ({tables}) or as JSON lines ({lines}); got {file}, name it with one of "
            "these endings"
        )


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
    *,
    abstains: bool = False,
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
        abstains: whether there is a column ``abstained``, of answers below a threshold.

    Raises:
        DataError: a cell that is no text and no number.
    """
    more = answer_columns(columns, words, abstains=abstains)
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


def answer_columns(columns: Sequence[str], words: Sequence[str] | None, *, abstains: bool = False) -> dict[str, Held]:
    """Return the added columns' names, and what each holds."""
    named: dict[str, Held] = {}
    plain = ["answer", "confidence", *(["abstained"] if abstains else [])]
    wanted = [(name, (name, "")) for name in plain] + [(f"P({w})", ("probability", w)) for w in words or ()]
    for name, held in wanted:
        while name in columns or name in named:
            name += " (mptune)"
        named[name] = held
    return named


def _lines(answered: Iterable[Answered], columns: Sequence[str], more: Mapping[str, Held]) -> Iterator[list[Any]]:
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


def _added(answer: Mapping[str, Any], more: Mapping[str, Held]) -> list[Any]:
    """Return an answer's cells."""
    probabilities = {word: round(value, 4) for word, value in (answer.get("probabilities") or {}).items()}
    plain = {**answer, "confidence": probabilities.get(answer["answer"])}
    return [probabilities.get(word) if what == "probability" else plain.get(what) for what, word in more.values()]


def _write_parquet(
    file: Path,
    answered: Iterator[Answered],
    columns: Sequence[str],
    more: Mapping[str, Held],
    source: Path | None,
) -> None:
    import pyarrow as arrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    kind_of = {"answer": arrow.string(), "abstained": arrow.bool_()}
    kinds = [arrow.field(name, kind_of.get(what, arrow.float64())) for name, (what, _) in more.items()]
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
