"""The journal of labels: read as it was left, damaged, divided into what is learnt from and what is held out."""

import pytest

from mptune.errors import ArtifactError
from mptune.serving.labelled import Labels
from mptune.tasks.task import Task

FEEL = Task(name="feel", template="mood text: {text}", verbalizer={"0": "no", "1": "yes"})


def filled(file, count=12):
    labels = Labels(file)
    for number in range(count):
        labels.put(str(number), {"text": f"text {number}"}, str(number % 2))
    return labels


def told(labels):
    sides = labels.divided(FEEL)
    return sides.train, sides.held, labels.since, labels.outcomes


def test_a_journal_reads_as_it_was_left_and_a_line_that_was_begun_is_cut_off(tmp_path):
    file = tmp_path / "feel.jsonl"
    labels = filled(file)
    labels.put("3", {"text": "text 3"}, "0")
    labels.remove("4")
    labels.finish({"after": 50.0}, labels.begin())
    labels.put("20", {"text": "line\u2028break 😀"}, "1")
    wanted = told(labels)
    whole = file.read_bytes()
    for torn in (b"", b'{"id": "5", "ro', b"\xff\xfe", b'{"id": "5", "gone": true}'):
        file.write_bytes(whole + torn)
        again = Labels(file)
        assert told(again) == wanted
        assert file.read_bytes() == whole
    again.put("21", {"text": "more"}, "0")
    assert len(Labels(file).divided(FEEL).train) + len(Labels(file).divided(FEEL).held) == 13


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "1"}', '{"id": "77", "gone": true}', '{"outcome": 3}', "\0\0"])
def test_a_journal_that_is_damaged_elsewhere_is_said_to_be_so(tmp_path, line):
    file = tmp_path / "feel.jsonl"
    filled(file, 1)
    file.write_text(line + "\n" + file.read_text())
    with pytest.raises(ArtifactError, match=r"feel.jsonl is damaged in line 1 .*; remove the line"):
        Labels(file)


def test_a_fifth_of_each_class_is_held_out_and_no_text_ever_changes_sides(tmp_path):
    labels, sides = Labels(tmp_path / "feel.jsonl"), {}
    for number in range(60):
        labels.put(str(number), {"text": f"text {number}"}, "1" if number % 3 else "0")
        if number == 30:
            labels = Labels(tmp_path / "feel.jsonl")
        found = labels.divided(FEEL)
        for held, side in ((False, found.train), (True, found.held)):
            for each in side:
                assert sides.setdefault(each.text, held) == held
        for label in ("0", "1"):
            count = sum(e.label == label for e in (*found.train, *found.held))
            held = sum(e.label == label for e in found.held)
            assert held == (max(1, round(count / 5)) if count > 1 else 0)


@pytest.mark.parametrize("held", [True, False])
def test_a_text_that_was_deleted_comes_back_on_its_side_however_it_is_typed(tmp_path, held):
    labels = filled(tmp_path / "feel.jsonl")
    row = getattr(labels.divided(FEEL), "held" if held else "train")[0].row
    labels.remove(row["text"].split()[1])
    labels = Labels(tmp_path / "feel.jsonl")
    typed = {"text": row["text"].upper().replace(" ", "  ")}
    for name, each, label in [("again", typed, "1"), ("by another", row, "0"), ("by a third", row, "1")]:
        labels.put(name, each, label)
    found = labels.divided(FEEL)
    assert sum(e.row in (row, typed) for e in (found.held if held else found.train)) == 3


def test_rows_of_labels_and_fields_that_a_task_has_no_longer_are_left_out(tmp_path):
    labels = filled(tmp_path / "feel.jsonl")
    assert sum(map(len, (labels.divided(FEEL).train, labels.divided(FEEL).held))) == 12
    other = FEEL.model_copy(update={"verbalizer": {"1": "yes", "2": "maybe"}})
    assert {each.label for each in labels.divided(other).train} == {"1"}
    assert labels.divided(FEEL.model_copy(update={"template": "{review}"})).lacks
