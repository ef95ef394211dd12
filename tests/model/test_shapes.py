"""Shapes are checked claims."""

import pytest
import torch

from mptune.errors import MptuneError, ShapeError
from mptune.model.shapes import check_shape


def test_a_tensor_of_the_named_dimensions_passes():
    check_shape("prompt", torch.zeros(20, 512), "L D")
    check_shape("prompt", torch.zeros(20, 512), "L D", L=20, D=512)
    check_shape("loss", torch.tensor(1.0), "")


def test_an_empty_prompt_has_the_shape_of_a_prompt():
    check_shape("prompt", torch.zeros(0, 512), "L D", D=512)


def test_sizes_of_letters_that_the_tensor_does_not_have_are_not_asked_for():
    check_shape("u", torch.zeros(3, 4, 1), "K L R", K=3, D=512)


@pytest.mark.parametrize(
    ("shape", "letters", "sizes", "message"),
    [
        pytest.param((20, 512), "L D", {"D": 768}, r"prompt should be [L, D=768]; got [20, 512]", id="a wrong size"),
        pytest.param((20, 512), "L D", {"L": 5, "D": 768}, "prompt should be [L=5, D=768]; got [20, 512]", id="two"),
        pytest.param((512,), "L D", {}, "prompt should be [L, D]; got [512]", id="a dimension too few"),
        pytest.param((1, 20, 512), "L D", {"D": 512}, "prompt should be [L, D=512]; got [1, 20, 512]", id="too many"),
        pytest.param(
            (0, 4), "L D", {"L": 1}, "prompt should be [L=1, D]; got [0, 4]", id="nothing where one is wanted"
        ),
    ],
)
def test_a_broken_contract_says_what_was_wanted_and_what_came(shape, letters, sizes, message):
    with pytest.raises(ShapeError) as caught:
        check_shape("prompt", torch.zeros(shape), letters, **sizes)
    assert str(caught.value) == message


def test_a_shape_error_can_be_caught_as_ours_and_as_a_value_error():
    assert issubclass(ShapeError, MptuneError)
    assert issubclass(ShapeError, ValueError)
