"""What a command takes where it could take several: which backbone, which tasks, which rows; and how it says things."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import mptune.cli
import mptune.model.loading
from mptune.errors import DataError
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.stored import CONFIG_FILE
from mptune.tasks.data import TaskRows
from mptune.tasks.registry import paper_tasks
from support.made import hub_task
from support.toys import largest_file, write_rows


def copied(prompt, to, **changes):
    """A prompt in another folder, with another stored configuration beside it; with none if nothing is named."""
    shutil.copytree(prompt, to)
    stored = json.loads((to / CONFIG_FILE).read_text())
    (to / CONFIG_FILE).unlink()
    if changes:
        (to / CONFIG_FILE).write_text(json.dumps({**stored, **changes}))
    return to


# -- which backbone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *((command, "--backbone") for command in ("evaluate", "predict", "adapt", "distill", "export")),
        *((command, "--set") for command in ("evaluate", "predict", "adapt", "distill")),
    ],
)
def test_a_backbone_named_here_goes_before_the_prompts_own(cli, made, tmp_path, command, option, monkeypatch):
    write_rows(tmp_path / "in.jsonl", [{"text": "blue"}])
    arguments = {
        "evaluate": ["--prompt", made / "colour"],
        "predict": ["--prompt", made / "colour", "--input", tmp_path / "in.jsonl"],
        "adapt": ["--from", made / "multitask", "--task", made / "colour.yaml", "--data", made / "rows", "--out", "x"],
        "distill": ["--teachers", made / "teachers", "--out", "x"],
        "export": [made / "multitask", "--to", "peft", "--out", "x"],
    }[command]
    monkeypatch.chdir(tmp_path)
    named = made / "other" if option == "--backbone" else f"backbone.name={made / 'other'}"
    code, _, err = cli(command, *arguments, option, named)
    assert code == 3
    assert "was trained for" in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["evaluate", "adapt"])
def test_the_backbone_saved_beside_a_prompt_goes_before_its_card(cli, made, tmp_path, command):
    prompt = made / ("colour" if command == "evaluate" else "multitask")
    shutil.copytree(made / "model", tmp_path / "moved")
    stored = json.loads((prompt / CONFIG_FILE).read_text())["backbone"]
    wrong = copied(prompt, tmp_path / "wrong", backbone={**stored, "name": str(tmp_path / "gone")})
    right = copied(prompt, tmp_path / "right", backbone={**stored, "name": str(tmp_path / "moved")})
    more = {
        "evaluate": ["--task", made / "colour.yaml"],
        "adapt": ["--task", made / "colour.yaml", "--out", tmp_path / "x", "--set", "adapt.steps=0"],
    }[command]
    option = {"evaluate": "--prompt", "adapt": "--from"}[command]
    code, _, err = cli(command, option, wrong, *more, "--data", made / "rows")
    assert (code, "gone" in err) == (2, True), err
    code, _, err = cli(command, option, right, *more, "--data", made / "rows")
    assert code == 0, err


@pytest.mark.parametrize("command", ["evaluate", "adapt"])
def test_without_a_saved_backbone_the_card_names_it(cli, made, tmp_path, command, monkeypatch):
    monkeypatch.chdir(made)  # a card names no path: here it is the folder `model`
    prompt = copied(made / ("colour" if command == "evaluate" else "multitask"), tmp_path / "bare")
    more = ["--prompt", prompt] if command == "evaluate" else ["--from", prompt, "--out", tmp_path / "x"]
    few = [] if command == "evaluate" else ["--set", "adapt.steps=0"]
    code, _, err = cli(command, *more, "--task", made / "colour.yaml", "--data", made / "rows", *few)
    assert code == 0, err


@pytest.mark.parametrize("command", ["predict", "distill"])
def test_a_field_of_the_backbone_is_changed_and_the_rest_stays_the_prompts_own(cli, made, tmp_path, command):
    write_rows(tmp_path / "in.jsonl", [{"text": "blue"}])
    arguments = {
        "predict": ["--prompt", made / "colour", "--input", tmp_path / "in.jsonl"],
        "distill": ["--teachers", made / "teachers", "--out", tmp_path / "x", "--set", "distill.steps=0"],
    }[command]
    code, _, err = cli(command, *arguments, "--set", "backbone.device=cpu")
    assert code == 0, err


def test_teachers_without_a_saved_backbone_are_distilled_into_that_of_their_card(cli, made, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    for name in ("mood", "speed"):
        copied(made / "teachers" / name, tmp_path / "t" / name)
    names = f"{made / 'mood.yaml'},{made / 'speed.yaml'}"
    code, _, err = cli("distill", "--teachers", tmp_path / "t", "--tasks", names, "--data", made / "rows",
                       "--out", tmp_path / "x", "--set", "distill.steps=0")  # fmt: skip
    assert code == 0, err


# -- which rows -------------------------------------------------------------------------------------------------------


def test_rows_are_read_from_where_they_were_read_before(cli, made, tmp_path):
    code, out, err = cli(
        "distill", "--teachers", made / "teachers", "--out", tmp_path / "m", "--set", "distill.steps=0"
    )
    assert code == 0, err
    code, out, err = cli("evaluate", "--prompt", made / "colour", "--json")
    assert (code, json.loads(out)["examples"]) == (0, 16), err
    # ... also where the task is named, whose file does not say so
    code, out, err = cli("evaluate", "--prompt", made / "colour", "--task", made / "colour.yaml", "--json")
    assert (code, json.loads(out)["examples"]) == (0, 16), err


@pytest.mark.parametrize("command", ["evaluate", "distill"])
def test_rows_named_here_go_before_those(cli, made, tmp_path, command):
    (tmp_path / "empty").mkdir()
    arguments = ["--prompt", made / "colour"] if command == "evaluate" else ["--teachers", made / "teachers"]
    more = [] if command == "evaluate" else ["--out", tmp_path / "x"]
    code, _, err = cli(command, *arguments, *more, "--data", tmp_path / "empty")
    assert code == 2
    assert "does not exist in empty/" in err


def test_secret_test_rows_of_a_hub_task_stop_nobody_who_asked_for_none(tmp_path):
    task = hub_task(tmp_path, "mood", "good", "awful")
    write_rows(tmp_path / "rows" / "mood.test.jsonl", [{"text": "a"}])
    (rows,) = TaskRows.checked([task], tmp_path / "rows")
    assert len(rows.data("train", "validation").train) == 16
    with pytest.raises(DataError, match=r"mood\.test\.jsonl row 1"):
        rows.data("test")


@pytest.mark.parametrize("command", ["teach", "adapt"])
def test_the_data_of_all_tasks_are_checked_before_a_model_is_loaded(cli, made, tmp_path, command):
    hub_task(tmp_path, "fine", "good", "bad")
    hub_task(tmp_path, "broken", "good", "bad")
    write_rows(tmp_path / "rows" / "broken.train.jsonl", [{"text": "a", "label": 7}])
    both = f"{tmp_path}/fine.yaml, {tmp_path}/broken.yaml"  # a space behind the comma is no part of a name
    named = ["--tasks", both] if command == "teach" else ["--task", both, "--from", made / "multitask"]
    code, _, err = cli(
        command, *named, "--data", tmp_path / "rows", "--backbone", tmp_path / "no-model", "--out", tmp_path / "out"
    )
    assert (code, "broken.train.jsonl row 1" in err) == (3, True), err
    assert not (tmp_path / "out").exists()


# -- folders of teachers ----------------------------------------------------------------------------------------------


def test_one_prompt_of_several_tasks_can_be_the_teachers(cli, made, tmp_path):
    code, _, err = cli("distill", "--teachers", made / "multitask", "--out", tmp_path / "m", "--set", "distill.steps=0")
    assert code == 0, err
    assert [t.name for t in MultitaskPrompt.from_pretrained(tmp_path / "m").tasks] == ["mood", "speed"]


def test_a_folder_of_one_teacher_is_one_teacher(cli, made, tmp_path):
    shutil.copytree(made / "teachers" / "mood", tmp_path / "one" / "mood")
    code, _, err = cli("distill", "--teachers", tmp_path / "one", "--out", tmp_path / "m")
    assert (code, "needs two source tasks or more; got 1" in err) == (2, True), err


def test_teachers_may_lie_in_folders_of_any_name(cli, made, tmp_path):
    for name in ("mood", "speed"):
        shutil.copytree(made / "teachers" / name, tmp_path / "all" / f"{name}, second try")
    code, _, err = cli("distill", "--teachers", tmp_path / "all", "--out", tmp_path / "m", "--set", "distill.steps=0")
    assert code == 0, err


def test_a_prompt_without_its_configuration_asks_for_the_task(cli, made, tmp_path):
    prompt = copied(made / "colour", tmp_path / "bare")
    code, _, err = cli("evaluate", "--prompt", prompt)
    assert code == 2
    assert f"{prompt} does not say where its data is; name the task: --task FILE.yaml, or a built-in name" in err


# -- what is shown ----------------------------------------------------------------------------------------------------


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_scores_are_a_table_with_one_decimal(cli, made):
    code, out, _ = cli("evaluate", "--prompt", made / "colour")
    head, line = out.splitlines()
    assert (code, head) == (0, "task\tsplit\tmetric\tscore\texamples")
    assert re.fullmatch(r"colour\tvalidation\taccuracy\t\d+\.\d\t16", line)


def test_what_was_not_validated_is_not_scored(cli, made, tmp_path):
    code, out, err = cli("adapt", "--from", made / "multitask", "--task", made / "colour.yaml", "--data", made / "rows",
                         "--out", tmp_path / "x", "--shots", 4, "--set", "adapt.validation_shots=0",
                         "--set", "adapt.steps=1", "--alone")  # fmt: skip
    assert (code, out) == (0, f"{tmp_path / 'x'}: the last state; nothing was validated\n"), err


def test_the_bare_backbone_is_scored_without_a_prompt(cli, made):
    code, out, err = cli("evaluate", "--task", made / "colour.yaml", "--data", made / "rows", "--backbone",
                         made / "model", "--json")  # fmt: skip
    assert (code, json.loads(out)["task"]) == (0, "colour"), err


def test_a_card_is_shown_as_lines_or_as_json(cli, made, tmp_path):
    code, out, _ = cli("show", made / "multitask")
    lines = dict(line.split("\t") for line in out.splitlines())
    assert (code, out.partition("\t")[0]) == (0, "stage")  # no line of headings
    assert (lines["stage"], lines["tasks"], lines["sources"]) == ("source", "mood, speed", "mood, speed")
    assert lines["numbers"] == f"{4 * 16 + 2 * (4 + 16):,}"
    assert lines["prompt"] == "4 soft tokens, rank 1, width 16"
    prompt = MultitaskPrompt.from_pretrained(made / "multitask")
    prompt.card = prompt.card.model_copy(update={"revision": "abc"})
    prompt.shared.data = prompt.shared.data.repeat(30, 1)
    prompt.u = type(prompt.u)([u.data.repeat(30, 1) for u in prompt.u])
    prompt.save_pretrained(tmp_path / "long")
    code, out, _ = cli("show", tmp_path / "long")
    lines = dict(line.split("\t") for line in out.splitlines())
    assert re.fullmatch(r"\./model@abc \([0-9a-f]{12}\)", lines["backbone"])
    assert lines["numbers"] == "2,192"
    code, out, _ = cli("show", made / "multitask", "--json")
    assert json.loads(out)["stage"] == "source"


def test_tasks_are_listed_with_their_labels_and_metrics(cli):
    code, out, err = cli("tasks")
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    assert code == 0
    assert lines["sst2"][0] == "negative, positive"
    assert lines["squad"][:2] == ["free text", "squad_f1"]
    assert set(paper_tasks()) < set(lines)
    assert err == "A public data set under the paper's protocol is NAME@paper, wherever a task is named.\n"
    code, out, _ = cli("tasks", "--json")
    assert {json.loads(line)["name"] for line in out.splitlines()} == set(lines) - {"task"}


def test_a_task_is_shown_under_the_papers_protocol_and_a_wrong_one_names_those_that_exist(cli):
    code, out, _ = cli("tasks", "mnli@paper")
    lines = dict(line.split("\t") for line in out.splitlines())
    assert (code, lines["name"], lines["protocol"], lines["scoring"]) == (0, "mnli", "paper", "generation")
    assert lines["template"] == "premise: {premise} hypothesis: {hypothesis}"
    code, _, err = cli("tasks", "mnli@papers")
    assert code == 2
    assert err == (
        "mptune: no protocol is called 'papers'. Did you mean 'paper'? Write mnli@recommended or mnli@paper.\n"
    )


def test_one_task_is_shown_field_by_field(cli, made, tmp_path):
    text = (made / "colour.yaml").read_text().replace("no, 1: yes", "non, 1: où")
    (tmp_path / "t.yaml").write_text(text)
    code, out, _ = cli("tasks", tmp_path / "t.yaml")
    lines = dict(line.split("\t") for line in out.splitlines())
    assert code == 0
    assert lines["name"] == "colour"
    assert json.loads(lines["verbalizer"]) == {"0": "non", "1": "où"}
    assert "où" in lines["verbalizer"]
    assert json.loads(lines["metrics"]) == ["accuracy"]


def test_a_terminal_shows_a_table_and_no_markup_of_cells(cli, made, tmp_path, terminal):
    text = (made / "colour.yaml").read_text()
    (tmp_path / "t.yaml").write_text(text + 'description: "[bold]not markup[/bold]"\n')
    code, out, _ = cli("tasks", tmp_path / "t.yaml")
    assert code == 0
    assert "\t" not in out
    assert "[bold]not markup[/bold]" in plain(out)
    code, out, _ = cli("show", made / "multitask")
    assert plain(out).split("\n")[1].split()[:1] == ["stage"]  # no line of headings


def test_a_narrow_terminal_hides_nothing(cli, made, terminal, monkeypatch):
    wide = plain(cli("show", made / "multitask")[1])
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = cli("show", made / "multitask")
    assert max(map(len, plain(out).splitlines())) <= 40
    assert "…" not in out
    # Broken or not, the same letters stand there.
    assert sorted(plain(out).replace("\n", "").replace(" ", "")) == sorted(wide.replace("\n", "").replace(" ", ""))


def test_a_terminal_is_told_that_a_model_loads(cli, made, terminal):
    _, _, err = cli("evaluate", "--prompt", made / "colour")
    assert "loading the backbone" in plain(err)


def test_the_schema_is_a_recipes_unless_another_is_asked_for(cli):
    assert json.loads(cli("schema")[1])["title"] == "Recipe"
    assert json.loads(cli("schema", "task")[1])["title"] == "Task"


def test_the_version_is_said_alone(cli):
    assert cli("--version") == (0, f"mptune {mptune.__version__}\n", "")


# -- adapters ---------------------------------------------------------------------------------------------------------


def test_one_task_of_several_is_exported_by_name(cli, made, tmp_path):
    code, _, err = cli("export", made / "multitask", "--to", "prompt-tuning", "--out", tmp_path / "a")
    assert (code, "mood, speed" in err) == (2, True), err
    code, out, err = cli("export", made / "multitask", "--to", "prompt-tuning", "--task", "speed", "--out",
                         tmp_path / "a")  # fmt: skip
    assert code == 0, err
    assert out == f"{tmp_path / 'a'}: an adapter for peft's PeftModel.from_pretrained\n"


def test_a_prompt_goes_to_other_programs_too_and_to_peft_where_none_is_named(cli, made, tmp_path):
    one = ("export", made / "multitask", "--task", "speed", "--out")
    code, out, err = cli(*one, tmp_path / "tokens", "--to", "vocabulary")
    assert (code, "what to write before a text" in out) == (0, True), err
    assert "<mptune-speed-0>" in (tmp_path / "tokens" / "tokenizer.json").read_text(encoding="utf-8")
    code, out, err = cli(*one, tmp_path / "served", "--to", "vllm")
    assert (code, "vLLM takes prompt embeddings of decoder-only models" in err) == (2, True)
    assert not (tmp_path / "served").exists()
    code, out, err = cli("export", made / "multitask", "--out", tmp_path / "adapter")
    assert code == 0, err
    assert "MULTITASK" in (tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8")
    code, _, err = cli(*one, tmp_path / "tokens", "--to", "vocabulary")
    assert (code, "exists already; remove it or choose another name" in err) == (2, True)


def test_an_adapter_is_imported_with_its_tasks_and_never_over_something(cli, made, tmp_path):
    cli("export", made / "multitask", "--to", "peft", "--out", tmp_path / "peft")
    names = f"{made / 'colour.yaml'},{made / 'speed.yaml'}"
    command = ("import", tmp_path / "peft", "--tasks", names, "--out", tmp_path / "in")
    code, out, err = cli(*command, "--backbone", made / "model")
    assert (code, out) == (0, f"{tmp_path / 'in'}: colour, speed\n"), err
    before = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    code, _, err = cli(*command, "--backbone", tmp_path / "none")  # said before a model is loaded
    assert (code, "exists already; remove it or choose another name" in err) == (2, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before


# -- recipes and trackers ---------------------------------------------------------------------------------------------

RECIPE = """
name: toy
out: nowhere
backbone: {{name: {folder}/model}}
data: {folder}/rows
sources: [{folder}/mood.yaml, {folder}/speed.yaml]
targets: [{folder}/colour.yaml]
methods: [zero-shot]
"""


def test_a_recipe_runs_into_another_folder_with_other_fields(cli, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(folder=made))
    code, out, err = cli("bench", "r.yaml", "--out", "there", "--set", "evaluate.rows=5")
    assert code == 0, err
    assert not (tmp_path / "nowhere").exists()
    assert out == (tmp_path / "there" / "results.md").read_text() + "\n"
    assert "| *test rows* | 5 |  |" in out
    assert err.splitlines()[-1] == "Written to there/results.md"


def test_a_plan_and_a_run_refuse_the_same_folder(cli, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(folder=made))
    assert cli("bench", "r.yaml", "--out", "there")[0] == 0
    for more in ((), ("--plan",)):
        code, _, err = cli("bench", "r.yaml", "--out", "there", "--set", "evaluate.rows=5", *more)
        assert code == 2
        assert "there holds results with evaluate.rows not set, and now it is 5. Say --set evaluate.rows=none, " in err


@pytest.mark.parametrize("only", ["", " , "])
def test_an_option_of_names_wants_one(cli, made, tmp_path, only):
    (tmp_path / "r.yaml").write_text(RECIPE.format(folder=made))
    code, _, err = cli("bench", tmp_path / "r.yaml", "--out", tmp_path / "o", "--only", only)
    assert (code, err) == (2, f"mptune: --only wants one name or more, with commas between; got {only!r}\n")
    assert not (tmp_path / "o").exists()


def test_what_the_file_system_refuses_is_a_line_and_no_traceback(cli, made, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.format(folder=made))
    (tmp_path / "file").write_text("mine")
    for place, reason in (("file", "File exists"), ("file/x", "Not a directory"), ("x" * 300, "File name too long")):
        code, _, err = cli("bench", tmp_path / "r.yaml", "--out", tmp_path / place)
        assert code == 2
        assert err.startswith(f"mptune: {tmp_path / place}")
        assert err.endswith(f": {reason}. Mend that, or name another place; what is finished stays.\n")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_a_line_and_loses_nothing(cli, made, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.format(folder=made).replace("[zero-shot]", "[zero-shot, constant]"))
    command = ("bench", tmp_path / "r.yaml", "--out", tmp_path / "out")
    assert cli(*command, "--only", "zero-shot")[0] == 0
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    with largest_file(1000):
        code, _, err = cli(*command)
    assert (code, err.splitlines()[-1]) == (
        1, "mptune: File too large. Mend that, or name another place; what is finished stays."
    )  # fmt: skip
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before
    assert not list((tmp_path / "out").glob(".*.part"))
    assert cli(*command)[0] == 0
    assert (tmp_path / "out" / "results.jsonl").read_bytes().startswith(before)


@pytest.mark.parametrize("command", ["teach", "distill", "adapt"])
def test_trackers_are_named_on_the_command_line(cli, made, tmp_path, command):
    arguments = {
        "teach": ["--tasks", made / "mood.yaml", "--data", made / "rows", "--backbone", made / "model"],
        "distill": ["--teachers", made / "teachers"],
        "adapt": ["--from", made / "multitask", "--task", made / "colour.yaml", "--data", made / "rows"],
    }[command]
    code, _, err = cli(
        command, *arguments, "--set", f"{command}.steps=1", "--out", tmp_path / "out", "--report-to", "tensorboard"
    )
    assert code == 0, err
    assert list((tmp_path / "out").rglob("events.out.tfevents.*"))


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, 2, "rows.jsonl cannot be read: No such file or directory"),
        (b"\xff\xfe\x00", 3, "rows.jsonl cannot be read: 'utf-8' codec can't decode"),
        (
            b'{"text": "a"}\n[1]\n',
            3,
            "the rows of rows.jsonl cannot be answered: rows.jsonl row 2: wants {field: value}; got [1]",
        ),
    ],
)
def test_rows_that_cannot_be_read(cli, made, tmp_path, content, code, says):
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    found, out, err = cli("predict", "--prompt", made / "colour", "--input", tmp_path / "rows.jsonl")
    assert (found, out) == (code, "")
    assert says in err
    assert "Traceback" not in err


def test_a_separator_of_lines_within_a_text_is_text(cli, made):
    code, out, err = cli("predict", "--prompt", made / "colour", stdin='{"text": "blue\u2028sky"}\n')
    assert (code, len(out.splitlines())) == (0, 1), err


def test_a_missing_option_shows_how_the_command_is_used(cli):
    code, _, err = cli("teach")
    assert code == 2
    assert "Usage: mptune teach" in err
    assert "Missing option '--tasks'" in err


ALONE = "takes no file or name by itself; got"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("adapt tickets.yaml --out p", f"adapt {ALONE} tickets.yaml, did you mean --task tickets.yaml?"),
        ("adapt --task a.yaml b.yaml --out p", f"adapt {ALONE} b.yaml, did you mean --task a.yaml,b.yaml?"),
        ("adapt prompts --out p", f"adapt {ALONE} prompts, did you mean --from prompts?"),
        ("teach opinions --out p", f"teach {ALONE} opinions, did you mean --tasks opinions?"),
        ("distill prompts --out p", f"distill {ALONE} prompts, did you mean --teachers prompts?"),
        ("evaluate prompts/x", f"evaluate {ALONE} prompts/x, did you mean --prompt prompts/x?"),
        ("evaluate t.yaml", f"evaluate {ALONE} t.yaml, did you mean --task t.yaml?"),
        ("evaluate --prompt x y", f"evaluate {ALONE} y"),
        ("predict r.csv prompts/x", "predict takes one ROWS; got prompts/x too, did you mean --prompt prompts/x?"),
        ("bench a.yaml b.yaml", "bench takes one RECIPE; got b.yaml too"),
        ("doctor x", f"doctor {ALONE} x"),
    ],
)
def test_what_stands_by_itself_is_told_with_the_option_that_was_meant(cli, tmp_path, monkeypatch, line, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    code, _, err = cli(*line.split())
    assert (code, err) == (2, f"mptune: {told}\n")


def test_help_is_shown_whatever_stands_beside_it(cli):
    code, out, _ = cli("adapt", "tickets.yaml", "--help")
    assert (code, "Usage: mptune adapt" in out) == (0, True)


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_command_in_silence():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "mptune", "schema"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
