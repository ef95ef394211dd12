"""Rows of public data sets: from local files of their names, or from the hub."""

import re

import datasets
import pytest

from mptune.tasks.data import load_data
from mptune.tasks.dataset import Dataset, HubData
from mptune.tasks.registry import builtin_tasks
from mptune.tasks.task import Task
from support.rows import mood, problems, write

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
    assert problems(builtin_tasks()["mnli"], ["train", "test"], folder, code=2) == [
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
        "sst2.train.jsonl row 3: sentence is empty; fill it, or leave the row out"
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
    (said,) = problems(task, code=2)
    assert re.fullmatch(
        r"nobody/nothing/plain/train cannot be loaded from the hub \(.+\)\. "
        r"Check name and network, or put mood\.train\.jsonl into a folder and name that: --data DIR of a command, "
        r"the data: line of a recipe",
        said,
    )
