"""What long work shows: bars on a terminal, JSON lines elsewhere."""

import json
import re

import pytest

import mptune.progress
from mptune.progress import Standing, board, goes_on, step_progress, trainings


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
    assert re.search(r"[\d-]:[\d-]{2}:[\d-]{2} left", text)


def test_a_narrow_terminal_shows_the_steps_and_the_time_left(terminal, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with step_progress("adapt tickets", 100) as progress:
        progress.show(7, validation=66.7, validation_loss=0.51234)
    text = shown(capsys)
    assert "adapt tickets" in text
    assert "7/100" in text
    assert re.search(r"[\d-]:[\d-]{2}:[\d-]{2} left", text)
    assert "validation" not in text


def test_values_stay_until_newer_ones_come(terminal, capsys):
    with step_progress("teach mood", 10) as progress:
        progress.show(5, loss=0.5)
        progress.show(6)
    assert re.search(r"6/10.*loss 0\.5", shown(capsys))


def test_a_resumed_run_starts_where_it_stopped(terminal, capsys):
    with step_progress("teach mood", 10, start=4):
        pass
    assert "4/10" in shown(capsys)


def test_where_work_goes_on_is_said_but_of_a_fresh_start_and_within_a_comparison(capsys):
    goes_on("adapt tickets", 57, 100)
    goes_on("rows.csv", 64, 150, "row")
    goes_on("adapt tickets", 0, 100)
    with board("toy"):
        goes_on("adapt tickets", 57, 100)
    assert capsys.readouterr().err == "adapt tickets goes on at step 57 of 100\nrows.csv goes on at row 64 of 150\n"


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


# -- how long it will take --------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by what a test says."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def step(self, progress, seconds, *steps):
            for step in steps:
                self.now += seconds
                progress.show(step)

    clock = Clock()
    monkeypatch.setattr(mptune.progress, "time", clock)
    return clock


def lines(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_elsewhere_the_time_left_is_said_once_after_the_first_steps(clock, capsys):
    with step_progress("teach mood", 106) as progress:
        clock.now += 50  # what the first step warms up counts for nothing
        clock.step(progress, 2.0, *range(1, 20))
    assert lines(capsys) == [{"run": "teach mood", "step": 6, "of": 106, "seconds_left": 200}]


def test_a_minute_is_not_worth_a_line_and_ten_are_worth_what_is_cheaper(clock, capsys):
    with step_progress("teach mood", 36, cheaper="fewer steps") as progress:
        clock.step(progress, 2.0, *range(1, 20))
    assert lines(capsys) == []
    with step_progress("teach mood", 307, cheaper="fewer steps") as progress:
        clock.step(progress, 2.0, *range(1, 20))
    (line,) = lines(capsys)
    assert line == {"run": "teach mood", "step": 6, "of": 307, "seconds_left": 602, "cheaper": "fewer steps"}


def test_a_terminal_has_the_time_in_its_bar_and_says_what_is_cheaper_above_it(clock, terminal, capsys):
    with step_progress("teach mood", 1006, cheaper="fewer steps") as progress:
        clock.step(progress, 3.6, *range(1, 20))
    text = shown(capsys)
    assert text.count("teach mood: about 1 h 0 min to go. Cheaper: fewer steps") == 1
    assert '"run"' not in text


def test_a_resumed_run_counts_its_own_steps_alone(clock, capsys):
    with step_progress("teach mood", 206, start=100) as progress:
        clock.step(progress, 2.0, *range(101, 120))
    assert lines(capsys) == [{"run": "teach mood", "step": 106, "of": 206, "seconds_left": 200}]


def test_trainings_that_follow_each_other_are_one_bar_and_one_time(clock, terminal, capsys):
    with trainings(3):
        for task in ("mood", "topic", "tone"):
            with step_progress(f"teach {task}", 10) as progress:
                clock.step(progress, 1.0, *range(1, 11))
    text = shown(capsys)
    assert "teach tone (3 of 3)" in text
    assert "30/30" in text
    assert text.count("\n") == 1, "one bar, which moves"


def test_the_time_left_is_that_of_all_trainings_to_come(clock, capsys):
    with trainings(3):
        for task in ("mood", "topic"):
            with step_progress(f"teach {task}", 106) as progress:
                clock.step(progress, 2.0, *range(1, 107))
    assert [(line["run"], line["seconds_left"]) for line in lines(capsys)] == [
        ("teach mood", 2 * (100 + 2 * 106)),
        ("teach topic", 2 * (100 + 106)),
    ]


def test_after_such_trainings_one_is_a_bar_of_its_own(terminal, capsys):
    with trainings(2), step_progress("teach mood", 10):
        pass
    shown(capsys)
    with step_progress("adapt mood", 10) as progress:
        progress.show(10)
    text = shown(capsys)
    assert "10/10" in text
    assert "of 2)" not in text
