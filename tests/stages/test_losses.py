"""Losses against values computed by hand, and what must not change them."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mptune.model.batch import IGNORE
from mptune.model.encoding import encode_targets
from mptune.stages.losses import hidden_distillation, label_loss, logit_distillation, supervised_loss, task_loss
from support.models import TEXTS, batch_of, choosing, some_prompts

seeds = st.integers(0, 2**31)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_logits(*probabilities: float) -> torch.Tensor:
    """One label token with these class probabilities. [1, 1, V]"""
    return torch.tensor(probabilities).log()[None, None]


def pad(logits: torch.Tensor, labels: torch.Tensor, garbage: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two more label positions that are padding, with any logits."""
    more = torch.full((len(labels), 2, logits.shape[-1]), garbage)
    more[..., 0] = -garbage
    return torch.cat([logits, more], 1), torch.cat([labels, labels.new_full((len(labels), 2), IGNORE)], 1)


# labels


def test_the_task_loss_is_the_mean_negative_log_probability_of_the_labels():
    logits = torch.tensor([[[0.25, 0.75], [0.5, 0.5]], [[0.9, 0.1], [0.2, 0.8]]]).log()
    labels = torch.tensor([[1, 0], [0, IGNORE]])
    wanted = -(math.log(0.75) + math.log(0.5) + math.log(0.9)) / 3
    assert float(task_loss(logits, labels)) == pytest.approx(wanted)


def test_the_task_loss_does_not_change_with_a_constant_added_to_the_logits():
    logits, labels = randn(2, 3, 5), torch.tensor([[1, 2, IGNORE], [0, IGNORE, IGNORE]])
    torch.testing.assert_close(task_loss(logits + 7, labels), task_loss(logits, labels))


def test_losses_of_half_precision_logits_are_single_precision():
    logits, labels = randn(1, 2, 5).bfloat16(), torch.tensor([[1, 2]])
    assert task_loss(logits, labels).dtype == torch.float32
    assert logit_distillation(logits, -logits, labels, 1.0).dtype == torch.float32
    assert hidden_distillation([logits], [-logits], [labels]).dtype == torch.float32


def test_the_label_loss_is_the_surprise_at_the_right_word_among_its_rows_own():
    scores = torch.tensor([[0.2, 0.6, 0.2], [0.1, 0.3, 0.0], [0.0, 0.0, 0.0]]).log()  # the second row has two words
    wanted = -(math.log(0.6) + math.log(0.1 / 0.4)) / 2
    assert float(label_loss(scores, torch.tensor([1, 0, IGNORE]))) == pytest.approx(wanted)
    assert float(label_loss(scores, torch.tensor([IGNORE] * 3))) == 0


def test_the_label_loss_does_not_change_with_the_odds_of_all_label_words_together():
    scores, answers = randn(3, 4), torch.tensor([0, 3, 2])
    torch.testing.assert_close(label_loss(scores - 5, answers), label_loss(scores, answers))


def test_labels_count_as_tokens_and_as_label_words(backbone):
    words = encode_targets(backbone, ["yes", "no", "maybe"], max_tokens=8)
    ranked = torch.tensor([1, IGNORE], device=backbone.device)
    batch = replace(choosing(batch_of(backbone, TEXTS, ["no", "maybe"]), [words, []]), answers=ranked)
    prompts = some_prompts(backbone)
    logits = backbone(prompts, batch).logits
    tokens = task_loss(logits, batch.labels)
    odds = logits[0, 0].float()[[ids[0] for ids in words]].log_softmax(-1)
    both = supervised_loss(backbone, prompts, batch, logits, label_weight=0.5)
    assert float(both) == pytest.approx(float(tokens - 0.5 * odds[1]), abs=1e-5)
    assert supervised_loss(backbone, prompts, batch, logits, label_weight=0) == tokens
    free = replace(batch, answers=ranked.fill_(IGNORE))
    assert supervised_loss(backbone, prompts, free, logits, label_weight=0.5) == tokens


# teachers' logits


def test_the_divergence_is_of_the_student_from_the_teacher_and_not_the_reverse():
    student, teacher = as_logits(0.5, 0.5), as_logits(0.9, 0.1)
    teacher_to_student = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    found = float(logit_distillation(student, teacher, torch.tensor([[0]]), 1.0))
    assert found == pytest.approx(teacher_to_student)
    assert found != pytest.approx(reverse)


def test_the_divergence_is_a_mean_over_the_tokens_that_count():
    student = torch.cat([as_logits(0.5, 0.5), as_logits(0.9, 0.1), as_logits(0.3, 0.7)], 1)
    teacher = torch.cat([as_logits(0.9, 0.1), as_logits(0.9, 0.1), as_logits(0.8, 0.2)], 1)
    found = logit_distillation(student, teacher, torch.tensor([[0, 1, IGNORE]]), 1.0)
    assert float(found) == pytest.approx((0.9 * math.log(1.8) + 0.1 * math.log(0.2)) / 2)


def test_a_temperature_divides_both_logits_and_its_square_multiplies_the_result():
    student, teacher = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[2 * math.log(3.0), 0.0]]])
    # At T = 2 the teacher says 3 : 1, the student 1 : 1.
    wanted = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert float(logit_distillation(student, teacher, torch.tensor([[0]]), 2.0)) == pytest.approx(wanted)


@given(seed=seeds, temperature=st.floats(0.5, 10))
@settings(deadline=None, max_examples=20)
def test_the_divergence_is_zero_for_equal_logits_and_positive_for_others(seed, temperature):
    logits, labels = randn(2, 3, 5, seed=seed), torch.tensor([[1, 2, IGNORE], [0, 4, 3]])
    assert float(logit_distillation(logits, logits, labels, temperature)) == pytest.approx(0, abs=1e-6)
    assert float(logit_distillation(logits + 3, logits, labels, temperature)) == pytest.approx(0, abs=1e-5)
    assert float(logit_distillation(logits, logits.flip(-1), labels, temperature)) > 0


@pytest.mark.parametrize("temperature", [2.0, 4.0, 10.0])
def test_the_size_of_the_gradient_hardly_depends_on_the_temperature(temperature):
    labels = torch.zeros(4, 3, dtype=torch.long)

    def gradient(t: float) -> float:
        student = (0.05 * randn(4, 3, 6, seed=1)).requires_grad_()
        logit_distillation(student, 0.05 * randn(4, 3, 6, seed=2), labels, t).backward()
        return float(student.grad.norm())

    assert gradient(temperature) == pytest.approx(gradient(1.0), rel=0.05)


def test_only_the_student_learns_what_the_teacher_says():
    student = torch.zeros(1, 1, 2, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(
            logit_distillation(student, as_logits(0.9, 0.1), torch.tensor([[0]]), 1.0), student
        )
        student = (student - gradient).detach().requires_grad_()
    torch.testing.assert_close(student.softmax(-1), torch.tensor([[[0.9, 0.1]]]), atol=1e-3, rtol=0)


@given(seed=seeds, garbage=st.floats(-1e4, 1e4))
@settings(deadline=None, max_examples=20)
def test_padding_changes_no_loss(seed, garbage):
    student, teacher = randn(2, 3, 5, seed=seed), randn(2, 3, 5, seed=seed + 1)
    labels = torch.tensor([[1, 2, IGNORE], [0, 4, 3]])
    padded, padded_labels = pad(student, labels, garbage)
    padded_teacher, _ = pad(teacher, labels, -garbage)
    torch.testing.assert_close(task_loss(padded, padded_labels), task_loss(student, labels))
    torch.testing.assert_close(
        logit_distillation(padded, padded_teacher, padded_labels, 2.0),
        logit_distillation(student, teacher, labels, 2.0),
    )
    torch.testing.assert_close(
        hidden_distillation([padded], [padded_teacher], [padded_labels != IGNORE]),
        hidden_distillation([student], [teacher], [labels != IGNORE]),
    )


# teachers' hidden states


def test_the_distance_of_hidden_states_is_a_mean_over_masked_tokens_and_width_summed_over_layers():
    mine = torch.zeros(1, 3, 2)
    encoder, decoder = torch.tensor([[[1.0, 3.0], [2.0, 0.0], [50.0, 50.0]]]), torch.tensor([[[0.0, 4.0]] * 3])
    masks = [torch.tensor([[1, 1, 0]]), torch.tensor([[True, False, False]])]
    one, other = (1 + 9 + 4 + 0) / 4, (0 + 16) / 2
    assert float(hidden_distillation([mine], [encoder], masks[:1])) == pytest.approx(one)
    assert float(hidden_distillation([mine, mine], [encoder, decoder], masks)) == pytest.approx(one + other)


def test_a_longer_example_counts_by_its_tokens():
    mine, taught = torch.zeros(2, 3, 1), torch.tensor([[[1.0]] * 3, [[3.0]] * 3])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert float(hidden_distillation([mine], [taught], [mask])) == pytest.approx((1 + 1 + 1 + 9) / 4)


def test_equal_hidden_states_have_no_distance():
    states = [randn(2, 3, 4), randn(2, 5, 4, seed=1)]
    masks = [torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)]
    assert hidden_distillation(states, states, masks) == 0


def test_hidden_states_under_the_mask_get_no_gradient():
    mine = torch.zeros(1, 2, 3, requires_grad=True)
    hidden_distillation([mine], [torch.ones(1, 2, 3)], [torch.tensor([[1, 0]])]).backward()
    assert mine.grad[0, 0].ne(0).all()
    assert mine.grad[0, 1].eq(0).all()


def test_layers_and_masks_must_be_as_many():
    states = [torch.zeros(1, 2, 3)] * 2
    with pytest.raises(ValueError, match="shorter"):
        hidden_distillation(states, states, [torch.ones(1, 2)])
