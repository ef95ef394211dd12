"""The import direction, checked: modules import from layers above their own, and heavy libraries have one door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = [
    "errors",
    "shapes config sampling statistics cider progress speed files",
    "results",
    "prompts losses embedded t5",
    "tasks",
    "splits",
    "metrics data modelcard",
    "backbone",
    "batching artifacts doctor",
    "readers",
    "runs optimization evaluation interop teacher_outputs",
    "prediction training",
    "stages tables baselines provenance",
    "recipes reports",
    "systems resuming",
    "bench",
    "plan",
    "cli",
    "__main__",
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer.split()}
PACKAGE = Path(__file__).parents[1] / "src" / "mptune"
MODULES = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]
DOORS = {
    "datasets": {"data.py"},
    "onnx": {"embedded.py"},
    "peft": {"baselines/weights.py"},
    "accelerate": {"training.py"},
    "sklearn": {"metrics.py"},
    "torchmetrics": {"metrics.py"},
    "sacrebleu": {"metrics.py"},
    "nltk": {"metrics.py"},
    "scipy": {"statistics.py"},
    "matplotlib": {"reports/charts.py"},
    "jinja2": {"reports/pages.py"},
    "typer": {"cli.py"},
    "yaml": {"tasks/yaml.py", "modelcard.py"},
    "huggingface_hub": {"artifacts.py"},
    "transformers": {"backbone.py", "embedded.py"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def unit(dotted):
    return dotted.split(".")[1] if "." in dotted else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} stands in no layer"
    for module in imported(path):
        if module.startswith("mptune.") and unit(module) != own:
            assert RANK[unit(module)] < RANK[own], f"{own} may not import {module}"


def test_stages_never_import_each_other():
    stages = {p.stem for p in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    assert stages == {"teachers", "distillation", "adaptation"}
    for path in (PACKAGE / "stages").glob("*.py"):
        assert not [m for m in imported(path) if m.startswith("mptune.stages.")], path.name


def test_the_report_needs_neither_a_model_nor_the_stages():
    code = (
        "import sys, mptune.reports; print([m for m in ('torch', 'transformers', 'mptune.stages') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_has_one_door(library):
    users = {str(p.relative_to(PACKAGE)) for p in MODULES for m in imported(p) if m.split(".")[0] == library}
    assert users <= DOORS[library], f"{library} may be imported by {DOORS[library]} only"


def test_no_pickle_is_read_or_written():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        for forbidden in ("import pickle", "torch.save(", "torch.load(", "trust_remote_code=True"):
            assert forbidden not in text, f"{path.name}: {forbidden}"
