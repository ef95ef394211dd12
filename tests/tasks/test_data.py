"""Rows: divided into splits, read once, held out, drawn."""

import logging
from collections import Counter

import pytest
import torch

from mptune.errors import DataError
from mptune.tasks.data import TaskRows, draw_rows, draw_shots, load_data
from mptune.tasks.task import Example
from support.rows import ROWS, free, mood, problems, write
from support.toys import files_opened, make_task, write_rows


def examples(count, classes=2):
    """Examples in no order of classes, numbered from one."""
    return [Example("toy", i + 1, f"row {i}", "word", str(i * 7 % classes), ("word",)) for i in range(count)]


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
    assert problems(task, ["train", "validation"]) == [
        "toy.test.jsonl row 1: no label, which label: of the task names; it has text"
    ]


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
        with pytest.raises(DataError, match=r"toy\.test\.jsonl row 1: no label, which label: of"):
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
