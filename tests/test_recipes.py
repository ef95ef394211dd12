"""A recipe says what it is made of before anything runs, and what is wrong with it, all at once."""

import pytest

from mptune.errors import ConfigError
from mptune.recipes import Loaded, Recipe, for_target
from mptune.tasks import get_task

BASE = {"name": "toy", "out": "runs/toy", "sources": ["sst2", "mnli"], "targets": ["rte", "cb"]}


def recipe(**changes):
    return Recipe.read({**BASE, **changes}, "toy.yaml")


def problems(**changes):
    with pytest.raises(ConfigError) as found:
        recipe(**changes)
    return str(found.value)


def test_the_budget_is_every_methods_that_does_not_say_otherwise():
    made = recipe(budget={"steps": "7", "batch_size": "3"}, adapt={"steps": "9"}, lora={"lr": "0.5"})
    assert (made.lora.steps, made.lora.batch_size, made.lora.lr) == (7, 3, 0.5)
    assert (made.adapt.steps, made.adapt.batch_size) == (9, 3)
    assert (made.prompt_tuning.steps, made.dept.steps, made.attempt.steps, made.fine_tuning.steps) == (7, 7, 7, 7)
    assert (made.teach.steps, made.distill.steps) == (300, 600)  # source training is not paid by the target


def test_a_budget_of_unknown_fields_is_refused():
    assert "adapt.stepps is not a field. Did you mean 'steps'?" in problems(budget={"stepps": 3})


def test_a_variant_changes_its_sections_and_nothing_else():
    made = recipe(methods=["mpt", "short"], variants={"short": {"of": "mpt", "teach": {"prompt_length": "5"}}})
    short = made.varied("short")
    assert (made.base("short"), short.teach.prompt_length, made.teach.prompt_length) == ("mpt", 5, 100)
    assert short.model_copy(update={"teach": made.teach}).model_dump(exclude={"variants", "methods", "rates"}) == (
        made.model_dump(exclude={"variants", "methods", "rates"})
    )
    assert made.varied("mpt") is made


def test_what_is_wrong_with_variants_methods_and_names_is_said_at_once():
    text = problems(
        methods=["mpt", "loar"],
        variants={"lora": {"of": "mpt"}, "odd": {"of": "mtp", "teech": {}}},
        per_task={"boolq": {"steps": 3}},
        spot_source="qnli",
    )
    assert "variants: lora is a method already; choose another name" in text
    assert "variants.odd.of wants one of constant, zero-shot" in text
    assert "got 'mtp'" in text
    assert "variants.odd.teech is none of backbone, teach, distill, adapt" in text
    assert "methods: loar is none of" in text
    assert "per_task: boolq is none of the targets" in text
    assert "spot_source wants one of the sources; got 'qnli'" in text


def test_a_variants_wrong_field_is_said_when_the_file_is_read(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(
        "name: odd\nout: runs/odd\nsources: [sst2, mnli]\ntargets: [rte]\nmethods: [odd]\n"
        "variants: {odd: {of: mpt, distill: {distil_weight: 0}}}\n"
    )
    with pytest.raises(ConfigError, match=r"distill\.distil_weight is not a field\. Did you mean 'distill_weight'\?"):
        Loaded.from_file(file)


def test_methods_without_examples_have_one_seed_and_no_shots():
    made = recipe(shots=["4", "all"], seeds=3)
    assert (made.shots_of("transfer"), made.seeds_of("transfer")) == ((0,), (0,))
    assert (made.shots_of("from:mnli"), made.seeds_of("from:mnli")) == ((0,), (0,))
    assert (made.shots_of("lora"), made.seeds_of("lora")) == ((4, None), (0, 1, 2))


def test_settings_of_one_target_go_before_the_methods():
    made = recipe(per_task={"rte": {"epochs": "2", "max_input_tokens": "300"}}, budget={"steps": 5})
    rte, cb = (for_target(made.lora, made, get_task(name), seed=4) for name in ("rte", "cb"))
    assert (rte.epochs, rte.max_input_tokens, rte.seed, rte.steps) == (2.0, 300, 4, 5)
    assert (cb.epochs, cb.max_input_tokens, cb.seed) == (None, 256, 4)


def test_a_field_that_a_methods_training_does_not_have_is_refused_by_target():
    made = recipe(per_task={"rte": {"epoch": 2}})
    with pytest.raises(ConfigError, match=r"toy: per_task\.rte: epoch is not a field"):
        for_target(made.lora, made, get_task("rte"))
