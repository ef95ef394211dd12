"""The command line on real files and a real tiny model: what it prints, where, and with which exit code."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_type_hints

import pytest
from typer.models import OptionInfo

import mptune.cli
from mptune.answers.prediction import Prediction, Predictor
from mptune.commands.doctor import Check
from mptune.config import AdaptConfig, DistillConfig, TeachConfig
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vllm import CLIENT
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.tasks.registry import get_task
from mptune.terminal import at_home
from support.models import make_backbone
from support.toys import task_yaml, toy_rows, write_rows

PACKAGE = Path(mptune.cli.__file__).parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a tiny T5 and three tasks."""
    folder = tmp_path_factory.mktemp("tiny")
    backbone = make_backbone("t5")
    backbone.model.save_pretrained(folder / "model")
    backbone.tokenizer.save_pretrained(folder / "model")
    for name, good, bad in (("mood", "good", "awful"), ("speed", "fast", "slow"), ("colour", "blue", "red")):
        task_yaml(folder, name, good, bad)
    return folder


@pytest.fixture(scope="module")
def adapted(tiny):
    """A folder with a multitask prompt and what it became on a target."""
    backbone, folder = load_backbone(str(tiny / "model")), tiny / "adapted"
    sources = [get_task(str(tiny / f"{name}.yaml")) for name in ("mood", "speed")]
    teachers = [teach(task, backbone, TeachConfig(steps=1, prompt_length=4)) for task in sources]
    source = distill(sources, teachers, backbone, DistillConfig(steps=1), out=folder / "multitask")
    target = get_task(str(tiny / "colour.yaml"))
    adapt(source, target, backbone, AdaptConfig(steps=1), out=folder / "colour")
    return folder


def test_the_pipeline_by_commands(cli, tiny):
    sources = f"{tiny}/mood.yaml,{tiny}/speed.yaml"
    few = ("--set", "teach.steps=2", "--set", "teach.prompt_length=4")
    code, out, err = cli("teach", "--backbone", tiny / "model", "--tasks", sources, "--out", tiny / "teachers", *few)
    assert (code, sorted(p.name for p in (tiny / "teachers").iterdir() if p.is_dir())) == (0, ["mood", "speed"]), err
    assert "mood accuracy" in out
    code, out, err = cli(
        "distill", "--teachers", tiny / "teachers", "--out", tiny / "multitask", "--set", "distill.steps=2"
    )
    assert code == 0, err
    code, out, err = cli(
        "adapt", "--from", tiny / "multitask", "--task", tiny / "colour.yaml", "--shots", 4, "--seed", 1,
        "--out", tiny / "colour", "--set", "adapt.steps=2",
    )  # fmt: skip
    assert code == 0, err
    card = MultitaskPrompt.from_pretrained(tiny / "colour").card
    assert (card.seeds["seed"], len(card.seeds["shot_rows"]["colour"])) == (1, 8)
    assert str(tiny) not in (tiny / "colour" / "README.md").read_text()

    code, out, err = cli("evaluate", "--prompt", tiny / "colour", "--split", "test", "--json")
    assert code == 0, err
    (score,) = [json.loads(line) for line in out.splitlines()]
    assert (score["task"], score["split"], score["metric"], score["examples"]) == ("colour", "test", "accuracy", 20)

    rows = [{"text": row["text"]} for row in toy_rows("blue", "red", 3, start=300)]
    code, out, err = cli("predict", "--prompt", tiny / "colour", stdin="".join(json.dumps(r) + "\n" for r in rows))
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == 3
    for answer in answers:
        assert answer["answer"] == {"0": "no", "1": "yes"}[answer["label"]]
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert answer["probabilities"][answer["answer"]] >= 0.5
    write_rows(tiny / "rows.jsonl", rows)
    code, *_ = cli("predict", "--prompt", tiny / "colour", "--input", tiny / "rows.jsonl", "--output", tiny / "a.jsonl")
    assert code == 0
    assert (tiny / "a.jsonl").read_text() == out

    code, out, err = cli("show", tiny / "colour")
    assert code == 0
    assert "mood, speed" in out
    code, out, err = cli("export", tiny / "multitask", "--to", "peft", "--out", tiny / "peft")
    assert (code, (tiny / "peft" / "adapter_config.json").is_file()) == (0, True), err
    code, out, err = cli("import", tiny / "peft", "--out", tiny / "back", "--backbone", tiny / "model")
    assert code == 0, err
    assert [t.name for t in MultitaskPrompt.from_pretrained(tiny / "back").tasks] == ["mood", "speed"]


RECIPE = """
name: toy
out: {folder}/toy
backbone: {{name: {folder}/model}}
sources: [mood.yaml, speed.yaml]
targets: [colour.yaml]
methods: [constant, zero-shot, prompt-tuning, transfer, mpt-no-distillation, mpt]
shots: [2]
seeds: 2
teach: {{steps: 2, prompt_length: 4}}
distill: {{steps: 2}}
budget: {{steps: 2, validation_shots: 2}}
prompt_tuning: {{prompt_length: 4}}
rates: {{prompt-tuning: [0.1, 0.3]}}
variants: {{mpt-no-distillation: {{of: mpt, distill: {{distill_weight: 0}}}}}}
"""


@pytest.mark.slow
def test_a_recipe_runs_once_and_adds_what_is_new(cli, tiny):
    recipe = tiny / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=tiny))
    code, out, err = cli("bench", recipe)
    assert code == 0, err
    assert "| method | colour | **mean** |\n|---|---|---|\n| *metric* | accuracy |  |\n| *test rows* | 20 |  |\n" in out
    assert "mpt minus prompt-tuning" in out
    results = tiny / "toy" / "results.jsonl"
    before = results.read_bytes()
    assert len(before.splitlines()) == 3 + 3 * 2
    code, again, err = cli("bench", recipe)
    assert (code, results.read_bytes(), again) == (0, before, out)
    recipe.write_text(RECIPE.format(folder=tiny).replace("seeds: 2", "seeds: 3"))
    assert cli("bench", recipe)[0] == 0
    assert results.read_bytes().startswith(before)
    assert len(results.read_bytes().splitlines()) == 3 + 3 * 3
    recipe.write_text(RECIPE.format(folder=tiny).replace("distill: {steps: 2}", "distill: {steps: 3}"))
    code, out, err = cli("bench", recipe)
    assert code == 2
    assert "distill.steps = 2, and now it is 3" in err


def test_a_part_of_a_recipe_can_be_run_and_its_settings_changed(cli, tiny):
    recipe = tiny / "part.yaml"
    recipe.write_text(RECIPE.format(folder=tiny).replace("/toy", "/part"))
    code, _out, err = cli("bench", recipe, "--only", "prompt-tuning,colour", "--set", "prompt_tuning.steps=1")
    assert code == 0, err
    lines = [json.loads(line) for line in (tiny / "part" / "results.jsonl").read_text().splitlines()]
    assert [(line["method"], line["curve"][-1]["step"]) for line in lines] == [("prompt-tuning", 1)] * 2
    code, _, err = cli("bench", recipe, "--only", "prompttuning")
    assert code == 2
    assert "--only wants methods and targets of the recipe; got prompttuning" in one_or_two_lines(err)


def test_a_plan_is_a_table_and_starts_nothing(cli, tiny):
    recipe = tiny / "planned.yaml"
    recipe.write_text(RECIPE.format(folder=tiny).replace("/toy", "/planned"))
    code, out, err = cli("bench", recipe, "--plan")
    assert code == 0, err
    rows = [line.split("\t") for line in out.splitlines()[:-1]]
    assert [row[:3] for row in rows] == [
        ["what", "runs", "steps"], ["teachers", "2", "4"], ["source training", "1", "2"],
        ["source training, settings 2", "1", "2"], ["constant", "1", "0"], ["zero-shot", "1", "0"],
        ["prompt-tuning", "3", "6"], ["transfer", "1", "0"], ["mpt-no-distillation", "2", "4"], ["mpt", "2", "4"],
        ["all", "14", "22"],
    ]  # fmt: skip
    assert out.splitlines()[-1].startswith("About 0.0")
    assert "measuring: mpt" in err
    assert not (tiny / "planned").exists()


def test_a_comparison_tells_a_log_what_runs_and_what_is_left(cli, tiny):
    recipe = tiny / "told.yaml"
    recipe.write_text(RECIPE.format(folder=tiny).replace("/toy", "/told"))
    _, _, err = cli("bench", recipe, "--only", "constant,zero-shot")
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert told == [
        {"bench": "toy", "done": 0, "of": 2, "run": "loading the backbone"},
        {"bench": "toy", "done": 0, "of": 2, "run": "constant, colour"},
        {"bench": "toy", "done": 1, "of": 2, "run": "zero-shot, colour"},  # of which nothing is known yet
    ]


def one_or_two_lines(err):
    assert "Traceback" not in err
    assert err.startswith("mptune: ")
    assert len(err.splitlines()) <= 2, err
    return err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["tasks", "sst-2"], 2, "Did you mean 'sst2'", id="unknown task"),
        pytest.param(["tasks", "none.yaml"], 2, "none.yaml: cannot be read", id="no such task file"),
        pytest.param(["schema", "tsk"], 2, "Did you mean 'task'", id="unknown schema"),
        pytest.param(
            ["show", "nowhere"],
            2,
            "there is no folder nowhere. Prompts that are there, the nearest first: general",
            id="no such prompt",
        ),
        pytest.param(["evaluate"], 2, "wants --prompt, or --task", id="evaluate nothing"),
        pytest.param(["evaluate", "--task", "refund", "--split", "tst"], 2, "Did you mean 'test'", id="unknown split"),
        pytest.param(["evaluate", "--task", "refund", "--backbone", "./none"], 2, "./none", id="unknown backbone"),
        pytest.param(["teach", "--tasks", "refund", "--out", "x", "--set", "teach.stepz=1"], 2, "'steps'", id="field"),
        pytest.param(
            ["teach", "--tasks", "refund", "--out", "x", "--set", "adapt.steps=1"], 2, "no effect", id="section"
        ),
        pytest.param(["teach", "--tasks", "refund", "--out", "x", "--set", "teach"], 2, "stage.field=value", id="form"),
        pytest.param(["teach", "--tasks", "refund,refund", "--out", "x"], 2, "refund stands twice", id="twice"),
        pytest.param(["distill", "--teachers", "none", "--out", "x"], 2, "there is no folder none", id="no teachers"),
        pytest.param(["export", "p", "--to", "onx", "--out", "x"], 2, "no format is called 'onx'", id="format"),
        pytest.param(
            ["bench", "x.yaml", "--only", "mpt", "--only", "lora"],
            2,
            "--only stands 2 times, and would be read once; give it once, as --only ONE,TWO",
            id="a list twice",
        ),
        pytest.param(
            ["adapt", "--task", "refund", "--out", "x", "--shots", "4", "--out", "y"],
            2,
            "--out stands 2 times, and would be read once; give it once",
            id="an option twice",
        ),
        pytest.param(["bench", "none.yaml"], 2, "none.yaml: cannot be read", id="no recipe"),
        pytest.param(
            ["import", "none", "--out", "x", "--backbone", "./none"],
            2,
            "there is no folder none with a PEFT adapter",
            id="no adapter, said before a model is loaded",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_its_exit_code(cli, tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    found, _, err = cli(*arguments)
    assert (found, says in one_or_two_lines(err)) == (code, True), err
    assert not list(tmp_path.iterdir())


def test_wrong_data_is_exit_code_three_with_file_and_row_before_any_training(cli, tmp_path, monkeypatch):
    path = task_yaml(tmp_path, "broken")
    rows = toy_rows("good", "bad", 4)
    write_rows(tmp_path / "broken.train.jsonl", [rows[0], {**rows[1], "label": 7}, {"label": 1}, rows[3]])
    code, _, err = cli("teach", "--tasks", path, "--out", tmp_path / "out")
    assert code == 3
    assert "broken.train.jsonl row 2: the label 7 is not in the verbalizer (0, 1)" in err
    assert "broken.train.jsonl row 3: no text" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_files_of_rows_that_are_not_there_are_exit_code_two_and_beside_wrong_ones_three(cli, tmp_path):
    path = task_yaml(tmp_path, "broken")
    (tmp_path / "broken.train.jsonl").unlink()
    code, _, err = cli("teach", "--tasks", path, "--out", tmp_path / "out")
    assert code == 2
    assert "broken.train.jsonl (train) does not exist" in err
    write_rows(tmp_path / "broken.train.jsonl", [{"label": 1}])
    assert cli("teach", "--tasks", path, "--out", tmp_path / "out")[0] == 3


def test_a_path_may_begin_at_home_where_the_shell_leaves_that_to_the_command(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("predict", "--prompt", "p", "--output=~/nowhere/answers.jsonl")
    assert (code, f"there is no folder {tmp_path / 'home' / 'nowhere'} for --output" in one_or_two_lines(err)) == (
        2,
        True,
    )
    assert at_home(Path("~/x")) == tmp_path / "home" / "x"
    assert at_home("~/x") == "~/x"  # a name, as of a task or a prompt, is no path yet
    assert not (tmp_path / "~").exists()


def test_rows_to_predict_are_checked_all_at_once_and_leave_no_half_file(cli, adapted, tmp_path):
    out = tmp_path / "answers.jsonl"
    code, _, err = cli(
        "predict", "--prompt", adapted / "colour", "--output", out, stdin='{"text": "a"}\n{"txt": "b"}\nnot\n'
    )
    assert (code, out.exists()) == (3, False)
    assert "standard input row 3 is no JSON" in err
    code, _, err = cli(
        "predict", "--prompt", adapted / "colour", "--output", out, stdin='{"text": "a"}\n{"txt": "b"}\n'
    )
    assert (code, out.exists()) == (3, False)
    assert "row 2: no field 'text'; it has txt" in err


def test_help_is_instant_and_costs_no_heavy_import():
    def seconds():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mptune", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    bare = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.perf_counter() - start)
    # Half a second on an idle machine; a busy one is measured by what Python alone needs.
    assert min(seconds() for _ in range(5)) < 0.5 + 5 * min(bare)


def test_schemas_describe_every_field(cli):
    for name in ("task", "recipe"):
        code, out, _ = cli("schema", name)
        assert code == 0
        schema = json.loads(out)
        for model in [schema, *schema.get("$defs", {}).values()]:
            for field, values in model.get("properties", {}).items():
                assert values.get("description"), f"{name}: {field}"


def test_seeds_adapt_side_by_side_each_into_its_folder(cli, tiny, adapted, tmp_path):
    code, out, err = cli(
        "adapt", "--from", adapted / "multitask", "--task", tiny / "colour.yaml", "--shots", 4, "--seeds", 3,
        "--out", tmp_path / "many", "--set", "adapt.steps=2",
    )  # fmt: skip
    assert code == 0, err
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        str(tmp_path / "many" / f"seed-{n}") for n in "012"
    ]
    cards = [MultitaskPrompt.from_pretrained(tmp_path / "many" / f"seed-{n}").card for n in range(3)]
    assert [card.seeds["seed"] for card in cards] == [0, 1, 2]
    code, out, err = cli("predict", "--prompt", tmp_path / "many", stdin='{"text": "blue"}\n')
    assert (code, out) == (2, "")
    assert f"3 prompts are there for the task 'colour': {tmp_path / 'many' / 'seed-0'}, " in err
    assert f"Name one of them, as {tmp_path / 'many' / 'seed-0'}." in err


def test_one_seed_or_many_not_both(cli, tiny, adapted, tmp_path):
    begun = ("--from", adapted / "multitask", "--task", tiny / "colour.yaml")
    code, _, err = cli("adapt", *begun, "--out", tmp_path / "x", "--seed", 1, "--seeds", 3)
    assert code == 2
    assert "adapt wants --seed N for one seed, or --seeds N for the first N seeds; got both" in err


def test_doctor_names_what_is_there(cli):
    code, out, _ = cli("doctor", "--json")
    checks = {line["name"]: line for line in map(json.loads, out.splitlines())}
    assert code == (1 if any(c["state"] == "fail" for c in checks.values()) else 0)
    assert checks["python"]["found"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize(("states", "expected"), [(("ok", "note"), 0), (("ok", "fail"), 1)])
def test_doctor_fails_where_a_check_fails(cli, monkeypatch, states, expected):
    checks = [Check(state, f"check {n}", "something", "do this") for n, state in enumerate(states)]
    monkeypatch.setattr("mptune.commands.doctor.examine", lambda: checks)
    code, out, _ = cli("doctor")
    assert code == expected
    assert out.splitlines()[1:] == [f"{c.state}\t{c.name}\tsomething\tdo this" for c in checks]


def test_blank_lines_of_the_input_are_passed_over(cli, adapted):
    code, out, err = cli("predict", "--prompt", adapted / "colour", stdin='\n{"text": "blue"}\n  \n{"text": "red"}\n\n')
    assert (code, len(out.splitlines())) == (0, 2), err


def test_answers_into_a_folder_that_is_not_there_are_wrong_usage(cli, adapted, tmp_path):
    code, out, err = cli("predict", "--prompt", adapted / "colour", "--output", tmp_path / "no" / "a.jsonl",
                         stdin='{"text": "blue"}\n')  # fmt: skip
    assert (code, out) == (2, "")
    assert f"there is no folder {tmp_path / 'no'} for --output a.jsonl; make it first" in err


def test_answers_are_written_in_their_own_letters(cli, adapted, monkeypatch):
    monkeypatch.setattr(Predictor, "predict", lambda self, rows: [Prediction("colour", "déjà vu") for _ in rows])
    code, out, _ = cli("predict", "--prompt", adapted / "colour", stdin='{"text": "a"}\n')
    assert (code, out) == (0, '{"task": "colour", "answer": "déjà vu"}\n')


@pytest.mark.slow
def test_ctrl_c_is_exit_code_130_and_the_same_command_goes_on(tiny, tmp_path):
    command = [
        sys.executable, "-m", "mptune", "teach", "--backbone", str(tiny / "model"), "--tasks", str(tiny / "mood.yaml"),
        "--out", str(tmp_path / "t"), "--set", "teach.steps=100000", "--set", "teach.prompt_length=4",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    partial = tmp_path / "t" / "mood.partial"
    for _ in range(600):
        time.sleep(0.1)
        if (partial / "metrics.jsonl").is_file() and (partial / "metrics.jsonl").stat().st_size:
            break
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "mptune: interrupted; the same command goes on where it stopped" in err
    assert "Traceback" not in err
    assert (partial / "state.safetensors").is_file()


ANEW, ON = "begins anew", "goes on where it stopped"


@pytest.mark.parametrize(
    ("arguments", "again"),
    [
        (["init", "tickets.csv"], ANEW), (["tasks", "refund"], ANEW), (["evaluate", "--task", "refund"], ANEW),
        (["show", "general"], ANEW), (["report", "results"], ANEW), (["bench", "r.yaml", "--plan"], ANEW),
        (["bench", "r.yaml"], ON), (["teach", "--tasks", "refund", "--out", "x"], ON),
        (["distill", "--teachers", "t", "--out", "x"], ON), (["adapt", "--task", "refund", "--out", "x"], ON),
        (["predict", "--prompt", "p"], f"{ON} where rows and --output are files, and else {ANEW}"), ([], ANEW),
    ],
)  # fmt: skip
def test_what_an_interrupted_command_does_when_it_is_called_again_is_said(cli, monkeypatch, arguments, again):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(mptune.cli, "app", interrupted)
    code, out, err = cli(*arguments)
    assert (code, out, err) == (130, "", f"mptune: interrupted; the same command {again}\n")


def test_every_command_says_once_and_first_what_memory_is_kept_and_how_threads_wait(cli, monkeypatch):
    told = []
    monkeypatch.setattr("mptune.model.memory.keep_pages", lambda: told.append("pages"))
    monkeypatch.setattr("mptune.model.memory.keep_few_kernels", lambda: told.append("kernels"))
    monkeypatch.setattr("mptune.model.threads.wait_briefly", lambda: told.append("waits"))
    monkeypatch.setattr("mptune.model.threads.use_granted_cores", lambda: told.append("threads"))
    monkeypatch.setattr("mptune.tasks.registry.builtin_tasks", lambda: told.append("worked") or {})
    assert cli("tasks")[0] == 0
    assert told == ["pages", "kernels", "waits", "threads", "worked"]


def test_environment_variables_are_read_where_the_command_line_says():
    claimed = dict(
        re.findall(r"`([\w.]+)`(?: reads| sets)? ([A-Z_]+(?:(?:\s+and|, and\s+reads)\s+[A-Z_]+)*)", mptune.cli.__doc__)
    )
    claimed = {module: set(re.findall(r"[A-Z_]{4,}", names)) for module, names in claimed.items()}
    read = {}
    for path in PACKAGE.rglob("*.py"):
        names = re.findall(r"os\.environ(?:\.get\(|\.setdefault\(|\[)\"(\w+)\"", path.read_text())
        if names:
            read[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = set(names)
        assert len(re.findall(r"\benviron\b|\bgetenv\b", path.read_text())) == len(names), path
    assert read == claimed


def test_all_printing_goes_through_one_module():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text().replace(CLIENT, "")  # a program of its own, that an export writes
        printing = re.findall(r"\bprint\(|typer\.echo|sys\.stdout|sys\.stderr|\bConsole\(", text)
        assert not printing or path.name == "terminal.py", path


def test_an_option_with_a_placeholder_of_its_own_letters_is_named_outright():
    # typer 0.27 makes `--PROMPT` of an option `prompt` whose placeholder is PROMPT.
    alike = {}
    for command in mptune.cli.app.registered_commands:
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            for info in getattr(hint, "__metadata__", ()):
                if isinstance(info, OptionInfo) and (info.metavar or "").lower() == name:
                    alike[command.callback.__name__, name] = info.default  # in an annotation, the first of the names
    assert alike == {("evaluate_prompt", "prompt"): "--prompt", ("predict", "prompt"): "--prompt"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "general"), 0, "soft tokens"),
        (("prompts",), 0, "general"),
        (("show", "nowhere"), 2, "there is no folder nowhere."),
        (("teach", "--tasks", "nowhere", "--out", "x"), 2, "no task is called 'nowhere'"),
        (("distill", "--teachers", "nowhere", "--out", "x"), 2, "there is no folder nowhere."),
        (("adapt", "--task", "nowhere.yaml", "--out", "x"), 2, "nowhere.yaml"),
        (("adapt", "--task", "teams", "--out", "x", "--from", "nowhere"), 2, "there is no folder nowhere."),
        (("adapt", "--task", "teams", "--out", "x", "--backbone", "./other"), 2, "no multitask prompt comes"),
        (("adapt", "--task", "teams", "--out", "x", "--steps", "-1"), 2, "--steps"),
        (("evaluate", "--prompt", "nowhere"), 2, "there is no folder nowhere."),
        (("predict", "nowhere.csv", "--prompt", "general"), 2, "nowhere.csv cannot be read"),
        (("export", "nowhere", "--to", "peft", "--out", "x"), 2, "there is no folder nowhere."),
        (("init", "nowhere.csv"), 2, "nowhere.csv cannot be read"),
    ],
)
def test_what_needs_no_model_loads_no_torch(tmp_path, arguments, code, said):
    program = (
        "import sys; sys.argv[0] = 'mptune'\n"
        "import mptune.cli\n"
        "try: mptune.cli.main()\n"
        "finally: print('loaded:', *({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert answer.returncode == code, answer.stderr
    assert said in answer.stdout + answer.stderr
    assert answer.stdout.splitlines()[-1].strip() == "loaded:"


def test_predict_says_what_it_wrote_and_that_it_waits_for_rows_at_a_terminal(cli, adapted, tmp_path, monkeypatch):
    (tmp_path / "rows.csv").write_text("text\nblue\nred\n", encoding="utf-8")
    out = tmp_path / "answers.csv"
    code, said, err = cli("predict", tmp_path / "rows.csv", "--prompt", adapted / "colour", "--output", out)
    assert (code, said) == (0, "")
    assert f"{out}: 2 answers\n" in err
    waits = "reading rows as JSON lines from the terminal; Ctrl-D ends them, and a file may be named instead"
    assert waits not in err

    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b'{"text": "blue"}\n')))
    code, said, err = cli("predict", "--prompt", adapted / "colour")
    assert code == 0
    assert waits in err
