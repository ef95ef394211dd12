"""Adaptation with unlabelled rows on a real tiny model: who teaches, what the student is, and that it goes on."""

import hashlib
from functools import partial

import pytest
import torch

from mptune.answers.evaluation import answer, evaluate
from mptune.config import AdaptConfig, EvaluateConfig
from mptune.errors import DataError, ResumeError, UsageError
from mptune.stages import ensemble, pseudo_labels
from mptune.stages.adaptation import Target, adapt
from mptune.stages.ensemble import adapt_by_all_rows, adapt_with_unlabelled, teachers_of
from mptune.tasks.data import TaskRows
from support.toys import make_task, toy_rows, write_rows
from support.trained import trained_backbone

QUICK = {"steps": 6, "batch_size": 4, "unlabelled_steps": 12, "save_every": 3}
Few = partial(AdaptConfig, shots=4, shared_lr=0.3, task_lr=0.1, **QUICK)


@pytest.fixture
def task(tmp_path):
    """A task with forty rows that nobody has labelled."""
    write_rows(tmp_path / "plain.jsonl", [{"text": row["text"]} for row in toy_rows("good", "bad", 40, start=300)])
    made = make_task(tmp_path, "toy")
    return made.model_copy(
        update={"dataset": made.dataset.model_copy(update={"unlabelled": str(tmp_path / "plain.jsonl")})}
    )


def test_the_student_is_one_soft_prompt_that_says_what_its_teachers_say(source, task):
    rows, backbone, config = TaskRows(task), trained_backbone(), Few(unlabelled_steps=60)
    adapted, teachers = teachers_of(source, rows, backbone, config)
    student = adapt_with_unlabelled(source, rows, backbone, config)
    assert (student.shared.shape, len(student.u), student.card.stage) == (source.shared.shape, 1, "target")
    data = ensemble.encode(task, rows.unlabelled(), backbone, config, 4)

    def thinks(model, reader):
        return answer(model, [reader], [data], EvaluateConfig(), labelled=False)[0].probabilities

    taught = ensemble.PseudoLabels.of_teachers(teachers, data, config.sharpening).odds
    before, after = ((thinks(backbone, p.collapse()[0]) - taught).abs().mean() for p in (adapted, student))
    assert after < 2 / 3 * before


def test_teachers_are_an_adapted_prompt_one_from_scratch_and_a_tuned_copy_from_the_same_rows(source, task):
    rows, backbone, config = TaskRows(task), trained_backbone(), Few(seed=3)
    adapted, teachers = teachers_of(source, rows, backbone, config)
    assert torch.equal(adapted.collapse(), adapt(source, rows, backbone, config).collapse())
    assert [model is backbone for model, _ in teachers] == [True, True, False]
    assert torch.equal(teachers[0][1], adapted.collapse()[0])
    assert teachers[1][1].shape == teachers[0][1].shape
    drawn = adapted.card.seeds["shot_rows"]
    assert teachers[2][1].card.seeds["shot_rows"] == drawn
    assert teachers[2][1].card.config["steps"] == 6


def test_the_backbone_and_the_source_stay_as_they_were(source, task):
    backbone = trained_backbone()
    before = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    old = {name: t.clone() for name, t in source.tensors().items()}
    adapt_with_unlabelled(source, task, backbone, Few())
    assert all(torch.equal(p, before[name]) for name, p in backbone.model.state_dict().items())
    assert all(torch.equal(t, old[name]) for name, t in source.tensors().items())


def test_a_run_that_is_killed_while_the_student_learns_ends_with_the_same_bytes(source, task, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    adapt_with_unlabelled(source, task, trained_backbone(), Few(), out=whole)
    loss, asked = pseudo_labels.soft_label_loss, []

    def dies(*given):
        asked.append(1)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(pseudo_labels, "soft_label_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        adapt_with_unlabelled(source, task, trained_backbone(), Few(), out=broken)
    monkeypatch.setattr(ensemble, "teachers_of", lambda *_: pytest.fail("the teachers have said what they think"))
    adapt_with_unlabelled(source, task, trained_backbone(), Few(), out=broken)
    one, two = (hashlib.sha256((f / "prompt.safetensors").read_bytes()).hexdigest() for f in (whole, broken))
    assert one == two
    assert sorted(p.name for p in whole.iterdir()) == sorted(p.name for p in broken.iterdir())
    assert not (broken / ensemble.TAUGHT).exists()


def test_a_finished_run_is_read_and_one_with_other_rows_refused(source, task, tmp_path):
    first = adapt_with_unlabelled(source, task, trained_backbone(), Few(), out=tmp_path / "out")
    again = adapt_with_unlabelled(source, task, trained_backbone(), Few(), out=tmp_path / "out")
    assert first.digest() == again.digest()
    write_rows(tmp_path / "plain.jsonl", [{"text": "something else 1"}, {"text": "something else 2"}])
    with pytest.raises(ResumeError, match="holds a finished run with unlabelled ="):
        adapt_with_unlabelled(source, task, trained_backbone(), Few(), out=tmp_path / "out")


def test_unlabelled_rows_are_used_where_a_task_names_some_and_they_are_wanted(source, task, toy_tasks):
    backbone, rows = trained_backbone(), TaskRows(task)
    plain = adapt(source, rows, backbone, Few()).digest()
    taught = adapt_with_unlabelled(source, rows, backbone, Few()).digest()

    def by_all(rows, *configs):
        return [p.digest() for p in adapt_by_all_rows(source, [Target((rows,), c) for c in configs], backbone)]

    assert by_all(rows, Few()) == [taught] != [plain]
    assert by_all(rows, Few(), Few(seed=1))[0] == taught
    assert by_all(rows, Few(unlabelled_rows=0)) != [taught]
    without = TaskRows(toy_tasks[0])
    assert by_all(without, Few()) == [adapt(source, without, backbone, Few()).digest()]
    assert len(set(by_all(without, Few(), Few(seed=1)))) == 2


def test_a_task_whose_label_words_are_generated_is_taught_by_their_ranking(source, task):
    written = task.model_copy(update={"scoring": "generation"})
    student = adapt_with_unlabelled(source, written, trained_backbone(), Few())
    assert student.tensors()["shared"].equal(
        adapt_with_unlabelled(source, task, trained_backbone(), Few()).tensors()["shared"]
    )


def test_a_task_without_such_rows_is_refused(source, toy_task):
    with pytest.raises(UsageError, match=r"toy has no rows without labels.*dataset: unlabelled:"):
        adapt_with_unlabelled(source, toy_task, trained_backbone(), Few())


def test_rows_without_a_field_of_the_template_are_named(source, task, tmp_path):
    write_rows(tmp_path / "plain.jsonl", [{"text": "good one"}, {"words": "lost"}])
    with pytest.raises(
        DataError, match=r"plain\.jsonl row 2: no text, which template: of the task names; it has words"
    ):
        adapt_with_unlabelled(source, task, trained_backbone(), Few())


def test_four_labels_a_class_and_rows_without_any_rise_above_chance(source, task):
    student = adapt_with_unlabelled(source, task, trained_backbone(), Few(steps=30, unlabelled_steps=30))
    assert evaluate(student, task, trained_backbone(), split="test")[0].value >= 65
