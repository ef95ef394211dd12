"""Slips and malice at every door: no traceback, and no exit code but the documented."""

import json
import re
import shutil
import time
from pathlib import Path

import click
import pytest
import typer.main
from safetensors.torch import save_file

import mptune
import mptune.cli
from mptune.config import STAGES
from mptune.stages.run import try_out
from mptune.terminal import INTERRUPTED
from support.models import make_backbone, saved
from support.prompts import random_prompt
from support.toys import make_task, task_yaml, write_rows

COMMANDS = typer.main.get_command(mptune.cli.app).commands
DOCUMENTED = {0, 1, 2, 3, 4}
EVIL = "\x1b]0;owned\x07"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a tiny model, a task, a prompt, an adapter, rows and results."""
    folder = tmp_path_factory.mktemp("hostile")
    backbone = make_backbone("t5")
    saved(backbone, folder / "model")
    local = mptune.load_backbone(folder / "model")
    task_yaml(folder, "mood")
    prompt = random_prompt(local, [make_task(folder, "mood")])
    prompt.save_pretrained(folder / "prompt")
    prompt.save_pretrained(folder / "teachers" / "mood")
    for name in ("prompt", "teachers/mood"):
        config = {"backbone": {"name": str(folder / "model")}}
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "adapter").mkdir()
    adapter = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "num_transformer_submodules": 1}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    save_file({"prompt_embeddings": prompt.collapse()[0]}, folder / "adapter" / "adapter_model.safetensors")
    write_rows(folder / "rows.jsonl", [{"text": "good"}])
    (folder / "file").write_text("mine")
    (folder / "empty").mkdir()
    (folder / "results").mkdir()
    (folder / "results" / "results.jsonl").write_text(
        '{"method": "mpt", "task": "mood", "shots": 4, "seed": 0, "scores": [{"metric": "accuracy", "value": 1e308}]}\n'
    )
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\0")
    (folder / "deep.yaml").write_text("name: " + "[" * 3000)
    (folder / "loop").symlink_to(folder / "loop")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of it, that one is in."""
    shutil.copytree(made, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


# What makes each command run, by parameter; an option in the walk takes its place.
NEEDED = {
    "teach": {"tasks": "mood.yaml", "out": "new", "backbone": "model", "settings": "teach.steps=0"},
    "distill": {"teachers": "teachers", "out": "new", "settings": "distill.steps=0"},
    "adapt": {"source": "prompt", "task": "mood.yaml", "out": "new", "settings": "adapt.steps=0"},
    "evaluate": {"prompt": "prompt", "task": "mood.yaml"},
    "calibrate": {"prompt": "prompt", "task": "mood.yaml", "split": "test"},
    "init": {"data": "rows.jsonl", "out": "new.yaml", "backbone": "model"},
    "predict": {"prompt": "prompt", "rows": "rows.jsonl"},
    "bench": {"recipe": "mood.yaml"},
    "report": {"run_dir": "results"},
    "serve": {"prompts": "none"},
    "keys": {"file": "keys.json"},
    "show": {"prompt": "prompt"},
    "export": {"prompt": "prompt", "to": "peft", "out": "new"},
    "import": {"folder": "adapter", "out": "new", "backbone": "model"},
    "schema": {"what": "task"},
}
TEXTS = [
    "", ".", "/", "none", "file", "file/x", "empty", "loop", "x" * 300, EVIL, "bytes.yaml", "deep.yaml", "results",
    "model", "/dev/null", ",", "\udcff", "-1",
]  # fmt: skip
SETTINGS = [
    "teach.prompt_length=10000000000000", "distill.rank=1000000000", "distill.teacher_cache=1e300", "teach.lr=nan",
    "teach.batch_size=99999999999", "evaluate.num_beams=99999999", "x", ".=", "a.b=c", "backbone.device=meta",
    "backbone.dtype=int3", "backbone.name=", "adapt.steps=-1", EVIL,
]  # fmt: skip


def arguments_of(command, changed, value):
    """A command line with one parameter changed; paths and names are those of the folder one is in."""
    line = []
    for parameter in COMMANDS[command].params:
        given = value if parameter.name == changed else NEEDED.get(command, {}).get(parameter.name)
        if given is None:
            continue
        if isinstance(parameter, click.Argument):
            line.append(given)
        elif getattr(parameter, "is_flag", False):
            line.append(parameter.opts[0])
        else:
            line += [max(parameter.opts, key=len), given]
    return [command, *line]


def walk():
    """Every parameter of every command."""
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.name != "help" and not getattr(parameter, "is_flag", False):
                yield name, parameter.name


@pytest.mark.parametrize("every", [pytest.param(9, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.sweep)])
@pytest.mark.parametrize(("command", "parameter"), list(walk()))
def test_no_value_of_an_option_ends_in_a_traceback(cli, place, command, parameter, every):
    for value in (SETTINGS if parameter == "settings" else TEXTS)[::every]:
        if (command, parameter, value) == ("teach", "out", "/"):  # a good place, and not the tests' to write to
            continue
        started = time.monotonic()
        code, out, err = cli(*arguments_of(command, parameter, value), stdin="")
        assert code in DOCUMENTED, (value, err)
        assert not re.search(r"Traceback|\x1b\]", out + err), (value, err)
        assert code == 0 or err, value
        assert time.monotonic() - started < 10, value
        shutil.rmtree("new", ignore_errors=True)


def test_what_a_command_needs_is_known_to_the_walk():
    for name, command in COMMANDS.items():
        required = {parameter.name for parameter in command.params if parameter.required}
        assert required <= set(NEEDED.get(name, {})), name


def test_exit_codes_are_documented_where_help_is():
    text = mptune.cli.app.info.epilog
    for code in DOCUMENTED | {INTERRUPTED}:
        assert re.search(rf"\b{code} ", text)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda p: mptune.teach(p.task, p.backbone, out="text/a\0b"), id="a NUL in out"),
        pytest.param(lambda p: mptune.adapt(p.prompt, [], p.backbone), id="no tasks to adapt to"),
        pytest.param(lambda p: mptune.adapt(p.prompt, [p.task, p.task], p.backbone), id="one task twice"),
        pytest.param(lambda p: mptune.distill([], [], p.backbone), id="no tasks to distil"),
        pytest.param(lambda p: mptune.distill([p.task, p.task], [p.prompt] * 2, p.backbone), id="one teacher twice"),
        pytest.param(lambda p: mptune.Predictor(p.backbone, []), id="no prompts"),
        pytest.param(lambda p: mptune.Predictor(p.backbone, [p.prompt]).predict([None]), id="no row"),
        pytest.param(lambda p: mptune.Predictor(p.backbone, [p.prompt]).predict([{}]), id="an empty row"),
        pytest.param(
            lambda p: mptune.Predictor(p.backbone, [p.prompt]).predict([{"text": "\ud83d"}]), id="half a letter"
        ),
        pytest.param(lambda p: mptune.Predictor.from_pretrained("."), id="the folder one is in"),
        pytest.param(lambda p: mptune.Predictor.from_pretrained("a\0b"), id="a NUL in a prompt's name"),
        pytest.param(lambda p: mptune.MultitaskPrompt.from_pretrained("/"), id="the root"),
        pytest.param(lambda p: mptune.load_backbone(Path("none")), id="a path of nothing"),
        pytest.param(lambda p: mptune.load_backbone("a\0b"), id="a NUL in a model's name"),
        pytest.param(lambda p: mptune.load_task("a\0b.yaml"), id="a NUL in a task's name"),
        pytest.param(lambda p: mptune.load_task("/"), id="a folder for a task"),
        pytest.param(lambda p: mptune.get_task(EVIL), id="an evil name"),
    ],
)
def test_no_value_of_a_function_ends_in_another_error_than_ours(backbone, tmp_path, monkeypatch, call):
    class Place:
        task = make_task(tmp_path, "mood")

    Place.backbone, Place.prompt = backbone, random_prompt(backbone, [Place.task])
    monkeypatch.chdir(tmp_path)
    with pytest.raises((mptune.MptuneError, OSError)) as error:
        call(Place)
    assert str(error.value)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda p: mptune.adapt("general", p.task, p.backbone), "source wants a MultitaskPrompt; got str; write M"),
        (lambda p: mptune.adapt(p.backbone, p.task, p.prompt), "source wants a MultitaskPrompt; got Ba"),
        (lambda p: mptune.adapt(p.prompt, p.task, "model"), "backbone wants a Backbone; got str; write load"),
        (lambda p: mptune.adapt(p.prompt, p.task, p.backbone, {"steps": 3}), "config wants an AdaptConfig; got dict"),
        (lambda p: mptune.adapt(p.prompt, "refund", p.backbone), "got str; write get_task.{2}refund"),
        (lambda p: mptune.adapt(p.prompt, [{"text": "a"}], p.backbone), "task wants a Task; got dict; write Task"),
        (lambda p: mptune.teach("refund", p.backbone), "task wants a Task; got str"),
        (lambda p: mptune.teach(p.task, p.backbone, mptune.AdaptConfig()), "config wants a TeachConfig; got Adapt"),
        (lambda p: mptune.distill("refund", [p.prompt], p.backbone), "task wants a Task; got str"),
        (lambda p: mptune.distill([p.task], "teachers", p.backbone), "each of a list of teachers wants a Mul"),
        (lambda p: mptune.distill([p.task], p.prompt, p.backbone), "teachers wants a list; got MultitaskPrompt"),
        (lambda p: mptune.evaluate("general", p.task, p.backbone), "prompt wants a MultitaskPrompt; got str"),
        (lambda p: mptune.evaluate(p.prompt, p.backbone), "task wants a Task; got Ba"),
        (lambda p: mptune.evaluate(p.prompt, p.task, config={}), "config wants an EvaluateConfig; got di"),
        (lambda p: mptune.Predictor(p.prompt, p.backbone), "backbone wants a Backbone; got MultitaskPrompt"),
        (lambda p: mptune.Predictor(p.backbone, "general"), "prompts wants a MultitaskPrompt; got str; write M"),
        (lambda p: mptune.Predictor(p.backbone, [p.prompt], {}), "config wants an EvaluateConfig; got di"),
    ],
)  # fmt: skip
def test_arguments_of_other_kinds_are_told_in_a_sentence(backbone, tmp_path, call, told):
    class Place:
        task = make_task(tmp_path, "mood")

    Place.backbone, Place.prompt = backbone, random_prompt(backbone, [Place.task])
    with pytest.raises(mptune.MptuneError, match=told):
        call(Place)


def test_a_text_serves_as_a_folder(toy_task, backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try_out("text")
    config = mptune.TeachConfig(prompt_length=2, steps=1)
    mptune.teach(toy_task, backbone, config, out="text", data_dir="here")
    assert (tmp_path / "text" / "prompt.safetensors").is_file()


@pytest.mark.parametrize(
    ("stage", "field", "value"),
    [
        ("teach", "prompt_length", 10**13), ("distill", "rank", 10**9), ("distill", "teacher_cache", 1e300),
        ("adapt", "batch_size", 10**12), ("evaluate", "num_beams", 10**9), ("evaluate", "max_target_tokens", 10**9),
    ],
)  # fmt: skip
def test_numbers_that_would_fill_the_memory_are_refused_by_name(stage, field, value):
    with pytest.raises(mptune.MptuneError, match=rf"{stage}: {field}: wants [0-9,]+ or less; got"):
        STAGES[stage].read({field: value}, stage)
