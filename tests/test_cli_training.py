"""What is asked of a training beside its rows: how long, how fast, in which numbers."""

import json
import re
import shutil

import pytest

import mptune
import mptune.model.loading
from mptune.prompts.stored import CONFIG_FILE


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def small(made):
    return ["--backbone", made / "model", "--set", "teach.prompt_length=2"]


def settings(folder):
    return json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))


def needed(made):
    """What makes each stage run."""
    return {
        "teach": ["--tasks", made / "mood.yaml", "--data", made / "rows", *small(made)],
        "distill": ["--teachers", made / "teachers", "--data", made / "rows"],
        "adapt": ["--from", made / "multitask", "--task", made / "colour.yaml", "--data", made / "rows"],
    }


@pytest.mark.parametrize(
    ("command", "field"), [("teach", "teach.lr"), ("distill", "distill.shared_lr"), ("adapt", "adapt.shared_lr")]
)
def test_steps_and_rate_have_options_of_their_own(cli, made, tmp_path, command, field):
    out = tmp_path / "out"
    of = needed(made)[command]
    code, _, err = cli(command, *of, "--out", out, "--steps", "2", "--lr", "0.125")
    assert code == 0, err
    stage = settings(out / "mood" if command == "teach" else out)["identity"][field.partition(".")[0]]
    assert (stage["steps"], stage[field.partition(".")[2]]) == (2, 0.125)
    code, _, err = cli(command, *of, "--out", tmp_path / "x", "--lr", "0.125", "--set", f"{field}=0.2")
    assert code == 2
    assert f"{field} is given by --set and by an option of its own; give it once" in err
    for option, said in (
        ("--lr=0", "'--lr': wants a number above 0; got 0"),
        ("--lr=-1", "'--lr': wants a number above 0; got -1"),
        ("--lr=nan", "'--lr': wants a finite number; got 'nan'"),
        ("--lr=0,3", "'--lr': wants a number; got '0,3' (write 0.3)"),
        ("--steps=many", "'--steps': wants a whole number; got 'many'"),
        ("--steps=-1", "'--steps': wants 0 or more; got -1"),
        ("--seed=2.5", "'--seed': wants a whole number; got '2.5'"),
    ):
        code, _, err = cli(command, *of, "--out", tmp_path / "x", option)
        assert code == 2
        assert f"Invalid value for {said}\n" in err
    code, _, err = cli(command, *of, "--out", tmp_path / "x", "--set", f"{command}.steps=many")
    assert (code, err) == (2, f"mptune: {command}: steps: wants a whole number; got 'many'\n")


def test_a_model_is_read_in_the_numbers_that_are_fastest_here_unless_the_prompt_has_others(
    cli, made, tmp_path, monkeypatch
):
    monkeypatch.setattr("mptune.model.loading.multiplies_bfloat16", lambda device: True)
    teach = ["teach", "--tasks", made / "mood.yaml", "--data", made / "rows", *small(made)]
    seen = []
    read = mptune.model.loading.load_backbone

    def noting(config=None, **more):
        backbone = read(config, **more)
        seen.append(str(backbone.dtype))
        return backbone

    monkeypatch.setattr(mptune, "load_backbone", noting, raising=False)
    assert cli(*teach, "--steps", "1", "--out", tmp_path / "auto")[0] == 0
    assert cli(*teach, "--steps", "1", "--out", tmp_path / "wide", "--set", "backbone.dtype=float32")[0] == 0
    for prompt in ("auto/mood", "wide/mood"):
        assert cli("evaluate", "--prompt", tmp_path / prompt)[0] == 0
    assert seen == ["torch.bfloat16", "torch.float32", "torch.bfloat16", "torch.float32"]
    assert settings(tmp_path / "auto" / "mood")["backbone"]["dtype"] == "bfloat16"
    assert cli("evaluate", "--prompt", tmp_path / "wide/mood", "--set", "backbone.dtype=auto")[0] == 0
    assert seen[-1] == "torch.bfloat16"


def test_teachers_are_one_bar_that_counts_the_steps_of_all(cli, made, tmp_path, terminal):
    tasks = f"{made / 'mood.yaml'},{made / 'colour.yaml'}"
    more = ["--data", made / "rows", *small(made)]
    code, _, err = cli("teach", "--tasks", tasks, *more, "--out", tmp_path / "t", "--steps", "3")
    assert code == 0, err
    assert "(2 of 2)" in plain(err)
    assert "6/6" in plain(err)
    # one of the two is there already: what is left is one training
    shutil.rmtree(tmp_path / "t" / "colour")
    code, _, err = cli("teach", "--tasks", tasks, *more, "--out", tmp_path / "t", "--steps", "3")
    assert "3/3" in plain(err)
    assert " of " not in plain(err)


@pytest.mark.parametrize("command", ["teach", "distill", "adapt"])
def test_a_finished_prompt_is_said_to_be_one_and_another_setting_is_refused_before_a_model_is_loaded(
    cli, made, tmp_path, command, monkeypatch
):
    out = tmp_path / "out"
    of = needed(made)[command]
    place = out / "mood" if command == "teach" else out
    told = f"{place} is finished already: nothing was trained; remove it to train again\n"
    code, first, err = cli(command, *of, "--out", out, "--steps", "1")
    assert (code, told in err) == (0, False), err
    code, again, err = cli(command, *of, "--out", out, "--steps", "1")
    assert (code, again, told in err) == (0, first, True), err
    monkeypatch.setattr(mptune, "load_backbone", lambda *_: pytest.fail("a model was loaded"), raising=False)
    more = ["--set", "distill.shots=5"] if command == "distill" else ["--shots", "5"]
    code, _, err = cli(command, *of, "--out", out, "--steps", "1", *more)
    assert code == 2
    assert f"{place} holds a finished run with {command}.shots not set, and now it is 5. Leave --shots out, " in err


def test_of_a_training_without_a_step_it_is_said_that_its_prompt_is_the_start(cli, made, tmp_path):
    of = ["--from", made / "multitask", "--task", made / "colour.yaml", "--data", made / "rows", "--alone"]
    code, out, err = cli("adapt", *of, "--out", tmp_path / "none", "--steps", "0")
    assert (code, "; no step was taken: it is the start\n" in out) == (0, True), err
    assert f"To answer rows, with the start all the same: mptune predict new.csv --prompt {tmp_path / 'none'}" in err
    code, out, err = cli("adapt", *of, "--out", tmp_path / "one", "--steps", "1", "--shots", "4")
    assert (code, "no step" in out) == (0, False), err
    assert f"To answer rows: mptune predict new.csv --prompt {tmp_path / 'one'}" in err
