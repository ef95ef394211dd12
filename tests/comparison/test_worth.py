"""The last look of an adaptation: only rows it never saw are scored, each rival as its own method would have it."""

import json

import pytest

import mptune.comparison.worth
from mptune.answers.evaluation import evaluate
from mptune.comparison.worth import COMMONEST, START, THIS, Worth, worth
from mptune.config import AdaptConfig, EvaluateConfig
from mptune.stages.adaptation import adapt
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task
from support.prompts import random_prompt

ROWS = [{"text": f"{('good', 'bad')[n % 2]} day {n}", "label": ("glad", "sad")[n % 2]} for n in range(40)]
WORDS = {"glad": "good", "sad": "bad"}
TASK = Task.read({"name": "mood", "template": "which? {text}", "verbalizer": WORDS}, "task")


def looked(backbone, rows, **fields):
    config = AdaptConfig(**{"steps": 2, "max_input_tokens": 16, **fields})
    source = random_prompt(backbone, [TASK, TASK.model_copy(update={"name": "tone"})])
    adapted = adapt(source, rows, backbone, config)
    return worth(adapted, source, rows, backbone, config), adapted, source


def test_what_is_held_out_is_scored_and_the_last_is_what_evaluate_says(backbone, monkeypatch):
    rows, asked, ask = TaskRows.from_rows(ROWS, TASK), [], mptune.comparison.worth.answer
    monkeypatch.setattr("mptune.comparison.worth.answer", lambda b, p, *more: asked.extend(p) or ask(b, p, *more))
    found, adapted, source = looked(backbone, rows)
    assert (found.task, found.metric, found.rows, found.place) == ("mood", "accuracy", 8, "test rows")
    assert [name for name, _ in found.scores] == [COMMONEST, "tf-idf", "linear-probe", START, THIS]
    how = EvaluateConfig(max_input_tokens=16)
    scores = dict(found.scores)
    assert scores[THIS] == evaluate(adapted, rows, backbone, split="test", config=how)[0].value
    start = adapt(source, rows, backbone, AdaptConfig(steps=0, max_input_tokens=16))
    assert asked[0].equal(start.collapse()[0])
    assert asked[1].equal(adapted.collapse()[0])
    assert scores[START] == evaluate(start, rows, backbone, split="test", config=how)[0].value
    assert scores[COMMONEST] == 50.0
    assert scores["tf-idf"] == 100.0, "each class has a word of its own"


@pytest.mark.parametrize(
    ("more", "fields", "count", "place"),
    [
        ({"test": ROWS[30:]}, {}, 10, "test rows"),
        ({"validation": ROWS[34:]}, {}, 6, "validation rows, by which the state was chosen"),
        ({"validation": ROWS[34:]}, {"shots": 3}, 6, "validation rows"),
        ({"hold_out": False}, {}, 2, "validation rows, by which the state was chosen"),
        ({"hold_out": False}, {"shots": 3}, 14, "rows that --shots left over"),
        ({}, {"shots": 3}, 4, "test rows"),
    ],
)
def test_which_rows_these_are_is_said(backbone, more, fields, count, place):
    rows = TaskRows.from_rows(ROWS[:20], TASK, **more)
    found, *_ = looked(backbone, rows, **fields)
    assert (found.rows, found.place) == (count, place)


def test_rows_that_were_learnt_from_are_never_scored(backbone, monkeypatch):
    rows = TaskRows.from_rows(ROWS[:20], TASK, hold_out=False)
    seen = []
    monkeypatch.setattr("mptune.comparison.worth.score", lambda *given: seen.append(given[2]) or _Score.all())
    _, adapted, _ = looked(backbone, rows, shots=3, seed=5)
    learnt = set(adapted.card.seeds["shot_rows"]["mood"])
    assert len(learnt) == 6
    assert all({example.row for example in examples} == set(range(1, 21)) - learnt for examples in seen)
    assert len(seen) == 5


class _Score:
    value = 1.0

    @classmethod
    def all(cls):
        return [cls()]


def test_where_every_row_was_learnt_from_there_is_nothing_to_say(backbone):
    rows = TaskRows.from_rows(ROWS[:20], TASK, hold_out=False)
    assert looked(backbone, rows, validation_shots=0)[0] is None


def test_free_text_has_no_rivals_that_choose_among_labels(backbone):
    task = Task.read({"name": "say", "template": "say {text}", "target": "{label}", "metrics": "exact_match"}, "task")
    rows = TaskRows.from_rows(ROWS[6:], task, test=ROWS[:6])
    config = AdaptConfig(steps=1, max_input_tokens=16, max_target_tokens=3)
    source = random_prompt(backbone, [task])
    found = worth(adapt(source, rows, backbone, config), source, rows, backbone, config)
    assert [name for name, _ in found.scores] == [COMMONEST, START, THIS]
    assert dict(found.scores)[COMMONEST] == 50.0


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ((50, 60, 70, 40, 71), None),
        ((50, 60, 71, 40, 71), "linear-probe did no worse here, and costs less; `mptune bench` tells over several"),
        ((50, 80, 75, 40, 71), "tf-idf and linear-probe did no worse here"),
        ((50, 60, 70, 72, 71), "its start does as well without your labels: try fewer steps, or a lower rate"),
        ((71, 80, 70, 72, 71), "the commonest answer alone does as well: nothing was learnt. Try more labels"),
    ],
)
def test_what_is_simpler_and_no_worse_is_said(scores, said):
    names = (COMMONEST, "tf-idf", "linear-probe", START, THIS)
    advice = Worth("mood", "accuracy", 80, "test rows", tuple(zip(names, map(float, scores), strict=True))).advice
    assert advice is None if said is None else advice.startswith(said)


def test_adapt_prints_it_unless_asked_not_to(cli, made, tmp_path):
    given = ["--from", made / "multitask", "--task", made / "colour.yaml", "--data", made / "rows", "--steps", 1]
    code, out, err = cli("adapt", *given, "--out", tmp_path / "one")
    assert code == 0, err
    saved, head, *lines = out.splitlines()
    assert saved.startswith(str(tmp_path / "one"))
    assert head == "colour, 16 validation rows, by which the state was chosen\taccuracy"
    assert [line.partition("\t")[0] for line in lines] == [COMMONEST, "tf-idf", "linear-probe", START, THIS]
    code, out, err = cli("adapt", *given, "--out", tmp_path / "two", "--alone")
    assert (code, len(out.splitlines())) == (0, 1), err
    assert cli("adapt", *given, "--out", tmp_path / "three", "--seeds", 2)[1].count("this prompt") == 0


def test_every_prompt_of_a_folder_is_scored_by_its_name(cli, made, tmp_path):
    given = ["--from", made / "multitask", "--task", made / "colour.yaml", "--data", made / "rows", "--steps", 1]
    assert cli("adapt", *given, "--out", tmp_path / "all", "--seeds", 2)[0] == 0
    code, out, err = cli("evaluate", "--prompt", tmp_path / "all", "--split", "test")
    assert code == 0, err
    head, *lines = out.splitlines()
    assert head == "prompt\ttask\tsplit\tmetric\tscore\texamples"
    assert [line.split("\t")[:2] for line in lines] == [["seed-0", "colour"], ["seed-1", "colour"]]
    alone = json.loads(cli("evaluate", "--prompt", tmp_path / "all" / "seed-1", "--split", "test", "--json")[1])
    assert lines[1].split("\t")[4] == f"{alone['value']:.1f}"
    code, out, err = cli("evaluate", "--prompt", made / "teachers", "--json", "--classes")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert {(line["prompt"], line["task"]) for line in found} == {("mood", "mood"), ("speed", "speed")}
    assert sum("recall" in line for line in found) == 4


def test_a_few_rows_are_said_to_tell_little():
    scores = ((COMMONEST, 50.0), (START, 80.0), (THIS, 75.0))
    said = Worth("mood", "accuracy", 8, "test rows", scores).advice
    assert said == "8 rows tell little apart, one of them is 12 points; label more to test on"
    assert "tell little" not in (Worth("mood", "accuracy", 25, "test rows", scores).advice or "")
