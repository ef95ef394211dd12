"""A labelling tool beside a server: suggestions, labels that are kept, versions that learn from them."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

import mptune
from mptune.config import AdaptConfig, EvaluateConfig, TeachConfig
from mptune.errors import UsageError
from mptune.model.loading import load_backbone
from mptune.serving.keys import ApiKey, hashed
from mptune.serving.labelconfig import LONGEST_CONFIG, read_label_config
from mptune.serving.labelled import Labels
from mptune.serving.learning import CHILD
from mptune.serving.lesson import Lesson
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task
from support.labelstudio import LabelStudio, label_config
from support.models import saved
from support.prompts import random_prompt
from support.serving import PAIR, opened, prompts_folder, serving
from support.toys import toy_rows
from support.trained import trained_backbone

FEEL = Task(name="feel", template="mood text: {text}", verbalizer={"0": "no", "1": "yes"})
TEXTS = ["good", "a bad film", "red and awful", "yes", "the sky is blue"]
KEYS = [
    ApiKey(name="boss", sha256=hashed("boss-key"), admin=True),
    ApiKey(name="shop", sha256=hashed("shop-key"), tasks=("feel",)),
    ApiKey(name="other", sha256=hashed("other-key"), tasks=("pair",)),
]


@pytest.fixture
def place(model, tmp_path):
    """A folder with a prompt of one task, that a test may change."""
    return prompts_folder(tmp_path / "prompts", model, [FEEL])


@pytest.fixture
def tool(place, model):
    """A tool beside a server that adapts nothing by itself."""
    with serving(place, model, train_every=0) as (address, _, _):
        yield LabelStudio(address, TEXTS)


def kept(place, task="feel"):
    """The lines of a task's journal."""
    return [json.loads(line) for line in (place / ".labelled" / f"{task}.jsonl").read_text().splitlines()]


# -- suggestions --------------------------------------------------------------------------------------------------


def test_a_tool_is_connected_and_gets_the_suggestions_of_classify(tool):
    assert tool.connect() == "feel"
    status, body = tool.predict()
    assert status == 200
    assert body["model_version"] == "feel"
    wanted = tool.ask("v1/classify", {"model": "feel", "input": TEXTS})[1]["data"]
    for found, each in zip(body["results"], wanted, strict=True):
        (region,) = found["result"]
        assert (region["from_name"], region["to_name"], region["type"]) == ("mood", "shown", "choices")
        assert region["value"] == {"choices": [each["answer"]]}
        assert found["score"] == region["score"] == pytest.approx(each["confidence"], abs=1e-5)
        assert found["model_version"] == "feel"
    sure = {text: each["confidence"] for text, each in zip(TEXTS, wanted, strict=True)}
    assert tool.least_sure_first() == sorted(TEXTS, key=sure.__getitem__)


def test_an_empty_text_keeps_no_other_from_its_suggestion_and_is_shown_first(tool):
    tool.tasks[1]["data"]["text"] = "  "
    status, body = tool.predict()
    assert status == 200
    assert [bool(each["result"]) for each in body["results"]] == [True, False, True, True, True]
    assert tool.least_sure_first()[0] == "  "
    assert tool.predict([])[1]["results"] == []


def test_every_task_has_an_address_of_its_own(model, tmp_path):
    folder = prompts_folder(tmp_path / "prompts", model)
    with serving(folder, model) as (address, _, _):
        status, body = LabelStudio(address).ask("health", method="GET")
        assert status == 404
        assert "give the labelling tool the address of one: /label/TASK" in body["error"]["message"]
        mood = LabelStudio(f"{address}/label/mood", ["good"], label_config(["bad", "good"]))
        assert mood.connect() == "mood"
        assert mood.predict()[1]["results"][0]["result"][0]["value"]["choices"][0] in ("bad", "good")
        pair = LabelStudio(f"{address}/label/pair", config=label_config(field="one"))
        assert pair.predict([{"id": 1, "data": {"one": "good", "two": "bad"}}])[0] == 200
        assert "task 1: no field 'two'" in pair.predict([{"id": 1, "data": {"one": "x"}}])[1]["error"]["message"]
        assert LabelStudio(f"{address}/label/nope").ask("setup", {})[0] == 404
        free = LabelStudio(f"{address}/label/free")
        assert "free writes free text" in free.ask("setup", {})[1]["error"]["message"]
        httpx.put(f"{address}/v1/aliases/feelings", json={"model": "mood"})
        assert LabelStudio(f"{address}/label/feelings", config=mood.config).connect() == "mood"
    with serving(folder, model, label="mood") as (address, _, _):
        assert LabelStudio(address, config=mood.config).connect() == "mood"
    with pytest.raises(UsageError, match="no task is called 'moody'"), serving(folder, model, label="moody"):
        pass


def test_the_openapi_document_names_the_routes_and_their_task(tool):
    paths = tool.ask("openapi.json", method="GET")[1]["paths"]
    for route in ("health", "setup", "predict", "webhook"):
        (task,) = paths[f"/label/{{task}}/{route}"]["post"]["parameters"]
        assert (task["name"], task["in"]) == ("task", "path")
        assert not paths[f"/{route}"]["post"].get("parameters")


def test_keys_guard_the_routes_and_only_an_administrator_changes_what_is_answered(model, tmp_path):
    folder = prompts_folder(tmp_path / "prompts", model, [FEEL, PAIR])
    with serving(folder, model, KEYS, label="feel", train_every=0) as (address, _, _):
        for route, method in [("health", "GET"), ("health", "POST"), ("setup", "POST"), ("predict", "POST"),
                              ("webhook", "POST"), ("v1/tasks/feel/labelling", "GET")]:  # fmt: skip
            for prefix in ("", "label/feel/") if not route.startswith("v1") else ("",):
                assert LabelStudio(address).ask(prefix + route, {}, method)[0] == 401
                body = {"tasks": [], "label_config": label_config(), "action": "START_TRAINING"}
                assert LabelStudio(address, key="other-key").ask(prefix + route, body, method)[0] == 403
        shop, boss = (LabelStudio(address, TEXTS, key=f"{name}-key") for name in ("shop", "boss"))
        assert shop.connect() == boss.connect() == "feel"
        assert shop.predict()[0] == 200
        assert shop.tell("ANNOTATION_CREATED", task=shop.tasks[0], annotation=shop.annotation(["yes"]))[0] == 403
        assert boss.label(boss.tasks[0], "yes")["kept"] == 1


# -- what a project's XML says ------------------------------------------------------------------------------------


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB + label_config(["no", "&b;"]), "label_config may declare nothing; got <!DOCTYPE"),
        (OUTSIDE + label_config(["no", "&a;"]), "label_config may declare nothing; got <!DOCTYPE"),
        ('<!DOCTYPE v SYSTEM "http://127.0.0.1:1/x.dtd">' + label_config(), "may declare nothing"),
        ('<?xml version="1.0" encoding="utf-16"?>' + BOMB + label_config(), "may declare nothing"),
        ("<! doctype v>" + label_config(), "may declare nothing"),
        (label_config(["no", "&undeclared;"]), "label_config is no XML: undefined entity"),
        ("<View>", "label_config is no XML: no element found"),
        ("\ud83d", "label_config is no XML"),
        ("\0", "label_config is no XML"),
        ("<a>" * 60_000, "label_config is no XML"),
        ("x" * (LONGEST_CONFIG + 1), "label_config has 200,001 characters, and may have 200,000"),
        ("<View/>", "wants Choices with a Choice for every label of feel: no (or 0), yes (or 1); got none"),
        (label_config(["good", "bad"]), "for every label of feel: no (or 0), yes (or 1); got good, bad"),
        (label_config(["no"]), "got no"),
    ],
    ids=["entity expansion", "external entity", "external DTD", "an encoding", "loosely written", "undeclared", "open",
         "half a character", "NUL", "deep", "long", "no choices", "foreign choices", "a label lacks"],
)  # fmt: skip
def test_a_config_that_is_hostile_or_of_another_task_is_refused(tool, text, said):
    with pytest.raises(UsageError) as error:
        read_label_config(text, FEEL)
    assert said in str(error.value)
    content = json.dumps({"tasks": tool.tasks, "label_config": text})
    answer = tool.client.post("predict", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


# -- labels -------------------------------------------------------------------------------------------------------


def test_labels_come_change_and_go_and_nothing_but_the_tasks_fields_is_kept(tool, place):
    one, two = tool.tasks[:2]
    assert tool.label(one, "yes", number=5) == {"status": "ok", "kept": 1}
    tool.label(two, "no", number="a-6")
    tool.label(one, "no", number=5, action="ANNOTATION_UPDATED")
    tool.label(one, "no", number=5, action="ANNOTATION_UPDATED")  # said twice
    assert [{k: v for k, v in line.items() if k != "held"} for line in kept(place)] == [
        {"id": "5", "row": {"text": "good"}, "label": "1"},
        {"id": "a-6", "row": {"text": "a bad film"}, "label": "0"},
        {"id": "5", "row": {"text": "good"}, "label": "0"},
    ]
    state = tool.ask("v1/tasks/feel/labelling", method="GET")[1]
    assert (state["rows"], state["new"], state["state"]) == ({"0": 2, "1": 0}, 2, "idle")
    assert tool.delete("a-6", 99) == {"status": "ok", "forgotten": 1}
    status, body = tool.tell("ANNOTATION_DELETED", annotation={"id": 5})
    assert (status, body["forgotten"]) == (201, 1)
    assert tool.ask("v1/tasks/feel/labelling", method="GET")[1]["rows"] == {"0": 0, "1": 0}


@pytest.mark.parametrize(
    ("choices", "more"),
    [(["unclear"], {}), (["no", "yes"], {}), ([], {}), (["yes"], {"was_cancelled": True}), (["yes"], {"result": []}),
     ([{"a": 1}], {})],
    ids=["a foreign label", "two", "none", "skipped", "nothing", "no text"],
)  # fmt: skip
def test_who_says_no_label_any_more_is_not_learnt_from(tool, choices, more):
    tool.label(tool.tasks[0], "yes", number=5)
    told = tool.label(tool.tasks[0], *choices, number=5, action="ANNOTATION_UPDATED", **more)
    assert (told["kept"], told["reason"]) == (0, "it has no choice, several, or one that is no label of the task")
    assert tool.ask("v1/tasks/feel/labelling", method="GET")[1]["rows"] == {"0": 0, "1": 0}


def test_a_choice_of_another_control_is_no_label(tool):
    annotation = tool.annotation(["yes"])
    annotation["result"][0]["from_name"] = "tone"
    assert tool.tell("ANNOTATION_CREATED", task=tool.tasks[0], annotation=annotation)[1]["kept"] == 0


def test_many_annotations_come_in_one(tool):
    told = tool.tell("ANNOTATIONS_CREATED", task=tool.tasks[:2],
                     annotation=[tool.annotation(["yes"]), tool.annotation(["no"])])  # fmt: skip
    assert told == (201, {"status": "ok", "kept": 2})


def test_a_project_tells_of_its_changes_and_of_much_that_nobody_needs(tool):
    assert tool.tell("PROJECT_UPDATED") == (201, {"status": "ok"})
    tool.config = label_config(["good", "bad"])
    assert tool.tell("PROJECT_UPDATED")[0] == 400
    assert tool.tell("TASKS_CREATED", tasks=[{"id": 1}]) == (200, {"status": "not looked at"})


def test_too_few_labels_adapt_nothing_and_say_what_lacks(tool):
    for task in tool.tasks[:3]:
        tool.label(task, "yes")
    lacks = "an adaptation wants two labels with two rows each or more; got 3 of 1"
    assert tool.train() == {"status": "ok", "adaptation": "none", "reason": lacks}


@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        ("predict", {"label_config": label_config()}, 422),
        ("predict", {"tasks": [{"id": 1}], "label_config": label_config()}, 422),
        ("predict", {"tasks": [{"id": 1, "data": []}], "label_config": label_config()}, 422),
        ("predict", {"tasks": [{"id": 1, "data": {"text": {"a": 1}}}], "label_config": label_config()}, 400),
        ("predict", {"tasks": [{"id": 1, "data": {"other": "x"}}], "label_config": label_config()}, 400),
        ("predict", {"tasks": [{"data": {"text": "x"}}] * 1_001, "label_config": label_config()}, 413),
        ("setup", {"schema": "<View"}, 400),
        ("setup", [], 400),
        ("webhook", {}, 422),
        ("webhook", {"action": "ANNOTATION_CREATED"}, 400),
        ("webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}}, 400),
        ("webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": "../x"}, "task": {"data": {}}}, 422),
        ("webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": -1}, "task": {"data": {}}}, 422),
        ("webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "task": {"data": {}}}, 400),
        ("webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": 1},
                     "task": {"data": {"text": "\ud83d"}}}, 400),
        ("webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "result": [
            {"type": "choices", "value": {"choices": ["yes"]}}]}, "task": {"data": {"text": None}}}, 201),
        ("webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "task": {"data": {"text": float("nan")}}},
         400),
        ("webhook", {"action": "ANNOTATIONS_DELETED"}, 400),
        ("webhook", {"action": "ANNOTATION_DELETED", "annotation": {}}, 422),
    ],
)  # fmt: skip
def test_a_hostile_body_is_told_no_and_nothing_is_kept(tool, place, route, body, status):
    answer = tool.client.post(route, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert "error" in answer.json() or answer.json().get("kept") == 0
    assert not (place / ".labelled").exists()


def test_many_label_at_once_and_every_label_is_kept(tool, place):
    def labels(start):
        for number in range(start, start + 10):
            own = {"id": number, "data": {"text": f"text {number}"}}
            tool.label(own, ["no", "yes"][number % 2], number=number)

    threads = [threading.Thread(target=labels, args=(100 * each,)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept(place)) == 40
    state = tool.ask("v1/tasks/feel/labelling", method="GET")[1]
    assert (state["rows"], state["held_out"]) == ({"0": 20, "1": 20}, 8)


# -- the journal --------------------------------------------------------------------------------------------------


def test_where_the_disk_is_full_nothing_is_kept_and_it_is_said(tool, place, monkeypatch):
    tool.label(tool.tasks[0], "yes", number=1)
    before = (place / ".labelled" / "feel.jsonl").read_bytes()
    wrote, full = os.write, []

    def failing(number, content):
        if bytes(content).startswith(b'{"id"') and not full:
            full.append(wrote(number, bytes(content)[:6]))
            return full[0]
        if full and bytes(content).startswith(b" "):
            raise OSError(errno.ENOSPC, "No space left on device")
        return wrote(number, content)

    monkeypatch.setattr(os, "write", failing)
    status, body = tool.tell("ANNOTATION_CREATED", task=tool.tasks[1], annotation=tool.annotation(["no"], 2))
    monkeypatch.undo()
    assert full
    assert status == 500
    assert body["error"]["message"] == "the label cannot be kept: No space left on device"
    assert (place / ".labelled" / "feel.jsonl").read_bytes() == before
    assert tool.ask("v1/tasks/feel/labelling", method="GET")[1]["rows"] == {"0": 0, "1": 1}
    tool.label(tool.tasks[1], "no", number=2)
    assert len(Labels(place / ".labelled" / "feel.jsonl").divided(FEEL).train) == 2


# -- adaptation ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A model in a folder, as another process loads it, and a prompt that knows nothing of its task."""
    folder = tmp_path_factory.mktemp("learned")
    backbone = load_backbone(str(saved(trained_backbone(), folder / "model")))
    rows = TaskRows.from_rows(toy_rows("good", "bad", 8), FEEL, hold_out=False)
    start = teach(rows, backbone, TeachConfig(prompt_length=4, steps=0, validation_shots=0))
    return backbone, start


@pytest.fixture
def beginner(learned, tmp_path):
    """A folder with the prompt that knows nothing, and its model."""
    backbone, start = learned
    start.save_pretrained(tmp_path / "prompts" / "feel")
    return tmp_path / "prompts", backbone


def labelled(tool, rows):
    """Label rows one by one; what was said of the last."""
    said = {}
    for row in rows:
        said = tool.label({"id": 1, "data": {"text": row["text"]}}, ["no", "yes"][row["label"]])
    return said


def outcomes(tool, count, seconds=300):
    """The outcomes, when there are so many and nothing is under way."""
    for _ in range(20 * seconds):
        state = tool.ask("v1/tasks/feel/labelling", method="GET")[1]
        if len(state["outcomes"]) >= count and state["state"] == "idle":
            return state["outcomes"]
        time.sleep(0.05)
    raise AssertionError(state)


def right(tool, rows):
    """How many suggestions are right."""
    _, body = tool.predict([{"id": n, "data": {"text": row["text"]}} for n, row in enumerate(rows)])
    found = [each["result"][0]["value"]["choices"][0] for each in body["results"]]
    return sum(word == ["no", "yes"][row["label"]] for word, row in zip(found, rows, strict=True))


STEPS = AdaptConfig(validation_shots=0, steps=40)


@pytest.mark.slow
def test_forty_rows_are_labelled_and_what_learns_from_them_takes_over(beginner, caplog):
    folder, backbone = beginner
    rows, unseen = toy_rows("good", "bad", 40), toy_rows("good", "bad", 40, start=100)
    with serving(folder, backbone, adapt=STEPS) as (address, _, _):
        tool = LabelStudio(address)
        assert tool.connect() == "feel"
        at_first = right(tool, unseen)
        assert labelled(tool, rows[:19]) == {"status": "ok", "kept": 1}
        assert labelled(tool, rows[19:20])["adaptation"] in ("waiting", "running")
        (first,) = outcomes(tool, 1)
        assert first["problem"] is None
        assert (first["rows"], first["held_out"], first["from"]) == (16, 4, "feel")
        assert first["taken_over"] == (first["after"] > first["before"])
        labelled(tool, rows[20:])
        _, second = outcomes(tool, 2)
        assert (second["rows"], second["held_out"], second["problem"]) == (32, 8, None)
        assert second["from"] == (first["version"] or "feel")
        taken = [each for each in (first, second) if each["taken_over"]]
        assert taken, "the toy is learnt"
        answers = taken[-1]["version"]
        assert tool.connect() == answers
        assert right(tool, unseen) >= at_first + 8
        assert sorted(str(p.relative_to(folder)) for p in (folder / ".learnt" / "feel").iterdir()) == [
            each["version"] for each in taken]  # fmt: skip
        assert f"{answers} answers from now on" in caplog.text
        wanted = right(tool, unseen)
    with serving(folder, backbone, train_every=0) as (address, _, _):
        tool = LabelStudio(address)
        assert tool.connect() == answers
        assert right(tool, unseen) == wanted
        assert outcomes(tool, 2) == [first, second]
        assert tool.ask("v1/tasks/feel/rollback")[1]["root"] == taken[-1]["from"]


@pytest.mark.slow
def test_a_version_that_is_no_better_does_not_take_over(beginner):
    folder, backbone = beginner
    with serving(folder, backbone, train_every=0, adapt=AdaptConfig(validation_shots=0, steps=0)) as (address, _, _):
        tool = LabelStudio(address)
        labelled(tool, toy_rows("good", "bad", 12))
        assert tool.train()["adaptation"] in ("waiting", "running")
        (only,) = outcomes(tool, 1)
        assert only["before"] == only["after"] is not None
        assert (only["taken_over"], only["version"], only["problem"]) == (False, None, None)
        assert tool.connect() == "feel"
        assert not (folder / ".learnt").exists()


@pytest.mark.slow
def test_where_learning_fails_the_server_goes_on_and_says_why(beginner, monkeypatch):
    folder, backbone = beginner
    with serving(folder, backbone, train_every=0, adapt=STEPS) as (address, _, _):
        monkeypatch.setattr(backbone, "config", backbone.config.model_copy(update={"name": "/nowhere/at-all"}))
        tool = LabelStudio(address)
        labelled(tool, toy_rows("good", "bad", 12))
        tool.train()
        (only,) = outcomes(tool, 1)
        assert "/nowhere/at-all" in only["problem"]
        assert (only["taken_over"], only["before"]) == (False, None)
        assert tool.connect() == "feel"
        assert right(tool, toy_rows("good", "bad", 4)) >= 0


LONG = AdaptConfig(validation_shots=0, steps=100_000)


@pytest.mark.slow
def test_a_server_that_ends_takes_its_adaptation_with_it_and_keeps_the_labels(beginner, monkeypatch):
    folder, backbone = beginner
    begun, started = [], subprocess.Popen

    class Noted(started):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            begun.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    with serving(folder, backbone, train_every=0, adapt=LONG) as (address, _, _):
        tool = LabelStudio(address)
        labelled(tool, toy_rows("good", "bad", 12))
        tool.train()
        while not begun:
            time.sleep(0.01)
        assert tool.ask("v1/tasks/feel/labelling", method="GET")[1]["state"] == "running"
        assert tool.train()["adaptation"] == "running"
        assert tool.predict([{"id": 1, "data": {"text": "good"}}])[0] == 200
        ended = time.monotonic()
    assert time.monotonic() - ended < 10
    (process,) = begun
    assert process.returncode is not None
    assert not (folder / ".learnt").exists()
    labels = Labels(folder / ".labelled" / "feel.jsonl")
    assert (labels.since, labels.outcomes) == (12, [])


@pytest.mark.slow
def test_an_adaptation_ends_by_itself_when_its_server_is_killed(beginner):
    folder, backbone = beginner
    rows = tuple(toy_rows("good", "bad", 12))
    lesson = Lesson(backbone=backbone.config, prompt=folder / "feel", task=FEEL, train=rows[:8], held=rows[8:],
                    adapt=LONG, evaluate=EvaluateConfig(), out=folder / ".learnt" / "feel" / "1")  # fmt: skip
    command = [sys.executable, "-P", "-c", CHILD, str(Path(mptune.__file__).parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.stdin.write(lesson.model_dump_json().encode() + b"\n")
            process.stdin.flush()
            assert any(b'"step"' in line for line in process.stderr), "it learns"
            process.stdin.close()
            assert process.wait(20) == 1
        finally:
            process.kill()
        assert process.stdout.read() == b""
    assert not (folder / ".learnt").exists()


def test_a_version_that_was_compared_with_another_than_answers_now_does_not_come_in(place, model):
    store, _, _ = opened(place, model)
    first = store.entry("feel").version
    random_prompt(model, [FEEL], seed=8).save_pretrained(place / "sub" / "two")
    random_prompt(model, [FEEL], seed=9).save_pretrained(place / "sub" / "three")
    store.put("sub/two", "feel", over=first)
    with pytest.raises(UsageError, match="another version of feel than feel answers meanwhile"):
        store.put("sub/three", "feel", over=first)
    assert store.entry("feel").version.folder == "sub/two"
    store.remove("feel")
    with pytest.raises(UsageError, match="answers meanwhile, or none"):
        store.put("sub/three", "feel", over=first)
    assert store.names() == []
