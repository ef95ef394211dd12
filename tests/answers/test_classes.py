"""What is said of each label follows from how many of its rows were given which."""

import json

from mptune.answers.classes import ClassScore, by_class, confusion
from mptune.answers.evaluation import evaluate, evaluate_classes
from mptune.config import EvaluateConfig
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Example
from support.prompts import random_prompt
from support.toys import make_task


def examples(task, *words):
    return [Example(task.name, n, "x", word, None, (word,)) for n, word in enumerate(words)]


def test_rows_are_counted_by_class_and_answer_and_text_that_is_no_label_stands_last(tmp_path):
    task = make_task(tmp_path, "mood")  # no, yes
    counts = confusion(task, examples(task, "no", "no", "yes", "yes", "yes"), ["no", "yes", "yes", "maybe", "yes"])
    assert counts == [[1, 1, 0], [0, 2, 1]]
    free = task.model_copy(update={"verbalizer": {}, "target": "{text}"})
    assert confusion(free, examples(task, "no"), ["no"]) is None


def test_recall_is_of_a_labels_rows_and_precision_of_those_that_were_given_it():
    assert by_class(["no", "yes", "never"], [[1, 1, 0, 0], [0, 2, 0, 2], [0, 0, 0, 0]]) == [
        ClassScore("no", 50.0, 100.0, 2, (1, 1, 0, 0)),
        ClassScore("yes", 50.0, 100 * 2 / 3, 4, (0, 2, 0, 2)),
        ClassScore("never", None, None, 0, (0, 0, 0, 0)),
    ]


def test_classes_are_of_the_answers_that_are_scored(backbone, tmp_path):
    task = make_task(tmp_path, "mood")
    prompt = random_prompt(backbone, [task])
    scores, classes = evaluate_classes(prompt, TaskRows.of(task), backbone, "test", EvaluateConfig())
    assert scores == evaluate(prompt, task, backbone, split="test")
    assert sum(each.rows for each in classes) == scores[0].examples == 20
    right = sum(each.given[n] for n, each in enumerate(classes))
    assert scores[0].value == 100 * right / 20


def test_the_command_prints_them_where_they_are_asked_for(cli, backbone, tmp_path):
    from support.models import make_backbone, saved
    from support.toys import task_yaml

    saved(make_backbone("t5"), tmp_path / "model")
    file = task_yaml(tmp_path, "mood")
    asked = ("evaluate", "--task", file, "--split", "test", "--backbone", tmp_path / "model")
    code, plain, err = cli(*asked)
    assert code == 0, err
    code, out, _ = cli(*asked, "--classes")
    assert out.startswith(plain)
    head, no, yes = out.removeprefix(plain).splitlines()
    assert head == "mood\trecall\tprecision\trows\tgiven no\tgiven yes\tgiven no label"
    assert (no.split("\t")[0], yes.split("\t")[0]) == ("no", "yes")
    assert int(no.split("\t")[3]) + int(yes.split("\t")[3]) == 20
    code, out, _ = cli(*asked, "--classes", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["word"] for line in lines[-2:]] == ["no", "yes"]
    assert sum(sum(line["given"]) for line in lines[-2:]) == 20
