"""What long work shows: bars on a terminal, JSON lines elsewhere."""

import json
import logging
import os
import re
import sys
from pathlib import Path

import pytest

from mptune.errors import MptuneError
from mptune.terminal import ShownHandler, Standing, board, ended, saved, say, step_progress, table


def shown(capsys):
    """Return what stands on the captured terminal, without its control sequences."""
    out, err = capsys.readouterr()
    assert out == ""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)


def test_elsewhere_each_validation_is_a_json_line_on_standard_error(capsys):
    with step_progress("teach mood", 10) as progress:
        progress.show(5, loss=0.5)
    out, err = capsys.readouterr()
    line = json.loads(err)
    assert out == ""
    assert line.pop("seconds") < 1
    assert line == {"run": "teach mood", "step": 5, "of": 10, "loss": 0.5}


def test_elsewhere_a_step_without_values_says_nothing(capsys):
    with step_progress("teach mood", 10) as progress:
        progress.show(5)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_title_steps_values_and_time_left(terminal, capsys):
    with step_progress("teach mood", 10) as progress:
        progress.show(7, loss=0.51234, task="mood")
    text = shown(capsys)
    assert "teach mood" in text
    assert "━" in text
    assert "7/10" in text
    assert "loss 0.512  task mood" in text
    assert re.search(r"[\d-]:[\d-]{2}:[\d-]{2}", text)


def test_values_stay_until_newer_ones_come(terminal, capsys):
    with step_progress("teach mood", 10) as progress:
        progress.show(5, loss=0.5)
        progress.show(6)
    assert re.search(r"6/10.*loss 0\.5", shown(capsys))


def test_a_resumed_run_starts_where_it_stopped(terminal, capsys):
    with step_progress("teach mood", 10, start=4):
        pass
    assert "4/10" in shown(capsys)


def test_on_a_terminal_no_json_line_tears_the_bar(terminal, capsys):
    with step_progress("teach mood", 10) as progress:
        progress.show(5, loss=0.5)
    assert '"step"' not in shown(capsys)


@pytest.mark.usefixtures("terminal")
def test_processes_that_are_not_asked_draw_no_bar(capsys):
    with step_progress("teach mood", 10, shown=False):
        pass
    assert shown(capsys) == ""


# -- a board over many runs -------------------------------------------------------------------------------------------

HALF = Standing(3, 6, "mpt, mood, 16 shots, seed 1", 754.0, (("method", "mood"), ("constant", "50.0")))


def test_elsewhere_a_board_says_in_a_json_line_what_begins(capsys):
    with board("toy") as watch:
        watch.show(Standing(0, 6, "constant, mood", None))
        watch.show(HALF)
        watch.show(Standing(6, 6, "", 0.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line) for line in err.splitlines()] == [
        {"bench": "toy", "done": 0, "of": 6, "run": "constant, mood"},
        {"bench": "toy", "done": 3, "of": 6, "seconds_left": 754, "run": "mpt, mood, 16 shots, seed 1"},
    ]


def test_a_terminal_shows_one_bar_the_time_left_and_the_table_so_far(terminal, capsys):
    with board("toy") as watch:
        watch.show(HALF)
    text = shown(capsys)
    for part in ("toy", "3/6", "about 13 min left", "method", "mood", "constant", "50.0", "16 shots, seed 1"):
        assert part in text
    assert "{" not in text


def test_before_the_first_result_there_is_a_bar_alone(terminal, capsys):
    with board("toy") as watch:
        watch.show(Standing(0, 6, "constant, mood", None))
    text = shown(capsys)
    assert "0/6" in text
    assert "left" not in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3_540, "59 min"), (3_600, "1 h 0 min"), (9_000, "2 h 30 min")],
)
def test_the_time_left_is_as_exact_as_it_is_known(terminal, capsys, seconds, said):
    with board("toy") as watch:
        watch.show(Standing(1, 2, "x", seconds))
    assert f"about {said} left" in shown(capsys)


def test_what_looks_like_markup_is_shown_as_it_is(terminal, capsys):
    with board("toy") as watch:
        watch.show(Standing(1, 2, "[bold]x", 1.0, (("method", "[red]task"), ("[b]pt", "1"))))
    text = shown(capsys)
    assert all(part in text for part in ("[bold]x", "[red]task", "[b]pt"))


def test_a_training_within_a_board_is_a_line_of_it(terminal, capsys):
    with board("toy") as watch:
        watch.show(HALF)
        with step_progress("adapt mood", 30) as progress:
            progress.show(7, loss=0.5)
    text = shown(capsys)
    assert "mpt, mood, 16 shots, seed 1  step 7/30" in text
    assert "adapt mood" not in text
    assert "7/30" not in text.replace("step 7/30", "")


def test_elsewhere_a_training_within_a_board_says_nothing_of_its_own(capsys):
    with board("toy") as watch:
        watch.show(HALF)
        with step_progress("adapt mood", 30) as progress:
            progress.show(7, loss=0.5)
    assert len(capsys.readouterr().err.splitlines()) == 1
    with step_progress("adapt mood", 30) as progress:  # the board is gone, and with it its hold on trainings
        progress.show(7, loss=0.5)
    assert json.loads(capsys.readouterr().err)["run"] == "adapt mood"


def test_a_board_that_ends_in_an_error_lets_go_of_trainings_too(capsys):
    with pytest.raises(KeyboardInterrupt), board("toy"):
        raise KeyboardInterrupt
    with step_progress("adapt mood", 30) as progress:
        progress.show(7, loss=0.5)
    assert json.loads(capsys.readouterr().err)["run"] == "adapt mood"


def test_what_was_saved_is_said_with_its_scores_and_whether_training_helped(capsys):
    scores = [{"task": "mood", "metric": "accuracy", "value": 61.25}]
    saved(Path("out"), scores)
    saved(Path("out"), scores, kept_start=True)
    saved(Path("out"), [])
    saved(Path("out"), [], kept_start=True)
    saved(Path("out"), scores, stopped=7)
    assert capsys.readouterr().out.splitlines() == [
        "out: mood accuracy 61.2 on validation rows",
        "out: mood accuracy 61.2 on validation rows; it kept the start: training did not help. "
        "Try more steps, or another rate",
        "out: the last state; nothing was validated",
        "out: the start; nothing was validated",
        "out: mood accuracy 61.2 on validation rows; training stopped at step 7, where its numbers were not finite",
    ]


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_what_nobody_reads_any_more_never_ends_a_training(monkeypatch, stream):
    """As behind `| tee`, when that is gone; or on a full disk."""
    for gone in (closed_pipe(), open("/dev/full", "w")):  # noqa: SIM115
        monkeypatch.setattr(sys, stream, gone)
        with step_progress("teach mood", 10) as progress, board("toy") as watch:
            for step in range(3):
                progress.show(step, loss=0.5)
                watch.show(HALF)
                saved(Path("out"), [])
        assert getattr(sys, stream) is not gone, "what it holds would fail again at the end of the process"
        with pytest.raises(OSError, match=r"Broken pipe|No space left"):
            gone.close()


def closed_pipe():
    read, write = os.pipe()
    os.close(read)
    return open(write, "w")


def test_control_characters_of_foreign_texts_are_shown_and_not_sent(capsys, terminal):
    evil = "\x1b]0;title\x07\x1b[2J\x9b2J\r\u202egood"
    shown_as = r"\u001b]0;title\u0007\u001b[2J\u009b2J\u000d\u202egood"
    say(evil)
    say(evil, err=True)
    out, err = capsys.readouterr()
    assert (out, err) == (shown_as + "\n", shown_as + "\n")
    table(["name"], [[evil], [[evil]]])
    with step_progress(evil, 10) as progress:
        progress.show(1, value=evil)
    with board(evil) as watch:
        watch.show(Standing(1, 2, evil, None, [["method"], [evil]]))
    text = "".join(capsys.readouterr())
    assert shown_as in text
    own = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)  # colours and movements of the bars themselves
    assert not set("\x1b\x07\x9b\u202e") & set(own)
    assert "2J" not in "".join(re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]", text)).replace("\x1b", "")


def test_warnings_show_control_characters_too(monkeypatch, capsys):
    handler = ShownHandler()
    handler.setFormatter(logging.Formatter("mptune: %(message)s"))
    handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "made for %s", ("\x1b[2Ja",), None))
    assert capsys.readouterr().err == "mptune: made for \\u001b[2Ja\n"


def test_tabs_and_new_lines_of_a_cell_do_not_break_a_table_for_programs(capsys):
    table(["a", "b"], [["x\ty\nz", "1"]])
    assert capsys.readouterr().out.splitlines() == ["a\tb", r"x\u0009y\u000az" + "\t1"]


def test_what_a_stranger_wrote_without_end_leaves_a_short_error_that_says_what_to_do(capsys):
    def refused():
        raise MptuneError(f"this is no name: {'x' * 1_000_000}. Take another.\nand a second line")

    with pytest.raises(SystemExit):
        ended(refused)
    said = capsys.readouterr().err
    assert re.fullmatch(r"mptune: this is no name: x+ \[\.\.\.\] x+\. Take another\.\nand a second line\n", said)
    assert len(said) < 2_100


def test_a_warning_without_end_is_cut_too(capsys):
    ShownHandler().emit(logging.makeLogRecord({"msg": f"odd: {'x' * 1_000_000}; look at it"}))
    assert re.fullmatch(r"odd: x+ \[\.\.\.\] x+; look at it\n", said := capsys.readouterr().err)
    assert len(said) < 2_100
