"""docs/first_hour.ipynb: every cell runs, and what it shows is what it showed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbconvert.preprocessors import ExecutePreprocessor

FILE = Path(__file__).parents[1] / "docs" / "first_hour.ipynb"
KEPT = nbformat.read(FILE, as_version=4)
CODE = [cell for cell in KEPT.cells if cell.cell_type == "code"]


def shown(cell):
    """What a cell shows as text."""
    outputs = [o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return re.sub(r"\s+", " ", "".join(outputs)).strip()


@pytest.mark.embedded
@pytest.mark.slow
def test_every_cell_runs_and_says_what_it_said(tmp_path):
    notebook = nbformat.reads(re.sub(r"steps=\d+", "steps=2", nbformat.writes(KEPT)), as_version=4)
    # a kernel of its own, as in a browser: it draws bars, and has no terminal
    ran, _ = ExecutePreprocessor(timeout=600).preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert [shown(cell) for cell in cells[:2]] == [shown(cell) for cell in CODE[:2]]
    learnt, scored, answered, classified = map(shown, cells[2:])
    assert re.search(r"adapt teams: 100%.* 2/2 .*loss", learnt), "the bar is drawn by steps"
    assert '{"run"' not in learnt
    assert "MultitaskPrompt stage target tasks teams" in learnt
    assert re.match(r"prompt word counts 0 \d\d\.\d 70\.0", scored)
    assert re.match(r"message label answer", answered)
    assert "confidence" in answered
    assert "['payments', 'repairs', 'sales', 'warehouse']" in classified


def test_what_is_kept_was_learnt_and_names_no_machine():
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1)), "run from the top, `make notebook`"
    assert all(o.output_type != "stream" or o.name == "stdout" for cell in CODE for o in cell.outputs)
    assert not re.search(r"/(home|root|work|tmp|usr)/|site-packages|Traceback", nbformat.writes(KEPT))
    learnt, scored = shown(CODE[2]), shown(CODE[3])
    assert "60/60" in learnt
    assert "1/60" not in learnt, "the bar is kept once"
    prompt, counts = map(float, re.findall(r"\d\d\.\d", scored))
    assert prompt > counts, "the text says what to try first; where that wins, it is to say so"
