"""What is printed: results, warnings and errors, for people and for programs."""

import logging
import os
import re
import sys
from pathlib import Path

import pytest

from mptune.errors import MptuneError
from mptune.progress import Standing, board, step_progress
from mptune.terminal import ShownHandler, ended, saved, say, table


def test_what_was_saved_is_said_with_its_scores_and_whether_training_helped(capsys):
    scores = [{"task": "mood", "metric": "accuracy", "value": 61.25}]
    saved(Path("out"), scores)
    saved(Path("out"), scores, kept_start=True)
    saved(Path("out"), [])
    saved(Path("out"), [], kept_start=True)
    saved(Path("out"), scores, stopped=7)
    saved(Path("out"), scores, untrained=True)
    saved(Path("out"), [], untrained=True)
    assert capsys.readouterr().out.splitlines() == [
        "out: mood accuracy 61.2 on validation rows",
        "out: mood accuracy 61.2 on validation rows; it kept the start: training did not help. "
        "Try more steps, or another rate",
        "out: the last state; nothing was validated",
        "out: the start; nothing was validated",
        "out: mood accuracy 61.2 on validation rows; training stopped at step 7, where its numbers were not finite",
        "out: mood accuracy 61.2 on validation rows; no step was taken: it is the start",
        "out: no step was taken: it is the start; nothing was validated",
    ]


def test_of_a_finished_run_it_is_said_that_nothing_was_trained(capsys):
    saved(Path("out"), [], finished=True)
    out, err = capsys.readouterr()
    assert out == "out: the last state; nothing was validated\n"
    assert err == "out is finished already: nothing was trained; remove it to train again\n"


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_what_nobody_reads_any_more_never_ends_a_training(monkeypatch, stream):
    """As behind `| tee`, when that is gone; or on a full disk."""
    for gone in (closed_pipe(), open("/dev/full", "w")):  # noqa: SIM115
        monkeypatch.setattr(sys, stream, gone)
        with step_progress("teach mood", 10) as progress, board("toy") as watch:
            for step in range(3):
                progress.show(step, loss=0.5)
                watch.show(Standing(3, 6, "mpt, mood", 754.0, (("method", "mood"), ("constant", "50.0"))))
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


@pytest.mark.parametrize(("columns", "ruled"), [(80, True), (40, False)])
def test_a_table_that_is_too_wide_leaves_its_lines_away_and_not_its_words(
    capsys, terminal, monkeypatch, columns, ruled
):
    monkeypatch.setenv("COLUMNS", str(columns))
    table(["label", "word", "train", "validation", "test"], [["Billing", "Billing", 12, 2, 4]])
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert shown.count("Billing") == 2
    assert "validation" in shown
    assert ("─" in shown) == ruled


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
