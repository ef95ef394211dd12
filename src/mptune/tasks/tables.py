"""Tables as spreadsheets write them: delimited text in any of their encodings, and XLSX. The one file that opens XLSX.

What a file does not say is found by looking: its encoding, which is said once, and its delimiter. Rows have the numbers
that a spreadsheet shows, so that the header is row 1.
"""

import codecs
import csv
import difflib
import gzip
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from mptune.tasks.cells import column_name, is_empty, say_passed_over
from mptune.terminal import warn_once

DELIMITERS = (",", ";", "\t", "|")
LOOKED_AT = 2**16  # characters in which a delimiter is looked for
MOST_ROWS, LONGEST_CELL = 1_048_576, 32_767  # of an XLSX sheet, and characters
RECORDS = 50  # whose cells are counted for it
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")  # which XML cannot hold
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

NumberedRow = tuple[int, dict[str, Any]]


class Missing(str):
    """A problem of data: a name that leads nowhere, which is wrong use where nothing else is wrong."""

    leads_nowhere = True


class Ended(str):
    """A problem behind which nothing of a file was read."""

    __slots__ = ()


ZIP = b"PK\x03\x04"  # how a workbook begins, whatever its name
ELSEWHERE = "move it to the front, or save it as a file of its own"  # of a sheet
WESTERN = "cp1252"  # what spreadsheets of the West write where they do not write UTF-8


def encoding_of(file: Path, named: str | None = None) -> str:
    """Return how a text file is encoded: what its mark says, else what is named, else what is found by looking.

    Found are UTF-8 and UTF-16, and else it is taken for cp1252, which is said. So is UTF-8 for which something else is
    named: a file that was saved anew, and its task's file not mended.

    Raises:
        ValueError: it is no text, but a workbook.
    """
    found = _found_encoding(file, named)
    if named is None and found == WESTERN:
        warn_once(f"{file.name} is read as {WESTERN}; if letters are wrong, save it as UTF-8")
    if named is None or found in ("utf-16", "utf-8-sig"):
        return "utf-8" if found == "ascii" else found
    if found == "utf-8" and not codecs.lookup(named).name.startswith("utf-8"):
        warn_once(f"{file.name} is UTF-8, but its task says encoding: {named}; take that line out if letters are wrong")
    return named


def _found_encoding(file: Path, named: str | None) -> str:
    """Return what a file's bytes are, as far as they tell; ASCII where they are that."""
    with _bytes_of(file) as opened:
        head = opened.read(LOOKED_AT)
        if head.startswith(ZIP):
            raise ValueError("it is an Excel workbook by what it holds, and no text; name it .xlsx")
        if head.startswith(_MARKS[1:]):
            return "utf-16"
        if head.startswith(_MARKS[0]):
            return "utf-8-sig"
        zeros = [head[half::2].count(0) for half in (0, 1)]
        if named is None and min(zeros) == 0 and max(zeros) > len(head) / 5:  # every other byte of Latin letters
            return "utf-16-be" if zeros[0] else "utf-16-le"
        decoder, plain = codecs.getincrementaldecoder("utf-8")(), True
        try:
            while head:
                decoder.decode(head)
                plain = plain and head.isascii()
                head = opened.read(LOOKED_AT)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return WESTERN
    return "ascii" if plain else "utf-8"


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


def sheet_rows(file: Path, name: str, problems: list[str], wanted: str | None = None) -> Iterator[NumberedRow]:
    """Yield the rows of a sheet of an XLSX file, the first without a name; what is wrong goes to ``problems``.

    Raises:
        ValueError: the file is no XLSX, or has no sheet.
    """
    with _sheets(file) as sheets:
        title = wanted if wanted is not None else next(iter(sheets))
        if title not in sheets:
            near = difflib.get_close_matches(title, sheets, 1)
            meant = f". Did you mean {near[0]}?" if near else ""
            problems.append(Missing(f"{name} has no sheet {title!r}; it has {', '.join(sheets)}{meant}"))
            return
        others = _filled(sheets, title) if wanted is None else []
        rows = enumerate(map(list, sheets[title].iter_rows(values_only=True)), start=1)
        known, first = len(problems), next(numbered := _under_header(rows, name, problems), None)
        if first is None:
            if others and len(problems) == known:
                problems.append(f"{name}: its first sheet, {title}, has no rows; {elsewhere(others)}")
            return
        if others:
            warn_once(f"{name}: the first sheet, {title}, is read; {elsewhere(others)}")
        yield first
        yield from numbered


def elsewhere(sheets: Sequence[str]) -> str:
    """Return which other sheets have rows, and how they are read, for a message."""
    has, it = ("has", "it") if len(sheets) == 1 else ("have", "one")
    return f"{', '.join(sheets)} {has} rows: to read {it}, {ELSEWHERE}"


def other_sheets(file: Path) -> list[str]:
    """Return the sheets of a file with rows that are not read, where none is named; none where it is no XLSX."""
    if not file.name.lower().endswith(".xlsx"):
        return []
    with _sheets(file) as sheets:
        return _filled(sheets, next(iter(sheets)))


def _filled(sheets: Mapping[str, Any], read: str) -> list[str]:
    """Return the other sheets that have a header and a row, as far as that is soon seen."""
    filled = []
    for title, sheet in sheets.items():
        rows = sheet.iter_rows(max_row=RECORDS, values_only=True) if title != read else ()
        if sum(any(cell is not None for cell in row) for row in rows) > 1:
            filled.append(title)
    return filled


@contextmanager
def _sheets(file: Path) -> Iterator[dict[str, Any]]:
    """Open an XLSX file for its sheets of cells, by their names.

    Raises:
        ValueError: the file is no XLSX, or has no sheet.
    """
    from openpyxl import load_workbook  # type: ignore[import-untyped]
    from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]

    try:
        book = load_workbook(file, read_only=True, data_only=True)
    except (InvalidFileException, KeyError, zipfile.BadZipFile, SyntaxError) as error:  # of XML that is none
        raise ValueError(f"it is no XLSX file ({error})") from None
    try:
        if not book.worksheets:
            raise ValueError("it has no sheet with cells")
        yield {sheet.title: sheet for sheet in book.worksheets}
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
        if is_empty(cells):
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
    say_passed_over(name, empty)


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
