"""The table of methods: everything derives from it, and a rival is one row and one function."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mptune.comparison.bench import run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import METHODS, PROMPTS, Method, RecipeSection, sections
from mptune.comparison.plan import planned
from mptune.comparison.recipe import recipe_model
from mptune.comparison.report import write_report
from mptune.comparison.systems import Sources, System
from mptune.comparison.trials import Trial
from mptune.config import BaselineConfig, parse_overrides
from mptune.errors import ConfigError
from support.models import make_backbone
from support.toys import task_yaml

DOCS = Path(__file__).parents[2] / "docs"


def test_reading_the_table_loads_neither_a_model_nor_the_stages():
    code = (
        "import sys, mptune.comparison.methods; "
        "print([m for m in ('torch', 'transformers', 'mptune.stages') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_table_in_the_documentation_is_the_table():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    described = {row[0].strip("`"): tuple(row[1:]) for row in rows if len(row) == 4}
    assert described == {
        name: (method.learns, f"`{method.section.name}`" if method.section else "", method.unit)
        for name, method in METHODS.items()
    }


def test_what_needs_more_libraries_says_so_in_the_documentation():
    for method in METHODS.values():
        assert (method.extra is not None) == bool(re.search(r"\((PEFT|SetFit)\)", method.learns))


def test_methods_that_share_a_section_agree_on_it():
    for name, config in sections().items():
        assert {m.section.config for m in METHODS.values() if m.section and m.section.name == name} <= {config}


# -- a rival ----------------------------------------------------------------------------------------------------------


class CentroidConfig(BaselineConfig):
    """A prompt of equal soft tokens at the mean embedding of the label words, some steps away from zero."""

    tokens: int = 3
    """Soft tokens."""
    lr: float = 0.1
    """Share of the way that a step takes."""


asked: list[Trial] = []  # every run of the rival, in turn


def centroid(trial: Trial, sources: Sources) -> list[System]:
    """The mean embedding of the label words; its only training is a walk there."""
    asked.append(trial)
    (rows,), config = trial.targets, trial.config
    backbone = sources.backbone(trial.contender.settings)
    ids = backbone.tokenizer([" ".join(rows.task.label_words)])["input_ids"]
    share = min(1.0, config.lr * config.steps)
    prompt = share * backbone.embeddings[ids[0]].mean(0).expand(config.tokens, -1)  # [L, D]
    return [System(prompt, config.tokens, backbone, trained=backbone.width, stored=backbone.width)]


RIVAL = Method(
    centroid, PROMPTS, "the mean of the label words", "nothing but a place",
    section=RecipeSection("centroid", CentroidConfig, "A walk to the label words."), unit="of the way", rival=True,
)  # fmt: skip


@pytest.fixture
def rival(monkeypatch):
    """The row; nothing else of the package is told of it."""
    monkeypatch.setitem(METHODS, "centroid", RIVAL)
    monkeypatch.setattr(sys.modules[__name__], "asked", [])


@pytest.fixture
def recipe(rival, tmp_path):
    """A recipe's file in which the rival stands beside MPT, with a variant and rates of its own."""
    backbone = make_backbone("t5")
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    for name in ("mood", "speed", "colour"):
        task_yaml(tmp_path, name)
    file = tmp_path / "toy.yaml"
    file.write_text(
        f"name: toy\nout: {tmp_path / 'out'}\nbackbone: {{name: {tmp_path / 'model'}}}\n"
        "sources: [mood.yaml, speed.yaml]\ntargets: [colour.yaml]\nmethods: [constant, centroid, mpt, wide]\n"
        "variants: {wide: {of: centroid, centroid: {tokens: 5}}}\nrates: {centroid: [0.1, 0.5]}\n"
        "shots: [2]\nseeds: 2\nbudget: {steps: 2, validate_every: 2, validation_shots: 2}\n"
        "teach: {steps: 2, prompt_length: 4}\n"
        "distill: {steps: 2}\nevaluate: {rows: 6}\n"
    )
    return file


def test_a_rivals_section_is_read_with_the_budget_checked_and_set(recipe):
    loaded = Loaded.from_file(recipe, parse_overrides(["centroid.tokens=4"], sections()))
    assert (loaded.recipe.centroid.tokens, loaded.recipe.centroid.steps) == (4, 2)
    assert loaded.contenders["wide"].settings.centroid.tokens == 5
    field = recipe_model().model_json_schema()["properties"]["centroid"]
    assert field["description"] == "A walk to the label words."
    recipe.write_text(recipe.read_text().replace("tokens", "tokenz"))
    with pytest.raises(ConfigError, match=r"centroid\.tokenz is not a field\. Did you mean 'tokens'"):
        Loaded.from_file(recipe)


def test_a_rival_is_planned_run_resumed_and_stands_in_the_table(recipe, tmp_path):
    loaded, folder = Loaded.from_file(recipe), tmp_path / "out"
    runs = {cost.what: cost.runs for cost in planned(loaded).costs}
    assert (runs["centroid"], runs["wide"]) == (3, 3)  # two rates with the first seed, and the better with the second
    asked.clear()

    class Killed(Exception):
        pass

    def kill(standing):
        if standing.done == 3:
            raise Killed

    with pytest.raises(Killed):
        run_recipe(loaded, watch=kill)
    taken = len(asked)
    run_recipe(Loaded.from_file(recipe))
    written = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    lines = {(line["method"], line["seed"]): line for line in map(json.loads, written)}
    assert {key for key in lines if key[0] in ("centroid", "wide")} == {
        (name, seed) for name in ("centroid", "wide") for seed in (0, 1)
    }
    assert 0 < taken < len(asked) == 6, "what was finished was not done again"
    assert {(trial.shots, trial.config.shots, trial.config.seed) for trial in asked} == {(2, 2, 0), (2, 2, 1)}
    assert lines["centroid", 1]["lr"] == lines["centroid", 0]["lr"] in (0.1, 0.5)
    before = (folder / "results.jsonl").read_bytes()
    run_recipe(Loaded.from_file(recipe))
    assert (folder / "results.jsonl").read_bytes() == before

    table = (folder / "results.md").read_text(encoding="utf-8")
    assert re.search(r"^\| centroid \| \d", table, re.MULTILINE)
    assert re.search(r"^- centroid minus mpt: ", table, re.MULTILINE)


def test_a_rival_stands_in_the_report_under_its_family(recipe, tmp_path):
    run_recipe(Loaded.from_file(recipe))
    write_report(tmp_path / "out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert RIVAL.description in page
    assert re.search(rf"{PROMPTS}.*\bcentroid\b", page, re.DOTALL)
    assert "recipe's own" not in page.replace("&#39;", "'").partition("wide")[0], "a variant alone is the recipe's own"
