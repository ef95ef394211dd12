"""Two speeds, frozen parts, absent tasks, and the schedule."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mptune.config import TrainingConfig
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import neutral_vectors
from mptune.stages.optimization import two_speed, warmup_then_linear
from mptune.tasks.task import Task


def make_prompt(tasks: int = 3, length: int = 4, width: int = 5, rank: int = 2) -> MultitaskPrompt:
    random = torch.Generator().manual_seed(0)
    of = [Task(name=f"task{k}", template="{text}", verbalizer={"0": "no", "1": "yes"}) for k in range(tasks)]
    card = Card(stage="source", tasks=tuple(of), backbone="none", fingerprint="none")
    vectors = neutral_vectors(tasks, length, width, rank, noise=0.1, generator=random)
    return MultitaskPrompt(torch.randn(length, width, generator=random), vectors, card)


def snapshot(prompt: MultitaskPrompt) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in prompt.named_parameters()}


def changed(prompt: MultitaskPrompt, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, p in prompt.named_parameters() if not torch.equal(p, before[name])}


def step(prompt: MultitaskPrompt, optimizer: torch.optim.Optimizer, *tasks: int) -> None:
    """One update towards smaller prompts of these tasks."""
    optimizer.zero_grad(set_to_none=True)
    prompt(tasks).pow(2).sum().backward()
    optimizer.step()


def rates(config: TrainingConfig, taken: int = 0) -> list[float]:
    """The factor of every update that is left, and of the one that would follow the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_then_linear(optimizer, config, taken)
    found = []
    for _ in range(taken, config.steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


# two speeds


def test_the_shared_prompt_and_the_task_vectors_move_at_their_own_speeds():
    prompt = make_prompt()
    optimizer = two_speed(prompt, TrainingConfig(), shared_lr=0.3, task_lr=0.004)
    before = snapshot(prompt)
    step(prompt, optimizer, 0, 1, 2)
    for name, p in prompt.named_parameters():  # Adam's first step is its learning rate in every entry with a gradient
        wanted = 0.3 if name == "shared" else 0.004
        assert float((p.detach() - before[name]).abs().max()) == pytest.approx(wanted, rel=1e-3), name


def test_the_schedule_keeps_the_proportion_of_the_two_speeds():
    prompt, config = make_prompt(), TrainingConfig(steps=10, warmup=0.3)
    optimizer = two_speed(prompt, config, shared_lr=0.3, task_lr=0.1)
    schedule = warmup_then_linear(optimizer, config)
    seen = set()
    for _ in range(9):
        shared, vectors = (group["lr"] for group in optimizer.param_groups)
        assert shared == pytest.approx(3 * vectors)
        seen.add(round(shared, 6))
        step(prompt, optimizer, 0)
        schedule.step()
    assert len(seen) > 5


def test_every_parameter_is_in_exactly_one_group():
    prompt = make_prompt()
    optimizer = two_speed(prompt, TrainingConfig(), shared_lr=0.3, task_lr=0.1)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in prompt.parameters())


def test_a_shared_prompt_without_a_rate_is_frozen():
    prompt = make_prompt()
    optimizer = two_speed(prompt, TrainingConfig(weight_decay=0.1), shared_lr=None, task_lr=0.1)
    before = snapshot(prompt)
    step(prompt, optimizer, 0, 1, 2)
    assert changed(prompt, before) == set(before) - {"shared"}
    assert prompt.shared.grad is None


def test_task_vectors_without_a_rate_are_frozen():
    prompt = make_prompt()
    optimizer = two_speed(prompt, TrainingConfig(weight_decay=0.1), shared_lr=0.1, task_lr=None)
    before = snapshot(prompt)
    step(prompt, optimizer, 0, 1, 2)
    assert changed(prompt, before) == {"shared"}
    assert all(p.grad is None for p in [*prompt.u, *prompt.v])


def test_a_frozen_part_learns_again_under_another_optimizer():
    prompt = make_prompt()
    two_speed(prompt, TrainingConfig(), shared_lr=None, task_lr=0.1)
    optimizer = two_speed(prompt, TrainingConfig(), shared_lr=0.1, task_lr=None)
    before = snapshot(prompt)
    step(prompt, optimizer, 0)
    assert changed(prompt, before) == {"shared"}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_task_absent_from_the_batches_keeps_its_vectors_bit_for_bit(weight_decay):
    prompt = make_prompt()
    optimizer = two_speed(prompt, TrainingConfig(weight_decay=weight_decay), shared_lr=0.1, task_lr=0.1)
    for _ in range(3):  # present first, so that Adam has momentum that could move it later
        step(prompt, optimizer, 0, 1, 2)
    before = snapshot(prompt)
    for _ in range(3):
        step(prompt, optimizer, 0, 2)
    assert changed(prompt, before) == set(before) - {"u.1", "v.1"}
    step(prompt, optimizer, 1)
    assert {"u.1", "v.1"} <= changed(prompt, before)


def test_weight_decay_is_what_the_configuration_says_and_not_what_adamw_says():
    for weight_decay in (0.0, 0.5):
        prompt = make_prompt(tasks=1)
        optimizer = two_speed(prompt, TrainingConfig(weight_decay=weight_decay), shared_lr=0.1, task_lr=0.01)
        before = snapshot(prompt)
        optimizer.zero_grad()
        sum(p.sum() * 0 for p in prompt.parameters()).backward()  # gradients of zero: only the decay is left
        optimizer.step()
        torch.testing.assert_close(prompt.shared.data, before["shared"] * (1 - 0.1 * weight_decay))
        torch.testing.assert_close(prompt.u[0].data, before["u.0"] * (1 - 0.01 * weight_decay))


def test_two_speeds_learn():
    prompt = make_prompt()
    optimizer = two_speed(prompt, TrainingConfig(), shared_lr=0.05, task_lr=0.05)
    start = float(prompt.collapse().pow(2).sum())
    for _ in range(30):
        step(prompt, optimizer, 0, 1, 2)
    assert float(prompt.collapse().pow(2).sum()) < 0.1 * start


# schedule


def test_the_rate_rises_linearly_to_one_and_falls_linearly_to_zero_when_the_steps_are_done():
    found = rates(TrainingConfig(steps=20, warmup=0.2))
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4:] == pytest.approx([k / 16 for k in range(16, -1, -1)])


def test_without_a_warm_up_the_rate_starts_at_one():
    assert rates(TrainingConfig(steps=5, warmup=0.0)) == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.25, 0.0])


def test_a_warm_up_of_all_steps_only_rises():
    assert rates(TrainingConfig(steps=4, warmup=1.0)) == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.0])


def test_a_single_step_is_a_whole_one():
    assert rates(TrainingConfig(steps=1)) == [1.0, 0.0]


def test_no_steps_need_no_special_case():
    assert len(rates(TrainingConfig(steps=0))) == 1


@given(steps=st.integers(1, 60), warmup=st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_no_update_is_wasted_and_none_exceeds_the_rate_that_was_asked_for(steps, warmup):
    found = rates(TrainingConfig(steps=steps, warmup=warmup))
    top = found.index(max(found))
    assert max(found) == pytest.approx(1)
    assert min(found[:-1]) > 0
    assert found[-1] == 0
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


@pytest.mark.parametrize("taken", [1, 3, 4, 19, 20])
def test_a_schedule_that_is_gone_on_with_has_the_rates_of_one_run_through(taken):
    config = TrainingConfig(steps=20, warmup=0.2)
    assert rates(config, taken) == rates(config)[taken:]


def test_a_schedule_gone_on_with_keeps_the_proportion_of_the_two_speeds():
    config = TrainingConfig(steps=10, warmup=0.3)
    optimizer = two_speed(make_prompt(), config, shared_lr=0.3, task_lr=0.1)
    warmup_then_linear(optimizer, config, 6)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.3 * 4 / 7, 0.1 * 4 / 7])


def test_a_schedule_goes_on_after_the_last_step_without_a_negative_rate():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_then_linear(optimizer, TrainingConfig(steps=3))
    for _ in range(8):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0
