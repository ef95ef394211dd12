"""What training rows cannot teach is said with its rows, and good rows are passed over in silence."""

import pytest

from mptune.tasks.data import TaskRows, draw_shots
from mptune.tasks.doubts import doubts
from mptune.tasks.registry import builtin_tasks
from mptune.tasks.task import Example, Task

MOOD = Task(name="mood", template="{text}", verbalizer={"0": "no", "1": "yes", "2": "maybe"})
FREE = Task(name="free", template="{text}", target="{title}")


def rows(*texts, task=MOOD):
    """Rows of (text, label), numbered from one; of (text, target) for free text."""
    return [
        Example(task.name, n, text, task.verbalizer.get(label, label), label if task.verbalizer else None, (label,))
        for n, (text, label) in enumerate(texts, start=1)
    ]


def test_good_rows_are_passed_over_in_silence():
    assert doubts(MOOD, rows(("a", "0"), ("b", "1"), ("c", "2")), 1) == []
    assert doubts(FREE, rows(("a", "x"), ("b", "x"), task=FREE), 2) == []
    assert doubts(MOOD, [], None) == []


@pytest.mark.parametrize("shots", [None, 4, 8, 16])
def test_the_sample_tasks_give_no_doubts(shots):
    for task in builtin_tasks().values():
        if task.dataset.hub is None:
            train = TaskRows(task).data("train").train
            for seed in range(5):
                drawn = draw_shots(train, shots, seed)
                assert [d for d in doubts(task, drawn, shots) if "fewer" not in d] == []


def test_one_class_alone_and_a_class_that_is_absent_are_told_apart():
    assert doubts(MOOD, rows(("a", "1"), ("b", "1")), None) == [
        "mood: all training rows have the label 1, so there is nothing to tell apart; add rows of 0, 2"
    ]
    assert doubts(MOOD, rows(("a", "1"), ("b", "0")), None) == [
        "mood: no training row has the label 2, which will hardly be answered; add some"
    ]


def test_fewer_rows_than_shots_are_told_by_class():
    given = rows(("a", "0"), ("b", "0"), ("c", "1"), ("d", "1"), ("e", "2"))
    assert doubts(MOOD, given, 2) == ["mood: there are fewer training rows than 2 shots: row 5 of label 2"]
    assert doubts(FREE, rows(("a", "x"), ("b", "y"), task=FREE), 3) == [
        "free: there are fewer training rows than 3 shots: 2 rows (1, 2)"
    ]


def test_rows_that_repeat_and_rows_that_contradict_each_other_are_told_apart():
    given = rows(("a b", "0"), ("A  b", "0"), ("c", "1"), ("d", "2"), ("c", "2"), ("a b", "1"))
    assert doubts(MOOD, given, None) == [
        "mood: some training rows stand twice, and count double: row 2 as 1",
        "mood: some training rows have one text and two labels: row 5 as 3, row 6 as 1",
    ]
    many = rows(*[("c", "x")] * 7, task=FREE)
    assert doubts(FREE, many, None)[0].endswith("row 5 as 1, row 6 as 1 and 1 more")


def test_a_text_may_be_answered_in_many_words():
    assert doubts(FREE, rows(("a", "x"), ("a", "y"), task=FREE), None) == []
    every = FREE.model_copy(update={"every_answer": True})
    assert doubts(every, rows(("a", "x"), ("a", "x"), task=FREE), None) == []
