"""What a task's rows are is seen before anything is learnt: how many of each class, how long, and what is doubtful."""

import pytest

from mptune.config import AdaptConfig
from mptune.errors import DataError
from mptune.stages.check import check
from mptune.tasks.data import TaskRows
from support.rows import mood


def rows(tmp_path, *lines, **dataset):
    (tmp_path / "all.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return TaskRows(mood(train=tmp_path / "all.csv", **dataset))


def test_classes_are_counted_in_every_split_and_texts_of_unlike_labels_are_shown(backbone, tmp_path):
    lines = [f"a day {n},{'good' if n < 20 else 'bad'}" for n in range(30)]
    seen = check(rows(tmp_path, *lines, split="held-out"), backbone)
    assert seen.splits == ("train", "validation", "test")
    assert seen.classes == (("bad", "no", (7, 1, 2)), ("good", "yes", (14, 2, 4)))
    assert {example.label for example, _ in seen.texts} == {"good", "bad"}
    assert len(seen.texts) == 3
    for example, tokens in seen.texts:
        assert tokens == len(backbone.tokenizer(example.input).input_ids)
    assert seen.longest == max(tokens for _, tokens in seen.texts)


def test_doubts_and_what_is_cut_are_told(backbone, tmp_path, caplog):
    lines = ["one text,good", "one text,good", "two,good", "two,bad", f"{'long ' * 80}text,bad"]
    seen = check(rows(tmp_path, *lines), backbone, AdaptConfig(max_input_tokens=40))
    assert seen.doubts == (
        "mood: some training rows stand twice, and count double: row 3 as 2",
        "mood: some training rows have one text and two labels: row 5 as 4",
    )
    assert seen.longest == 40
    assert "1 of 5 texts are longer than 40 tokens" in caplog.text


def test_a_label_that_the_test_rows_lack_is_told(backbone, tmp_path):
    (tmp_path / "test.csv").write_text("text,label\nanother,good\n")
    seen = check(rows(tmp_path, "one,good", "two,bad", "three,bad", test=tmp_path / "test.csv"), backbone)
    assert seen.doubts == ("mood: bad has 2 rows: it is not tested",)


def test_a_task_without_rows_says_where_they_belong(backbone):
    with pytest.raises(DataError, match="it names no rows; add dataset: to its file"):
        check(TaskRows(mood(train="x").without_paths()), backbone)
