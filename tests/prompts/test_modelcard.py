"""A prompt's page is a pure function of its card."""

import pytest
import yaml

from mptune.prompts.card import Card, public_name
from mptune.prompts.modelcard import card_rows, model_card
from mptune.tasks.task import Task

TASK = {"name": "mood", "template": "mood: {text}", "verbalizer": {"0": "bad", "1": "good"}}
FREE = {"name": "title", "template": "title: {text}", "target": "{title}"}
SCORE = {"task": "mood", "split": "test", "metric": "accuracy", "value": 91.256, "examples": 40}


def card(tasks=(TASK,), **changes):
    values = {
        "stage": "target",
        "tasks": tuple(Task(**task) for task in tasks),
        "backbone": "google-t5/t5-small",
        "fingerprint": "0123456789abcdef",
        "seeds": {"seed": 7},
        "versions": {"mptune": "0.1.0"},
    }
    return Card(**{**values, **changes})


def page(**changes):
    return model_card(card(**changes), length=20, rank=2, width=512)


def metadata(text):
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_head_is_what_the_hub_reads():
    head, _ = metadata(page(scores=[SCORE]))
    assert head["library_name"] == "mptune"
    assert head["base_model"] == "google-t5/t5-small"
    assert head["pipeline_tag"] == "text-classification"
    [entry] = head["model-index"]
    [result] = entry["results"]
    assert (entry["name"], result["task"]["type"]) == ("mood", "text-classification")
    assert result["dataset"]["split"] == "test"
    assert result["metrics"] == [{"type": "accuracy", "value": 91.26}]


def test_the_head_begins_with_the_library_and_ends_with_the_scores():
    head, _ = metadata(page(scores=[SCORE]))
    assert list(head) == ["library_name", "tags", "pipeline_tag", "base_model", "model-index"]


def test_metrics_of_one_task_are_one_result_and_those_of_another_split_another():
    scores = [SCORE, {**SCORE, "metric": "f1", "value": 80}, {**SCORE, "split": "validation"}]
    [entry] = metadata(page(scores=scores))[0]["model-index"]
    assert [(r["dataset"]["split"], [m["type"] for m in r["metrics"]]) for r in entry["results"]] == [
        ("test", ["accuracy", "f1"]),
        ("validation", ["accuracy"]),
    ]


def test_a_prompt_without_scores_claims_none():
    head, body = metadata(page())
    assert list(head) == ["library_name", "tags", "pipeline_tag", "base_model"]
    assert "| score |" not in body


def test_the_page_says_how_sure_answers_are():
    found = {"temperature": 1.5, "threshold": 0.8125, "precision": 0.9, "rows": 100, "split": "validation"}
    said = "temperature 1.5, abstains below 0.8125 for a precision of 0.9; 100 validation rows"
    assert f"Confidences of mood: {said}." in page(calibration={"mood": found})
    assert ("mood confidences", said) in card_rows(card(calibration={"mood": found}), 20, 2, 512)
    without = page(calibration={"mood": found | {"threshold": None}})
    assert "Confidences of mood: temperature 1.5, no threshold for a precision of 0.9; 100 validation rows." in without
    assert "Confidences" not in page()


def test_one_task_of_free_text_makes_it_a_generator():
    head, body = metadata(page(tasks=[TASK, FREE], scores=[SCORE]))
    assert head["pipeline_tag"] == "text-generation"
    assert head["model-index"][0]["results"][0]["task"]["type"] == "text-generation"
    assert "| title | `title: {text}` | free text |" in body


def test_a_task_under_the_papers_protocol_says_so():
    assert "| mood (paper's protocol) | `mood: {text}` |" in metadata(page(tasks=[{**TASK, "protocol": "paper"}]))[1]
    assert "| mood | `mood: {text}` |" in metadata(page(tasks=[{**TASK, "protocol": "recommended"}]))[1]


def test_the_page_counts_every_number_of_the_prompt():
    _, body = metadata(page(tasks=[TASK, FREE]))
    # P* is 20 x 512; each of the two tasks has u of 20 x 2 and v of 2 x 512.
    assert f"{20 * 512 + 2 * (20 * 2 + 2 * 512):,} numbers" in body
    assert "20 soft tokens, rank 2: 12,368 numbers" in body


def test_the_page_says_what_it_was_made_from():
    _, body = metadata(page(scores=[SCORE], sources=["a", "b"], revision="abc"))
    assert "# Soft prompt: mood" in body
    assert "A target prompt" in body
    assert "`google-t5/t5-small` at revision `abc`" in body
    assert "| mood | `mood: {text}` | bad, good |" in body
    assert "| mood | test | accuracy | 91.3 | 40 |" in body
    assert "Source tasks: a, b." in body
    assert "mptune 0.1.0, seed 7" in body


def test_a_bar_in_a_template_does_not_break_the_table():
    _, body = metadata(page(tasks=[{**TASK, "template": "a | b\n{text}"}]))
    assert "| mood | `a \\| b {text}` | bad, good |" in body


@pytest.mark.parametrize(
    ("template", "words", "line"),
    [
        ("a `b` {text}", ["<img src=x>", "[good](http://x)"],
         r"| mood | `` a `b` {text} `` | \<img src=x\>, \[good\](http://x) |"),
        ("a\x1b[2J {text}", ["*bad*", "a|b"], r"| mood | `a\u001b[2J {text}` | \*bad\*, a\|b |"),
        ("{text}", ["not_bad", "half-good"], "| mood | `{text}` | not_bad, half-good |"),
    ],
)  # fmt: skip
def test_texts_of_a_task_stand_in_the_page_as_they_are_and_do_nothing(template, words, line):
    _, body = metadata(page(tasks=[{**TASK, "template": template, "verbalizer": dict(zip("01", words, strict=True))}]))
    assert line in body.splitlines()


def test_the_embedded_backbone_names_what_it_was_made_from():
    head, body = metadata(page(backbone="embedded"))
    assert head["base_model"] == "google/flan-t5-small"
    assert "backbone `embedded` (" in body


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("google-t5/t5-small", "google-t5/t5-small"),
        ("gpt2", "gpt2"),
        ("embedded", "embedded"),
        ("/home/somebody/models/t5", "./t5"),
        ("/t5", "./t5"),
        ("./models/t5", "./t5"),
        ("../t5", "./t5"),
        ("work/models/t5", "./t5"),
        ("./t5", "./t5"),
        ("~/t5", "./t5"),
    ],
)
def test_of_a_folder_only_its_last_name_is_public_and_that_it_is_a_folder(backbone, name):
    assert public_name(backbone) == name
    text = page(backbone=backbone)
    assert f"`{name}`" in text
    assert "somebody" not in text


def test_a_local_backbone_is_no_base_model_of_the_hub():
    assert "base_model" not in metadata(page(backbone="/home/somebody/t5"))[0]


def test_a_card_in_lines_counts_what_the_page_counts_and_says_what_was_scored():
    described = card(tasks=(TASK, FREE), revision="abc", scores=(SCORE,))
    rows = card_rows(described, length=20, rank=2, width=512)
    assert rows == [
        ("stage", "target"),
        ("tasks", "mood, title"),
        ("backbone", "google-t5/t5-small@abc (0123456789ab)"),
        ("prompt", "20 soft tokens, rank 2, width 512"),
        ("numbers", "12,368"),
        ("seed", "7"),
        ("mood test accuracy", "91.3, 40 rows"),
        ("versions", "mptune 0.1.0"),
    ]
    (sources,) = [value for name, value in card_rows(card(sources=("a", "b")), 20, 2, 512) if name == "sources"]
    assert sources == "a, b"


def test_that_training_did_not_help_stands_beside_the_scores():
    start = {"scores": [SCORE], "kept": 0, "config": {"steps": 40}}
    assert "| 40 |\n\nTraining did not help: this is the state before its first step.\n" in page(**start)
    rows = card_rows(card(**start), 20, 2, 512)
    assert ("training", "did not help: this is the state before its first step") in rows
    for changes in ({"kept": 20}, {"config": {"steps": 0}}, {"kept": None}):
        assert "did not help" not in page(**{**start, **changes})
        assert "training" not in dict(card_rows(card(**{**start, **changes}), 20, 2, 512))
