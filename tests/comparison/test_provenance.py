"""What results say of where they come from; what they say of trainings stands in test_bench.py."""

import shutil
import subprocess

import pytest
import torch

from mptune.comparison import provenance
from mptune.comparison.provenance import circumstances, commit, trainings
from mptune.prompts.card import Card


def card(stage, task, **config):
    seeds = {"shot_rows": {task: [1, 2]} if stage == "target" else {}}
    return Card(stage=stage, tasks=(), backbone="b", fingerprint="f", config=config, seeds=seeds, data={task: task * 2})


def test_teachers_of_like_settings_are_one_entry_and_stages_keep_their_order():
    cards = [
        card("teacher", "a", lr=1),
        card("teacher", "b", lr=1),
        card("source", "a", lr=1),
        card("target", "c", lr=2),
    ]
    assert [record.model_dump(exclude_unset=True) for record in trainings(cards)] == [
        {"stage": "teacher", "config": {"lr": 1}, "data": {"a": "aa", "b": "bb"}, "shot_rows": {}},
        {"stage": "source", "config": {"lr": 1}, "data": {"a": "aa"}, "shot_rows": {}},
        {"stage": "target", "config": {"lr": 2}, "data": {"c": "cc"}, "shot_rows": {"c": [1, 2]}},
    ]
    assert len(trainings([card("teacher", "a", lr=1), card("teacher", "b", lr=2)])) == 2
    assert cards[0].data == {"a": "aa"}  # a card stays what it is


def test_a_training_that_broke_off_is_an_entry_that_says_where():
    whole = card("teacher", "a", lr=1)
    records = trainings([whole, whole.model_copy(update={"stopped": 7})])
    assert [record.stopped for record in records] == [None, 7]


def test_the_machine_is_the_one_that_computes(backbone, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card at {device}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # there, and not used
    assert "cores" in circumstances(backbone)["machine"]
    monkeypatch.setattr(type(backbone), "device", torch.device("cuda:1"))
    assert circumstances(backbone)["machine"] == "a card at cuda:1"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_a_checkout_which_holds_the_code(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    code = tmp_path / "provenance.py"
    code.write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(code))
    assert commit() is None  # no checkout
    git("init", "-q")
    (tmp_path / "other.txt").write_text("other")
    git("add", "other.txt")
    git("commit", "-qm", "other")
    assert commit() is None  # somebody else's: it does not hold the code
    git("add", "provenance.py")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD")
    assert commit() == head[:12]
    code.write_text("two")
    assert commit() == f"{head[:12]}-dirty"
