"""Configurations: frozen, documented, and wrong all at once."""

import copy
import pickle
import re
from contextlib import suppress

import pytest
from pydantic import ValidationError

from mptune import config
from mptune.comparison import config as of_methods
from mptune.comparison.config import (
    AdaptersConfig,
    AttemptConfig,
    BitFitConfig,
    DeptConfig,
    Ia3Config,
    InContextConfig,
    LoraConfig,
    ProbeConfig,
    SetFitConfig,
)
from mptune.comparison.methods import sections
from mptune.config import (
    PUBLISHED_SEEDS,
    STAGES,
    AdaptConfig,
    BackboneConfig,
    BaselineConfig,
    DistillConfig,
    EvaluateConfig,
    ExamplesConfig,
    TeachConfig,
    TrainingConfig,
    WeightsConfig,
    parse_overrides,
)
from mptune.errors import ConfigError, UnknownNameError
from mptune.tasks.dataset import Dataset, HubData
from mptune.tasks.task import Task

WEIGHTS = [WeightsConfig, AdaptersConfig, BitFitConfig, Ia3Config, LoraConfig]
BASELINES = [*WEIGHTS, AttemptConfig, DeptConfig]
BESIDE = [ProbeConfig, InContextConfig, SetFitConfig]
ALL = [*STAGES.values(), *BASELINES, *BESIDE, ExamplesConfig, TrainingConfig, BaselineConfig, Task, Dataset, HubData]


@pytest.mark.parametrize("cls", ALL, ids=lambda c: c.__name__)
def test_every_field_says_what_it_is_for(cls):
    described = cls.model_json_schema()["properties"]
    assert described
    assert [name for name, field in described.items() if not field.get("description", "").strip()] == []


@pytest.mark.parametrize("cls", ALL, ids=lambda c: c.__name__)
def test_every_configuration_is_frozen_and_refuses_unknown_fields(cls):
    assert cls.model_config["frozen"]
    assert cls.model_config["extra"] == "forbid"


@pytest.mark.parametrize("cls", [*STAGES.values(), *BASELINES, *BESIDE], ids=lambda c: c.__name__)
def test_defaults_are_within_their_own_ranges(cls):
    assert cls.read(cls().model_dump(), "defaults") == cls()


def test_no_class_of_this_module_is_forgotten_here():
    classes = [*vars(config).values(), *vars(of_methods).values()]
    defined = {c for c in classes if isinstance(c, type) and issubclass(c, config.Config)}
    assert defined - {config.Config} <= set(ALL)


def test_all_that_trains_has_the_fields_of_training():
    for cls in (TeachConfig, DistillConfig, AdaptConfig, *BASELINES):
        assert issubclass(cls, TrainingConfig)


def test_a_configuration_cannot_be_changed():
    values = TeachConfig()
    with pytest.raises(ValueError, match="frozen"):
        values.steps = 5


def test_published_seeds_are_the_first_numbers_in_order():
    assert tuple(range(len(PUBLISHED_SEEDS))) == PUBLISHED_SEEDS


def test_an_unknown_field_is_refused_and_the_nearest_named():
    with pytest.raises(ConfigError) as error:
        TeachConfig.read({"promt_length": 20}, "run.yaml")
    assert str(error.value) == "run.yaml: promt_length is not a field. Did you mean 'prompt_length'?"


def test_an_unknown_field_near_to_nothing_gets_no_suggestion():
    with pytest.raises(ConfigError) as error:
        TeachConfig.read({"zzz": 20}, "run.yaml")
    assert str(error.value) == "run.yaml: zzz is not a field."


def test_the_suggestion_comes_from_the_level_where_the_unknown_field_stands():
    values = {"name": "mood", "template": "{text}", "target": "{mood}", "dataset": {"trian": "a.csv", "test": "b.csv"}}
    with pytest.raises(ConfigError) as error:
        Task.read(values, "mood.yaml")
    assert str(error.value) == "mood.yaml: dataset.trian is not a field. Did you mean 'train'?"


def test_all_problems_are_said_at_once():
    with pytest.raises(ConfigError) as error:
        DistillConfig.read({"stepz": 3, "temperature": 0, "clip": "much", "sampling": "some"}, "run.yaml")
    assert error.value.problems == (
        "clip: wants a number; got 'much'",
        "temperature: wants a number above 0; got 0",
        "sampling: wants 'stochastic' or 'all'; got 'some'",
        "stepz is not a field. Did you mean 'steps'?",
    )


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (TrainingConfig, "seed", -1),
        (TrainingConfig, "steps", -1),
        (TrainingConfig, "epochs", 0),
        (TrainingConfig, "batch_size", 0),
        (TrainingConfig, "warmup", 1.1),
        (TrainingConfig, "warmup", -0.1),
        (TrainingConfig, "weight_decay", -1),
        (TrainingConfig, "clip", 0),
        (TrainingConfig, "validate_every", 0),
        (TrainingConfig, "validation_rows", 0),
        (TrainingConfig, "save_every", 0),
        (TrainingConfig, "max_input_tokens", 0),
        (TrainingConfig, "max_target_tokens", 0),
        (TrainingConfig, "shots", 0),
        (TrainingConfig, "validation_shots", -1),
        (TrainingConfig, "scoring", "guessing"),
        (TeachConfig, "prompt_length", -1),
        (TeachConfig, "lr", 0),
        (DistillConfig, "prompt_length", 0),
        (DistillConfig, "rank", 0),
        (DistillConfig, "distill_weight", -0.1),
        (DistillConfig, "temperature", 0),
        (DistillConfig, "noise", -0.1),
        (DistillConfig, "mixing_cap", 0),
        (DistillConfig, "mixing", "none at all"),
        (AdaptConfig, "train", "nothing"),
        (AdaptConfig, "task_lr", 0),
        (WeightsConfig, "rank", 0),
        (WeightsConfig, "reduction", 0),
        (AttemptConfig, "projection", 0),
        (AttemptConfig, "temperature", 0),
        (DeptConfig, "prompt_length", 0),
        (DeptConfig, "scale", 0),
        (ProbeConfig, "strength", 0),
        (SetFitConfig, "iterations", 0),
        (TeachConfig, "label_weight", -0.1),
        (EvaluateConfig, "num_beams", 0),
        (EvaluateConfig, "rows", 0),
        (BackboneConfig, "dtype", "float16"),
    ],
)
def test_values_out_of_range_are_refused(cls, field, value):
    with pytest.raises(ConfigError, match=f"^here: {field}: wants .*; got {value!r}$"):
        cls.read({field: value}, "here")


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (TeachConfig, {"prompt_length": 0}),
        (TrainingConfig, {"steps": 0, "warmup": 0, "weight_decay": 0, "shots": None}),
        (DistillConfig, {"distill_weight": 0, "noise": 0, "rank": 1}),
        (AdaptConfig, {"initialise": "opinions"}),
    ],
)
def test_values_at_the_edge_of_their_range_are_taken(cls, values):
    assert cls.read(values, "here").model_dump().items() >= values.items()


@pytest.mark.parametrize(
    ("cls", "field", "value", "said"),
    [
        (AdaptConfig, "steps", "many", "wants a whole number; got 'many'"),
        (AdaptConfig, "steps", "2.5", "wants a whole number; got '2.5'"),
        (AdaptConfig, "steps", 2.5, "wants a whole number; got 2.5"),
        (AdaptConfig, "steps", None, "wants a whole number; got None"),
        (AdaptConfig, "steps", "-1", "wants 0 or more; got -1"),
        (AdaptConfig, "steps", "9" * 12, "wants 1,000,000,000 or less; got 999999999999"),
        (AdaptConfig, "seed", 2**32, "wants a number below 4,294,967,296; got 4294967296"),
        (AdaptConfig, "shared_lr", "-1", "wants a number above 0; got -1"),
        (AdaptConfig, "shared_lr", "0,3", "wants a number; got '0,3' (write 0.3)"),
        (AdaptConfig, "shared_lr", ("0", "3"), "wants a number; got '0,3' (write 0.3)"),  # as --set reads it
        (AdaptConfig, "shared_lr", "1,2,3", "wants a number; got '1,2,3'"),
        (AdaptConfig, "shared_lr", "inf", "wants a finite number; got 'inf'"),
        (AdaptConfig, "warmup", 1.5, "wants 1 or less; got 1.5"),
        (AdaptConfig, "dropout", "perhaps", "wants true or false; got 'perhaps'"),
        (AdaptConfig, "initialise", 3, "wants text; got 3"),
        (DistillConfig, "hidden_layers", {}, "wants a list, as [a, b]; got {}"),
    ],
)
def test_a_wrong_value_is_told_by_what_is_wanted_and_what_came(cls, field, value, said):
    with pytest.raises(ConfigError) as error:
        cls.read({field: value}, "here")
    assert str(error.value) == f"here: {field}: {said}"


def test_no_word_of_a_library_stands_in_what_is_said_of_a_number():
    for cls in STAGES.values():
        for field in cls.model_fields:
            for value in ("many", "-1", "9" * 30, "nan", [], None, 2.5):
                with suppress(ConfigError):
                    cls.read({field: value}, "here")
                    continue
                with pytest.raises(ConfigError) as error:
                    cls.read({field: value}, "here")
                assert not re.search("[Ii]nput should|unable| valid ", str(error.value)), (field, value)


def test_a_constructor_says_what_is_wrong_in_the_same_words():
    with pytest.raises(ConfigError) as error:
        AdaptConfig(step=3, warmup=2)
    assert error.value.problems == ("warmup: wants 1 or less; got 2", "step is not a field. Did you mean 'steps'?")
    assert str(error.value).startswith("AdaptConfig:\n")
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value.__cause__, ValidationError)


def test_a_field_is_meant_by_its_end_where_no_field_has_that_name():
    with pytest.raises(ConfigError, match=r"^AdaptConfig: lr is not a field\. Did you mean 'shared_lr'\?$"):
        AdaptConfig(lr=1)
    with pytest.raises(ConfigError, match=r"^adapt: lr is not a field\. Did you mean 'shared_lr'\?$"):
        AdaptConfig.read({"lr": 1}, "adapt")


def test_a_configuration_is_read_within_others_by_its_place_and_copied_and_pickled():
    class Outer(config.Config):
        """Holds one."""

        inner: AdaptConfig
        """What is held."""

    with pytest.raises(ConfigError, match=r"^Outer: inner\.step is not a field\. Did you mean 'steps'\?$"):
        Outer(inner={"step": 3})
    with pytest.raises(ValidationError, match="Extra inputs"):
        Outer.model_validate({"inner": {"step": 3}})
    one = AdaptConfig(steps=3)
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert AdaptConfig.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize(
    ("text", "kind", "limits", "said"),
    [
        ("many", int, {}, "wants a whole number; got 'many'"),
        ("-1", int, {"ge": 0}, "wants 0 or more; got -1"),
        ("11", int, {"le": 10}, "wants 10 or less; got 11"),
        ("0,3", float, {"gt": 0}, "wants a number; got '0,3' (write 0.3)"),
        ("nan", float, {"gt": 0}, "wants a finite number; got 'nan'"),
    ],
)
def test_a_number_that_was_typed_is_refused_as_a_fields_is(text, kind, limits, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        config.number(text, kind, **limits)
    assert config.number("7", kind) == 7


def test_text_from_a_file_becomes_what_its_field_wants():
    read = DistillConfig.read({"steps": "12", "temperature": "1e-3", "dropout": "no", "hidden_layers": "-2"}, "here")
    assert (read.steps, read.temperature, read.dropout, read.hidden_layers) == (12, 0.001, False, (-2,))


def test_overrides_are_grouped_by_stage():
    settings = ["distill.temperature=2", "distill.rank=3", "teach.lr=0.1"]
    assert parse_overrides(settings) == {"distill": {"temperature": "2", "rank": "3"}, "teach": {"lr": "0.1"}}
    assert DistillConfig.read(parse_overrides(settings)["distill"], "--set").temperature == 2.0


def test_a_methods_section_may_be_set_where_it_is_known():
    assert parse_overrides(["lora.lr=1"], sections()) == {"lora": {"lr": "1"}}
    with pytest.raises(UnknownNameError, match=r"no stage is called 'lora'"):
        parse_overrides(["lora.lr=1"])


def test_the_last_of_two_overrides_counts():
    assert parse_overrides(["teach.lr=1", "teach.lr=2"]) == {"teach": {"lr": "2"}}


def test_no_overrides_are_no_values():
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(
    ("setting", "layers"),
    [
        ("distill.hidden_layers=-1,-2", (-1, -2)),
        ("distill.hidden_layers=-1,", (-1,)),
        ("distill.hidden_layers=-1", (-1,)),
        ("distill.hidden_layers=,", ()),
    ],
)
def test_commas_make_tuples(setting, layers):
    assert DistillConfig.read(parse_overrides([setting])["distill"], "--set").hidden_layers == layers


@pytest.mark.parametrize("none", ["none", "None", "NONE"])
def test_none_takes_a_value_away(none):
    values = parse_overrides([f"adapt.shots={none}"])["adapt"]
    assert values == {"shots": None}
    assert AdaptConfig.read(values, "--set").shots is None


def test_an_equals_sign_may_stand_in_the_value():
    assert parse_overrides(["backbone.name=models/a=b"]) == {"backbone": {"name": "models/a=b"}}


@pytest.mark.parametrize("setting", ["distill.temperature", "temperature=2", "distill.=2", "=2", ""])
def test_a_setting_without_stage_field_and_value_is_refused(setting):
    with pytest.raises(ConfigError) as error:
        parse_overrides([setting])
    assert str(error.value) == f"--set: wants stage.field=value, as distill.temperature=2; got {setting!r}"


def test_an_override_of_an_unknown_stage_is_refused_and_the_nearest_named():
    with pytest.raises(UnknownNameError, match=r"no stage is called 'distil'\. Did you mean 'distill'"):
        parse_overrides(["distil.temperature=2"])


def test_an_override_of_an_unknown_field_is_refused_by_its_stage():
    with pytest.raises(ConfigError, match=r"temprature is not a field\. Did you mean 'temperature'"):
        DistillConfig.read(parse_overrides(["distill.temprature=2"])["distill"], "--set")


@pytest.mark.parametrize(
    ("fields", "rows", "steps"),
    [
        ({}, 8, 25),
        ({}, 12, 38),
        ({}, 32, 100),
        ({}, 1000, 100),
        ({"most_epochs": 10}, 8, 10),
        ({"most_epochs": None}, 8, 100),
        ({"steps": 60}, 8, 60),
        ({"steps": 60, "most_epochs": 25}, 8, 25),
        ({"epochs": 40}, 8, 40),
        ({"steps": 0}, 8, 0),
    ],
)
def test_few_rows_are_passed_over_25_times_unless_somebody_says_how_many_steps(fields, rows, steps):
    assert AdaptConfig(**fields).steps_of(rows) == steps


def test_other_trainings_take_their_steps_however_few_the_rows_are():
    assert TeachConfig().steps_of(8) == 300
    assert TeachConfig(epochs=2, batch_size=8).steps_of(9) == 3
