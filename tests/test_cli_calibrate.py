"""`mptune calibrate` writes into a card; `predict` and `evaluate` follow it; `evaluate --at-least` has an exit code."""

import csv
import json
import os
import shutil

import pytest
from safetensors import safe_open

import mptune
from mptune.prompts import folder as folders
from mptune.prompts.card import Calibration
from mptune.prompts.folder import write_calibration
from mptune.prompts.prompt import MultitaskPrompt
from support.models import make_backbone, saved
from support.prompts import random_prompt
from support.toys import make_task, task_yaml, toy_rows, write_rows

FOUND = Calibration(temperature=2.5, threshold=0.55, precision=0.9, rows=100, split="validation")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model, two tasks with 100 validation rows, one of free text, and prompts of one task and of all three."""
    folder = tmp_path_factory.mktemp("calibrate")
    saved(make_backbone("t5"), folder / "model")
    backbone = mptune.load_backbone(str(folder / "model"))
    tasks = [make_task(folder, name) for name in ("mood", "speed")]
    tasks.append(make_task(folder, "title", verbalizer={}, target="{label}", metrics=("exact_match",)))
    for task in tasks:
        write_rows(folder / f"{task.name}.validation.jsonl", toy_rows("good", "bad", 100, 1000))
    task_yaml(folder, "mood")
    write_rows(folder / "mood.validation.jsonl", toy_rows("good", "bad", 100, 1000))
    for name, own in (("one", tasks[:1]), ("all", tasks)):
        random_prompt(backbone, own).save_pretrained(folder / name)
        config = {
            "backbone": {"name": str(folder / "model")},
            "tasks": [task.model_dump(mode="json", exclude_none=True) for task in own],
        }
        (folder / name / "config.json").write_text(json.dumps(config))
    write_rows(folder / "rows.jsonl", [{"text": row["text"]} for row in toy_rows("good", "bad", 40, 5000)])
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of the prompts, that one is in; rows and model stay where they are."""
    for name in ("one", "all"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copy(made / "rows.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raw(folder):
    """The tensors' bytes and the card, as they lie in the file."""
    with safe_open(folder / "prompt.safetensors", framework="pt") as opened:
        card = json.loads(opened.metadata()["card"])
        return {key: opened.get_tensor(key).numpy().tobytes() for key in opened.keys()}, card  # noqa: SIM118


def answers(cli, *more):
    code, out, err = cli("predict", "rows.jsonl", "--prompt", "one", *more)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


# -- calibrate --------------------------------------------------------------------------------------------------------


def test_calibrating_writes_the_card_and_changes_nothing_else_of_the_prompt(cli, place):
    tensors, card = raw(place / "one")
    before = MultitaskPrompt.from_pretrained("one").digest()
    code, out, err = cli("calibrate", "one", "--precision", "0.3")
    assert code == 0, err
    after, changed = raw(place / "one")
    found = changed.pop("calibration")["mood"]
    assert (after, changed) == (tensors, card)
    assert MultitaskPrompt.from_pretrained("one").digest() == before
    assert (found["rows"], found["split"], found["precision"]) == (100, "validation", 0.3)
    assert 0 < found["threshold"] < 1
    assert sorted(os.listdir("one")) == ["README.md", "config.json", "prompt.safetensors"]
    said = f"temperature {found['temperature']:g}, abstains below {found['threshold']:g} for a precision of 0.3; "
    assert said + "100 validation rows" in (place / "one" / "README.md").read_text()
    assert f"mood confidences\t{said}100 validation rows" in cli("show", "one")[1]
    head, row, halves, chosen, confirmed = out.splitlines()
    assert head.split("\t")[:4] == ["task", "split", "rows", "temperature"]
    assert row.split("\t")[3] == f"{found['temperature']:g}"
    assert halves.split("\t") == ["task", "threshold", "on", "answered", "coverage", "precision", "at least"]
    assert chosen.split("\t")[:3] == ["mood", f"{found['threshold']:g} chosen", "50 rows"]
    assert confirmed.split("\t")[:3] == ["mood", f"{found['threshold']:g} confirmed", "50 rows"]
    assert "Written to the card of one" in err


def test_calibrating_again_replaces_what_was_found_and_repeats_to_the_last_byte(cli, place):
    write_calibration(place / "one", {"mood": FOUND})
    assert cli("calibrate", "one", "--precision", "0.3", "--json")[0] == 0
    first = (place / "one" / "prompt.safetensors").read_bytes()
    code, out, _ = cli("calibrate", "one", "--precision", "0.3", "--json")
    assert (place / "one" / "prompt.safetensors").read_bytes() == first
    values = json.loads(out)
    card = MultitaskPrompt.from_pretrained("one").card
    assert values["temperature"] == card.calibration_of("mood").temperature != FOUND.temperature
    code, _, err = cli("calibrate", "one", "--precision", "0.999")
    assert code == 0
    assert "mood: no threshold is written: above no confidence do the answers of the half that chooses" in err
    assert MultitaskPrompt.from_pretrained("one").card.calibration_of("mood").threshold is None


def test_tasks_of_a_prompt_are_calibrated_together_or_by_name(cli, place, made):
    write_calibration(place / "all", {"mood": FOUND})
    code, _, err = cli("calibrate", "all", "--task", "speed")
    assert code == 0, err
    card = MultitaskPrompt.from_pretrained("all").card
    assert card.calibration_of("mood") == FOUND
    alone = card.calibration_of("speed")
    code, _, err = cli("calibrate", "all")
    assert code == 0, err
    assert "passed over: title: it writes free text, which has no confidence" in err
    card = MultitaskPrompt.from_pretrained("all").card
    assert set(card.calibration) == {"mood", "speed"}
    assert card.calibration_of("mood") != FOUND
    assert card.calibration_of("speed") == alone
    assert cli("calibrate", "one", "--task", made / "mood.yaml", "--rows", 20)[0] == 0
    assert MultitaskPrompt.from_pretrained("one").card.calibration_of("mood").rows == 20


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("all", "--task", "title"), 2, "title: it writes free text, which has no confidence. Name tasks whose label"),
        (("one", "--task", "sped"), 2, "sped"),
        (("one", "--split", "train"), 2, "no split of held-out rows is called 'train'. Known: test, validation."),
        (("one", "--rows", "19"), 3, "calibrating mood wants 20 held-out rows or more"),
        (("one", "--precision", "95"), 2, "wants a number between 0 and 1, as 0.95; got 95"),
        (("one", "--precision", "1"), 2, "wants a number between 0 and 1, as 0.95; got 1"),
        (("one", "--rows", "30", "--set", "evaluate.rows=40"), 2, "evaluate.rows is given by --set and by an option"),
        (("general",), 2, "general is no folder of yours, whose card could be written. Make one in Python: Multitask"),
        (("none",), 2, "there is no folder none"),
        ((".",), 3, "Did you mean one of its prompts: all, one?"),
    ],
)
def test_what_cannot_be_calibrated_is_said_and_leaves_the_prompt_alone(cli, place, arguments, code, says):
    before = [(place / name / "prompt.safetensors").read_bytes() for name in ("one", "all")]
    ended, out, err = cli("calibrate", *arguments)
    assert (ended, out) == (code, "")
    assert says in " ".join(err.split())
    assert [(place / name / "prompt.safetensors").read_bytes() for name in ("one", "all")] == before


def test_a_folder_that_may_not_be_written_to_is_said_before_a_model_is_loaded(cli, place, monkeypatch):
    monkeypatch.setattr("mptune.prompts.stored.os.access", lambda *_: False)
    monkeypatch.setattr("mptune.commands.scoring.load", lambda *_: pytest.fail("loaded"))
    code, _, err = cli("calibrate", "one")
    assert code == 2
    assert "the folder one may not be written to; copy it to a place that may" in err


@pytest.mark.parametrize("file", ["README.md", "prompt.safetensors"])
def test_a_kill_leaves_the_old_prompt_or_the_new_one(place, monkeypatch, file):
    before, write = raw(place / "one"), folders.write_file

    def killed(path, content):
        if path.name == file:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(folders, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write_calibration(place / "one", {"mood": FOUND})
    assert raw(place / "one") == before
    monkeypatch.undo()
    write_calibration(place / "one", {"mood": FOUND})
    assert MultitaskPrompt.from_pretrained(place / "one").card.calibration == {"mood": FOUND}


# -- predict ----------------------------------------------------------------------------------------------------------


def test_answers_stay_and_confidences_are_those_of_the_temperature(cli, place):
    plain = answers(cli)
    assert not any("abstained" in answer for answer in plain)
    write_calibration(place / "one", {"mood": FOUND.model_copy(update={"threshold": None})})
    warm = answers(cli)
    assert [a["answer"] for a in warm] == [a["answer"] for a in plain]
    assert warm[0].keys() == plain[0].keys()
    for cool, hot in zip(plain, warm, strict=True):
        powers = {word: p ** (1 / 2.5) for word, p in cool["probabilities"].items()}
        expected = {word: p / sum(powers.values()) for word, p in powers.items()}
        assert hot["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_below_the_threshold_answers_are_abstained_and_kept(cli, place):
    plain = answers(cli)
    write_calibration(place / "one", {"mood": FOUND.model_copy(update={"temperature": 1.0})})
    sure = sorted(max(a["probabilities"].values()) for a in plain)
    middle = FOUND.model_copy(update={"temperature": 1.0, "threshold": sure[20]})
    write_calibration(place / "one", {"mood": middle})
    kept = answers(cli)
    assert [a["answer"] for a in kept] == [a["answer"] for a in plain]
    assert [a["abstained"] for a in kept] == [a["probabilities"][a["answer"]] < sure[20] for a in kept]
    assert 0 < sum(a["abstained"] for a in kept) <= 20
    code, _, err = cli("predict", "rows.jsonl", "--prompt", "one", "--output", "answers.csv")
    assert code == 0, err
    with open("answers.csv", encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["text", "answer", "confidence", "abstained"]
    assert [row["abstained"] for row in table] == [str(a["abstained"]) for a in kept]


# -- evaluate ---------------------------------------------------------------------------------------------------------


def scores(cli, *more):
    code, out, err = cli("evaluate", "--prompt", "one", "--json", *more)
    assert code == 0, err
    return {line["metric"]: line for line in map(json.loads, out.splitlines())}


def test_evaluating_says_coverage_and_precision_of_what_is_answered(cli, place):
    plain = scores(cli)
    assert list(plain) == ["accuracy"]
    write_calibration(place / "one", {"mood": FOUND.model_copy(update={"threshold": None})})
    assert list(scores(cli)) == ["accuracy"]
    write_calibration(place / "one", {"mood": FOUND.model_copy(update={"threshold": 0.0})})
    every = scores(cli)
    assert every["accuracy"] == plain["accuracy"]
    assert (every["coverage"]["value"], every["precision"]["value"]) == (100, plain["accuracy"]["value"])
    write_calibration(place / "one", {"mood": FOUND.model_copy(update={"threshold": 1.0})})
    none = scores(cli)
    assert (none["coverage"]["value"], none["coverage"]["examples"]) == (0, 100)
    assert (none["precision"]["value"], none["precision"]["examples"]) == (0, 0)
    assert list(scores(cli, "--set", "evaluate.scoring=generation")) == ["accuracy"]


def test_what_calibrate_found_on_rows_evaluate_says_of_the_same_rows(cli, place):
    code, out, _ = cli("calibrate", "one", "--precision", "0.3", "--json")
    assert code == 0
    halves = [json.loads(out)[half] for half in ("choosing", "confirming")]
    found = scores(cli)
    answered = sum(half["answered"] for half in halves)
    assert found["precision"]["examples"] == answered
    assert found["coverage"]["value"] == pytest.approx(answered)  # of 100 rows
    assert found["precision"]["value"] == pytest.approx(100 * sum(half["right"] for half in halves) / answered)


def test_a_score_below_what_was_asked_ends_with_exit_code_four_behind_the_scores(cli, place):
    accuracy = scores(cli)["accuracy"]["value"]
    asked = ("evaluate", "--prompt", "one", "--at-least")
    code, out, err = cli(*asked, f"accuracy={accuracy}")
    assert (code, err) == (0, "")
    code, again, err = cli(*asked, f"accuracy={accuracy + 1}")
    assert (code, again) == (4, out)
    said = f"mood: accuracy {accuracy:.2f} on 100 validation rows, and {accuracy + 1:g} was asked for"
    assert err == f"mptune: below --at-least: {said}\n"
    write_calibration(place / "one", {"mood": FOUND.model_copy(update={"threshold": 1.0})})
    code, _, err = cli(*asked, "precision=50", "--at-least", "coverage=20", "--at-least", "accuracy=1")
    assert code == 4
    assert [line.split(" on ")[0] for line in err.splitlines()[1:]] == [
        "  - mood: precision 0.00",
        "  - mood: coverage 0.00",
    ]


def test_every_prompt_of_a_folder_has_to_reach_it(cli, place, made):
    shutil.copytree("one", "two")
    shutil.rmtree("all")
    code, _, err = cli("evaluate", "--prompt", ".", "--task", made / "mood.yaml", "--at-least", "accuracy=101")
    assert code == 4
    assert [line.split(":")[0] for line in err.splitlines()[1:]] == ["  - one, mood", "  - two, mood"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("acuracy=80", "no metric of these scores is called 'acuracy'. Did you mean 'accuracy'? Known: accuracy."),
        ("precision=80", "no metric of these scores is called 'precision'. Known: accuracy."),
        ("accuracy_unseen=80", "no metric of these scores is called 'accuracy_unseen'."),
        ("accuracy", "--at-least wants METRIC=VALUE, as accuracy=80; got 'accuracy'"),
        ("accuracy=high", "--at-least wants METRIC=VALUE, as accuracy=80; got 'accuracy=high'"),
        ("accuracy=nan", "--at-least wants METRIC=VALUE, as accuracy=80; got 'accuracy=nan'"),
        ("=80", "--at-least wants METRIC=VALUE, as accuracy=80; got '=80'"),
        ("ter=40", "--at-least wants a metric of which more is better; of ter less is"),
        ("accuracy=0.8", "accuracy runs to 100, and --at-least accuracy=0.8 asks for hardly any; a share of 0.8 is 80"),
    ],
)
def test_what_cannot_be_asked_for_is_wrong_usage(cli, place, asked, says):
    code, _, err = cli("evaluate", "--prompt", "one", "--at-least", asked)
    assert code == 2
    assert says in err


def test_a_metric_is_asked_for_once(cli, place):
    code, _, err = cli("evaluate", "--prompt", "one", "--at-least", "accuracy=8", "--at-least", "accuracy=80")
    assert (code, "--at-least has accuracy twice; give it once" in err) == (2, True)


def test_an_unknown_metric_is_said_before_a_model_is_loaded(cli, place, monkeypatch):
    monkeypatch.setattr("mptune.commands.scoring.load", lambda *_: pytest.fail("loaded"))
    assert cli("evaluate", "--prompt", "one", "--at-least", "bleu=8")[0] == 2
