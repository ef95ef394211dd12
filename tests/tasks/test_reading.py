"""Rows are read as they stand, in every format, and what is wrong with them is told with file and row."""

import gzip
import io
import json
import os
import re
import sys
import threading

import pytest

from mptune.errors import DataError, UsageError
from mptune.tasks.data import load_data
from mptune.tasks.guess import guess_task
from mptune.tasks.registry import load_task
from mptune.tasks.rows import unlabelled_rows
from mptune.tasks.task import Example
from support.rows import ROWS, free, mood, problems, write
from support.toys import write_rows

# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz", "json.gz", "csv", "csv.gz", "parquet", "JSONL"])
def test_every_format_gives_the_same_examples(tmp_path, ending):
    data = load_data(mood(train=write(tmp_path / f"rows.{ending}", ROWS)), ["train"])
    first = 2 if ending.startswith("csv") else 1  # of a table the header is row 1, as a spreadsheet shows it
    assert data.train == (
        Example("mood", first, "mood: a calm day", "yes", "good", ("yes",)),
        Example("mood", first + 1, "mood: a flat tyre", "no", "bad", ("no",)),
    )
    assert data.validation == data.test == ()


def test_a_task_file_may_mix_formats(tmp_path):
    names = {"train": "reviews.train.jsonl", "validation": "reviews.dev.csv", "test": "reviews.test.parquet"}
    for i, name in enumerate(names.values()):
        write(tmp_path / name, [{"text": f"{row['text']} {i}", "label": row["label"]} for row in ROWS])
    (tmp_path / "reviews.yaml").write_text(
        "name: reviews\n"
        "dataset: {train: reviews.train.jsonl, validation: reviews.dev.csv, test: reviews.test.parquet}\n"
        "template: 'mood: {text}'\n"
        "verbalizer: {bad: no, good: yes}\n"
    )
    data = load_data(load_task(tmp_path / "reviews.yaml"), ["train", "validation", "test"])
    assert [e.input for e in data.train + data.validation + data.test if e.target == "yes"] == [
        f"mood: a calm day {i}" for i in range(3)
    ]


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv"])
@pytest.mark.parametrize(
    "text", ["007", "2024-01-02", "None", "N/A", "null", "nan", "1e3", "True", " b ", "é ü", "\u2028", "a\u2028b\x0bc"]
)
def test_text_stays_the_text_of_the_file(tmp_path, ending, text):
    file = write(tmp_path / f"rows.{ending}", [{"text": text, "label": "good"}, {"text": "x", "label": "bad"}])
    if text.isspace():
        row = 2 if ending == "csv" else 1
        assert problems(mood(train=file)) == [f"rows.{ending} row {row}: text is empty; fill it, or leave the row out"]
    else:
        assert load_data(mood(train=file), ["train"]).train[0].input == f"mood: {text}"


def test_texts_with_commas_quotes_and_line_breaks_survive_a_csv_file(tmp_path):
    text = 'she said "no, never",\nand left'
    file = write(tmp_path / "rows.csv", [{"text": text, "label": "bad"}, {"text": "x", "label": "good"}])
    train = load_data(mood(train=file), ["train"]).train
    assert [(e.row, e.input) for e in train] == [(2, f"mood: {text}"), (3, "mood: x")]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\nx,good\r\ny,bad\r\n")
    (tmp_path / "b.jsonl").write_bytes(
        b'\xef\xbb\xbf{"text": "x", "label": "good"}\r\n{"text": "y", "label": "bad"}\r\n'
    )
    a, b = (load_data(mood(train=tmp_path / name), ["train"]).train for name in ("a.csv", "b.jsonl"))
    assert [e.input for e in a] == [e.input for e in b]


def test_a_json_file_may_hold_one_object_a_line(tmp_path):
    file = write_rows(tmp_path / "rows.json", ROWS)
    assert [e.target for e in load_data(mood(train=file), ["train"]).train] == ["yes", "no"]


def test_blank_lines_are_passed_over_and_a_row_is_known_by_its_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n" + json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1]))
    assert [e.row for e in load_data(mood(train=file), ["train"]).train] == [2, 4]


@pytest.mark.parametrize(
    ("verbalizer", "labels"),
    [
        ({"true": "yes", "false": "no"}, [True, False]),
        ({"True": "yes", "False": "no"}, [True, False]),
        ({"1": "yes", "0": "no"}, [1, 0]),
        ({"1": "yes", "0": "no"}, [1.0, 0.0]),
        ({"1": "yes", "0": "no"}, ["1", "0"]),
        ({"1.0": "yes", "0.0": "no"}, [1, 0]),
        ({"yes": "yes", "no": "no"}, ["yes", "no"]),
        ({"on": "yes", "off": "no"}, ["on", "off"]),
        ({"True": "yes", "False": "no"}, ["true", "false"]),
        ({"None": "yes", "N/A": "no"}, ["None", "N/A"]),
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_label_values_are_known_whatever_type_their_file_gives_them(tmp_path, ending, verbalizer, labels):
    rows = [{"text": f"row {i}", "label": label} for i, label in enumerate(labels)]
    file = write(tmp_path / f"rows.{ending}", rows)
    assert [e.target for e in load_data(mood(verbalizer, train=file), ["train"]).train] == ["yes", "no"]


def test_label_values_of_mixed_types_are_no_problem(tmp_path):
    labels = ["1", 1, 1.0, "1.0"]
    file = write(tmp_path / "rows.jsonl", [{"text": f"row {i}", "label": label} for i, label in enumerate(labels)])
    assert [e.label for e in load_data(mood({"1": "yes", "0": "no"}, train=file), ["train"]).train] == ["1"] * 4


def test_one_file_holds_many_tasks_that_where_tells_apart(tmp_path):
    rows = [{**ROWS[i % 2], "text": f"row {i}", "task": "abc"[i % 3], "fold": i % 2} for i in range(12)]
    for ending in ("jsonl", "csv", "parquet"):
        file = write(tmp_path / f"all.{ending}", rows)
        picked = load_data(mood(train=file, where={"task": "b"}), ["train"]).train
        more = ending == "csv"
        assert [(e.row - more, e.input) for e in picked] == [(n, f"mood: row {n - 1}") for n in (2, 5, 8, 11)]
        both = load_data(mood(train=file, where={"task": "b", "fold": 1}), ["train"]).train
        assert [e.row - more for e in both] == [2, 8]
        either = load_data(mood(train=file, where={"task": ["b", "a"], "fold": 1}), ["train"]).train
        assert [e.row - more for e in either] == [2, 4, 8, 10]


def test_problems_of_another_tasks_rows_are_not_told(tmp_path):
    rows = [{**ROWS[0], "task": "a"}, {"task": "b"}, {**ROWS[1], "task": "a"}]
    file = write(tmp_path / "all.jsonl", rows)
    assert len(load_data(mood(train=file, where={"task": "a"}), ["train"]).train) == 2


# -- problems ---------------------------------------------------------------------------------------------------------


def test_a_missing_field_is_told_with_file_row_and_what_there_is(tmp_path):
    rows = [ROWS[0], {"txt": "a flat tyre", "label": "bad"}, {"text": None, "label": "bad"}, {"label": "good"}]
    assert problems(mood(train=write(tmp_path / "rows.jsonl", rows))) == [
        "rows.jsonl row 2: no text, which template: of the task names (did you mean txt?); it has txt, label",
        "rows.jsonl row 3: text is empty; fill it, or leave the row out",
        "rows.jsonl row 4: no text, which template: of the task names; it has label",
    ]


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_an_empty_field_is_a_missing_one(tmp_path, ending, blank):
    rows = [{"text": blank, "label": "good"}, {"text": "x", "label": blank}, {"text": blank, "label": blank}]
    name, first = f"rows.{ending}", 2 if ending == "csv" else 1
    assert problems(mood(train=write(tmp_path / name, rows))) == [
        f"{name} row {first}: text is empty; fill it, or leave the row out",
        f"{name} row {first + 1}: label is empty; fill it, or leave the row out",
        # of a table it is passed over
        *([] if ending == "csv" else [f"{name} row 3: text, label are empty; fill them, or leave the row out"]),
    ]


def test_a_label_that_the_verbalizer_lacks_is_told_with_what_it_has(tmp_path):
    rows = [ROWS[0], {"text": "so so", "label": "fair"}, {"text": "well", "label": "Good"}, {"text": "x", "label": 1}]
    assert problems(mood(train=write(tmp_path / "rows.jsonl", rows))) == [
        "rows.jsonl row 2: the label 'fair' is not in the verbalizer (bad, good)",
        "rows.jsonl row 3: the label 'Good' is not in the verbalizer (bad, good)",
        "rows.jsonl row 4: the label 1 is not in the verbalizer (bad, good)",
    ]


def test_a_missing_or_empty_part_of_a_field_is_told(tmp_path):
    parts = [["a"], [], [None], "", {"0": "a"}, {"x": "a"}]
    file = write(tmp_path / "rows.jsonl", [{"text": f"row {i}", "title": part} for i, part in enumerate(parts)])
    assert problems(free(train=file)) == [
        "rows.jsonl row 2: title[0] is missing or empty",
        "rows.jsonl row 3: title[0] is missing or empty",
        "rows.jsonl row 4: title is empty; fill it, or leave the row out",
        "rows.jsonl row 6: title[0] is missing or empty",
    ]


EMPTY = {
    "rows.jsonl": b"",
    "blank.jsonl": b"\n \n",
    "rows.json": b"[]",
    "none.json": b"",
    "header.csv": b"text,label\n",
    "rows.csv": b"",
    "rows.jsonl.gz": gzip.compress(b"", mtime=0),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_file_without_rows_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(EMPTY[name])
    assert problems(mood(train=tmp_path / name)) == [f"{name} has no rows"]


def test_a_parquet_file_without_rows_is_told(tmp_path):
    assert problems(mood(train=write(tmp_path / "rows.parquet", []))) == ["rows.parquet has no rows"]


def test_a_where_that_keeps_nothing_is_told(tmp_path):
    file = write(tmp_path / "rows.jsonl", ROWS)
    task = mood(train=file, where={"label": "fair", "task": "x"})
    assert problems(task) == ["rows.jsonl has no rows where label is fair, task is x"]


def test_a_split_that_is_not_named_is_told(tmp_path):
    task = mood(validation=write(tmp_path / "rows.jsonl", ROWS))
    assert problems(task, ["train", "validation", "test"]) == [
        "it has no train split; name its file under dataset: train:",
        "it has no test split; name its file under dataset: test:",
    ]


def test_a_test_split_that_is_not_named_is_told_though_there_are_training_rows(tmp_path):
    task = mood(train=write(tmp_path / "rows.jsonl", ROWS * 20))
    assert problems(task, ["train", "test"]) == ["it has no test split; name its file under dataset: test:"]
    assert problems(task, ["validation", "test"]) == ["it has no test split; name its file under dataset: test:"]


def test_no_validation_split_and_nothing_to_hold_out_from_is_told(tmp_path):
    task = mood(test=write(tmp_path / "rows.jsonl", ROWS))
    assert problems(task, ["validation"]) == ["it has no validation split; name its file under dataset: validation:"]


def test_a_missing_file_is_told_with_its_split_and_folder(tmp_path):
    (tmp_path / "rows").mkdir()
    task = mood(train=tmp_path / "rows" / "a.csv", test=tmp_path / "rows" / "b.csv")
    assert problems(task, ["train", "test"], code=2) == [
        "a.csv (train) does not exist in rows/",
        "b.csv (test) does not exist in rows/",
    ]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "rows.csv").mkdir()
    assert problems(mood(train=tmp_path / "rows.csv"), code=2) == [
        "rows.csv (train) is a folder, and a file of rows is wanted"
    ]


LISTED = ".jsonl, .json, .csv, .tsv, .txt, .xlsx or .parquet"
UNREAD = {
    "rows.xls": ".xls is not read; save it as .xlsx or .csv",
    "rows.ODS": ".ods is not read; save it as .xlsx or .csv",
    "rows.py": f".py is not read; save it as {LISTED}",
    "rows": f"a name without an ending is not read; save it as {LISTED}",
    "rows.xlsx.gz": ".xlsx.gz is not read; unpack it",
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_format_that_is_not_read_is_told_by_its_ending_with_what_to_do(tmp_path, name):
    """At each door: a task's rows, rows to answer, and a table to look at; also by a link of no ending."""
    (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0")
    assert problems(mood(train=tmp_path / name)) == [f"{name} (train): {UNREAD[name]}"]
    (tmp_path / "linked").symlink_to(name)
    for file in (name, "linked"):
        told = []
        assert list(unlabelled_rows(tmp_path / file, told)) == []
        assert told == [f"{file}: {UNREAD[name]}"]
    with pytest.raises(DataError, match=re.escape(f"{name}: {UNREAD[name]}")):
        guess_task(tmp_path / name, "rows")


def test_a_pipe_is_read_as_json_lines_whatever_its_name(tmp_path):
    os.mkfifo(tmp_path / "rows.py")
    writer = threading.Thread(target=write_rows, args=(tmp_path / "rows.py", ROWS))
    writer.start()
    assert [row for _, row in unlabelled_rows(tmp_path / "rows.py", [])] == ROWS
    writer.join()


@pytest.mark.parametrize(("delimiter", "encoding"), [("\t", "utf-16"), ("\t", "utf-8"), (";", "cp1252")])
def test_a_txt_file_is_a_table_as_a_spreadsheet_exports_it(tmp_path, delimiter, encoding):
    lines = [delimiter.join(cells) for cells in (("text", "label"), ("zu spät, schade", "bad"), ("schön", "good"))]
    (tmp_path / "rows.txt").write_bytes("\r\n".join(lines).encode(encoding))
    train = load_data(mood(train=tmp_path / "rows.txt"), ["train"]).train
    assert [(e.row, e.input) for e in train] == [(2, "mood: zu spät, schade"), (3, "mood: schön")]


def test_a_txt_file_may_hold_lines_of_json(tmp_path):
    write(tmp_path / "rows.jsonl", ROWS).rename(tmp_path / "rows.txt")
    assert [row for _, row in unlabelled_rows(tmp_path / "rows.txt", [])] == ROWS


def test_a_file_that_is_not_there_is_told_with_the_nearest_of_its_folder(tmp_path):
    write(tmp_path / "Tickets.csv", ROWS)
    assert problems(mood(train=tmp_path / "tikets.csv"), code=2) == [
        f"tikets.csv (train) does not exist in {tmp_path.name}/. Did you mean Tickets.csv?"
    ]
    with pytest.raises(UsageError, match=r"tikets\.csv cannot be read: No such file .*\. Did you mean Tickets\.csv\?$"):
        list(unlabelled_rows(tmp_path / "tikets.csv", []))
    with pytest.raises(UsageError, match=r"cannot be read: No such file or directory$"):
        list(unlabelled_rows(tmp_path / "quite other.csv", []))


def test_a_folder_of_rows_to_answer_is_told_without_an_error_number(tmp_path):
    with pytest.raises(UsageError) as told:
        list(unlabelled_rows(tmp_path, []))
    assert str(told.value) == f"{tmp_path} is a folder, and a file of rows is wanted; name one in it"


def test_every_broken_line_is_told_with_its_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    good = json.dumps(ROWS[0])
    file.write_text(f'{good}\n{{"text": "x", "label":\n{good}\n[1, 2]\n"text"\n{{"text" "x"}}\n')
    assert problems(mood(train=file)) == [
        "rows.jsonl row 2 is no JSON: Expecting value, column 23",
        "rows.jsonl row 4: wants {field: value}; got [1, 2]",
        'rows.jsonl row 5: wants {field: value}; got "text"',
        "rows.jsonl row 6 is no JSON: Expecting ':' delimiter, column 9",
    ]


def test_a_name_that_no_file_has_is_said(tmp_path):
    assert problems(mood(train="a\0b.csv"), code=2) == [f"{'a' + chr(0) + 'b.csv'!r} (train) is no path"]


def test_half_a_character_is_told_with_its_row_before_a_tokenizer_meets_it(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[0]) + '\n{"text": "half an emoji \\ud83d here", "label": "good"}\n')
    assert problems(mood(train=file)) == ["rows.jsonl row 2: half a character, as \\ud83d alone"]
    (tmp_path / "rows.json").write_text('[{"text": "\\ud83d", "label": "good"}]')
    assert "half a character" in problems(mood(train=tmp_path / "rows.json"))[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.json", b'[{"text": "x"},\n {"text" "y"}]', "cannot be read as json: Expecting ':' delimiter: line 2"),
        ("rows.xlsx", b"no sheet", "cannot be read as xlsx: it is no XLSX file"),
        ("rows.jsonl", b'{"text": "caf\xe9"}', "cannot be read as jsonl: 'utf-8' codec can't decode byte 0xe9"),
        ("rows.jsonl.gz", b"no gzip", "cannot be read as jsonl: Not a gzipped file"),
        ("rows.jsonl.gz", gzip.compress(b"{}\n" * 99, mtime=0)[:-9], "cannot be read as jsonl: Compressed file ended"),
        ("rows.parquet", b"no parquet at all", "cannot be read as parquet: "),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_told(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    (found,) = problems(mood(train=tmp_path / name))
    assert found.startswith(f"{name} (train) {said}")
    assert "\n" not in found
    assert str(tmp_path) not in found


def test_a_csv_row_with_too_many_or_too_few_cells_is_told(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nx,good\nwell, well,good\nbad\n")
    assert problems(mood(train=file)) == [
        "rows.csv row 3 has more cells than the header; quote a text that has the delimiter in it",
        "rows.csv row 4: no label, which label: of the task names; it has text",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"He said \\"no\\" twice",good', "',' expected after '\"'"),
        ('"open,good', "unexpected end of data"),
    ],
)
def test_a_csv_line_with_wrong_quotes_names_its_row_and_how_they_are_written(tmp_path, line, said):
    file = tmp_path / "rows.csv"
    file.write_text(f"text,label\nx,good\n{line}\n")
    assert problems(mood(train=file)) == [
        f'rows.csv row 3: {said}; close its quotes, and write a quote within them twice: "He said ""no"""'
    ]


def test_a_csv_cell_may_be_of_any_length(tmp_path):
    file = write(tmp_path / "rows.csv", [{"text": "soup " * 40_000, "label": "good"}])
    assert len(load_data(mood(train=file), ["train"]).train[0].input) > 200_000


def test_a_column_or_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label,text\nx,good,y\n")
    assert problems(mood(train=tmp_path / "rows.csv")) == [
        "rows.csv: its header has 'text' twice; one would hide the other"
    ]
    twice = '{"text": "x", "label": "good", "text": "y"}'
    said = "'text' stands twice, with 'x' and 'y'; one would hide the other"
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(ROWS[0])}\n{twice}\n")
    assert problems(mood(train=tmp_path / "rows.jsonl")) == [f"rows.jsonl row 2: {said}"]
    (tmp_path / "rows.json").write_text(f"[{twice}]")
    assert problems(mood(train=tmp_path / "rows.json")) == [f"rows.json (train) cannot be read as json: {said}"]
    (tmp_path / "deep.jsonl").write_text('{"text": "x", "label": "good", "at": {"a": 1, "a": 2}}\n')
    assert "'a' stands twice" in problems(mood(train=tmp_path / "deep.jsonl"))[0]


def test_standard_input_is_read_as_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    line = '{"text": "ein schöner Tag, 是"}\n'.encode("utf-8-sig")
    (tmp_path / "rows.jsonl").write_bytes(line)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line), encoding="cp1252"))
    for file in (None, tmp_path / "rows.jsonl"):
        assert list(unlabelled_rows(file, [])) == [(1, {"text": "ein schöner Tag, 是"})]


def test_a_link_is_judged_by_its_own_name_and_else_by_that_of_its_target(tmp_path):
    (tmp_path / "blob").write_bytes(write(tmp_path / "rows.csv", ROWS).read_bytes())
    (tmp_path / "linked.csv").symlink_to("blob")
    (tmp_path / "linked").symlink_to(write(tmp_path / "packed.jsonl.gz", ROWS))
    for name in ("linked.csv", "linked"):
        task = mood(train=name).located(tmp_path)
        assert [e.label for e in load_data(task, ["train"]).train] == ["good", "bad"]


def test_a_file_may_be_named_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "rows.csv", ROWS)
    (tmp_path / "mood.yaml").write_text(
        "name: mood\ndataset: {train: ~/rows.csv}\ntemplate: '{text}'\nverbalizer: {bad: 0, good: 1}"
    )
    task = load_task("~/mood.yaml")
    assert len(load_data(task, ["train"]).train) == 2


def test_everything_wrong_with_all_splits_is_told_at_once(tmp_path):
    train = write(tmp_path / "train.jsonl", [ROWS[0], {"text": "x", "label": "fair"}, {"label": "bad"}])
    test = write(tmp_path / "test.csv", [ROWS[0], {"text": "", "label": "good"}])
    task = mood(train=train, validation=tmp_path / "dev.json", test=test)
    assert problems(task, ["train", "validation", "test"]) == [
        "train.jsonl row 2: the label 'fair' is not in the verbalizer (bad, good)",
        "train.jsonl row 3: no text, which template: of the task names; it has label",
        f"dev.json (validation) does not exist in {tmp_path.name}/",
        "test.csv row 3: text is empty; fill it, or leave the row out",
        "train.jsonl row 1 stands in test.csv too, row 2 "
        "(`overlap: drop` under dataset leaves such rows out of training)",
    ]


def test_a_long_list_of_problems_is_cut_with_a_count(tmp_path):
    file = write(tmp_path / "rows.jsonl", [{"text": f"row {i}", "label": f"fair {i}"} for i in range(50)])
    with pytest.raises(DataError, match=r"rows.jsonl row 20: [^\n]*\n  - \.\.\. and 30 more of the kind$") as error:
        load_data(mood(train=file), ["train"])
    assert len(error.value.problems) == 50
    assert "row 21" not in str(error.value)


def test_a_task_from_a_card_has_no_data_and_says_how_to_name_it(toy_task):
    assert problems(toy_task.without_paths()) == [
        "its card carries no data; name the task with --task FILE.yaml or a built-in name"
    ]
