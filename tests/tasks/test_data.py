"""Rows: read as they stand, checked before anything is trained, held out, drawn."""

import csv
import gzip
import io
import json
import logging
import re
import sys
from collections import Counter

import datasets
import pyarrow
import pytest
import torch
from pyarrow import parquet

from mptune.errors import DataError
from mptune.tasks.data import TaskRows, draw_rows, draw_shots, load_data
from mptune.tasks.registry import builtin_tasks, load_task
from mptune.tasks.rows import unlabelled_rows, warn_once
from mptune.tasks.task import Dataset, Example, HubData, Task
from support.toys import files_opened, make_task, write_rows


@pytest.fixture(autouse=True)
def _nothing_was_said_before():
    warn_once.cache_clear()


ROWS = [{"text": "a calm day", "label": "good"}, {"text": "a flat tyre", "label": "bad"}]


def write(path, rows):
    """Write rows in the format that the path's ending names."""
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "parquet":
        columns = {k: [r.get(k) for r in rows] for k in (rows[0] if rows else ("text", "label"))}
        parquet.write_table(pyarrow.table(columns), path)
        return path
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if ending == "csv":
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
        elif ending == "json":
            json.dump(rows, file, ensure_ascii=False)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def mood(verbalizer=None, **dataset):
    """A task of classes over files."""
    dataset = {k: v if k in ("hub", "where", "overlap", "train_rows") else str(v) for k, v in dataset.items()}
    words = verbalizer or {"bad": "no", "good": "yes"}
    return Task(name="mood", template="mood: {text}", verbalizer=words, dataset=Dataset(**dataset))


def free(**dataset):
    """A task of free text over files."""
    dataset = Dataset(**{k: str(v) for k, v in dataset.items()})
    return Task(name="titles", template="{text}", target="{title[0]}", dataset=dataset, metrics="exact_match")


def problems(task, splits=("train",), data_dir=None):
    """What load_data says of a task."""
    with pytest.raises(DataError) as error:
        load_data(task, splits, data_dir)
    assert error.value.exit_code == 3
    return list(error.value.problems)


def examples(count, classes=2):
    """Examples in no order of classes, numbered from one."""
    return [Example("toy", i + 1, f"row {i}", "word", str(i * 7 % classes), ("word",)) for i in range(count)]


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz", "json.gz", "csv", "csv.gz", "parquet", "JSONL"])
def test_every_format_gives_the_same_examples(tmp_path, ending):
    data = load_data(mood(train=write(tmp_path / f"rows.{ending}", ROWS)), ["train"])
    assert data.train == (
        Example("mood", 1, "mood: a calm day", "yes", "good", ("yes",)),
        Example("mood", 2, "mood: a flat tyre", "no", "bad", ("no",)),
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
        assert problems(mood(train=file)) == [f"rows.{ending} row 1: empty text; it has label"]
    else:
        assert load_data(mood(train=file), ["train"]).train[0].input == f"mood: {text}"


def test_texts_with_commas_quotes_and_line_breaks_survive_a_csv_file(tmp_path):
    text = 'she said "no, never",\nand left'
    file = write(tmp_path / "rows.csv", [{"text": text, "label": "bad"}, {"text": "x", "label": "good"}])
    train = load_data(mood(train=file), ["train"]).train
    assert [(e.row, e.input) for e in train] == [(1, f"mood: {text}"), (2, "mood: x")]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\nx,good\r\ny,bad\r\n")
    (tmp_path / "b.jsonl").write_bytes(
        b'\xef\xbb\xbf{"text": "x", "label": "good"}\r\n{"text": "y", "label": "bad"}\r\n'
    )
    a, b = (load_data(mood(train=tmp_path / name), ["train"]).train for name in ("a.csv", "b.jsonl"))
    assert a == b


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
        assert [(e.row, e.input) for e in picked] == [(n, f"mood: row {n - 1}") for n in (2, 5, 8, 11)]
        both = load_data(mood(train=file, where={"task": "b", "fold": 1}), ["train"]).train
        assert [e.row for e in both] == [2, 8]
        either = load_data(mood(train=file, where={"task": ["b", "a"], "fold": 1}), ["train"]).train
        assert [e.row for e in either] == [2, 4, 8, 10]


def test_problems_of_another_tasks_rows_are_not_told(tmp_path):
    rows = [{**ROWS[0], "task": "a"}, {"task": "b"}, {**ROWS[1], "task": "a"}]
    file = write(tmp_path / "all.jsonl", rows)
    assert len(load_data(mood(train=file, where={"task": "a"}), ["train"]).train) == 2


# -- problems ---------------------------------------------------------------------------------------------------------


def test_a_missing_field_is_told_with_file_row_and_what_there_is(tmp_path):
    rows = [ROWS[0], {"txt": "a flat tyre", "label": "bad"}, {"text": None, "label": "bad"}, {"label": "good"}]
    assert problems(mood(train=write(tmp_path / "rows.jsonl", rows))) == [
        "rows.jsonl row 2: no text; it has txt, label",
        "rows.jsonl row 3: empty text; it has label",
        "rows.jsonl row 4: no text; it has label",
    ]


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_an_empty_field_is_a_missing_one(tmp_path, ending, blank):
    rows = [{"text": blank, "label": "good"}, {"text": "x", "label": blank}, {"text": blank, "label": blank}]
    name = f"rows.{ending}"
    assert problems(mood(train=write(tmp_path / name, rows))) == [
        f"{name} row 1: empty text; it has label",
        f"{name} row 2: empty label; it has text",
        f"{name} row 3: empty text, label; it has nothing",
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
        "rows.jsonl row 4: empty title; it has text",
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
    assert problems(task, ["train", "test"]) == [
        "a.csv (train) does not exist in rows/",
        "b.csv (test) does not exist in rows/",
    ]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "rows.csv").mkdir()
    assert problems(mood(train=tmp_path / "rows.csv"))[0].startswith("rows.csv (train) does not exist in ")


def test_an_unknown_format_is_told(tmp_path):
    (tmp_path / "rows.xlsx").write_text("x")
    assert problems(mood(train=tmp_path / "rows.xlsx")) == [
        "rows.xlsx (train) is none of jsonl, json, csv, parquet, .gz allowed"
    ]


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
        ("rows.csv", b"text,label\ncaf\xe9,good\n", "cannot be read as csv: 'utf-8' codec can't decode byte 0xe9"),
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
        "rows.csv row 2 has more cells than the header; quote a text that has commas",
        "rows.csv row 3: empty label; it has text",
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
        f'rows.csv row 2: {said}; close its quotes, and write a quote within them twice: "He said ""no"""'
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
        "train.jsonl row 3: no text; it has label",
        f"dev.json (validation) does not exist in {tmp_path.name}/",
        "test.csv row 2: empty text; it has label",
        "train.jsonl row 1 stands in test.csv too, row 1 "
        "(`overlap: drop` under dataset leaves such rows out of training)",
    ]


def test_a_long_list_of_problems_is_cut_with_a_count(tmp_path):
    file = write(tmp_path / "rows.jsonl", [{"text": f"row {i}", "label": "fair"} for i in range(50)])
    with pytest.raises(DataError, match=r"rows.jsonl row 20: [^\n]*\n  - \.\.\. and 30 more of the kind$") as error:
        load_data(mood(train=file), ["train"])
    assert len(error.value.problems) == 50
    assert "row 21" not in str(error.value)


def test_a_task_from_a_card_has_no_data_and_says_how_to_name_it(toy_task):
    assert problems(toy_task.without_paths()) == [
        "its card carries no data; name the task with --task FILE.yaml or a built-in name"
    ]


# -- which splits are read --------------------------------------------------------------------------------------------


def test_only_the_splits_that_were_asked_for_are_returned(toy_task):
    data = load_data(toy_task, ["train", "validation"])
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 16, 0)
    assert load_data(toy_task, ["test"]).train == ()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_is_read_without_the_training_rows(tmp_path, split):
    task = make_task(tmp_path, "toy")
    (tmp_path / "toy.train.jsonl").unlink()
    assert len(getattr(load_data(task, [split]), split)) in (16, 20)


def test_wrong_test_rows_are_told_before_any_training(tmp_path):
    task = make_task(tmp_path, "toy")
    write_rows(tmp_path / "toy.test.jsonl", [{"text": "x"}])
    assert problems(task, ["train", "validation"]) == ["toy.test.jsonl row 1: no label; it has text"]


def test_the_identity_of_data_is_what_was_rendered_and_in_which_split(tmp_path):
    one, two = ([{"text": t, "label": "good"} for t in texts] for texts in (["a", "b", "c"], ["d"]))
    first = mood(train=write(tmp_path / "1.jsonl", one), validation=write(tmp_path / "2.jsonl", two))
    again = mood(train=write(tmp_path / "1.csv", one), validation=write(tmp_path / "2.parquet", two))
    moved = mood(train=write(tmp_path / "3.jsonl", one[:2]), validation=write(tmp_path / "4.jsonl", one[2:] + two))
    relabelled = [{**one[0], "label": "bad"}, *one[1:]]
    changed = mood(train=write(tmp_path / "5.jsonl", relabelled), validation=tmp_path / "2.jsonl")
    digests = [load_data(task, ["train", "validation"]).digest for task in (first, again, moved, changed)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    tests = [mood(test=write(tmp_path / f"{n}.jsonl", rows)) for n, rows in (("6", one), ("7", two))]
    assert len({load_data(task, ["test"]).digest for task in tests}) == 2


# -- read once --------------------------------------------------------------------------------------------------------


def test_every_file_is_read_once_however_often_its_rows_are_asked_for(toy_task, monkeypatch):
    opened = files_opened(monkeypatch)
    rows = TaskRows(toy_task)
    for splits in (["validation"], ["train"], ["train", "validation"], ["test"], ["train", "test"], ["train"]):
        rows.data(*splits)
    assert opened == {f"toy.{split}.jsonl": 1 for split in ("train", "validation", "test")}
    assert rows.data("train") is rows.data("train")  # nor checked and divided again
    load_data(toy_task, ["train"])
    assert opened["toy.train.jsonl"] == 2


def test_a_split_that_nobody_asks_for_is_not_read(toy_task, monkeypatch):
    opened = files_opened(monkeypatch)
    TaskRows(toy_task).data("test")
    assert opened == {"toy.test.jsonl": 1}


def test_rows_are_divided_for_each_who_asks_as_if_they_were_read_anew(tmp_path):
    def texts(name, count):
        return titles(tmp_path, name, [(f"{name} {i % 30}", [f"title {i}"]) for i in range(count)])

    overlaps = tmp_path / "overlaps"
    overlaps.mkdir()
    tasks = [
        make_task(tmp_path, "toy"),
        mood(train=numbered(tmp_path, 100)),
        mood(
            train=numbered(tmp_path, 50, "some"), test=numbered(tmp_path, 60, "halved"), split="halves", overlap="keep"
        ),
        overlapping(overlaps, overlap="drop"),
        free(train=texts("a", 90), test=texts("b", 45)).model_copy(update={"gather": True, "every_answer": True}),
    ]
    asked = (["train"], ["train", "validation", "test"], ["validation"], ["train", "validation"], ["test"])
    for task in tasks:
        available = [s for s in asked if task.dataset.test or "test" not in s]
        for order in (available, available[::-1]):
            rows = TaskRows(task)
            assert [rows.data(*splits) for splits in order] == [load_data(task, splits) for splits in order]


def test_what_is_wrong_with_rows_is_told_to_each_who_asks(tmp_path, monkeypatch):
    task = make_task(tmp_path, "toy")
    write_rows(tmp_path / "toy.test.jsonl", [{"text": "x"}])
    opened, rows = files_opened(monkeypatch), TaskRows(task)
    for splits in (["train"], ["test"], ["train"]):
        with pytest.raises(DataError, match=r"toy\.test\.jsonl row 1: no label; it has text"):
            rows.data(*splits)
    assert opened["toy.test.jsonl"] == 1


def test_a_task_or_its_rows_may_be_given(toy_task, tmp_path):
    rows = TaskRows.of(toy_task, tmp_path)
    assert (rows.task, rows.data_dir, rows.name) == (toy_task, tmp_path, "toy")
    assert TaskRows.of(rows) is rows


# -- rows that stand in two splits ------------------------------------------------------------------------------------


def overlapping(folder, **changes):
    """A task whose training rows 2 and 3 stand in the test split, in other capitals and spaces."""
    texts = ["only here", "The  Sea was calm", "no wind", "nor rain"]
    train = [{"text": t, "label": "good"} for t in texts]
    test = [{"text": t, "label": "bad"} for t in ("elsewhere", "NO WIND ", "the sea was calm")]
    validation = [{"text": "in between", "label": "bad"}]
    files = {"train": train, "validation": validation, "test": test}
    return mood(**{s: write(folder / f"{s}.jsonl", rows) for s, rows in files.items()}, **changes)


@pytest.mark.parametrize("splits", [["train"], ["train", "validation"], ["train", "validation", "test"]])
def test_training_rows_that_stand_in_the_test_split_are_refused_even_if_no_test_is_asked_for(tmp_path, splits):
    said = "(`overlap: drop` under dataset leaves such rows out of training)"
    assert problems(overlapping(tmp_path), splits) == [
        f"train.jsonl row 2 stands in test.jsonl too, row 3 {said}",
        f"train.jsonl row 3 stands in test.jsonl too, row 2 {said}",
    ]


def test_training_rows_that_stand_in_the_validation_split_are_refused(tmp_path):
    file = write(tmp_path / "train.jsonl", ROWS)
    task = mood(train=file, validation=write(tmp_path / "dev.jsonl", ROWS[1:]))
    assert problems(task) == [
        "train.jsonl row 2 stands in dev.jsonl too, row 1 "
        "(`overlap: drop` under dataset leaves such rows out of training)"
    ]


def test_overlap_drop_leaves_such_rows_out_of_training_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="mptune"):
        data = load_data(overlapping(tmp_path, overlap="drop"), ["train", "validation", "test"])
    assert [e.row for e in data.train] == [1, 4]
    assert (len(data.validation), len(data.test)) == (1, 3)
    assert caplog.messages == ["mood: 2 training rows stand in test.jsonl too and are left out"]


def test_what_a_tasks_data_are_is_said_once_however_often_they_are_read(tmp_path, caplog):
    task = mood(train=write(tmp_path / "train.jsonl", [*ROWS, {"text": "rain", "label": "bad"}]),
                test=write(tmp_path / "test.jsonl", ROWS), overlap="drop")  # fmt: skip
    for _ in range(3):
        load_data(task, ("train", "test"))
    assert caplog.messages == ["mood: 2 training rows stand in test.jsonl too and are left out"]


def test_nothing_is_warned_of_where_splits_are_apart(toy_task, caplog):
    load_data(toy_task, ["train", "validation", "test"])
    assert caplog.messages == []


def test_training_on_nothing_is_refused(tmp_path):
    file = write(tmp_path / "rows.jsonl", ROWS)
    task = mood(train=file, test=file, overlap="drop")
    said = "rows.jsonl has no row left to train on: all are kept for validation or test"
    assert problems(task) == [said]
    single = mood(train=write(tmp_path / "one.jsonl", ROWS[:1]))
    assert problems(single, ["train", "validation"]) == [said.replace("rows", "one")]


# -- validation rows held out -----------------------------------------------------------------------------------------


def numbered(folder, count, name="train"):
    """A file of so many different rows."""
    return write_rows(folder / f"{name}.jsonl", [{"text": f"row {i}", "label": "good"} for i in range(count)])


@pytest.mark.parametrize(("count", "held"), [(2, 1), (19, 1), (20, 2), (200, 20), (9_999, 999), (12_000, 1_000)])
def test_a_tenth_of_the_training_rows_at_most_a_thousand_stands_in_for_a_missing_split(tmp_path, count, held):
    data = load_data(mood(train=numbered(tmp_path, count)), ["train", "validation"])
    assert (len(data.train), len(data.validation)) == (count - held, held)
    rows = [e.row for e in data.train], [e.row for e in data.validation]
    assert sorted(rows[0] + rows[1]) == list(range(1, count + 1))
    assert rows == (sorted(rows[0]), sorted(rows[1]))


def test_the_held_out_rows_are_the_same_whoever_asks(tmp_path):
    task = mood(train=numbered(tmp_path, 200))
    both = load_data(task, ["train", "validation"])
    assert load_data(task, ["train", "validation"]) == both
    assert load_data(task, ["validation"]).validation == both.validation
    assert load_data(task, ["validation"]).train == ()
    assert [e.row for e in both.validation] != list(range(1, 21))


def test_all_training_rows_are_returned_where_no_validation_is_asked_for(tmp_path):
    assert len(load_data(mood(train=numbered(tmp_path, 50)), ["train"]).train) == 50


def test_a_repeated_row_never_stands_on_both_sides(tmp_path):
    rows = [{"text": ("Row" if i % 2 else " row ") + f" {i % 40}", "label": "good"} for i in range(200)]
    data = load_data(mood(train=write(tmp_path / "rows.jsonl", rows)), ["train", "validation"])
    sides = [{" ".join(e.input.lower().split()) for e in split} for split in (data.train, data.validation)]
    assert not sides[0] & sides[1]
    assert sides[0]
    assert len(data.validation) == 20


def test_rows_that_stand_in_the_test_split_are_not_held_out_either(tmp_path):
    train, test = numbered(tmp_path, 100), numbered(tmp_path, 60, "test")
    task = mood(train=train, test=test, overlap="drop")
    data = load_data(task, ["train", "validation"])
    assert (len(data.train), len(data.validation)) == (36, 4)
    assert min(e.row for e in data.train + data.validation) == 61
    assert load_data(task, ["validation"]).validation == data.validation


# -- splits by rule, rows spread and gathered -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 7, 104])
def test_halves_are_those_of_the_split_seed_of_earlier_papers_and_an_odd_row_is_tested(tmp_path, count):
    train, test = numbered(tmp_path, 3), numbered(tmp_path, count, "test")
    task = mood(train=train, test=test, split="halves", overlap="keep")
    data = load_data(task, ["train", "validation", "test"])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(42)).tolist()
    assert [e.row - 1 for e in data.validation] == sorted(order[: count // 2])
    assert [e.row - 1 for e in data.test] == sorted(order[count // 2 :])
    assert len(data.train) == 3
    assert load_data(task, ["validation"]).validation == data.validation
    assert load_data(task, ["test"]).test == data.test


def test_rows_held_out_of_training_rows_are_those_of_the_split_seed_of_earlier_papers(tmp_path):
    data = load_data(mood(train=numbered(tmp_path, 12_000), overlap="keep"), ["train", "validation"])
    order = torch.randperm(12_000, generator=torch.Generator().manual_seed(42)).tolist()
    assert [e.row - 1 for e in data.validation] == sorted(order[:1000])
    assert len(data.train) == 11_000


def test_overlaps_that_are_kept_stay_in_training_and_are_not_warned_of(tmp_path, caplog):
    train, test = numbered(tmp_path, 100), numbered(tmp_path, 60, "test")
    data = load_data(mood(train=train, test=test, overlap="keep"), ["train", "validation", "test"])
    assert [len(s) for s in (data.train, data.validation, data.test)] == [90, 10, 60]
    rows = [{"text": f"row {i % 5}", "label": "good"} for i in range(100)]
    task = mood(train=write(tmp_path / "rows.jsonl", rows), overlap="keep")
    assert len(load_data(task, ["train", "validation"]).train) == 90
    assert not caplog.messages


def test_training_rows_may_be_the_first_so_many_of_those_not_held_out(tmp_path):
    task = mood(train=numbered(tmp_path, 100), train_rows=20)
    whole = load_data(mood(train=numbered(tmp_path, 100)), ["train", "validation"])
    data = load_data(task, ["train", "validation"])
    assert data.train == whole.train[:20]
    assert data.validation == whole.validation


def titles(folder, name, rows):
    """A file of texts, each with some titles."""
    return str(write(folder / f"{name}.jsonl", [{"text": text, "title": found} for text, found in rows]))


def test_training_on_every_answer_makes_an_example_of_each_and_scoring_one_of_all(tmp_path):
    rows = [("sea", ["Sea", "Ocean", "Sea"]), ("hill", ["Hill"])]
    files = {"train": titles(tmp_path, "a", rows), "test": titles(tmp_path, "b", [(t + "!", a) for t, a in rows])}
    task = free(**files).model_copy(update={"references": "title", "every_answer": True})
    data = load_data(task, ["train", "test"])
    assert [(e.row, e.target) for e in data.train] == [(1, "Sea"), (1, "Ocean"), (2, "Hill")]
    assert [(e.row, e.target, set(e.references)) for e in data.test] == [
        (1, "Sea", {"Sea", "Ocean"}),
        (2, "Hill", {"Hill"}),
    ]
    one = load_data(free(**files), ["train"]).train
    assert [e.target for e in one] == ["Sea", "Hill"]


def test_held_out_rows_are_held_out_with_all_their_answers(tmp_path):
    rows = [(f"text {i}", [f"a{i}", f"b{i}"]) for i in range(40)]
    task = free(train=titles(tmp_path, "a", rows)).model_copy(update={"references": "title", "every_answer": True})
    data = load_data(task, ["train", "validation"])
    assert (len(data.train), len(data.validation)) == (72, 4)
    assert not {e.input for e in data.train} & {e.input for e in data.validation}


def test_rows_of_equal_input_are_gathered_for_scoring_alone(tmp_path):
    rows = [("sea", ["Sea"]), ("hill", ["Hill"]), ("sea", ["Ocean"]), ("hill", []), ("sea", ["Sea"]), ("fen", [])]
    train = titles(tmp_path, "a", [(f"{t} {n % 30}", a) for n in range(60) for t, a in rows[:3]])
    task = free(train=train, test=titles(tmp_path, "b", rows)).model_copy(update={"gather": True})
    data = load_data(task, ["train", "validation", "test"])
    assert [(e.row, e.input, e.target, e.references) for e in data.test] == [
        (1, "sea", "Sea", ("Sea", "Ocean")),
        (2, "hill", "Hill", ("Hill",)),
    ]
    assert len(data.validation) == 6  # a tenth of the 60 inputs, not of the 180 rows
    assert not {e.input for e in data.train} & {e.input for e in data.validation}
    assert len(data.train) == 180 - sum(4 if e.input.startswith("sea") else 2 for e in data.validation)


def test_a_row_without_an_answer_is_told_where_rows_are_not_gathered(tmp_path):
    task = free(train=titles(tmp_path, "a", [("sea", []), ("hill", ["Hill"])]))
    assert problems(task) == ["a.jsonl row 1: title[0] is missing or empty"]


def test_a_row_that_cannot_be_prepared_is_told(tmp_path):
    rows = [{"text": "It is late.", "label": "good", "span1_text": "It", "span1_index": 0, "span2_text": "is"}]
    task = mood(train=write(tmp_path / "a.jsonl", rows)).model_copy(update={"prepare": "mark_spans"})
    assert problems(task) == ["a.jsonl row 1: span2_index is missing or empty"]
    for value in ("two", [1]):
        write(tmp_path / "a.jsonl", [{**rows[0], "span2_index": value}])
        assert problems(task) == ["a.jsonl row 1: a field of the form that mark_spans reads is missing or empty"]
    other = mood(train=write(tmp_path / "b.jsonl", [{"text": "x", "modified_triple_sets": {"mtriple_set": []}}]))
    assert problems(other.model_copy(update={"prepare": "write_triples"})) == [
        "b.jsonl row 1: a field of the form that write_triples reads is missing or empty"
    ]


# -- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shots", "classes"), [(1, 2), (4, 2), (4, 3), (16, 3)])
def test_shots_are_so_many_of_every_class_in_the_order_of_their_rows(shots, classes):
    drawn = draw_shots(examples(60, classes), shots, seed=0)
    assert Counter(e.label for e in drawn) == {str(c): shots for c in range(classes)}
    assert [e.row for e in drawn] == sorted({e.row for e in drawn})


def test_the_seed_alone_decides_which_shots_are_drawn():
    rows = examples(100)
    assert draw_shots(rows, 8, seed=3) == draw_shots(list(rows), 8, seed=3)
    assert len({draw_shots(rows, 8, seed=seed) for seed in range(5)}) == 5


def test_more_shots_hold_the_fewer_of_the_same_seed():
    rows = examples(100)
    assert set(draw_shots(rows, 4, seed=1)) < set(draw_shots(rows, 8, seed=1))


def test_a_class_with_fewer_rows_than_shots_gives_them_all():
    rows = [Example("toy", i, f"row {i}", "word", "rare" if i in (7, 30) else "common", ()) for i in range(50)]
    drawn = draw_shots(rows, 5, seed=0)
    assert Counter(e.label for e in drawn) == {"common": 5, "rare": 2}


def test_free_text_has_so_many_shots_in_all():
    rows = [Example("toy", i, f"row {i}", f"answer {i}", None, ()) for i in range(50)]
    assert len(draw_shots(rows, 6, seed=0)) == 6


def test_all_rows_are_drawn_where_no_shots_are_asked_for():
    assert draw_shots(examples(7), None, seed=0) == tuple(examples(7))
    assert draw_shots([], 3, seed=0) == ()


def test_rows_are_drawn_by_the_seed_each_once_in_their_order():
    rows = examples(50)
    drawn = draw_rows(rows, 10, seed=0)
    assert [e.row for e in drawn] == sorted({e.row for e in drawn})
    assert len(drawn) == 10
    assert drawn == draw_rows(rows, 10, seed=0) != draw_rows(rows, 10, seed=1)
    assert set(draw_rows(rows, 5, seed=0)) < set(drawn)


def test_no_more_rows_are_drawn_than_there_are():
    assert draw_rows(examples(5), 9, seed=0) == tuple(examples(5))


# -- hub tasks --------------------------------------------------------------------------------------------------------

PAIRS = {
    "mnli": (("premise", "hypothesis"), 3),
    "qnli": (("question", "sentence"), 2),
    "sst2": (("sentence",), 2),
    "rte": (("sentence1", "sentence2"), 2),
}


def hub_rows(name, count, start=0):
    """Rows in the fields of a hub data set, all different."""
    fields, classes = PAIRS[name]
    return [
        {**{f: f"{f} number {i}" for f in fields}, "label": i % classes, "idx": i} for i in range(start, start + count)
    ]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_a_hub_task_reads_local_files_of_its_name(tmp_path, name, ending):
    write(tmp_path / f"{name}.train.{ending}", hub_rows(name, 40))
    write(tmp_path / f"{name}.validation.{ending}", hub_rows(name, 12, start=100))
    data = load_data(builtin_tasks()[name], ["train", "validation", "test"], tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 12)
    assert data.test[0] == builtin_tasks()[name].render(hub_rows(name, 1, start=100)[0], 1)


def test_a_local_file_of_the_whole_name_of_a_split_goes_before_one_of_its_first_word(tmp_path):
    write(tmp_path / "mnli.validation.jsonl", hub_rows("mnli", 5))
    assert len(load_data(builtin_tasks()["mnli"], ["test"], tmp_path).test) == 5
    write(tmp_path / "mnli.validation_matched.jsonl.gz", hub_rows("mnli", 7))
    assert len(load_data(builtin_tasks()["mnli"], ["test"], tmp_path).test) == 7


def test_a_local_file_that_is_missing_is_told_by_the_name_it_should_have(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    assert problems(builtin_tasks()["mnli"], ["train", "test"], folder) == [
        "mnli.train.jsonl (train) does not exist in rows/",
        "mnli.validation_matched.jsonl (test) does not exist in rows/",
    ]


def test_where_a_folder_has_training_rows_alone_test_rows_are_held_out_of_them_whoever_asks(tmp_path, caplog):
    write(tmp_path / "sst2.train.jsonl", hub_rows("sst2", 100))
    task = builtin_tasks()["sst2"]
    data = load_data(task, ["train", "validation", "test"], tmp_path)
    rows = [{e.row for e in split} for split in (data.train, data.validation, data.test)]
    assert [len(r) for r in rows] == [81, 9, 10]
    assert set.union(*rows) == set(range(1, 101))
    assert load_data(task, ["test"], tmp_path).test == data.test
    assert load_data(task, ["validation"], tmp_path).validation == data.validation
    assert not {e.row for e in load_data(task, ["train"], tmp_path).train} & rows[2]
    assert caplog.messages[0] == (f"sst2: there are only training rows in {tmp_path.name}/; some are held out")


PAPER = Task(
    name="moods",
    template="{text}",
    verbalizer={"bad": "no", "good": "yes"},
    dataset=Dataset(hub=HubData(path="a/b"), train="train", validation="validation", test="test"),
)


def moods(count, start=0):
    """So many different rows."""
    return [{"text": f"row {i}", "label": ("good", "bad")[i % 2]} for i in range(start, start + count)]


def test_where_a_folder_has_no_test_rows_its_validation_rows_are_tested_and_others_held_out(tmp_path, caplog):
    write(tmp_path / "moods.train.jsonl", moods(50))
    write(tmp_path / "moods.validation.jsonl", moods(7, start=50))
    data = load_data(PAPER, ["train", "validation", "test"], tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [45, 5, 7]
    assert caplog.messages == [f"moods: there are no test rows in {tmp_path.name}/; the validation rows are tested"]
    write(tmp_path / "moods.test.jsonl", moods(3, start=90))
    caplog.clear()
    data = load_data(PAPER, ["train", "validation", "test"], tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [50, 7, 3]
    assert not caplog.messages


def test_one_local_file_never_serves_two_splits(tmp_path):
    dataset = Dataset(hub=HubData(path="a/b"), train="train", validation="validation_b", test="validation_a")
    task = PAPER.model_copy(update={"dataset": dataset})
    write(tmp_path / "moods.train.jsonl", moods(50))
    write(tmp_path / "moods.validation.jsonl", moods(7, start=50))
    data = load_data(task, ["train", "validation", "test"], tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [45, 5, 7]


def test_several_local_files_make_one_split(tmp_path):
    write(tmp_path / "moods.train.jsonl", moods(20))
    write(tmp_path / "moods.test_old.jsonl.gz", moods(2, start=20))
    write(tmp_path / "moods.test_new.jsonl.gz", moods(3, start=30))
    assert [e.input for e in load_data(PAPER, ["test"], tmp_path).test] == [f"row {i}" for i in (30, 31, 32, 20, 21)]


def test_rows_that_public_data_hold_twice_are_left_out_of_training(tmp_path, caplog):
    write(tmp_path / "sst2.train.jsonl", hub_rows("sst2", 20))
    write(tmp_path / "sst2.validation.jsonl", hub_rows("sst2", 3))
    data = load_data(builtin_tasks()["sst2"], ["train"], tmp_path)
    assert [e.row for e in data.train] == list(range(4, 21))
    assert caplog.messages == ["sst2: 3 training rows stand in sst2.validation.jsonl too and are left out"]


def test_an_empty_text_in_public_data_is_kept_but_not_a_missing_one(tmp_path):
    rows = [{"sentence": "", "label": 0}, {"sentence": "x", "label": 1}]
    write(tmp_path / "sst2.train.jsonl", rows)
    write(tmp_path / "sst2.validation.jsonl", hub_rows("sst2", 2))
    assert len(load_data(builtin_tasks()["sst2"], ["train"], tmp_path).train) == 2
    write(tmp_path / "sst2.train.jsonl", [*rows, {"sentence": None, "label": 1}])
    assert problems(builtin_tasks()["sst2"], ["train"], tmp_path) == [
        "sst2.train.jsonl row 3: empty sentence; it has label"
    ]


def test_a_secret_label_is_told_as_one_that_the_verbalizer_lacks(tmp_path):
    write(tmp_path / "sst2.validation.jsonl", [{"sentence": "x", "label": -1}])
    assert problems(builtin_tasks()["sst2"], ["test"], tmp_path) == [
        "sst2.validation.jsonl row 1: the label -1 is not in the verbalizer (0, 1)"
    ]


def test_secret_labels_of_public_test_rows_stop_only_those_who_ask_for_them(tmp_path):
    write(tmp_path / "sst2.train.jsonl", hub_rows("sst2", 20))
    write(tmp_path / "sst2.validation.jsonl", [{"sentence": "x", "label": -1}])
    assert len(load_data(builtin_tasks()["sst2"], ["train"], tmp_path).train) == 20
    assert len(problems(builtin_tasks()["sst2"], ["train", "test"], tmp_path)) == 1


def test_files_of_a_users_own_task_are_read_from_where_it_says_not_from_the_data_folder(tmp_path, toy_task):
    assert len(load_data(toy_task, ["train"], tmp_path / "nowhere").train) == 48


def test_the_splits_of_a_hub_data_set_are_read_by_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "moods"
    folder.mkdir()
    for split, word in (("train", "calm"), ("test", "flat")):
        write(folder / f"{split}.csv", [{"text": f"{word} {i}", "label": "good", "fold": i % 2} for i in range(4)])
    task = mood(hub=HubData(path=str(folder)), train="train", test="test", where={"fold": 1})
    data = load_data(task, ["train", "test"])
    assert [(e.row, e.input) for e in data.train] == [(2, "mood: calm 1"), (4, "mood: calm 3")]
    assert [e.input for e in data.test] == ["mood: flat 1", "mood: flat 3"]


def test_a_folder_of_a_hub_data_set_may_stand_for_its_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name, word in (("plain", "calm"), ("other", "flat")):
        (tmp_path / "moods" / name / "train").mkdir(parents=True)
        write(tmp_path / "moods" / name / "train" / "0000.parquet", [{"text": word, "label": "good"}])
    task = mood(hub=HubData(path=str(tmp_path / "moods"), folder="plain"), train="train")
    assert [e.input for e in load_data(task, ["train"]).train] == ["mood: calm"]


def test_a_hub_data_set_out_of_reach_says_what_to_do_instead():
    task = mood(hub=HubData(path="nobody/nothing", name="plain"), train="train")
    (said,) = problems(task)
    assert re.fullmatch(
        r"nobody/nothing/plain/train cannot be loaded from the hub \(.+\)\. "
        r"Check name and network, or put mood\.train\.jsonl into a folder and name that: --data DIR of a command, "
        r"the data: line of a recipe",
        said,
    )
