"""What messages advise can be done: every command, option and setting that one names is there."""

import ast
import re
from pathlib import Path

import pytest
import typer.main

from mptune.cli import app
from mptune.comparison.methods import sections

PACKAGE = Path(__file__).parents[1] / "src" / "mptune"
COMMANDS = typer.main.get_command(app).commands
OPTIONS = {name: {opt for p in command.params for opt in p.opts} | {"--help"} for name, command in COMMANDS.items()}


def said(path: Path) -> list[str]:
    """The texts of a module but for its docstrings; what a text is filled with stands as ``…``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    silent |= {id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            texts.append(node.value)
    return texts


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_command_option_and_setting_that_a_message_names_is_there(path):
    for text in said(path):
        for command, line in re.findall(r"`mptune ([a-z]+)([^`]*)`", text):
            assert command in COMMANDS, text
            assert set(re.findall(r"--[a-z][a-z-]*", line)) <= OPTIONS[command], text
        for option in re.findall(r"[\s`](--[a-z][a-z-]*)", re.sub("pip install.*|vllm serve.*|var\\(.*", "", text)):
            assert any(option in options for options in OPTIONS.values()), text
        for section, field in re.findall(r"--set ([a-z_]+)\.([a-z_]+)", text):
            assert field in sections()[section].model_fields, text


def test_what_a_message_names_is_found(tmp_path):
    (tmp_path / "a.py").write_text('"""`mptune no`"""\nx = f"try `mptune show --json {y}` or " "--data DIR"\n')
    assert said(tmp_path / "a.py") == ["try `mptune show --json …` or --data DIR"]
