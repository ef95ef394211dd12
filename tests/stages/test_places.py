"""Where a run may leave its prompt: links, mounts, leftovers, and what is refused before anything is computed."""

from functools import partial
from pathlib import Path

import pytest
import torch

from mptune.errors import ResumeError, UsageError
from mptune.stages import run as run_module
from mptune.stages.run import Run, try_out
from mptune.stages.teachers import teach
from support.runs import PROMPT, Quick, interrupted_at, sha256, steps_in, stop_early
from support.toys import task_yaml
from support.trained import trained_backbone


def link(folder):
    (folder / "disk").mkdir()
    (folder / "run").symlink_to(folder / "disk" / "run")
    return folder / "disk"


def test_a_link_that_leads_nowhere_yet_leads_to_the_prompt(toy_task, tmp_path):
    disk = link(tmp_path)
    teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert (tmp_path / "run" / PROMPT).is_file()
    assert (tmp_path / "run").is_symlink()
    assert {p.name for p in disk.iterdir()} == {"run"}


def test_a_link_to_an_empty_folder_leads_to_the_prompt(toy_task, tmp_path):
    (link(tmp_path) / "run").mkdir()
    teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "run" / PROMPT).is_file()


def test_a_folder_that_holds_only_half_a_file_may_be_filled(toy_task, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.part").write_text("{")
    teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert (tmp_path / "run" / PROMPT).is_file()
    assert not (tmp_path / "run" / ".config.json.part").exists()


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """A folder that the system neither removes nor renames, as a mount point with its lost files."""
    (tmp_path / "run" / "lost+found").mkdir(parents=True)
    rmdir = Path.rmdir

    def busy(self):
        if self.name == "run":
            raise OSError(16, "Device or resource busy")
        rmdir(self)

    monkeypatch.setattr(Path, "rmdir", busy)
    return tmp_path / "run"


def test_a_mounted_folder_keeps_its_unfinished_run_within(toy_task, mounted):
    teach(toy_task, trained_backbone(), Quick(), out=mounted.parent / "whole")
    patch = interrupted_at(5)
    with pytest.raises(KeyboardInterrupt):
        teach(toy_task, trained_backbone(), Quick(), out=mounted)
    patch.undo()
    assert (mounted / ".partial" / "state.safetensors").is_file()
    assert {p.name for p in mounted.parent.iterdir() if "run" in p.name} == {"run"}
    teach(toy_task, trained_backbone(), Quick(), out=mounted)
    assert sha256(mounted) == sha256(mounted.parent / "whole")
    assert {p.name for p in mounted.iterdir()} == {
        "README.md", "config.json", "metrics.jsonl", PROMPT, "lost+found",
    }  # fmt: skip
    assert teach(toy_task, trained_backbone(), Quick(), out=mounted).card.kept is not None  # and is not trained again


@pytest.mark.parametrize("within", [False, True], ids=["beside", "within"])
@pytest.mark.parametrize("moves", range(5))
def test_a_run_killed_while_it_takes_its_final_place_is_finished(
    toy_task, tmp_path, monkeypatch, request, within, moves
):
    out = request.getfixturevalue("mounted") if within else tmp_path / "run"
    made, real = [], run_module.settle

    def dying(source, place):
        if len(made) == moves:
            raise RuntimeError("killed")
        made.append(place)
        real(source, place)

    monkeypatch.setattr(run_module, "settle", dying)
    try:
        teach(toy_task, trained_backbone(), Quick(), out=out)
    except RuntimeError:
        folder = out / ".partial" if within else tmp_path / "run.partial"
        assert (folder / "state.safetensors").is_file(), "the state goes last"
        assert (folder / PROMPT).is_file()
    monkeypatch.setattr(run_module, "settle", real)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("it trained again"))
    teach(toy_task, trained_backbone(), Quick(), out=out)
    names = {p.name for p in out.iterdir()} - {"lost+found"}
    assert names == {"README.md", "config.json", "metrics.jsonl", PROMPT}
    assert not (tmp_path / "run.partial").exists()


def test_a_state_that_a_kill_left_beside_the_prompt_goes(toy_task, tmp_path):
    teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")
    (tmp_path / "run" / "state.safetensors").write_bytes(b"left")
    teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_a_prompt_that_a_power_failure_cut_is_trained_on_from_the_state(toy_task, tmp_path):
    stop_early(toy_task, tmp_path / "run", Quick())
    (tmp_path / "run.partial" / PROMPT).write_bytes(b"half")
    teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")
    assert steps_in(tmp_path / "run") == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("name", [".", "", "../here"])
def test_the_folder_one_is_in_is_no_place_for_a_run(toy_task, tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for refuse in (try_out, partial(teach, toy_task, trained_backbone(), Quick(steps=1))):
        with pytest.raises(UsageError, match=r"--out wants a folder of the run's own, and .* is the one you are in"):
            refuse(out=Path(name))
    assert not list((tmp_path / "here").iterdir())


def test_what_keeps_a_result_from_being_left_is_said_before_anything_is_computed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run.partial").symlink_to(tmp_path / "mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, error, says in (
        ("mine", ResumeError, "mine exists and is no run of mptune; choose another --out"),
        ("file", ResumeError, "file exists and is no run of mptune"),
        ("file/run", OSError, "File exists"),
        ("run", ResumeError, r"run\.partial is a link, where a run keeps its files; remove it, or choose another"),
        ("/", ResumeError, "/ exists and is no run of mptune"),
        ("a\0b", UsageError, r"'.*a\\x00b' is no path \(embedded null byte\); name another"),
        ("\ud83d", UsageError, "is no path"),
        ("x" * 300, OSError, "File name too long"),
    ):
        with pytest.raises(error, match=says):
            try_out(tmp_path / name)
    try_out(tmp_path / "new" / "run")
    assert not list((tmp_path / "new").iterdir())


def test_another_setting_is_told_before_anything_is_computed_and_steps_when_rows_are_read(toy_task, tmp_path):
    assert not try_out(tmp_path / "run", "teach", Quick())
    teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert try_out(tmp_path / "run", "teach", Quick(steps=2, epochs=None))
    with pytest.raises(
        ResumeError, match=r"run holds a finished run with teach\.shots not set, and now it is 5\. Leave "
    ):
        try_out(tmp_path / "run", "teach", Quick(shots=5))
    (tmp_path / "run").rename(tmp_path / "run.partial")
    with pytest.raises(ResumeError, match=r"run\.partial is an unfinished run with teach\.lr = .*, and now it is 0\.7"):
        try_out(tmp_path / "run", "teach", Quick(lr=0.7))
    assert not try_out(tmp_path / "run", "teach", Quick())


def test_no_lock_stays_behind_a_run_and_one_that_is_held_does(toy_task, tmp_path, monkeypatch):
    finished = Run.finish
    seen = []

    def looked(self, prompt):
        seen.append((tmp_path / ".run.lock").exists())
        finished(self, prompt)

    monkeypatch.setattr(Run, "finish", looked)
    teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert seen == [True]
    assert not list(tmp_path.glob(".*.lock"))


def test_a_teachers_folder_that_cannot_be_made_is_said_before_the_first_is_trained(cli, tmp_path, monkeypatch):
    tasks = [task_yaml(tmp_path, name) for name in ("mood", "speed")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "speed").write_text("mine")
    monkeypatch.setattr("mptune.load_backbone", lambda *_: pytest.fail("a model was loaded"))
    code, _, err = cli("teach", "--tasks", ",".join(map(str, tasks)), "--out", tmp_path / "out")
    assert (code, err) == (
        2, f"mptune: {tmp_path / 'out' / 'speed'} exists and is no run of mptune; choose another --out\n"
    )  # fmt: skip


@pytest.mark.parametrize(("seeds", "taken"), [([], "out"), (["--seeds", "2"], "out/seed-1")])
def test_an_adapted_prompts_folder_that_cannot_be_made_is_said_before_a_model_is_loaded(
    cli, tmp_path, monkeypatch, seeds, taken
):
    place = tmp_path / taken
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine")
    monkeypatch.setattr("mptune.load_backbone", lambda *_: pytest.fail("a model was loaded"))
    task = task_yaml(tmp_path, "mood")
    code, _, err = cli("adapt", "--task", task, "--out", tmp_path / "out", *seeds)
    assert (code, err) == (2, f"mptune: {place} exists and is no run of mptune; choose another --out\n")
