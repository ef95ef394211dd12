"""The size of the house, counted: what a newcomer has to open, and in how many places a thing is known."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "mptune"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
LONGEST_FUNCTION, LONGEST_MODULE, TOP_LEVEL = 60, 400, 8  # lines, lines, modules


def test_few_modules_lie_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= TOP_LEVEL


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_function_fits_on_a_screen(path):
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}


def test_what_is_known_of_a_method_stands_in_its_row_and_its_function():
    knows = [path for path in FILES if re.search(r"\blora\b", path.read_text(encoding="utf-8"), re.IGNORECASE)]
    assert {str(path.relative_to(PACKAGE)) for path in knows} <= {
        "comparison/methods.py",  # its row
        "comparison/baselines/weights.py",  # its function
        "comparison/config.py",  # its rank
    }


def test_a_top_level_name_means_one_thing():
    """Classes and constants; a private name belongs to its module."""
    homes = {}
    for path, tree in TREES.items():
        for node in tree.body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in names:
                if not name.startswith("_") and len(name) > 1 and name != "logger":  # one letter: a type variable
                    homes.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))
    assert {name: sorted(files) for name, files in homes.items() if len(files) > 1} == {}
