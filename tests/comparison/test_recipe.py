"""A recipe says what it is made of before anything runs, and what is wrong with it, all at once."""

import json

import pytest

from mptune.comparison.loaded import Loaded, for_target
from mptune.comparison.recipe import recipe_model
from mptune.errors import ConfigError
from support.toys import task_yaml

BASE = {"name": "toy", "out": "runs/toy", "sources": ["sst2", "mnli"], "targets": ["rte", "cb"]}


def recipe(**changes):
    return recipe_model().read({**BASE, **changes}, "toy.yaml")


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
    )
    assert "variants: lora is a method already; choose another name" in text
    assert "variants.odd.of wants one of mpt, mpt-group" in text
    assert "got 'mtp'" in text
    assert "variants.odd.teech is none of backbone, teach, distill, adapt" in text
    assert "methods: loar is none of" in text


def test_a_variants_wrong_field_is_said_when_the_file_is_read(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(
        "name: odd\nout: runs/odd\nsources: [sst2, mnli]\ntargets: [rte]\nmethods: [odd]\n"
        "variants: {odd: {of: mpt, distill: {distil_weight: 0}}}\n"
    )
    with pytest.raises(ConfigError, match=r"distill\.distil_weight is not a field\. Did you mean 'distill_weight'\?"):
        Loaded.from_file(file)


def test_names_of_tasks_are_those_in_their_files(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "name: opinions\ndataset: {train: a.jsonl}\ntemplate: '{text}'\nverbalizer: {0: no, 1: yes}\n"
    )
    file = tmp_path / "odd.yaml"
    file.write_text(
        "name: odd\nout: runs/odd\nsources: [mine.yaml, mnli@paper]\ntargets: [rte@paper]\nspot_source: mine\n"
        "per_task: {rte@paper: {steps: 3}}\nseen: [rte@paper]\n"
    )
    with pytest.raises(ConfigError) as found:
        Loaded.from_file(file)
    assert "per_task: rte@paper is none of the targets (rte)" in str(found.value)
    assert "seen: rte@paper is none of the targets (rte)" in str(found.value)
    assert "spot_source wants the name of a source task; got 'mine'" in str(found.value)
    right = file.read_text().replace("spot_source: mine", "spot_source: opinions").replace("{rte@paper:", "{rte:")
    right = right.replace("seen: [rte@paper]", "seen: [rte]")
    file.write_text(right)
    assert Loaded.from_file(file).recipe.spot_source == "opinions"


def test_a_place_in_the_chat_template_is_for_every_task_that_names_none(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndataset: {train: a.jsonl}\ntemplate: '{text}'\nverbalizer: {0: no, 1: yes}\nchat: first\n"
    )
    file = tmp_path / "chat.yaml"
    file.write_text(
        "name: chat\nout: runs/chat\nsources: [opinions, topics]\ntargets: [mine.yaml, teams]\nchat: true\n"
    )
    loaded = Loaded.from_file(file)
    assert [rows.task.chat for rows in (*loaded.sources, *loaded.targets)] == ["user", "user", "first", "user"]
    file.write_text(file.read_text().replace("chat: true", "chat: middle"))
    with pytest.raises(ConfigError, match="chat: "):
        Loaded.from_file(file)


def test_steps_that_are_named_take_the_place_of_epochs_below():
    made = recipe(
        budget={"epochs": 20}, lora={"steps": 100}, per_task={"rte": {"steps": "500"}},
        methods=["mpt", "short"], variants={"short": {"of": "mpt", "adapt": {"steps": 7}}},
    )  # fmt: skip
    assert (made.lora.epochs, made.lora.steps, made.adapt.epochs) == (None, 100, 20)
    assert (made.varied("short").adapt.epochs, made.varied("short").adapt.steps) == (None, 7)
    rte = for_target(made.dept, made, "rte")
    assert (rte.epochs, rte.steps) == (None, 500)


def test_steps_set_by_hand_take_the_place_of_a_files_epochs(tmp_path):
    file = tmp_path / "long.yaml"
    file.write_text("name: long\nout: runs/long\nsources: [sst2, mnli]\ntargets: [rte]\nbudget: {epochs: 20}\n")
    adapt = Loaded.from_file(file, {"adapt": {"steps": "2"}}).recipe.adapt
    assert (adapt.epochs, adapt.steps) == (None, 2)


NONE_HELD_OUT, HELD_OUT = {"validation_shots": 0}, {"validation_shots": 8}
TRIED = {"rates": {"lora": [0.1, 0.2]}, "methods": ["lora"]}


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        (TRIED, "lora"),
        ({**TRIED, "shots": ["all"]}, None),
        ({**TRIED, "shots": [4, "all"]}, "lora"),
        ({**TRIED, "budget": HELD_OUT}, None),
        ({**TRIED, "shots": ["all"], "budget": NONE_HELD_OUT}, "lora"),
        ({**TRIED, "rates": {"lora": [0.1]}}, None),
        ({"rates": {"lora": [0.1, 0.2]}, "methods": ["v"], "budget": HELD_OUT,
          "variants": {"v": {"of": "lora", "lora": NONE_HELD_OUT}}}, "v"),
        ({"rates": {"v": [0.1, 0.2]}, "methods": ["v"], "lora": NONE_HELD_OUT,
          "variants": {"v": {"of": "lora", "lora": HELD_OUT}}}, None),
        ({"rates": {"mpt": [0.1, 0.2]}, "methods": ["mpt"], "budget": HELD_OUT,
          "per_task": {"cb": NONE_HELD_OUT}}, "mpt"),
        ({"rates": {"mpt-group": [0.1, 0.2]}, "methods": ["mpt-group"], "adapt": NONE_HELD_OUT}, "mpt-group"),
        ({"rates": {"mpt-group": [0.1, 0.2]}, "methods": ["mpt-group"], "budget": HELD_OUT,
          "per_task": {"cb": NONE_HELD_OUT}}, None),
    ],
)  # fmt: skip
def test_rates_are_not_compared_on_rows_that_were_trained_on(changes, method, tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(json.dumps({**BASE, **changes}))
    if method is None:
        assert Loaded.from_file(file)
        return
    with pytest.raises(
        ConfigError, match=f"rates: those of {method} are compared on validation rows, on which it trains"
    ):
        Loaded.from_file(file)


@pytest.mark.parametrize("variant", [{"lora": {"rank": 16}}, {"of": "loar"}])
def test_a_variant_of_nothing_is_said_whatever_its_rates(variant):
    assert "variants.big.of wants one of mpt" in problems(variants={"big": variant}, rates={"big": [0.1, 0.2]})


def test_a_rate_is_a_methods_that_learns_and_above_zero():
    assert "rates.transfer: it does not learn from a target's examples" in problems(rates={"transfer": [0.1]})
    assert "rates.lora.1: wants a number above 0; got 0" in problems(rates={"lora": [0.1, 0]})
    assert "rates: loar is none of" in problems(rates={"loar": [0.1, 0.2]})


def test_a_wrong_setting_of_one_target_is_said_when_the_file_is_read(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(
        "name: odd\nout: runs/odd\nsources: [sst2, mnli]\ntargets: [cb, rte]\nmethods: [constant, mpt-group, lora]\n"
        "per_task: {rte: {shared_lr: 0.1}}\n"
    )
    with pytest.raises(ConfigError, match=r"per_task\.rte: shared_lr is not a field"):
        Loaded.from_file(file)
    file.write_text(file.read_text().replace("shared_lr", "lr"))
    assert Loaded.from_file(file).recipe.per_task == {"rte": {"lr": "0.1"}}


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ({"of": "mpt", "adapt": ""}, "variants.odd.adapt wants {field: value}; got ''"),
        ({"of": "constant"}, "variants.odd: constant has no settings to vary"),
        ({"of": "from-sources"}, "variants.odd: from-sources has no settings to vary"),
        ({"of": "mpt", "evaluate": {"rows": 5}}, "variants.odd.evaluate.rows: all methods answer the same test rows"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(variant, says):
    assert says in problems(variants={"odd": variant})


def test_a_variants_name_may_be_a_folders():
    assert "letters, digits, _, - and . only; got '../x'" in problems(variants={"../x": {"of": "mpt"}})


@pytest.mark.parametrize(
    ("shots", "says"),
    [
        (["4", "0", "ALL", "2.5", "-1"], "shots: wants numbers of examples, 1 or more, or all; got 0, ALL, 2.5, -1"),
        ([], "at least 1 item"),
        (["4", "4"], "4 stands twice"),
        ("2", "shots: wants a list, as [a, b]; got '2'"),
    ],
)
def test_shots_are_numbers_from_one_each_once(shots, says):
    assert says in problems(shots=shots)


def test_methods_without_examples_have_one_seed_and_no_shots():
    made = recipe(shots=["4", "all"], seeds=3)
    assert (made.shots_of("transfer"), made.seeds_of("transfer")) == ((0,), (0,))
    assert (made.shots_of("from:mnli"), made.seeds_of("from:mnli")) == ((0,), (0,))
    assert (made.shots_of("lora"), made.seeds_of("lora")) == ((4, None), (0, 1, 2))
    several = recipe(seeds=3, source_seeds=2)
    assert {m: several.seeds_of(m) for m in ("transfer", "from:mnli", "zero-shot", "mpt")} == {
        "transfer": (0, 1), "from:mnli": (0, 1), "zero-shot": (0,), "mpt": (0, 1, 2),
    }  # fmt: skip
    assert recipe(seeds=1, source_seeds=2).seeds_of("transfer") == (0,)


def test_settings_of_one_target_go_before_the_methods():
    made = recipe(per_task={"rte": {"epochs": "2", "max_input_tokens": "300"}}, budget={"steps": 5})
    rte, cb = (for_target(made.lora, made, name) for name in ("rte", "cb"))
    assert (rte.epochs, rte.max_input_tokens, rte.steps) == (2.0, 300, 5)
    assert (cb.epochs, cb.max_input_tokens) == (None, 256)


def test_a_field_that_a_methods_training_does_not_have_is_refused_by_target():
    made = recipe(per_task={"rte": {"epoch": 2}})
    with pytest.raises(ConfigError, match=r"toy: per_task\.rte: epoch is not a field"):
        for_target(made.lora, made, "rte")


def test_a_recipe_has_methods_and_a_folder():
    assert "methods: tuple should have at least 1 item" in problems(methods=[])
    assert "methods: wants a list, as [a, b]; got 'mpt'" in problems(methods="mpt")
    assert "out: string should have at least 1 character" in problems(out="")


def test_rates_and_other_numbers_are_finite():
    assert "rates.mpt.0: wants a finite number" in problems(rates={"mpt": ["1e400"]})
    assert "adapt.weight_decay: wants a finite number" in problems(adapt={"weight_decay": "inf"})
    assert "distill.teacher_cache: wants a finite number" in problems(distill={"teacher_cache": "inf"})
    assert "teach.seed: wants a number below 4,294,967,296" in problems(teach={"seed": str(2**64)})
    assert "teach.steps: wants 1,000,000,000 or less" in problems(teach={"steps": "9" * 20})


def written(folder, **changes):
    """A recipe in a file, read with the tasks that it names."""
    (folder / "r.yaml").write_text(json.dumps({**BASE, **changes}))  # JSON is YAML
    return folder / "r.yaml"


def refusal(folder, overrides=None, **changes):
    with pytest.raises(ConfigError) as error:
        Loaded.from_file(written(folder, **changes), overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"per_task": {"rte": {"shots": 1}}}, "per_task.rte.shots"),
        ({"prompt_tuning": {"seed": 7}}, "prompt_tuning.seed"),
        ({"budget": {"shots": 5}}, "budget.shots"),
        ({"variants": {"v": {"of": "mpt", "adapt": {"shots": 5}}}}, "variants.v.adapt.shots"),
    ],
)
def test_shots_and_seeds_are_the_recipes_and_no_single_trainings(changes, field, tmp_path):
    assert refusal(tmp_path, **changes) == (
        f"{tmp_path / 'r.yaml'}: {field} has no effect: the recipe's shots and seeds are for all"
    )


def test_seeds_of_source_training_are_its_own(tmp_path):
    assert Loaded.from_file(written(tmp_path, distill={"seed": 3}, teach={"seed": 4})).recipe.distill.seed == 3


def test_a_section_that_is_no_mapping_is_said_though_a_field_of_it_is_set(tmp_path):
    assert "adapt: wants {field: value}; got '5'" in refusal(tmp_path, {"adapt": {"steps": "3"}}, adapt=5)


def test_where_vectors_start_is_checked_before_anything_is_trained(tmp_path):
    assert "adapt.initialise of mpt wants one of mean-vectors, mean-matrices, closest, shared, sst2, mnli; got 'x'" in (
        refusal(tmp_path, adapt={"initialise": "x"})
    )
    assert "got 'y'" in refusal(tmp_path, methods=["mpt"], per_task={"cb": {"initialise": "y"}})
    assert Loaded.from_file(written(tmp_path, adapt={"initialise": "mnli"})).recipe.adapt.initialise == "mnli"
    Loaded.from_file(written(tmp_path, methods=["constant"], adapt={"initialise": "x"}))


# -- a task's file in place of a recipe's -----------------------------------------------------------------------------


def test_a_tasks_file_is_a_comparison_of_what_can_answer_it(tmp_path):
    task_yaml(tmp_path, "mood")
    found = Loaded.from_file(tmp_path / "mood.yaml", {"evaluate": {"rows": "7"}})
    assert [rows.name for rows in found.targets] == ["mood"]
    assert found.recipe.methods == (
        "constant",
        "zero-shot",
        "tf-idf",
        "linear-probe",
        "prompt-tuning",
        "transfer",
        "mpt",
    )
    assert (found.recipe.name, found.recipe.out, found.recipe.shots, found.recipe.seeds) == (
        "mood",
        "runs/mood",
        (8,),
        3,
    )
    assert found.recipe.evaluate.rows == 7
    mpt, scratch = (found.contenders[name].trainings[("mood",)] for name in ("mpt", "prompt-tuning"))
    assert (mpt.steps, mpt.most_epochs, scratch.steps, scratch.prompt_length) == (100, 25, 100, 20)
    free = {"name": "say", "template": "{a}", "target": "{b}", "metrics": "bleu", "dataset": {"train": "x.csv"}}
    (tmp_path / "say.yaml").write_text(json.dumps(free))
    assert Loaded.from_file(tmp_path / "say.yaml").recipe.methods == (
        "constant", "zero-shot", "prompt-tuning", "transfer", "mpt"
    )  # fmt: skip


@pytest.mark.parametrize("command", [["bench"], ["adapt", "--out", "x", "--task"], ["teach", "--out", "x", "--tasks"]])
def test_a_table_where_a_task_is_wanted_says_what_makes_one(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*command, "tickets.csv")
    assert code == 2
    assert "tickets.csv is a table, and no task; `mptune init tickets.csv` writes the task that it is" in err
