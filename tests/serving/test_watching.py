"""A folder that changes while a server runs: what comes is served, what goes is not, and nobody's choice is undone."""

import shutil
import time

import pytest
import torch

from mptune.serving.store import Store
from mptune.serving.watching import FolderWatch
from support.models import make_backbone
from support.prompts import random_prompt
from support.serving import FREE, LONG, MOOD, PAIR, opened, prompts_folder


@pytest.fixture(scope="module")
def model():
    return make_backbone("t5")


@pytest.fixture
def own(tmp_path, model):
    return prompts_folder(tmp_path / "prompts", model, [MOOD, PAIR])


@pytest.fixture
def watched(own, model):
    """A store, and what looks at its folder when it is told to."""
    store = Store(own, model, opened(own, model)[0].lengths, 8)
    return store, FolderWatch(store, 60)


def lines(caplog):
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return said


def test_a_prompt_that_comes_is_served_and_one_that_goes_is_not(own, model, watched, caplog):
    store, watch = watched
    random_prompt(model, [LONG]).save_pretrained(own / "later")
    shutil.rmtree(own / "pair")
    watch.look()
    assert store.names() == ["long", "mood"]
    assert lines(caplog) == ["long is served now, from later", "pair is served no longer: its folder is gone"]
    watch.look()
    assert lines(caplog) == []


def test_a_prompt_that_moves_is_followed(own, watched, caplog):
    store, watch = watched
    before = store.ready("pair").collapse()
    (own / "pair").rename(own / "moved")
    watch.look()
    assert store.entry("pair").version.folder == "moved"
    assert torch.equal(store.ready("pair").collapse(), before)
    assert lines(caplog) == ["pair is served now, from moved"]


def test_a_file_that_is_half_there_is_told_once_and_served_when_it_is_whole(own, model, watched, caplog):
    store, watch = watched
    random_prompt(model, [LONG]).save_pretrained(own / "later")
    file = own / "later" / "prompt.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    watch.look()
    watch.look()
    (said,) = lines(caplog)
    assert said.startswith("later is not served: ")
    assert "damaged" in said
    file.write_bytes(whole)
    watch.look()
    assert lines(caplog) == ["long is served now, from later"]
    assert store.ready("long").name == "long"


def test_a_served_prompt_that_is_being_written_anew_stays(own, watched, caplog):
    store, watch = watched
    file = own / "mood" / "prompt.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    watch.look()
    assert store.names() == ["mood", "pair"]
    file.write_bytes(whole)
    watch.look()
    assert "mood" in store.names()


def test_the_tasks_of_a_prompt_that_was_trained_again_are_those_that_it_has_now(own, model, watched):
    store, watch = watched
    shutil.rmtree(own / "pair")
    random_prompt(model, [FREE]).save_pretrained(own / "pair")
    watch.look()
    assert store.names() == ["free", "mood"]


def test_a_second_prompt_of_a_task_is_told_and_the_first_stays(own, model, watched, caplog):
    store, watch = watched
    random_prompt(model, [MOOD], seed=5).save_pretrained(own / "another")
    watch.look()
    assert store.entry("mood").version.folder == "mood"
    (said,) = lines(caplog)
    assert "2 prompts are there for the task 'mood': another, mood" in said
    shutil.rmtree(own / "mood")
    watch.look()
    assert store.entry("mood").version.folder == "another"


def test_of_two_prompts_that_come_in_place_of_one_neither_is_served(own, model, watched):
    store, watch = watched
    shutil.rmtree(own / "mood")
    for seed in (5, 6):
        random_prompt(model, [MOOD], seed=seed).save_pretrained(own / f"mood.v{seed}")
    watch.look()
    assert store.names() == ["pair"]
    assert any("2 prompts are there for the task 'mood': mood.v5, mood.v6" in why for why in store.refused.values())


def test_what_somebody_chose_or_removed_is_left_alone(own, model, watched):
    store, watch = watched
    random_prompt(model, [MOOD], seed=5).save_pretrained(own / "mood.v2")
    store.put("mood.v2")
    store.remove("pair")
    random_prompt(model, [MOOD], seed=6).save_pretrained(own / "third")
    watch.look()
    assert store.names() == ["mood"]
    assert store.entry("mood").version.folder == "mood.v2"
    shutil.rmtree(own / "mood.v2")
    watch.look()
    assert store.entry("mood").version.folder == "mood.v2"  # which is said to whoever asks for it


def test_a_folder_that_goes_takes_nothing_with_it(own, watched, caplog):
    store, watch = watched
    ready = store.ready("mood")
    shutil.rmtree(own)
    watch.look()
    watch.look()
    (said,) = lines(caplog)
    assert said.startswith("the folder of prompts is not served: ")
    assert store.names() == ["mood", "pair"]
    assert len(ready) == 3


def test_a_file_that_has_not_changed_is_not_opened_again(own, watched, monkeypatch):
    from mptune.serving import store as store_module

    _, watch = watched
    opened_files, glance = [], store_module.glance
    monkeypatch.setattr(store_module, "glance", lambda place: opened_files.append(place.name) or glance(place))
    watch.look()
    assert opened_files == []
    (own / "mood" / "prompt.safetensors").touch()
    watch.look()
    assert opened_files == ["mood"]


def test_it_looks_by_itself_until_it_is_stopped(own, model):
    store = Store(own, model, opened(own, model)[0].lengths, 8)
    watch = FolderWatch(store, 0.01)
    watch.start()
    random_prompt(model, [LONG]).save_pretrained(own / "later")
    until = time.monotonic() + 20
    while "long" not in store.names() and time.monotonic() < until:
        time.sleep(0.01)
    watch.stop()
    assert "long" in store.names()
    shutil.rmtree(own / "later")
    time.sleep(0.05)
    assert "long" in store.names()
