"""Tables as spreadsheets write them: delimited text in any of their encodings, and XLSX. The one file that opens XLSX.

What a file does not say is found by looking: its encoding, which is said once, and its delimiter. Rows have the numbers
that a spreadsheet shows, so that the header is row 1.
"""

import codecs
import csv
import gzip
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from mptune.tasks.cells import column_name, is_missing
from mptune.terminal import warn_once

DELIMITERS = (",", ";", "\t", "|")
LOOKED_AT = 2**16  # characters in which a delimiter is looked for
MOST_ROWS, LONGEST_CELL = 1_048_576, 32_767  # of an XLSX sheet, and characters
RECORDS = 50  # whose cells are counted for it
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")  # which XML cannot hold
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

NumberedRow = tuple[int, dict[str, Any]]


ZIP = b"PK\x03\x04"  # how a workbook begins, whatever its name


def encoding_of(file: Path) -> str:
    """Return how a text file is encoded: what its mark says, UTF-8 if it is that, UTF-16 without a mark, else cp1252.

    Western spreadsheets write cp1252 where they do not write UTF-8; what has been taken for it is said.

    Raises:
        ValueError: it is no text, but a workbook.
    """
    with _bytes_of(file) as opened:
        head = opened.read(LOOKED_AT)
        if head.startswith(ZIP):
            raise ValueError("it is an Excel workbook by what it holds, and no text; name it .xlsx")
        if head.startswith(_MARKS[1:]):
            return "utf-16"
        if head.startswith(_MARKS[0]):
            return "utf-8-sig"
        zeros = [head[half::2].count(0) for half in (0, 1)]
        if min(zeros) == 0 and max(zeros) > len(head) / 5:  # every other byte of Latin letters
            return "utf-16-be" if zeros[0] else "utf-16-le"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while head:
                decoder.decode(head)
                head = opened.read(LOOKED_AT)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            warn_once(
                f"{file.name} is no UTF-8, and is read as cp1252, as Western spreadsheets write it; where letters come "
                "out wrong, save it as UTF-8, or name its encoding under dataset: encoding:"
            )
            return "cp1252"
    return "utf-8"


def delimited_rows(
    text: Iterable[str], name: str, problems: list[str], delimiter: str | None = None
) -> Iterator[NumberedRow]:
    """Yield the rows of delimited text, whose cells stay as they stand; what is wrong goes to ``problems``.

    Args:
        name: of the file.
        delimiter: between cells; the one that suits header and rows where None.
    """
    lines = iter(text)
    head = _head(lines)
    if head and head[0].lower().startswith("sep=") and len(head[0].rstrip("\r\n")) == len("sep=") + 1:
        delimiter = delimiter or head[0][4]  # a spreadsheet's own way to say it
        head[0] = "\n"  # the row is counted
    csv.field_size_limit(2**31 - 1)  # of characters; a long text is cut when it is read, and not refused here
    reader = csv.reader(chain(head, lines), delimiter=delimiter or delimiter_of(head), strict=True)
    read = 0

    def counted() -> Iterator[tuple[int, list[Any]]]:
        nonlocal read
        for row in reader:
            read += 1
            yield read, row

    try:
        yield from _under_header(counted(), name, problems)
    except csv.Error as error:
        problems.append(
            f'{name} row {read + 1}: {error}; close its quotes, and write a quote within them twice: "He said ""no"""'
        )


def sheet_rows(file: Path, name: str, problems: list[str]) -> Iterator[NumberedRow]:
    """Yield the rows of the first sheet of an XLSX file; what is wrong goes to ``problems``.

    Raises:
        ValueError: the file is no XLSX.
    """
    from openpyxl import load_workbook  # type: ignore[import-untyped]
    from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]

    try:
        book = load_workbook(file, read_only=True, data_only=True)
    except (InvalidFileException, KeyError, zipfile.BadZipFile, SyntaxError) as error:  # of XML that is none
        raise ValueError(f"it is no XLSX file ({error})") from None
    try:
        sheet, *others = book.worksheets
        if others:
            warn_once(f"{name} has {1 + len(others)} sheets, of which the first is read: {sheet.title}")
        yield from _under_header(enumerate(map(list, sheet.iter_rows(values_only=True)), start=1), name, problems)
    finally:
        book.close()


def write_sheet(file: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write an XLSX file of one sheet; what begins with = is a text and no formula, which strangers' rows may hold."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell  # type: ignore[import-untyped]

    book = Workbook(write_only=True)
    sheet = book.create_sheet("answers")
    for line in chain([head], lines):
        sheet.append([_sheet_cell(WriteOnlyCell, sheet, value) for value in line])
    book.save(file)


def _sheet_cell(kind: Any, sheet: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return kind(sheet, value=value)
    if len(value) > LONGEST_CELL:
        warn_once(
            f"an XLSX cell holds {LONGEST_CELL:,} characters, and longer texts are cut; name a .csv file for them"
        )
    made = kind(sheet, value=_UNPRINTABLE.sub("\ufffd", value[:LONGEST_CELL]))
    made.data_type = "s"
    return made


def first_delimiter(file: Path | None) -> str:
    """Return what divides the cells of a csv file; a comma where the file is none."""
    if file is None or not file.name.lower().removesuffix(".gz").endswith(".csv"):
        return DELIMITERS[0]
    with _bytes_of(file) as opened:
        head = opened.read(LOOKED_AT).decode(encoding_of(file), errors="ignore").splitlines(keepends=True)
    return head[0][4] if head and head[0].lower().startswith("sep=") else delimiter_of(head[:-1] or head)


def delimiter_of(lines: Iterable[str]) -> str:
    """Return what divides the cells of some lines: what gives most rows as many as the header; else a comma."""
    suited: dict[str, tuple[float, int]] = {}
    listed = list(lines)
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(listed, delimiter=delimiter) if any(map(str.strip, row))]
        except csv.Error:
            continue
        counts = [len(row) for row in rows[:RECORDS]]
        alike = sum(count == counts[0] for count in counts) / max(1, len(counts))
        if alike > 0.5 and counts[0] > 1:
            suited[delimiter] = (alike, counts[0])
    return max(suited, key=lambda delimiter: suited[delimiter], default=DELIMITERS[0])


def _under_header(rows: Iterable[tuple[int, list[Any]]], name: str, problems: list[str]) -> Iterator[NumberedRow]:
    """Yield rows by the names of their columns: the first row that is not empty. Empty rows are passed over."""
    columns: list[str] = []
    empty = []
    for number, cells in rows:
        if all(is_missing(cell) or (isinstance(cell, str) and not cell.strip()) for cell in cells):
            empty += [number] if columns else []
            continue
        if not columns:
            columns = [column_name(str(cell)) if cell is not None else "" for cell in cells]
            twice = [column for column, count in Counter(filter(None, columns)).items() if count > 1]
            if twice:
                problems.append(f"{name}: its header has {', '.join(map(repr, twice))} twice; one would hide the other")
                return
            continue
        nameless = {place for place in range(len(cells)) if place >= len(columns) or not columns[place]}
        if more := [place for place in sorted(nameless) if cells[place] not in (None, "")]:
            what = "more cells than the header" if more[-1] >= len(columns) else "a cell in a column without a name"
            problems.append(f"{name} row {number} has {what}; quote a text that has the delimiter in it")
            continue
        yield number, {column: cell for column, cell in zip(columns, cells, strict=False) if column}
    if empty:
        rows_said = f"{len(empty)} rows, the first {empty[0]}" if len(empty) > 1 else f"row {empty[0]}"
        warn_once(f"{name}: {rows_said} without anything in it, passed over")


def _head(lines: Iterator[str]) -> list[str]:
    """Take the first lines of a text, as many as a delimiter is looked for in."""
    head: list[str] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line)
        if size > LOOKED_AT or len(head) >= 4 * RECORDS:
            break
    return head


def _bytes_of(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb"))
