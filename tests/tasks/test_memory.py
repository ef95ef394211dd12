"""Rows that a program holds are read as those of a file are: the same task, the same splits, the same refusals."""

import json
import re

import datasets
import pandas
import pytest

from mptune.config import AdaptConfig, BackboneConfig
from mptune.errors import DataError, UsageError
from mptune.prompts.stored import stored_config
from mptune.stages.adaptation import adapt
from mptune.tasks.data import TaskRows
from mptune.tasks.guess import guess_task
from mptune.tasks.memory import rows_in_memory
from mptune.tasks.task import Task
from support.prompts import random_prompt

ROWS = [{"text": f"a message about {n}, with words", "topic": ("bill", "parcel")[n % 2], "n": n} for n in range(30)]
KINDS = {
    "a list": lambda rows: rows,
    "an iterator": lambda rows: iter(rows),
    "a DataFrame": lambda rows: pandas.DataFrame(rows),
    "a DataFrame with another index": lambda rows: pandas.DataFrame(rows).set_index("n", drop=False),
    "a Dataset": datasets.Dataset.from_list,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_any_kind_is_the_task_and_the_splits_that_its_file_would_be(tmp_path, kind):
    file = tmp_path / "topics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    expected = guess_task(file, "topics").task
    rows = TaskRows.from_rows(KINDS[kind](ROWS), name="topics")
    assert rows.task.without_paths() == expected.without_paths()
    splits = ("train", "validation", "test")
    assert rows.data(*splits).digest == TaskRows(expected).data(*splits).digest


def test_rows_that_are_given_for_a_split_are_that_split_and_nothing_is_held_out():
    rows = TaskRows.from_rows(ROWS[:10], label="topic", test=ROWS[10:14], validation=ROWS[14:16], unlabelled=ROWS[16:])
    data = rows.data("train", "validation", "test")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [10, 2, 4]
    assert [example.row for example in data.test] == [1, 2, 3, 4]
    assert len(rows.unlabelled()) == 14
    assert rows.unlabelled()[0].input.endswith("a message about 16, with words")


def test_all_rows_train_where_none_is_to_be_held_out():
    assert len(TaskRows.from_rows(ROWS, hold_out=False).data("train").train) == 30


def test_a_task_of_ones_own_reads_them_by_its_template_and_its_rules():
    fields = {
        "name": "short",
        "template": "topic? {text}",
        "label": "topic",
        "verbalizer": {"bill": "b", "parcel": "p"},
    }
    where = {"n": [str(n) for n in range(6)]}
    task = Task.read({**fields, "dataset": {"train": "elsewhere.csv", "where": where, "without_label": "skip"}}, "task")
    data = TaskRows.from_rows([*ROWS, {"text": "x", "topic": None, "n": 5}], task, hold_out=False).data("train")
    assert [(e.input, e.target) for e in data.train[:2]] == [
        ("topic? a message about 0, with words", "b"), ("topic? a message about 1, with words", "p")
    ]  # fmt: skip
    assert len(data.train) == 6


def test_classes_of_a_data_set_are_known_by_their_names_and_minus_one_is_none():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    held = [{"text": f"film {n}", "label": n % 2 if n else -1} for n in range(12)]
    rows = TaskRows.from_rows(datasets.Dataset.from_list(held, features=features), hold_out=False)
    assert rows.task.verbalizer == {"bad": "bad", "good": "good"}
    assert [e.label for e in rows.data("train").train[:3]] == ["good", "bad", "good"]


@pytest.mark.parametrize("gap", [None, float("nan"), pandas.NA, pandas.NaT])
def test_a_gap_of_pandas_is_a_missing_cell(gap):
    assert rows_in_memory(pandas.DataFrame({"text": ["a", gap]}, dtype=object), "train")[1] == {"text": None}
    assert rows_in_memory(pandas.DataFrame({"n": pandas.array([1, None], dtype="Int64")}), "train") == [
        {"n": 1}, {"n": None}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tickets.csv", "train wants rows: a DataFrame, a Dataset or a list of {field: value}"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}), "got a mapping of train. Pass one split"),
        ({"text": ["a"], "label": ["b"]}, "got a mapping of text, label. Pass one split, or a DataFrame of it"),
        (7, "got int"),
        (["a text"], "train row 1 wants {field: value}; got 'a text'"),
        (pandas.DataFrame([["a", "b"]], columns=["text", "text"]), "two columns of one name: 'text'"),
        ([{"text": "a", " text ": "b"}], "train has two columns of one name: text,  text "),
    ],
)
def test_what_is_no_table_is_refused_with_what_came(given, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        TaskRows.from_rows(given)


def test_what_is_wrong_in_a_row_is_told_with_its_split_and_number():
    with pytest.raises(DataError, match=r"test row 3: the label 'bil' is not in the verbalizer \(bill, parcel\)"):
        TaskRows.from_rows(ROWS[:6], label="topic", test=[*ROWS[6:8], {"text": "x", "topic": "bil"}])


def test_a_gap_in_the_texts_is_refused_at_once_and_a_row_of_gaps_passed_over_with_a_line(caplog):
    table = pandas.DataFrame([*ROWS, {"text": None, "topic": None, "n": None}])
    rows = TaskRows.from_rows(table)
    assert "train: row 31 without anything in it, passed over" in caplog.messages
    assert len(rows.data("train", "validation", "test").train) == 20
    table.loc[[2, 4], "text"] = float("nan")
    with pytest.raises(DataError, match=r"train rows 3, 5: text is empty; fill it, or leave the row out$"):
        TaskRows.from_rows(table)


def test_a_task_may_have_no_row_but_those_without_a_label():
    task = TaskRows.from_rows(ROWS).task
    assert len(TaskRows.from_rows([], task, unlabelled=ROWS, hold_out=False).unlabelled()) == 30


def test_what_is_said_of_a_guess_is_true_where_there_is_no_tasks_file(caplog):
    topics = ["delivery"] * 20 + ["delivry"] + ["invoice"] * 8 + ["invoices"] * 4
    TaskRows.from_rows([{"text": f"a message about {n}", "topic": topic} for n, topic in enumerate(topics)])
    assert caplog.messages == [
        "mine: 'invoices' × 4: did you mean 'invoice'? If so, correct it in the rows",
        "mine: 'delivry' × 1 is read as 'delivery', which it nearly is; if it is a label of its own, pass task= a Task "
        "with it in its verbalizer",
    ]
    caplog.clear()
    TaskRows.from_rows([{"text": f"a message about {n}", "topic": n % 3} for n in range(30)])
    assert caplog.messages == ["mine: the labels are numbers; pass task= a Task whose verbalizer says what they mean"]


def test_a_label_of_few_rows_is_told_to_be_neither_tested_nor_validated(caplog):
    rows = [*ROWS, {"text": "well done", "topic": "praise", "n": 30}]
    TaskRows.from_rows(rows).data("train", "validation")
    assert "mine: praise has 1 row: it is neither tested nor validated" in caplog.messages


def test_rows_of_two_splits_are_refused_as_python_says_it_and_left_out_where_asked():
    with pytest.raises(DataError, match=r'train row 1 stands in test too, row 1 \(overlap="drop" leaves such rows out'):
        TaskRows.from_rows(ROWS[:8], label="topic", test=ROWS[:4]).data("train", "test")
    rows = TaskRows.from_rows(ROWS[:8], label="topic", test=ROWS[:4], overlap="drop")
    assert [e.row for e in rows.data("train", "test").train] == [5, 6, 7, 8]


def test_columns_are_named_as_python_names_them_where_the_label_is_not_clear():
    rows = [{"text": row["text"], "kind": row["topic"], "state": ("open", "shut")[row["n"] % 2]} for row in ROWS]
    with pytest.raises(UsageError, match=r'several columns that may be the label: kind .* Name it: label="COLUMN"'):
        TaskRows.from_rows(rows)
    with pytest.raises(UsageError, match=r"train has no column 'txt'; .* Did you mean 'text'"):
        TaskRows.from_rows(rows, text="txt", label="kind")


def test_a_prompt_of_such_rows_does_not_say_that_they_lie_in_a_file(backbone, tmp_path):
    rows = TaskRows.from_rows(ROWS, label="topic")
    source = random_prompt(backbone, [rows.task])
    config = AdaptConfig(steps=1, max_input_tokens=64)
    adapted = adapt(source, rows, backbone, config, out=tmp_path / "prompt")
    assert adapted.card.data == {"mine": rows.data("train", "validation").digest}
    (stored,) = stored_config(tmp_path / "prompt")["tasks"]
    assert "dataset" not in stored
    assert BackboneConfig().name not in str(rows)
    assert repr(rows) == "TaskRows(mine: bill, parcel; 30 train)"


def test_what_is_no_task_is_refused_by_name(backbone):
    source = random_prompt(backbone, [TaskRows.from_rows(ROWS, label="topic").task])
    with pytest.raises(UsageError, match=r"^task wants a Task; got DataFrame; write TaskRows\.from_rows\(\.\.\.\)$"):
        adapt(source, [pandas.DataFrame(ROWS)], backbone)
    with pytest.raises(UsageError, match=r"train wants rows: .*; got None"):
        TaskRows.from_rows(None)


def test_columns_may_be_called_by_numbers():
    table = pandas.DataFrame([[f"a message about {n}", ("bill", "parcel")[n % 2]] for n in range(12)])
    assert TaskRows.from_rows(table, label=1).task.label == "1"
