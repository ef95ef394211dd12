"""The tasks of a server: found, replaced, removed, rolled back, and there again after a kill."""

import gc
import json
import shutil

import pytest
import torch

from mptune.errors import ArtifactError, BackboneMismatch, MptuneError, UnknownNameError, UsageError
from mptune.prompts.prompt import MultitaskPrompt
from mptune.serving import journal
from mptune.serving import store as store_module
from mptune.serving.journal import JOURNAL
from mptune.serving.store import Store
from support.models import make_backbone
from support.prompts import random_prompt
from support.serving import FREE, LONG, MOOD, PAIR, TASKS, opened, prompts_folder


@pytest.fixture
def own(model, tmp_path):
    """A folder of prompts that a test may change."""
    return prompts_folder(tmp_path / "prompts", model)


def again(folder, model) -> Store:
    return opened(folder, model)[0]


def test_every_prompt_of_a_folder_is_there_by_its_tasks_name(own, model):
    store = again(own, model)
    assert store.names() == sorted(task.name for task in TASKS)
    ready = store.ready("mood")
    assert ready.task.template == MOOD.template
    torch.testing.assert_close(ready.collapse(), MultitaskPrompt.from_pretrained(own / "mood").collapse()[0])


def test_a_prompt_of_many_tasks_gives_each_its_own_numbers(own, model):
    many = random_prompt(model, [MOOD.model_copy(update={"name": f"t{n}"}) for n in range(5)])
    many.save_pretrained(own / "many")
    store = again(own, model)
    for number in range(5):
        torch.testing.assert_close(store.ready(f"t{number}").collapse(), many.collapse()[number])


def test_an_unknown_name_is_told_with_the_nearest(own, model):
    with pytest.raises(UnknownNameError, match=r"no task is called 'mod'. Did you mean 'mood'\? There are 5"):
        again(own, model).entry("mod")


def test_a_version_that_is_put_answers_from_now_and_can_be_rolled_back(own, model):
    random_prompt(model, [MOOD], seed=9).save_pretrained(own / "mood.v2")
    (own / "mood.v2").rename(own / "later")
    shutil.copytree(own / "later", own / "sub" / "mood.v2")
    shutil.rmtree(own / "later")
    store = again(own, model)
    first = store.ready("mood")
    (entry,) = store.put("sub/mood.v2", "mood")
    assert [each.folder for each in entry.versions] == ["mood", "sub/mood.v2"]
    second = store.ready("mood")
    assert not torch.equal(first.collapse(), second.collapse())
    assert again(own, model).ready("mood").version == second.version, "a server that was killed has it again"
    store.roll_back("mood")
    torch.testing.assert_close(store.ready("mood").collapse(), first.collapse())
    assert again(own, model).ready("mood").version == first.version
    with pytest.raises(UsageError, match="mood has no version before mood; it cannot be rolled back"):
        store.roll_back("mood")


def test_what_was_rolled_back_is_not_before_a_later_version(own, model):
    for name in ("a", "b"):
        random_prompt(model, [MOOD], seed=7).save_pretrained(own / "sub" / name)
    store = again(own, model)
    store.put("sub/a")
    store.roll_back("mood")
    (entry,) = store.put("sub/b")
    assert [each.folder for each in entry.versions] == ["mood", "sub/b"]


def test_what_is_removed_stays_away_and_its_folder_stays(own, model):
    store = again(own, model)
    store.remove("mood")
    assert "mood" not in store.names()
    assert "mood" not in again(own, model).names()
    assert (own / "mood").is_dir()
    store.put("mood")
    assert "mood" in again(own, model).names()


def test_a_task_has_other_names_that_no_task_has(own, model):
    store = again(own, model)
    store.alias("feelings", "mood")
    assert again(own, model).entry("feelings").name == "mood"
    with pytest.raises(UsageError, match="pair is a task of its own; an alias wants a name that is free"):
        store.alias("pair", "mood")
    store.alias("feelings", None)
    with pytest.raises(UnknownNameError, match="no task is called 'feelings'"):
        store.entry("feelings")
    with pytest.raises(UnknownNameError, match="no alias is called 'feelings'"):
        store.alias("feelings", None)


@pytest.mark.parametrize(
    "folder", ["../elsewhere", "/etc", ".", "", "link", "a\0b", "x" * 5000, "mood/../../elsewhere"]
)
def test_only_folders_inside_come_in(own, model, folder, tmp_path):
    random_prompt(model, [MOOD]).save_pretrained(tmp_path / "elsewhere")
    store = again(own, model)
    (own / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((UsageError, ArtifactError), match=r"wants a folder inside|is no prompt folder"):
        store.put(folder)
    assert not (own / JOURNAL).exists()


def test_a_link_that_leads_outside_is_not_served(own, model, tmp_path):
    random_prompt(model, [MOOD.model_copy(update={"name": "foreign"})]).save_pretrained(tmp_path / "elsewhere")
    (own / "link").symlink_to(tmp_path / "elsewhere")
    store = again(own, model)
    assert "foreign" not in store.names()
    assert store.refused == {"link": "it lies outside the folder of prompts"}


def test_a_prompt_of_another_model_is_named_and_does_not_come_in(own, model):
    other = make_backbone("t5", seed=5)
    random_prompt(other, [FREE.model_copy(update={"name": "other"})]).save_pretrained(own / "other")
    store = again(own, model)
    assert "other" not in store.names()
    assert "was trained for" in store.refused["other"]
    with pytest.raises(BackboneMismatch, match="a soft prompt fits no other model"):
        store.put("other")


def test_a_damaged_prompt_keeps_none_of_the_others_away(own, model):
    (own / "pair" / "prompt.safetensors").write_bytes(b"no prompt")
    store = again(own, model)
    assert "mood" in store.names()
    assert "is damaged" in store.refused["pair"]
    with pytest.raises(ArtifactError, match="is damaged or no prompt"):
        store.put("pair")


def test_two_prompts_of_one_task_are_not_chosen_between(own, model):
    random_prompt(model, [MOOD], seed=3).save_pretrained(own / "another")
    with pytest.raises(UsageError, match=r"2 prompts are there for the task 'mood': another, mood. Keep one of them"):
        again(own, model)


def test_a_prompt_that_goes_away_is_told_and_one_that_is_trained_again_is_read(own, model):
    store = again(own, model)
    before = store.ready("mood").collapse()
    shutil.rmtree(own / "mood")
    with pytest.raises(ArtifactError, match="the prompt of mood is gone from its folder; add it again"):
        store.ready("mood")
    random_prompt(model, [MOOD], seed=8).save_pretrained(own / "mood")
    assert not torch.equal(store.ready("mood").collapse(), before)


def test_no_more_prompts_are_kept_ready_than_there_is_room_for(own, model, monkeypatch):
    monkeypatch.setattr(store_module, "OF_A_TASK", 0)
    monkeypatch.setattr(store_module, "MEGABYTE", 2 * 4 * (3 * 16 + 3 + 16))  # two prompts of three soft tokens
    store = Store(own, model, opened(own, model)[0].lengths, 1)
    for name in ("mood", "pair", "long", "mood"):
        store.ready(name)
    assert [ready.name for ready in store._ready.values()] == ["long", "mood"]


def test_a_shared_prompt_is_there_once_for_all_of_its_tasks_and_goes_with_the_last(own, model, monkeypatch):
    monkeypatch.setattr(store_module, "OF_A_TASK", 0)
    random_prompt(model, [MOOD.model_copy(update={"name": f"t{n}"}) for n in range(5)]).save_pretrained(own / "many")
    store = again(own, model)
    ready = [store.ready(f"t{number}") for number in range(5)]
    assert len({each.shared.data_ptr() for each in ready}) == 1
    own_bytes, shared = 4 * (3 + 16), 4 * 3 * 16
    assert store._held == 5 * own_bytes + shared
    store._room = own_bytes + shared
    store.ready("mood")
    assert store._held == own_bytes + shared
    assert len(store._sharing) == 1
    del ready
    gc.collect()
    assert len(store._shared) == 1


def test_a_change_that_cannot_be_written_is_none(own, model, monkeypatch):
    store = again(own, model)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "write_file", full)
    with pytest.raises(MptuneError, match="the change cannot be kept: No space left on device; nothing was changed"):
        store.remove("mood")
    assert "mood" in store.names()
    for change in (lambda: store.put("pair"), lambda: store.alias("other", "pair"), lambda: store.alias("x", "mood")):
        with pytest.raises(MptuneError, match="the change cannot be kept"):
            change()
    assert store.aliases() == {}
    monkeypatch.undo()
    store.remove("mood")
    assert json.loads((own / JOURNAL).read_text())["tasks"] == {}  # nobody chose `pair`


@pytest.mark.parametrize("text", [
    "", "[]", '{"tasks": 3}', '{"tasks": {"mood": {"versions": [], "current": 0}}}',
    '{"tasks": {"m": {"versions": [{"folder": "../x", "number": 0}], "current": 0}}}',
])  # fmt: skip
def test_a_damaged_journal_is_told(own, model, text):
    (own / JOURNAL).write_text(text)
    with pytest.raises(ArtifactError, match=r"\.serving\.json is damaged .*; remove it"):
        again(own, model)


def test_the_journal_holds_what_was_changed_alone(own, model):
    store = again(own, model)
    store.remove("mood")
    store.put("pair")
    values = json.loads((own / JOURNAL).read_text())
    assert (list(values["tasks"]), values["removed"]) == (["pair"], ["mood"])


def test_a_folder_that_is_none_is_told(model, tmp_path, own):
    with pytest.raises(UsageError, match="is no folder; name the one that holds the prompts"):
        again(tmp_path / "nowhere", model)
    with pytest.raises(UsageError, match="is a prompt itself; name the folder in which it lies"):
        again(own / "mood", model)


def test_a_label_word_list_is_read_once_for_a_version(own, model):
    store = again(own, model)
    assert store.ready("long").words.label_ids is store.ready("long").words.label_ids
    assert len(store.ready("long").words.label_ids) == len(LONG.verbalizer)
    assert store.ready("pair").task.text_fields == PAIR.text_fields
