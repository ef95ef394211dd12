"""What a cell is: text, a number, missing, or refused with what to do; the same in every format."""

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mptune.errors import DataError
from mptune.tasks.cells import CellError, cell, is_empty, is_missing, label_key, meant
from mptune.tasks.data import load_data
from mptune.tasks.dataset import Dataset
from mptune.tasks.task import Task

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(VALUES)
def test_every_value_is_text_or_missing_or_refused_by_name(value):
    try:
        text, refusal = cell(value, "note"), ""
    except CellError as error:
        text, refusal = None, str(error)
    assert refusal.startswith("note holds ") == bool(refusal)
    assert not (refusal and isinstance(value, str | int | None))
    assert is_missing(value) == (text is None and not refusal)
    assert text is None or cell(text, "note") == text


@given(st.text())
def test_text_stays_as_it_is_whether_a_format_holds_letters_or_bytes(text):
    assert cell(text, "note") == text
    if text.isprintable():  # half a character has no bytes
        assert cell(text.encode(), "note") == text


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_is_the_same_text_as_a_float_and_as_a_decimal(number):
    assert cell(number, "n") == cell(float(number), "n") == cell(Decimal(number), "n") == str(number)
    assert label_key(number) == label_key(float(number)) == label_key(str(number))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_loses_anything(number):
    assert float(cell(number, "n")) == number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (37.5, "37.5"),
        (1e300, "1e+300"),
        (-0.0, "0"),
        (Decimal("2.50"), "2.50"),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, 3, 4, tzinfo=UTC), "2024-01-02 03:04:00+00:00"),
        (bytearray(b"good soup"), "good soup"),
        (math.nan, None),
        (Decimal("nan"), None),
    ],
)
def test_other_values_are_written_as_people_write_them(value, text):
    assert cell(value, "n") == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["a"], "note holds a list, where text is wanted; name a part, as {note[0]}"),
        ({"a": 1, "b": 2}, "note holds an object with a, b, where text is wanted; name a part, as {note[key]}"),
        (b"\xff\xfe", "note holds bytes that are no text in UTF-8; write them as text"),
        (math.inf, "note holds inf, which is no finite number; correct it, or leave it out"),
        (object(), "note holds a value of type object; write it as text or as a number"),
    ],
)
def test_what_is_no_text_is_refused_with_what_to_do(value, said):
    with pytest.raises(CellError) as error:
        cell(value, "note")
    assert str(error.value) == said


# -- in files ---------------------------------------------------------------------------------------------------------


def write(path, rows):
    """Write rows as JSON lines, JSON, CSV or Parquet, each as its users do."""
    ending = path.suffix
    if ending == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ending == ".csv":
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]))
    else:
        path.write_text(json.dumps(rows) if ending == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def guests(file, **changes):
    """A task over one file."""
    values = {"template": "{age} {note}", "verbalizer": {"1": "yes", "0": "no"}, **changes}
    return Task(name="guests", dataset=Dataset(train=str(file), where=values.pop("where", {})), **values)


def problems(task):
    with pytest.raises(DataError) as error:
        load_data(task, ["train"])
    return list(error.value.problems)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_a_table_reads_alike_in_every_format(tmp_path, ending):
    # A column with a gap is one of floats in Parquet files of pandas.
    rows = [
        {"age": 37.0, "note": "good soup", "label": 1.0, "rest": None},
        {"age": 4.5, "note": "x", "label": 0.0, "rest": 1},
    ]
    file = write(tmp_path / f"rows.{ending}", rows)
    read = load_data(guests(file, where={"label": ["1", "0"]}), ["train"]).train
    written = ["37.0 good soup" if ending == "csv" else "37 good soup", "4.5 x"]  # a CSV file holds text alone
    assert [(e.input, e.target) for e in read] == list(zip(written, ["yes", "no"], strict=True))


def test_binary_columns_are_read_as_the_text_they_hold(tmp_path):
    rows = [{"age": b"7", "note": b"good soup \xc3\xa9", "label": b"1"}, {"age": b"8", "note": b"b", "label": b"0"}]
    file = write(tmp_path / "rows.parquet", rows)
    assert [(e.input, e.target) for e in load_data(guests(file, where={"label": "1"}), ["train"]).train] == [
        ("7 good soup é", "yes")
    ]
    free = guests(file, verbalizer={}, target="{note}", references="note")
    assert load_data(free, ["train"]).train[1].references == ("b",)
    assert load_data(free, ["train"]).train[1].target == "b"


def test_nan_and_null_are_empty_and_an_absent_column_is_none(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"age": NaN, "note": "a", "label": 1}\n{"age": null, "note": "b", "label": NaN}\n{"note": "c", "label": 1}\n'
    )
    assert problems(guests(file)) == [
        "rows.jsonl row 1: age is empty; fill it, or leave the row out",
        "rows.jsonl row 2: age, label are empty; fill them, or leave the row out",
        "rows.jsonl row 3: no age, which template: of the task names; it has note, label",
    ]


A_LIST = "notes holds a list, where text is wanted; name a part, as {notes[0]}"
AN_OBJECT = "about holds an object with place, where text is wanted; name a part, as {about[key]}"
FREE = {"verbalizer": {}, "target": "{note}"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "{notes}"}, A_LIST),
        ({"template": "{about}"}, AN_OBJECT),
        ({"template": "{about[place]}"}, A_LIST.replace("notes", "about[place]")),
        ({"where": {"notes": "a"}}, A_LIST),
        ({"label": "notes"}, A_LIST),
        ({**FREE, "target": "{notes}"}, A_LIST),
        ({**FREE, "references": "deep"}, A_LIST.replace("notes", "deep")),
        ({"subset": "about"}, AN_OBJECT),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_nested_values_are_refused_wherever_text_is_wanted(tmp_path, ending, changes, said):
    row = {"age": 1, "note": "a", "notes": ["a"], "about": {"place": ["a"]}, "deep": [["a"]], "label": 1}
    file = write(tmp_path / f"rows.{ending}", [row])
    assert problems(guests(file, **changes)) == [f"rows.{ending} row 1: {said}"]


@pytest.mark.parametrize("name", ["table.json", "table.jsonl"])
def test_a_table_written_by_columns_is_told_with_how_to_write_rows(tmp_path, name):
    file = tmp_path / name
    file.write_text(json.dumps({"age": {"0": 1, "1": 2}, "note": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}}))
    assert problems(guests(file)) == [
        f"{name} row 1 is a whole table by columns, as pandas' to_json() writes it; "
        'write rows: to_json(..., orient="records", lines=True)'
    ]


def test_a_row_of_objects_is_no_table(tmp_path):
    file = write(tmp_path / "rows.jsonl", [{"a": {"0": "x", "b": "y"}, "label": {"0": 1, "b": 2}}])
    task = guests(file, template="{a[b]}", verbalizer={}, target="{label[b]}")
    assert load_data(task, ["train"]).train[0].input == "y"


@pytest.mark.parametrize(
    ("name", "found"),
    [("Mesage", "Message Text"), ("text", "Message Text"), ("ticket_no", "Ticket No"), ("MESSAGE TEXT", "Message Text"),
     ("Ticket Number No", "Ticket No"), ("when", None), ("#", None)],
)  # fmt: skip
def test_a_column_that_is_meant_is_like_the_name_or_has_its_words(name, found):
    assert meant(name, ("Message Text", "Ticket No", "Überblick")) == found


def test_a_row_with_nothing_but_gaps_and_spaces_is_empty():
    assert is_empty([None, float("nan"), " ", b"\t"])
    assert not is_empty([None, 0])
    assert not is_empty([False])
