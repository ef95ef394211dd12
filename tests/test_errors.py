"""Errors: exit codes by class, and texts that say all that is wrong at once."""

import inspect
import pickle
from pathlib import PurePosixPath

import pytest

from mptune import errors
from mptune.config import AdaptConfig
from mptune.errors import (
    ArtifactError,
    BackboneError,
    BackboneMismatch,
    ConfigError,
    DataError,
    DivergedError,
    MissingArtifact,
    MissingBackbone,
    MissingExtraError,
    MissingResults,
    MptuneError,
    ResultsError,
    ResumeError,
    ShapeError,
    ShortfallError,
    UnknownNameError,
    UsageError,
    first_line,
    one_of,
    reason,
    refuse_type,
)
from mptune.model.backbone import Backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.tasks.task import Task

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (MptuneError, 1),
        (DivergedError, 1),
        (MissingExtraError, 1),
        (MissingArtifact, 2),
        (MissingBackbone, 2),
        (MissingResults, 2),
        (ArtifactError, 3),
        (BackboneMismatch, 3),
        (BackboneError, 3),
        (ResultsError, 3),
        (ShapeError, 3),
        (ShortfallError, 4),
        (UsageError, 2),
        (ConfigError, 2),
        (UnknownNameError, 2),
        (ResumeError, 2),
        (DataError, 3),
    ],
)
def test_the_class_of_an_error_decides_the_exit_code(cls, code):
    assert cls.exit_code == code


@pytest.mark.parametrize(
    "error",
    [ConfigError("a.yaml", ["x is missing"]), DataError("mood", ["row 1: no text"]), UnknownNameError("task", "x", "y"),
     MissingExtraError("a part", "peft"), ResultsError("bad", ["line 1"]), UsageError("so")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_errors_travel_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("general", MultitaskPrompt, "MultitaskPrompt; got str; write MultitaskPrompt.from_pretrained('general')"),
        (PurePosixPath("p/x"), MultitaskPrompt,
         "MultitaskPrompt; got PurePosixPath; write MultitaskPrompt.from_pretrained('p/x')"),
        ("t5-small", Backbone, "Backbone; got str; write load_backbone('t5-small')"),
        ("refund", Task, "Task; got str; write get_task('refund')"),
        ([{"text": "a"}], Task, "Task; got list; write TaskRows.from_rows(...)"),
        ({"text": "a"}, Task, "Task; got dict; write TaskRows.from_rows(...)"),
        (3, Task, "Task; got int"),
    ],
)  # fmt: skip
def test_an_argument_of_another_kind_is_told_with_what_makes_the_right_one(value, kind, said):
    with pytest.raises(UsageError) as error:
        refuse_type("this", value, kind)
    assert str(error.value) == f"this wants a {said}"


def test_a_configuration_that_is_a_dict_is_told_how_it_is_written():
    with pytest.raises(UsageError, match=r"^config wants an AdaptConfig; got dict; write AdaptConfig\(\*\*values\)$"):
        refuse_type("config", {"steps": 3}, AdaptConfig, type(None))
    refuse_type("config", None, AdaptConfig, type(None))


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_is_one_of_ours_and_stands_in_the_tree_of_the_module(cls):
    assert issubclass(cls, MptuneError)
    assert cls.__name__ in errors.__doc__
    assert cls.__doc__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (ConfigError, ValueError),
        (UnknownNameError, LookupError),
        (DataError, ValueError),
        (MissingExtraError, ImportError),
        (ShapeError, ValueError),
    ],
)
def test_an_error_is_caught_by_who_expects_pythons_own(cls, builtin):
    assert issubclass(cls, builtin)


def test_one_problem_is_said_in_one_line():
    assert str(ConfigError("run.yaml", ["steps is missing"])) == "run.yaml: steps is missing"
    assert str(DataError("mood", ["a.csv has no rows"])) == "the data of task 'mood' cannot be used: a.csv has no rows"


def test_many_problems_are_said_one_to_a_line_and_kept_as_they_are():
    error = ConfigError("run.yaml", ["steps is missing", "stepz is not a field"])
    assert str(error) == "run.yaml:\n  - steps is missing\n  - stepz is not a field"
    assert error.problems == ("steps is missing", "stepz is not a field")


@pytest.mark.parametrize("count", [2, 20])
def test_up_to_twenty_problems_of_the_data_are_all_listed(count):
    text = str(DataError("mood", [f"row {i}" for i in range(count)]))
    assert text.count("\n  - row ") == count
    assert "more" not in text


def test_of_more_than_twenty_problems_the_rest_is_counted_and_none_is_lost():
    error = DataError("mood", [f"row {i}" for i in range(53)])
    lines = str(error).splitlines()
    assert lines[1:] == [*(f"  - row {i}" for i in range(20)), "  - ... and 33 more of the kind"]
    assert len(error.problems) == 53


def test_rows_with_the_same_problem_stand_in_one_line_in_the_place_of_the_first():
    rows = [f"a.csv row {i}: no text" for i in range(2, 12)]
    error = DataError("mood", ["a.csv row 1: empty", *rows, "b.csv row 2: no text", "a.csv row 12: empty"])
    assert str(error).splitlines()[1:] == [
        "  - a.csv rows 1, 12: empty",
        "  - a.csv rows 2, 3, 4, 5, 6 and 5 more: no text",
        "  - b.csv row 2: no text",
    ]
    assert len(error.problems) == 13


def test_a_row_is_the_one_that_a_problem_begins_with():
    error = DataError("mood", [f"row {i}: the label of row 3: x is unknown" for i in (1, 2)])
    assert str(error).endswith(" rows 1, 2: the label of row 3: x is unknown")


def test_an_unknown_name_suggests_the_nearest_and_lists_what_is_known():
    error = UnknownNameError("stage", "distil", ["teach", "distill", "adapt"])
    assert str(error) == "no stage is called 'distil'. Did you mean 'distill'? Known: adapt, distill, teach."


def test_an_unknown_name_near_to_nothing_gets_no_suggestion():
    error = UnknownNameError("task", "zzz", ["opinions"], "`mptune tasks` lists them.")
    assert str(error) == "no task is called 'zzz'. `mptune tasks` lists them."


def test_a_missing_extra_says_what_to_install():
    error = MissingExtraError("the embedded backbone", "quickstart")
    assert str(error) == "the embedded backbone needs more libraries. Install them: pip install 'mptune[quickstart]'"


def test_data_problems_of_several_tasks_are_one_error_that_names_each_task_once():
    one, other = DataError("a", ["x", "y"]), DataError("b", ["z"])
    assert DataError.of_all([one]) is one
    again = DataError.of_all([one, DataError("a", ["y", "v"])])  # a target that is a source task too has more splits
    assert (again.task, again.problems) == ("a", ("x", "y", "v"))
    both = DataError.of_all([one, other, one])
    assert str(both) == "the data of task 'a, b' cannot be used:\n  - x\n  - y\n  - z"


def test_the_first_line_of_what_a_library_says():
    assert first_line(ValueError("\n one\n two")) == "one"
    assert first_line(KeyError()) == "KeyError"


def test_why_a_file_cannot_be_read_does_not_name_it_again(tmp_path):
    with pytest.raises(OSError, match="none") as missing:
        (tmp_path / "none").read_text()
    assert reason(missing.value) == "No such file or directory"
    with pytest.raises(UnicodeDecodeError) as foreign:
        b"\xff".decode()
    assert reason(foreign.value).startswith("'utf-8' codec can't decode byte 0xff")
    assert reason(OSError()) == "OSError"


def test_one_of_several_names_or_the_nearest():
    assert one_of("split", "test", ("train", "test")) == "test"
    with pytest.raises(UnknownNameError, match="Did you mean 'test'"):
        one_of("split", "tst", ("train", "test"))
