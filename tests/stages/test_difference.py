"""How a run differs from an earlier one is told by what somebody can type."""

import pytest

from mptune.stages.difference import change_told, first_difference


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (0.3, 0.5, "with teach.lr = 0.3, and now it is 0.5. Take the old value"),
        (8, None, "with teach.lr = 8, and now it is not set. Take the old value"),
        (None, 8, "with teach.lr not set, and now it is 8. Say --set teach.lr=none"),
        ("x" * 99, 1, f'with teach.lr = "{"x" * 56}..., and now it is 1. Take the old value'),
    ],
)
def test_a_change_is_told_with_both_values_and_how_to_take_it_back(before, now, told):
    changed = first_difference({"teach": {"lr": before, "seed": 1}}, {"teach": {"lr": now, "seed": 1}})
    assert change_told(*changed) == told


def test_what_was_not_set_is_left_out_where_it_has_an_option_and_where_nothing_can_be_typed():
    assert change_told("adapt.shots", "not set", "500") == (
        "with adapt.shots not set, and now it is 500. Leave --shots out"
    )
    assert change_told("tasks.0.group", "not set", "1") == "with tasks.0.group not set, and now it is 1. Leave it out"


def test_equal_runs_have_no_difference():
    assert first_difference({"a": {"b": None}, "c": [1]}, {"c": [1], "a": {"b": None}}) is None
