"""The import direction, checked between rooms and between the files of a room; and heavy libraries have one door."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from mptune.prompts.vllm import CLIENT

PACKAGE = Path(__file__).parents[1] / "src" / "mptune"
# The rooms, lowest first, and in each the floors of its files, lowest first. A file imports from lower rooms, and from
# lower floors of its own; files of one floor do not know each other.
HOUSE = [
    ("", ["errors", "config files terminal", "progress"]),
    (
        "tasks",
        [
            "cells hub",
            "dataset memory prepare tables templates",
            "task",
            "protocols rows splits",
            "doubts examples glue guess mrqa nlg others superglue",
            "data",
            "registry",
        ],
    ),
    (
        "model",
        [
            "chat cutting embedded grouping logits memory quantized shapes threads",
            "batch t5",
            "graphs padding prefixes",
            "backbone",
            "encoding",
            "scoring stepwise writing",
            "families",
            "loading",
        ],
    ),
    ("prompts", ["card vectors", "modelcard stored", "folder shipped", "prompt", "peft vllm vocabulary"]),
    (
        "answers",
        ["cider classes reader sheets", "frames metrics", "evaluation", "calibration prediction", "streaming", "parts"],
    ),
    (
        "stages",
        [
            "check difference instructions losses optimization sampling teacher_outputs",
            "pseudo_labels run",
            "experiment",
            "training",
            "packing tuning",
            "adaptation distillation teachers weights",  # meet at prompts
            "ensemble",
            "classifier",
        ],
    ),
    (
        "comparison",
        [
            "config intervals report/layout results",
            "methods provenance report/charts report/reading",
            "recipe report/means report/phrases",
            "loaded report/findings",
            "guard report/advice report/costs report/sections systems trials",
            "baselines/classic baselines/prompt_tuning baselines/references multitask plan "
            "report/choosing report/markdown similarity",
            "baselines/attempt baselines/dept baselines/in_context baselines/setfit baselines/spot baselines/weights "
            "bench report/page worth",
            "report/__init__",
        ],
    ),
    ("", ["__init__"]),
    (
        "serving",
        [
            "bodies journal labelconfig labelled lesson settings",
            "store",
            "engine learning watching",
            "keys meters wire",
            "door likeness",
            "asking connection page",
            "completions labelling",
            "app",
            "process",
        ],
    ),
    ("commands", ["doctor options", "instruction", "about comparing data scoring serving sharing training"]),
    ("", ["cli", "__main__"]),
]
RANK = {
    f"{room}/{name}".strip("/"): (floor_of_room, floor)
    for floor_of_room, (room, floors) in enumerate(HOUSE)
    for floor, names in enumerate(floors)
    for name in names.split()
}
FILES = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in sorted(PACKAGE.rglob("*.py"))}

ROOMS = ("about", "comparing", "data", "options", "serving", "sharing")  # of commands; arguments are typer's
DOORS = {
    "accelerate": {"stages/training"},
    "datasets": {"comparison/baselines/setfit", "tasks/rows"},  # what SetFit's trainer takes rows as
    "fastapi": {f"serving/{name}" for name in ("app", "asking", "completions", "door", "labelling", "page")},
    "huggingface_hub": {"prompts/folder", "prompts/stored", "tasks/hub"},
    "jinja2": {"comparison/report/page"},
    "matplotlib": {"comparison/report/charts"},
    "nltk": {"answers/metrics"},
    "onnx": {"model/embedded"},
    "openpyxl": {"tasks/tables"},
    "peft": {"comparison/baselines/weights"},
    "prometheus_client": {"serving/meters"},
    "rich": {"progress", "terminal"},
    "sacrebleu": {"answers/metrics"},
    "scipy": {"answers/calibration", "answers/metrics", "comparison/intervals"},
    "setfit": {"comparison/baselines/setfit"},
    "sklearn": {"answers/metrics", "comparison/baselines/classic", "stages/classifier"},
    "torchmetrics": {"answers/metrics"},
    "tqdm": {"progress"},
    "transformers": {
        "comparison/baselines/setfit",
        "model/backbone",
        "model/chat",
        "model/embedded",
        "model/loading",
        "model/prefixes",
        "model/quantized",
        "model/stepwise",
    },
    "typer": {"cli", "terminal", *(f"commands/{room}" for room in ROOMS)},
    "uvicorn": {"serving/connection", "serving/process"},
    "yaml": {"files"},
}
# Doors that are about to be closed, or opened.
MAY = {"yaml": {"prompts/modelcard"}, "huggingface_hub": {"prompts/modelcard"}}
# Who reads its variables.
ENVIRONMENT = {"commands/doctor", "model/embedded", "model/loading", "model/memory", "model/threads", "stages/run"}


def imported(tree):
    """Every module that is imported anywhere: in functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def file_of(dotted):
    """The file of ours that an import reads; None where it is not ours."""
    package, *parts = dotted.split(".")
    if package != "mptune":
        return None
    for end in range(len(parts), -1, -1):  # what is imported may be a name in a file
        for name in ("/".join(parts[:end]), "/".join([*parts[:end], "__init__"])):
            if name in FILES:
                return name
    raise AssertionError(f"{dotted} is no file")


@cache
def parsed(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def test_every_file_stands_on_a_floor_and_rooms_hold_nothing_but_files():
    doors = {name for name in FILES if name.endswith("/__init__") and name not in RANK}
    assert set(FILES) - doors == set(RANK)
    for name in doors:
        assert all(isinstance(each, ast.Expr) for each in parsed(name).body), f"{name} is to hold a docstring alone"


@pytest.mark.parametrize("name", RANK)
def test_imports_point_down(name):
    for module in imported(parsed(name)):
        other = file_of(module)
        if other in RANK:
            assert RANK[other] < RANK[name], f"{name} may not import {module}"


def test_an_import_is_seen_wherever_it_stands():
    source = """
import torch.nn
from mptune.model import backbone, batch
if TYPE_CHECKING:
    from mptune.cli import app
def late():
    import mptune.files
    from mptune.comparison.report import write_report
    from mptune import __version__
"""
    seen = [file_of(module) for module in imported(ast.parse(source))]
    assert sorted(filter(None, seen)) == [
        "__init__", "cli", "comparison/report/__init__", "files", "model/backbone", "model/batch",
    ]  # fmt: skip


def test_the_stages_meet_at_prompts_and_never_import_each_other():
    floors = dict(HOUSE)["stages"]
    assert set(floors[-3].split()) - {"weights"} == {"teachers", "distillation", "adaptation"}


def test_the_report_needs_neither_a_model_nor_the_stages():
    code = (
        "import sys, mptune.comparison.report; "
        "print([m for m in ('torch', 'transformers', 'mptune.stages') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_has_its_doors(library):
    users = {name for name in FILES for module in imported(parsed(name)) if module.split(".")[0] == library}
    assert DOORS[library] <= users <= DOORS[library] | MAY.get(library, set())


def test_few_files_read_environment_variables():
    names = {"environ", "environb", "getenv", "getenvb"}
    readers = {
        name
        for name in FILES
        for node in ast.walk(parsed(name))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names})
    }
    assert readers == ENVIRONMENT


def test_no_pickle_is_read_or_written():
    for name, path in FILES.items():
        text = path.read_text(encoding="utf-8").replace(CLIENT, "")  # a program of its own, of which its tests tell
        for forbidden in ("import pickle", "torch.save(", "torch.load(", "trust_remote_code=True"):
            assert forbidden not in text, f"{name}: {forbidden}"
