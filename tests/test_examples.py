"""The example at the end of every command's help does what it says, one after the other, in a folder of one's own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mptune.cli import COMMANDS
from support.spreadsheet import export

ROOT = Path(__file__).parents[1]
LEAVES = {
    "init": "tickets.yaml",
    "teach": "teachers/topics/prompt.safetensors",
    "distill": "prompts/multitask/prompt.safetensors",
    "adapt": "prompts/tickets/prompt.safetensors",
    "predict": "answers.csv",
    "report": "report.html",
    "export": "adapters/tickets/adapter_config.json",
    "import": "prompts/imported/prompt.safetensors",
}


@pytest.mark.embedded
@pytest.mark.slow
def test_the_examples_run_one_after_the_other_and_leave_what_they_name(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(tmp_path / "tickets.csv", labelled=True)
    export(tmp_path / "new.csv", labelled=False)
    for given in ("results/quickstart",):  # of a checkout
        shutil.copytree(ROOT / given, tmp_path / given)
    for name, (_, example) in COMMANDS.items():
        few = ["--steps", "1"] if name in ("teach", "distill", "adapt") else []
        example = example.replace("--port 8000", "--port 0")  # which somebody may have
        code, out, err = cli(name, *example.split(), *few)
        assert code == 0, f"mptune {name} {example}: {err}"
        assert (tmp_path / LEAVES[name]).is_file() if name in LEAVES else out.strip(), name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_it(name):
    page = subprocess.run([sys.executable, "-m", "mptune", name, "--help"], capture_output=True, text=True, check=True)
    assert " ".join(page.stdout.split()).endswith(f"Example: mptune {name} {COMMANDS[name][1]}")
