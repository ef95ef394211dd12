"""Prompts that come with the package: found by name, offline, and for the backbone that is the default."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from mptune.errors import UsageError
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.shipped import shipped_for
from mptune.prompts.stored import shipped_prompts
from mptune.tasks.registry import builtin_tasks

ROOT = Path(__file__).parents[2]


def test_one_is_for_the_embedded_backbone_and_found_without_a_name():
    assert shipped_for() == shipped_for("embedded") == "general"
    prompt = MultitaskPrompt.from_pretrained("general")
    assert (prompt.card.stage, prompt.card.backbone, prompt.prompt_length) == ("source", "embedded", 20)
    assert len(prompt.tasks) == 24
    assert all(torch.isfinite(tensor).all() for tensor in prompt.tensors().values())


def test_for_another_backbone_the_message_says_how_to_make_one():
    told = r"no multitask prompt comes with the package for google/t5-base; give --from PROMPT\. `mptune teach` and"
    with pytest.raises(UsageError, match=told):
        shipped_for("google/t5-base")


def test_a_folder_of_the_same_name_is_meant_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = MultitaskPrompt.from_pretrained("general")
    with torch.no_grad():
        own.shared.zero_()
    own.save_pretrained("general")
    assert not MultitaskPrompt.from_pretrained("general").shared.any()


def test_it_is_small_and_carries_no_path_and_no_row():
    for folder in shipped_prompts().values():
        assert sorted(file.name for file in folder.iterdir()) == ["README.md", "prompt.safetensors"]
        assert (folder / "prompt.safetensors").stat().st_size < 200_000
        card = MultitaskPrompt.from_pretrained(folder.name).card
        assert all(task.dataset is None for task in card.tasks)


def test_no_task_on_which_it_is_judged_is_one_of_its_sources():
    seen = {task.name for task in MultitaskPrompt.from_pretrained("general").tasks}
    judged = [*(ROOT / "recipes" / "few" / "tasks").glob("*.yaml"), *(ROOT / "recipes/general/develop").glob("*.yaml")]
    names = {yaml.safe_load(path.read_text(encoding="utf-8"))["name"] for path in judged}
    written = {name for name, task in builtin_tasks().items() if task.dataset.hub is None}
    assert len(judged) >= 14
    assert seen.isdisjoint(names | written)


def test_the_command_lists_them(cli):
    code, out, err = cli("prompts")
    assert (code, out.splitlines()[1].split("\t")[:3]) == (0, ["general", "embedded", "20"])
    assert "without --from starts from the one for its backbone" in err
    code, out, _ = cli("prompts", "--json")
    assert json.loads(out)["tasks"][0] == "nli-follows"
    assert cli("show", "general")[0] == 0


def test_adapt_says_when_none_fits(cli, tmp_path):
    code, _, err = cli("adapt", "--task", "urgency", "--out", tmp_path / "x", "--backbone", "google/t5-base")
    assert (code, "give --from PROMPT" in err) == (2, True)


@pytest.mark.embedded
def test_a_users_task_is_adapted_in_one_command(cli, tmp_path):
    rows = [{"text": f"number {i} is {word}", "label": word} for i in range(4) for word in ("late", "early")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndataset: {train: rows.jsonl}\ntemplate: 'Is it late or early? {text}'\n"
        "verbalizer: {late: late, early: early}\n"
    )
    quick = ["--set", "adapt.steps=2", "--set", "adapt.validation_shots=0"]
    code, _, err = cli("adapt", "--task", tmp_path / "mine.yaml", "--out", tmp_path / "mine", *quick)
    assert code == 0, err
    prompt = MultitaskPrompt.from_pretrained(tmp_path / "mine")
    assert prompt.card.sources == tuple(task.name for task in MultitaskPrompt.from_pretrained("general").tasks)
