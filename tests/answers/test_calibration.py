"""What held-out rows say of confidences: temperature, threshold, and which rows may say it."""

import math

import numpy as np
import pytest
import torch

from mptune.answers import calibration
from mptune.answers.calibration import (
    FEWEST,
    Kept,
    calibrate,
    calibration_error,
    choose_threshold,
    fit_temperature,
    held_out_rows,
    kept,
    least_precision,
)
from mptune.answers.evaluation import Answers
from mptune.config import EvaluateConfig
from mptune.errors import BackboneError, BackboneMismatch, DataError, UnknownNameError, UsageError
from mptune.prompts.card import Calibration
from mptune.tasks.data import TaskRows
from support.models import make_backbone
from support.prompts import random_prompt
from support.toys import make_task, toy_rows, write_rows

CONFIG = EvaluateConfig()


def drawn(temperature, count=4000, words=3):
    """Scores, and labels that are as likely as the scores say at a temperature."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(count, words)) * 3
    odds = np.exp(scores / temperature)
    sums = (odds / odds.sum(1, keepdims=True)).cumsum(1)
    return scores, (sums < random.random((count, 1))).sum(1)


def likely(scores, labels, temperature):
    odds = torch.tensor(scores / temperature).log_softmax(-1)
    return float(odds[torch.arange(len(labels)), torch.tensor(labels)].mean())


# -- the temperature --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_is_the_one_that_the_labels_were_drawn_at(true):
    assert fit_temperature(*drawn(true)) == pytest.approx(true, rel=0.06)


def test_no_other_temperature_makes_the_right_labels_likelier():
    scores, labels = drawn(1.7, count=60)
    found = fit_temperature(scores, labels)
    best = likely(scores, labels, found)
    for other in np.geomspace(0.1, 10, 60):
        assert best >= likely(scores, labels, other) - 1e-7


def test_a_temperature_stays_within_its_bounds_and_repeats_to_the_last_digit():
    scores, _ = drawn(1.0, count=30)
    wrong = scores.argmin(1)
    assert fit_temperature(scores, wrong) == pytest.approx(10)
    assert Calibration(temperature=fit_temperature(scores, wrong), precision=0.9, rows=30, split="test")
    scores, labels = drawn(1.3, count=80)
    assert fit_temperature(scores, labels) == fit_temperature(scores.copy(), labels.copy())


def test_rows_that_are_all_right_leave_confidences_as_they_are():
    scores, _ = drawn(1.0, count=30)
    assert fit_temperature(scores, scores.argmax(1)) == 1.0


def test_no_temperature_changes_an_answer():
    scores = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    answers = Answers(("",) * 200, scores, None)
    for temperature in (0.1, 0.7, 3.0, 10.0):
        found = answers.calibrated(Calibration(temperature=temperature, precision=0.9, rows=20, split="test"))
        assert torch.equal(found.argmax(-1), scores.argmax(-1))
        assert torch.allclose(found, (scores / temperature).softmax(-1))
    assert torch.equal(answers.calibrated(None), scores.softmax(-1))


def test_the_calibration_error_is_that_of_the_paper_by_hand():
    right = np.array([1.0, 1, 1, 0, 0, 1])
    confidences = np.array([0.95, 0.95, 0.95, 0.95, 0.4, 0.4])
    assert calibration_error(confidences, right) == pytest.approx((4 * 0.2 + 2 * 0.1) / 6)
    assert calibration_error(np.ones(4), np.array([1.0, 1, 1, 0])) == pytest.approx(0.25)


# -- the threshold ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 20, 58, 59])
def test_the_bound_of_answers_that_are_all_right_is_worked_out_by_hand(count):
    (found,) = least_precision(np.array([count]), np.array([count]))
    assert found == pytest.approx(0.05 ** (1 / count))
    assert (found >= 0.95) == (count >= 59)


def test_the_bound_covers_the_truth_as_often_as_it_says():
    counts = np.random.default_rng(0).binomial(80, 0.9, size=20_000)
    above = (least_precision(counts, np.full_like(counts, 80)) > 0.9).mean()
    assert above <= 0.05
    assert least_precision(np.array([0]), np.array([80]))[0] == 0


@pytest.mark.parametrize("asked", [0.6, 0.8, 0.9])
def test_the_threshold_is_the_smallest_whose_answers_speak_for_the_precision(asked):
    random = np.random.default_rng(3)
    confidences = random.uniform(0.5, 1, size=400)
    right = (random.random(400) < confidences).astype(float)
    found, most = choose_threshold(confidences, right, asked)
    levels = [math.floor(c * 10_000) / 10_000 for c in confidences]
    bound_at = {level: kept(confidences, right, level).at_least for level in levels}
    assert found == pytest.approx(min(level for level, bound in bound_at.items() if bound >= asked))
    assert most == pytest.approx(max(bound_at.values()))


def test_a_precision_that_no_answers_speak_for_has_no_threshold_and_says_what_has():
    found, most = choose_threshold(np.linspace(0.6, 0.99, 40), np.ones(40), 0.95)
    assert found is None
    assert most == pytest.approx(0.05 ** (1 / 40))


def test_a_threshold_lets_the_row_stand_that_it_came_from_and_has_four_places():
    confidences = np.full(80, 0.912345)
    found, _ = choose_threshold(confidences, np.ones(80), 0.95)
    assert found == 0.9123
    assert kept(confidences, np.ones(80), found) == Kept(80, 80, 80)


def test_coverage_and_precision_are_shares_and_nothing_answered_is_no_precision():
    half = Kept(50, 40, 30)
    assert (half.coverage, half.precision) == (0.8, 0.75)
    assert 0 < half.at_least < 0.75
    assert (Kept(50, 0, 0).precision, Kept(50, 0, 0).at_least) == (0, 0)


# -- one task ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path):
    """A task with 200 validation rows."""
    made = make_task(tmp_path, "mood")
    write_rows(tmp_path / "mood.validation.jsonl", toy_rows("good", "bad", 200, 1000))
    return made


@pytest.fixture
def prompt(backbone, task):
    return random_prompt(backbone, [task])


def found(prompt, task, backbone, precision=0.9, config=CONFIG):
    (only,) = calibrate(prompt, [TaskRows(task)], backbone, "validation", precision, config)
    return only


def answering(monkeypatch, wrong, count=200, sure=4.0, unsure=1.0):
    """Let rows be answered wrongly by number, without confidence; all others rightly, with it."""

    def answer(backbone, prompts, data, config):
        (rows,) = data
        labels = torch.tensor(rows.answers)
        scores = torch.nn.functional.one_hot(labels, 2) * sure
        scores[list(wrong)] = torch.nn.functional.one_hot(1 - labels, 2)[list(wrong)] * unsure
        return [Answers(tuple("" for _ in rows.answers), scores.log_softmax(-1), None)]

    monkeypatch.setattr(calibration, "answer", answer)


def test_a_task_is_calibrated_from_what_is_answered_to_its_rows(backbone, prompt, task):
    one = found(prompt, task, backbone)
    assert (one.task, one.calibration.rows, one.calibration.split) == ("mood", 200, "validation")
    assert one.error_after < one.error_before
    assert one == found(prompt, task, backbone)
    assert found(prompt, task, backbone, config=EvaluateConfig(rows=30)).calibration.rows == 30


def test_a_threshold_is_written_where_the_other_half_confirms_it(backbone, prompt, task, monkeypatch):
    answering(monkeypatch, wrong=range(0, 200, 5))
    one = found(prompt, task, backbone)
    assert one.calibration.threshold == one.threshold
    assert (one.choosing.rows, one.confirming.rows) == (100, 100)
    assert one.choosing.answered + one.confirming.answered == 160
    assert one.choosing.precision == one.confirming.precision == 1
    assert one.remarks() == []


def test_a_threshold_that_the_other_half_does_not_confirm_is_not_written(backbone, prompt, task, monkeypatch):
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0)).tolist()
    answering(monkeypatch, wrong=order[100:140], unsure=4.0)  # as sure as the right ones, and in the second half alone
    one = found(prompt, task, backbone)
    assert one.choosing.precision == 1
    assert one.confirming.precision == 0.6
    assert one.calibration.threshold is None
    assert one.threshold is not None
    (remark,) = one.remarks()
    assert remark.startswith(f"mood: no threshold is written: {one.threshold:g} was chosen, and of what it answers in ")
    assert "the other half 60 of 100 are right, less than 0.9. Ask for less" in remark


def test_a_precision_out_of_reach_says_what_is_reachable_and_how_much_it_takes(backbone, prompt, task, monkeypatch):
    answering(monkeypatch, wrong=[0])
    one = found(prompt, task, backbone, precision=0.99)
    assert (one.calibration.threshold, one.threshold, one.choosing) == (None, None, None)
    (remark,) = one.remarks()
    assert "above no confidence do the answers of the half that chooses speak for a precision of 0.99, with" in remark
    assert "95% confidence; 0.97 is reachable. 0.99 takes" in remark
    assert "0.99 takes 299 right answers without a wrong one, or more; ask for less with --precision" in remark


def test_rows_that_are_all_right_are_remarked_on(backbone, prompt, task, monkeypatch):
    answering(monkeypatch, wrong=[])
    one = found(prompt, task, backbone)
    assert one.calibration.temperature == 1.0
    assert one.remarks() == [
        "mood: every row was answered rightly, which cannot tell how sure is too sure; the temperature stays 1"
    ]


def test_what_is_found_is_json_with_shares(backbone, prompt, task, monkeypatch):
    answering(monkeypatch, wrong=range(0, 200, 5))
    values = found(prompt, task, backbone).as_dict()
    assert values["task"] == "mood"
    assert values["confirming"].keys() == {"rows", "answered", "right", "coverage", "precision", "at_least"}
    assert 0 < values["threshold"] < 1
    answering(monkeypatch, wrong=range(200))
    assert found(prompt, task, backbone).as_dict()["choosing"] is None


def test_numbers_that_are_none_calibrate_nothing(backbone, prompt, task, monkeypatch):
    answering(monkeypatch, wrong=[3], sure=float("nan"))
    with pytest.raises(BackboneError, match="answers with numbers that are not finite"):
        found(prompt, task, backbone)


def test_a_prompt_of_another_model_is_refused(prompt, task):
    with pytest.raises(BackboneMismatch):
        found(prompt, task, make_backbone("t5", 1))


# -- which rows -------------------------------------------------------------------------------------------------------


def free_text(folder):
    return make_task(folder, "title", verbalizer={}, target="{label}", metrics=("exact_match",))


def test_tasks_of_free_text_are_passed_over_among_others_and_refused_alone(backbone, task, tmp_path):
    title = free_text(tmp_path)
    prompt = random_prompt(backbone, [task, title])
    both = [TaskRows(task), TaskRows(title)]
    chosen, passed = held_out_rows(prompt, both, "validation", CONFIG, named=False)
    assert [each.name for each in chosen] == ["mood"]
    assert passed == ["title: it writes free text, which has no confidence"]
    for rows, named in ((both, True), (both[1:], False)):
        with pytest.raises(UsageError, match=r"title: it writes free text, which has no confidence\. Name tasks"):
            held_out_rows(prompt, rows, "validation", CONFIG, named=named)


def test_tasks_whose_answers_are_written_have_no_confidence(backbone, prompt, task):
    with pytest.raises(UsageError, match=r"mood: its answers are written and not ranked \(scoring: generation\)"):
        held_out_rows(prompt, [TaskRows(task)], "validation", EvaluateConfig(scoring="generation"), named=False)


def test_tasks_without_rows_are_passed_over_among_others_and_an_error_alone(backbone, task, tmp_path):
    speed = make_task(tmp_path, "speed")
    (tmp_path / "speed.validation.jsonl").unlink()
    prompt = random_prompt(backbone, [task, speed])
    chosen, passed = held_out_rows(prompt, [TaskRows(task), TaskRows(speed)], "validation", CONFIG, named=False)
    assert [each.name for each in chosen] == ["mood"]
    assert "speed.validation.jsonl" in passed[0]
    for rows, named in (([TaskRows(task), TaskRows(speed)], True), ([TaskRows(speed)], False)):
        with pytest.raises(DataError, match=r"speed\.validation\.jsonl"):
            held_out_rows(prompt, rows, "validation", CONFIG, named=named)


@pytest.mark.parametrize("count", [FEWEST - 1, FEWEST])
def test_twenty_rows_are_the_fewest(backbone, prompt, task, tmp_path, count):
    write_rows(tmp_path / "mood.validation.jsonl", toy_rows("good", "bad", count, 1000))
    if count == FEWEST:
        assert held_out_rows(prompt, [TaskRows(task)], "validation", CONFIG, named=False)[1] == []
        return
    with pytest.raises(DataError) as error:
        held_out_rows(prompt, [TaskRows(task)], "validation", CONFIG, named=False)
    assert "calibrating mood wants 20 held-out rows or more, and some hundreds for a threshold" in str(error.value)
    assert "got 19 validation rows. Name another split with --split, or label more rows" in str(error.value)


def test_a_task_that_reads_otherwise_or_is_another_is_refused(backbone, prompt, task, tmp_path):
    for field, value in (("template", "another: {text}"), ("verbalizer", {"0": "bad", "1": "good"}), ("chat", "user")):
        other = task.model_copy(update={field: value})
        with pytest.raises(UsageError, match=rf"mood has another {field} than the prompt was trained with"):
            held_out_rows(prompt, [TaskRows(other)], "validation", CONFIG, named=True)
    with pytest.raises(UnknownNameError, match="no task of this prompt is called 'speed'"):
        held_out_rows(prompt, [TaskRows(make_task(tmp_path, "speed"))], "validation", CONFIG, named=True)
