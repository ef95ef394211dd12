"""Rows in, the same rows out: whatever the format, the ends of lines, the mark at the beginning, the compression."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import Table, parquet

from mptune.tasks.rows import unlabelled_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # half a character stands in no file
COLUMNS = ("text", "second field", "é,\"'")
ENDS = ("\n", "\r\n", "\r")
FILES = settings(deadline=None)  # a disk may take its time
HOW = {"ending": st.sampled_from(ENDS), "mark": st.booleans(), "compressed": st.booleans()}


def rows_of(cells):
    return st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, cells)), max_size=4)


def read(folder, name, text, *, mark=False, compressed=False):
    """The rows of a file with such a text, and what was wrong with it."""
    content = text.encode("utf-8-sig" if mark else "utf-8")
    file = folder / (f"{name}.gz" if compressed else name)
    file.write_bytes(gzip.compress(content, 1) if compressed else content)
    problems = []
    return [row for _, row in unlabelled_rows(file, problems)], problems


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@FILES
@given(
    rows=rows_of(TEXT | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.lists(TEXT)),
    name=st.sampled_from(["r.jsonl", "r.json", "r.JSONL"]), plain=st.booleans(), blank=st.booleans(), **HOW,
)  # fmt: skip
def test_lines_of_json_are_read_as_they_were_written(folder, rows, name, ending, plain, blank, mark, compressed):
    lines = [json.dumps(row, ensure_ascii=plain) for row in rows]
    text = (ending * (1 + blank)).join(lines) + ending * blank
    assert read(folder, name, text, mark=mark, compressed=compressed) == (rows, [])


@FILES
@given(rows=rows_of(TEXT | st.none() | st.dictionaries(TEXT, TEXT)), indent=st.sampled_from([None, 1]), **HOW)
def test_a_list_of_json_is_read_as_it_was_written(folder, rows, indent, ending, mark, compressed):
    text = json.dumps(rows, indent=indent).replace("\n", ending)
    assert read(folder, "r.json", text, mark=mark, compressed=compressed) == (rows, [])


@FILES
@given(rows=rows_of(TEXT) | st.lists(st.fixed_dictionaries({"text": TEXT}), max_size=4), quoted=st.booleans(), **HOW)
def test_a_table_of_text_is_read_as_it_was_written(folder, rows, quoted, ending, mark, compressed):
    # Python's own writer leaves an end of line of another kind than the table's without quotes.
    every = quoted or any(end in text for row in rows for text in row.values() for end in ENDS)
    written = io.StringIO(newline="")
    how = {"lineterminator": ending, "quoting": csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL}
    table = csv.DictWriter(written, list(rows[0]) if rows else COLUMNS, **how)
    table.writeheader()
    table.writerows(rows)
    kept = [row for row in rows if any(map(str.strip, row.values()))]  # empty rows are passed over
    assert read(folder, "r.csv", written.getvalue(), mark=mark, compressed=compressed) == (kept, [])


@FILES
@given(rows=st.lists(st.fixed_dictionaries({"text": TEXT | st.none(), "n": st.integers(-9, 2**63 - 1) | st.none()})))
def test_columns_are_read_as_they_were_written(folder, rows):
    parquet.write_table(Table.from_pylist(rows), folder / "r.parquet")
    problems = []
    assert [row for _, row in unlabelled_rows(folder / "r.parquet", problems)] == rows
    assert problems == []


@FILES
@given(rows=st.lists(st.fixed_dictionaries({"text": TEXT}), min_size=1, max_size=4), data=st.data(), **HOW)
def test_no_end_of_a_file_is_lost_without_a_word(folder, rows, data, ending, mark, compressed):
    """Cut anywhere, a file of JSON has fewer rows only where the cut is between them."""
    text = ending.join(json.dumps(row) for row in rows)
    cut = text[: data.draw(st.integers(0, len(text)))]
    found, problems = read(folder, "r.jsonl", cut, mark=mark, compressed=compressed)
    lines = [line.rstrip("\r") for line in cut.split(ending)]  # half of an end of line is one
    whole = len([line for line in lines if line.endswith("}") and line.startswith("{")])
    assert found == rows[: len(found)]
    assert problems or len(found) == whole
