"""A comparison that begins with multitask prompts that are there, and trains no source task."""

import json
import shutil

import pytest
import yaml

from mptune.comparison.bench import run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.plan import planned
from mptune.comparison.results import read_results
from mptune.errors import ArtifactError, BackboneMismatch, ConfigError, ResumeError
from mptune.prompts.prompt import MultitaskPrompt
from support.models import make_backbone, saved
from support.recipes import SETTINGS

pytestmark = pytest.mark.slow

METHODS = ["constant", "transfer", "mpt", "prompt-tuning"]
OF_SOURCES = ("sources", "teach", "distill")


@pytest.fixture
def given(finished, tmp_path):
    """Return a maker of recipe files whose comparison begins with the finished one's multitask prompt."""
    folder, recipe, _ = finished
    shutil.copytree(folder / "out" / "multitask", tmp_path / "there")
    for rows in recipe.targets:
        text = yaml.safe_dump(rows.task.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
        (tmp_path / f"{rows.name}.yaml").write_text(text)

    def made(**changes):
        values = {name: value for name, value in SETTINGS.items() if name not in (*OF_SOURCES, "variants", "rates")}
        values |= {"methods": METHODS, "targets": ["colour.yaml", "sound.yaml"], "multitask": "there"}
        values |= {"out": str(tmp_path / "out"), "backbone": {"name": str(folder / "model")}, **changes}
        values = {name: value for name, value in values.items() if value is not None}
        (tmp_path / "given.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "given.yaml"

    return made


def problems(file):
    with pytest.raises(ConfigError) as found:
        Loaded.from_file(file)
    return str(found.value)


def test_what_begins_with_a_prompt_that_is_there_ends_as_if_it_had_been_trained_for_the_comparison(finished, given):
    _, _, before = finished
    folder = run_recipe(Loaded.from_file(given()))
    lines = {(line.method, line.task, line.seed): line for line in read_results(folder)}
    compared = [key for key in lines if key[0] in ("transfer", "mpt")]
    assert len(compared) == 2 * 1 + 2 * 2
    for key in compared:
        assert (lines[key].scores, lines[key].credit) == (before[key].scores, before[key].credit)
    assert not (folder / "teachers").exists()
    assert [record.stage for record in lines["mpt", "colour", 0].trainings] == ["source", "target"]


def test_its_files_say_what_it_began_with(finished, given):
    folder = run_recipe(Loaded.from_file(given(methods=["mpt", "transfer"], seeds=1)))
    (source,) = [json.loads(line) for line in (folder / "sources.jsonl").read_text().splitlines()]
    assert (source["name"], source["tasks"]) == ("there", ["mood", "speed"])
    alike = json.loads((folder / "similarity.json").read_text())
    assert [task["name"] for task in alike["tasks"]] == ["mood", "speed", "colour", "sound"]
    assert "Multitask prompt, trained before: there (mood, speed)." in (folder / "results.md").read_text()


def test_seeds_take_turns_with_several_prompts(given, tmp_path):
    prompt = MultitaskPrompt.from_pretrained(tmp_path / "there")
    prompt.shared.data.mul_(-1)
    prompt.save_pretrained(tmp_path / "other")
    loaded = Loaded.from_file(given(multitask=["there", "other"], methods=["transfer"], seeds=3))
    folder = run_recipe(loaded, only=("colour",))
    lines = read_results(folder)
    assert [(line.method, line.seed) for line in lines] == [("transfer", 0), ("transfer", 1)]
    assert lines[0].credit != lines[1].credit


def test_results_of_one_prompt_are_not_added_to_by_another(given, tmp_path):
    folder = run_recipe(Loaded.from_file(given(methods=["transfer"])))
    prompt = MultitaskPrompt.from_pretrained(tmp_path / "there")
    shutil.rmtree(tmp_path / "there")
    prompt.shared.data.add_(0.5)
    prompt.save_pretrained(tmp_path / "there")
    with pytest.raises(ResumeError, match=f"{folder} holds results with begins_with = "):
        run_recipe(Loaded.from_file(given(methods=["transfer"])))


def test_a_prompt_for_another_model_is_refused_before_anything_is_answered(given, tmp_path):
    saved(make_backbone("llama"), tmp_path / "llama")
    loaded = Loaded.from_file(given(backbone={"name": str(tmp_path / "llama")}, methods=["constant", "mpt"]))
    with pytest.raises(BackboneMismatch, match="the prompt of mood, speed was trained for"):
        run_recipe(loaded)
    assert read_results(tmp_path / "out") == []


def test_a_plan_has_no_source_training(given):
    plan = planned(Loaded.from_file(given()))
    assert [cost.what for cost in plan.costs] == ["constant", "transfer", "mpt", "prompt-tuning"]


def test_general_is_known_by_its_name(given):
    (prompt,) = Loaded.from_file(given(multitask="general", adapt=None)).multitask
    assert len(prompt.tasks) == 24


def test_a_prompt_that_is_not_there_is_said_when_the_file_is_read(given, tmp_path):
    with pytest.raises(ArtifactError) as found:
        Loaded.from_file(given(multitask="elsewhere"))
    assert str(found.value).startswith(f"there is no folder {tmp_path}/elsewhere.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources": ["sst2", "mnli"]}, "sources and multitask: a comparison begins with one of them"),
        ({"multitask": None}, "transfer, mpt begins with source tasks or with a multitask prompt; name them under"),
        ({"multitask": None, "sources": ["sst2"]}, "sources wants two or more tasks; got sst2"),
        ({"methods": ["spot", "mpt"]}, "spot wants source tasks, and multitask has none"),
        ({"methods": ["from-sources", "mpt"]}, "from-sources wants source tasks, and multitask has none"),
        ({"distill": {"steps": 5}}, "distill has no effect: what multitask names is trained already"),
        ({"source_seeds": 2}, "source_seeds has no effect"),
        (
            {"methods": ["mpt", "short"], "variants": {"short": {"of": "mpt", "teach": {"steps": 1}}}},
            "variants.short.teach has no effect",
        ),
        (
            {"adapt": {"initialise": "spede"}},
            "adapt.initialise of mpt wants one of mean-vectors, mean-matrices, closest, shared, mood, speed; got",
        ),
    ],
)
def test_what_does_not_go_together_is_said_when_the_file_is_read(given, changes, said):
    assert said in problems(given(**changes))


def test_a_comparison_without_prompts_of_source_tasks_needs_neither(given):
    loaded = Loaded.from_file(given(multitask=None, methods=["constant", "prompt-tuning"], seeds=1))
    assert (loaded.sources, loaded.multitask) == ((), ())
    lines = read_results(run_recipe(loaded, only=("colour",)))
    assert [line.method for line in lines] == ["constant", "prompt-tuning"]
