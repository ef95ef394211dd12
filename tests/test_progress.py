"""What long work shows: bars on a terminal, JSON lines elsewhere."""

import json
import re

import pytest

from mptune.progress import steps


def shown(capsys):
    """Return what stands on the captured terminal, without its control sequences."""
    out, err = capsys.readouterr()
    assert out == ""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)


def test_elsewhere_each_validation_is_a_json_line_on_standard_error(capsys):
    with steps("teach mood", 10) as progress:
        progress.show(5, loss=0.5)
    out, err = capsys.readouterr()
    line = json.loads(err)
    assert out == ""
    assert line.pop("seconds") < 1
    assert line == {"run": "teach mood", "step": 5, "of": 10, "loss": 0.5}


def test_elsewhere_a_step_without_values_says_nothing(capsys):
    with steps("teach mood", 10) as progress:
        progress.show(5)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_title_steps_values_and_time_left(terminal, capsys):
    with steps("teach mood", 10) as progress:
        progress.show(7, loss=0.51234, task="mood")
    text = shown(capsys)
    assert "teach mood" in text
    assert "━" in text
    assert "7/10" in text
    assert "loss 0.512  task mood" in text
    assert re.search(r"[\d-]:[\d-]{2}:[\d-]{2}", text)


def test_values_stay_until_newer_ones_come(terminal, capsys):
    with steps("teach mood", 10) as progress:
        progress.show(5, loss=0.5)
        progress.show(6)
    assert re.search(r"6/10.*loss 0\.5", shown(capsys))


def test_a_resumed_run_starts_where_it_stopped(terminal, capsys):
    with steps("teach mood", 10, start=4):
        pass
    assert "4/10" in shown(capsys)


def test_on_a_terminal_no_json_line_tears_the_bar(terminal, capsys):
    with steps("teach mood", 10) as progress:
        progress.show(5, loss=0.5)
    assert '"step"' not in shown(capsys)


@pytest.mark.usefixtures("terminal")
def test_processes_that_are_not_asked_draw_no_bar(capsys):
    with steps("teach mood", 10, shown=False):
        pass
    assert shown(capsys) == ""
