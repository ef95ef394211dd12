"""A prompt's folder: what goes in comes out, whole or not at all, and nothing private with it."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import mptune
from mptune.answers.prediction import Predictor
from mptune.config import BackboneConfig, TeachConfig
from mptune.errors import (
    ArtifactError,
    BackboneError,
    BackboneMismatch,
    MissingArtifact,
    ShapeError,
    UnknownNameError,
    UsageError,
)
from mptune.model.loading import load_backbone
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt, load_prompts
from mptune.prompts.stored import prompt_folders, stored_config, stored_prompt
from mptune.prompts.vectors import TaskVectors
from mptune.prompts.vllm import CLIENT
from mptune.stages.teachers import teach
from support.models import make_backbone
from support.toys import make_task


@pytest.fixture
def prompt(backbone, toy_tasks):
    """A multitask prompt of rank two with irregular numbers."""
    card = Card(
        stage="source",
        tasks=tuple(task.without_paths() for task in toy_tasks),
        backbone="tiny-t5",
        fingerprint=backbone.fingerprint,
        seeds={"seed": 3, "shot_rows": {"mood": [1, 5]}},
        scores=({"task": "mood", "split": "validation", "metric": "accuracy", "value": 62.5, "examples": 16},),
        sources=("mood", "speed", "colour"),
    )
    torch.manual_seed(0)
    return MultitaskPrompt(torch.randn(4, 16), TaskVectors(torch.randn(3, 4, 2), torch.randn(3, 2, 16)), card)


def header_of(folder):
    with safe_open(folder / "prompt.safetensors", framework="pt") as stored:
        return stored.metadata()


def test_what_is_saved_comes_back_bit_for_bit_with_its_card(prompt, tmp_path):
    prompt.save_pretrained(tmp_path / "deep" / "prompt")
    again = MultitaskPrompt.from_pretrained(tmp_path / "deep" / "prompt")
    assert again.card == prompt.card
    for name, tensor in prompt.tensors().items():
        assert torch.equal(again.tensors()[name], tensor), name
    assert torch.equal(again.collapse(), prompt.collapse())


def test_equal_prompts_are_equal_bytes(prompt, tmp_path):
    prompt.save_pretrained(tmp_path / "a")
    MultitaskPrompt.from_pretrained(str(tmp_path / "a")).save_pretrained(str(tmp_path / "b"))
    for name in ("prompt.safetensors", "README.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    # Of several keys the order is arbitrary.
    assert set(header_of(tmp_path / "a")) == {"card"}


def test_a_saved_folder_holds_two_files_that_others_may_read(prompt, tmp_path):
    prompt.save_pretrained(tmp_path / "prompt")
    assert sorted(p.name for p in (tmp_path / "prompt").iterdir()) == ["README.md", "prompt.safetensors"]
    assert (tmp_path / "prompt").stat().st_mode & 0o777 == 0o755


def test_each_example_gets_its_own_tasks_prompt(prompt):
    prompts = prompt(torch.tensor([2, 0, 2, 1]))
    assert torch.allclose(prompts, prompt.collapse()[[2, 0, 2, 1]])


def test_only_tasks_that_are_present_get_gradients(prompt):
    prompt(torch.tensor([2, 0, 2])).sum().backward()
    assert [u.grad is None for u in prompt.u] == [False, True, False]
    assert [v.grad is None for v in prompt.v] == [False, True, False]
    assert prompt.shared.grad is not None


def test_tensors_that_do_not_fit_the_card_are_refused(prompt):
    u, v = prompt.task_vectors.u, prompt.task_vectors.v
    with pytest.raises(ShapeError, match=r"u should be \[K=3, L=4, R\]; got \[2, 4, 2\]"):
        MultitaskPrompt(prompt.shared, TaskVectors(u[:2], v[:2]), prompt.card)
    with pytest.raises(ShapeError, match=r"v should be \[K=3, R=2, D=16\]; got \[3, 2, 9\]"):
        MultitaskPrompt(prompt.shared, TaskVectors(u, v[..., :9]), prompt.card)


def test_a_task_is_found_by_name_and_the_only_one_without(prompt, toy_task, backbone):
    assert prompt.task_number("colour") == 2
    with pytest.raises(UnknownNameError, match=r"'color'\. Did you mean 'colour'\? Known: colour, mood, speed\."):
        prompt.task_number("color")
    with pytest.raises(UsageError, match=r"is of several tasks: mood, speed, colour\. Name one of them"):
        prompt.task_number(None)
    assert teach(toy_task, backbone, TeachConfig(prompt_length=2, steps=0)).task_number(None) == 0


def test_a_foreign_backbone_is_refused_by_name(prompt, backbone):
    prompt.check_backbone(backbone)
    with pytest.raises(BackboneMismatch, match=r"mood, speed, colour was trained for tiny-t5, .* got tiny-llama\."):
        prompt.check_backbone(make_backbone("llama"))
    prompt.card = prompt.card.model_copy(update={"revision": "abc"})
    with pytest.raises(BackboneMismatch, match="was trained for tiny-t5@abc"):
        prompt.check_backbone(make_backbone("t5", seed=1))


def test_a_card_holds_no_path_and_a_runs_folder_still_finds_its_backbone(backbone, tmp_path):
    backbone.model.save_pretrained(tmp_path / "models" / "tiny")
    backbone.tokenizer.save_pretrained(tmp_path / "models" / "tiny")
    local = load_backbone(BackboneConfig(name=str(tmp_path / "models" / "tiny"), device="cpu"))
    task = make_task(tmp_path, "toy")
    made = teach(task, local, TeachConfig(prompt_length=2, steps=1), out=tmp_path / "run", data_dir=tmp_path)
    shared = header_of(tmp_path / "run")["card"] + (tmp_path / "run" / "README.md").read_text()
    assert str(tmp_path) not in shared
    assert ".jsonl" not in shared
    assert json.loads(header_of(tmp_path / "run")["card"])["backbone"] == "./tiny"
    assert MultitaskPrompt.from_pretrained(tmp_path / "run").card == made.card
    assert made.card.backbone == str(tmp_path / "models" / "tiny")
    (tmp_path / "run" / "config.json").unlink()  # as it is where it was copied to
    with pytest.raises(
        BackboneError, match=r"no folder './tiny' with a backbone, and as a path it is not looked up on"
    ):
        load_backbone(MultitaskPrompt.from_pretrained(tmp_path / "run").backbone_config)


def test_an_existing_folder_is_never_overwritten(prompt, tmp_path):
    (tmp_path / "prompt").mkdir()
    with pytest.raises(UsageError, match="prompt exists already; remove it or choose another name"):
        prompt.save_pretrained(tmp_path / "prompt")
    assert not list((tmp_path / "prompt").iterdir())


def test_a_folder_appears_whole_or_not_at_all(prompt, tmp_path, monkeypatch):
    def half(self, folder):
        (folder / "prompt.safetensors").write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(MultitaskPrompt, "write_files", half)
    with pytest.raises(OSError, match="the disk is full"):
        prompt.save_pretrained(tmp_path / "new" / "prompt")
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file[:100], id="cut short"),
        pytest.param(lambda file: b"", id="empty"),
        pytest.param(lambda file: file[:-40], id="without its last numbers"),
        pytest.param(lambda file: b"\x02\0\0\0\0\0\0\0{}", id="without a card"),
        pytest.param(lambda file: file.replace(b'\\"stage\\"', b'\\"stags\\"'), id="with another's card"),
        pytest.param(lambda file: file.replace(b'"shared":{', b'"sharee":{'), id="with other tensors"),
    ],
)
def test_a_damaged_file_is_said_to_be(prompt, tmp_path, damage):
    prompt.save_pretrained(tmp_path / "prompt")
    file = tmp_path / "prompt" / "prompt.safetensors"
    assert damage(file.read_bytes()) != file.read_bytes()
    file.write_bytes(damage(file.read_bytes()))
    wanted = r"prompt\.safetensors is damaged or no prompt of mptune \(.+\)\. Train or copy it again\."
    with pytest.raises(ArtifactError, match=wanted):
        MultitaskPrompt.from_pretrained(tmp_path / "prompt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_not_finite_are_neither_saved_nor_read(prompt, tmp_path, value):
    prompt.save_pretrained(tmp_path / "prompt")
    file = tmp_path / "prompt" / "prompt.safetensors"
    tensors, header = load_file(file), header_of(tmp_path / "prompt")
    tensors["u"] = tensors["u"].double()
    tensors["u"][0, 0, 0] = value
    save_file(tensors, file, metadata=header)
    wanted = r"u holds numbers that are not finite, which answer nothing\. Train it again, at a lower learning rate\."
    with pytest.raises(ArtifactError, match=rf"prompt\.safetensors: {wanted}"):
        MultitaskPrompt.from_pretrained(tmp_path / "prompt")
    prompt.u[0].data[0, 0] = float("inf")
    with pytest.raises(ArtifactError, match=wanted):
        prompt.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", [torch.complex64, torch.int8, torch.bool])
def test_numbers_that_are_no_floating_point_numbers_are_refused(prompt, tmp_path, kind):
    prompt.save_pretrained(tmp_path / "prompt")
    file = tmp_path / "prompt" / "prompt.safetensors"
    tensors, header = load_file(file), header_of(tmp_path / "prompt")
    save_file({**tensors, "v": tensors["v"].to(kind)}, file, metadata=header)
    name = str(kind).removeprefix("torch.")
    with pytest.raises(ArtifactError, match=f"v wants floating-point numbers; got {name}. Train or copy it again"):
        MultitaskPrompt.from_pretrained(tmp_path / "prompt")


def test_a_missing_folder_is_said_to_be(tmp_path):
    message = r"^there is no folder .*nothing\.$"
    with pytest.raises(ArtifactError, match=message):
        MultitaskPrompt.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=message):
        load_prompts(tmp_path / "nothing")


def test_prompts_beside_one_that_is_not_there_are_named_the_nearest_first(prompt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("opinions", "tickets", "topics.partial", ".hidden"):
        prompt.save_pretrained(tmp_path / "prompts" / name)
    told = r"there is no folder prompts/tikets\. Prompts that are there, the nearest first: prompts/tickets, prompts/op"
    for load in (MultitaskPrompt.from_pretrained, prompt_folders):
        with pytest.raises(MissingArtifact, match=rf"^{told}inions$"):
            load("prompts/tikets")
    with pytest.raises(MissingArtifact, match=r"^there is no folder generall\. Prompts that are there, .*: general$"):
        MultitaskPrompt.from_pretrained("generall")


def test_a_file_is_no_prompt_and_a_tasks_file_is_to_be_adapted_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets.yaml").write_text("name: tickets")
    (tmp_path / "prompt.safetensors").write_text("")
    told = "tickets.yaml is a task; adapt a prompt to it first: mptune adapt --task tickets.yaml --out prompts/tickets"
    with pytest.raises(MissingArtifact, match=f"^{re.escape(told)}$"):
        MultitaskPrompt.from_pretrained("tickets.yaml")
    with pytest.raises(MissingArtifact, match=r"^prompt\.safetensors is a file, and a prompt is a folder with prompt"):
        MultitaskPrompt.from_pretrained("prompt.safetensors")


def test_a_folder_of_prompts_names_them(prompt, tmp_path):
    prompt.save_pretrained(tmp_path / "all" / "b")
    prompt.save_pretrained(tmp_path / "all" / "a")
    with pytest.raises(ArtifactError, match=r"all is no prompt folder.* Did you mean one of its prompts: a, b\?"):
        MultitaskPrompt.from_pretrained(tmp_path / "all")


@pytest.mark.parametrize("name", ["{}/run", "run", "folder/run"])
def test_an_unfinished_run_is_known_as_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "folder" / "run.partial").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"Its training has not ended; run the same command again .* run\.partial"):
        MultitaskPrompt.from_pretrained(name.format(tmp_path))


def test_the_prompts_of_a_folder_are_its_own_or_those_below_by_name(prompt, tmp_path):
    for name in ("b", "a", "c.partial", ".hidden"):
        tasks = tuple(task.model_copy(update={"name": f"{task.name}-{name}"}) for task in prompt.tasks)
        prompt.card = prompt.card.model_copy(update={"stage": name, "tasks": tasks})
        prompt.save_pretrained(tmp_path / "all" / name)
    assert [p.card.stage for p in load_prompts(tmp_path / "all")] == ["a", "b"]
    assert [p.card.stage for p in load_prompts(tmp_path / "all" / "b")] == ["b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"empty holds no prompt, nor do its subfolders\.$"):
        load_prompts(tmp_path / "empty")


def test_of_several_prompts_of_one_task_none_wins_without_a_word(backbone, prompt, tmp_path):
    """As after `adapt --seeds 2 --out seeds`."""
    for number in (0, 1):
        prompt.save_pretrained(tmp_path / "seeds" / f"seed-{number}")
    wanted = rf"2 prompts are there for the task 'mood': {tmp_path}/seeds/seed-0, {tmp_path}/seeds/seed-1\. "
    with pytest.raises(UsageError, match=wanted + rf"Name one of them, as {tmp_path}/seeds/seed-0\."):
        load_prompts(tmp_path / "seeds")
    assert len(load_prompts(tmp_path / "seeds" / "seed-1")) == 1
    prompt.card = prompt.card.model_copy(update={"seeds": {"seed": 3}})
    with pytest.raises(
        UsageError, match=r"for the task 'mood': the source prompt of seed 3, the source prompt of seed"
    ):
        Predictor(backbone, [prompt, prompt])
    twice = prompt.card.model_copy(update={"tasks": (prompt.tasks[0],) * 3})
    with pytest.raises(UsageError, match=r"3 prompts are there for the task 'mood'"):
        Predictor(backbone, [MultitaskPrompt(prompt.shared, prompt.task_vectors, twice)])
    with pytest.raises(UsageError, match="a predictor wants one prompt or more; got none"):
        Predictor(backbone, [])


def test_a_name_that_is_no_folder_is_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="somebody/prompt is no folder here, and not to be had from the hub: "):
        MultitaskPrompt.from_pretrained("somebody/prompt")
    (tmp_path / "somebody").mkdir()
    with pytest.raises(ArtifactError, match=r"^there is no folder somebody/prompt\.$"):
        MultitaskPrompt.from_pretrained("somebody/prompt")  # in a folder that is here, it is a slip


@pytest.mark.parametrize("content", ['{"half', "[1, 2]"])
def test_a_damaged_configuration_is_said_to_be(tmp_path, content):
    assert stored_config(tmp_path) == {}
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"config\.json is damaged: it is no JSON\. Remove it"):
        stored_config(tmp_path)


def test_only_the_prompt_and_its_page_are_uploaded(backbone, toy_task, tmp_path, monkeypatch):
    uploads = []

    class Recorder:
        """Stands for the hub, which no test can reach."""

        def __init__(self, token=None):
            uploads.append(("token", token))

        def create_repo(self, repository, *, private, exist_ok):
            uploads.append(("repository", repository, private, exist_ok))

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            files = {path.name: path.read_bytes() for path in Path(folder_path).rglob("*")}
            uploads.append(("files", repo_id, files))
            return f"https://example.org/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Recorder)
    teach(toy_task, backbone, TeachConfig(prompt_length=2, steps=1), out=tmp_path / "run")
    (tmp_path / "run" / "private.txt").write_text("not for others")
    prompt = MultitaskPrompt.from_pretrained(tmp_path / "run")
    assert prompt.push_to_hub("me/prompt", private=True, token="t") == "https://example.org/me/prompt"
    wanted = {name: (tmp_path / "run" / name).read_bytes() for name in ("README.md", "prompt.safetensors")}
    assert uploads == [("token", "t"), ("repository", "me/prompt", True, True), ("files", "me/prompt", wanted)]


def test_no_line_of_the_package_reads_or_writes_a_pickle():
    forbidden = re.compile(
        r"torch\.(load|save)\b|\bimport (pickle|joblib|dill|cloudpickle)\b|\bpickle\.\w|allow_pickle"
    )
    files = list(Path(mptune.__file__).parent.rglob("*.py"))
    assert len(files) > 20
    lines = [(file, line) for file in files for line in file.read_text().replace(CLIENT, "").splitlines()]
    assert [f"{file.name}: {line}" for file, line in lines if forbidden.search(line)] == []


def test_a_prompt_is_shown_as_its_card_is(prompt, cli, tmp_path):
    prompt.save_pretrained(tmp_path / "prompt")
    code, out, _ = cli("show", str(tmp_path / "prompt"))
    assert code == 0
    first, *lines = repr(prompt).splitlines()
    assert first == "MultitaskPrompt"
    assert [re.split(r"  +", line.strip(), maxsplit=1) for line in lines] == [
        list(filter(None, line.split("\t"))) for line in out.splitlines()
    ]
    assert "mood validation accuracy  62.5, 16 rows" in repr(prompt)


def test_what_a_stranger_wrote_into_a_card_moves_no_terminal(prompt):
    prompt.card = prompt.card.model_copy(update={"backbone": "evil\x1b[2J"})
    assert "\x1b" not in repr(prompt)
    assert "evil\\u001b[2J" in repr(prompt)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("u", (2, 4, 2), "u should be [K=3, L=4, R]; got [2, 4, 2]"),
        ("u", (3, 5, 2), "u should be [K=3, L=4, R]; got [3, 5, 2]"),
        ("v", (3, 1, 16), "v should be [K=3, R=2, D=16]; got [3, 1, 16]"),
        ("v", (3, 2, 8), "v should be [K=3, R=2, D=16]; got [3, 2, 8]"),
    ],
)
def test_tensors_that_do_not_fit_are_told_from_their_header_alone(prompt, cli, tmp_path, name, shape, said):
    prompt.save_pretrained(tmp_path / "prompt")
    file = tmp_path / "prompt" / "prompt.safetensors"
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    save_file({**load_file(file), name: torch.zeros(shape)}, file, metadata=header)
    code, _, err = cli("show", tmp_path / "prompt")
    assert (code, said in err) == (3, True), err


def test_rows_are_never_read_where_a_strangers_card_says(prompt, tmp_path):
    prompt.save_pretrained(tmp_path / "prompt")
    file = tmp_path / "prompt" / "prompt.safetensors"
    with safe_open(file, "pt") as opened:
        card = json.loads(opened.metadata()["card"])
    for task in card["tasks"]:
        task["dataset"] = {"train": "/etc/passwd"}
    save_file(load_file(file), file, metadata={"card": json.dumps(card)})
    assert [task.dataset for task in MultitaskPrompt.from_pretrained(tmp_path / "prompt").tasks] == [None] * 3
    assert [task.dataset for task in stored_prompt(tmp_path / "prompt").card.tasks] == [None] * 3
