"""The decomposition, entry by entry; the starts; the averages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mptune.model.padding import prepend
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import (
    VOCABULARY_SAMPLE,
    TaskVectors,
    compose,
    mean_of_matrices,
    mean_of_vectors,
    neutral_vectors,
    sample_vocabulary,
)
from mptune.tasks.task import Task

small = st.integers(1, 5)
seeds = st.integers(0, 2**31)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_vectors(tasks: int, length: int, width: int, rank: int, seed: int = 0) -> TaskVectors:
    random = seeded(seed)
    return TaskVectors(
        torch.randn(tasks, length, rank, generator=random), torch.randn(tasks, rank, width, generator=random)
    )


def optimal_error(matrix: torch.Tensor, rank: int) -> float:
    """Eckart and Young: no matrix of that rank is nearer than the singular values that are left out."""
    return float(torch.linalg.svdvals(matrix)[rank:].pow(2).sum().sqrt())


# compose


def test_an_entry_of_a_rank_one_prompt_is_the_shared_entry_times_u_times_v():
    shared = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    u, v = torch.tensor([[[10.0], [0.5]], [[1.0], [2.0]]]), torch.tensor([[[1.0, -1.0, 2.0]], [[0.0, 1.0, 3.0]]])
    prompts = compose(shared, TaskVectors(u, v))
    for k in range(2):
        for i in range(2):
            for j in range(3):
                assert prompts[k, i, j] == shared[i, j] * u[k, i, 0] * v[k, 0, j]


def test_a_higher_rank_adds_the_matrices_of_its_columns():
    vectors = random_vectors(2, 4, 5, rank=3)
    columns = [TaskVectors(vectors.u[:, :, r : r + 1], vectors.v[:, r : r + 1]).matrices for r in range(3)]
    torch.testing.assert_close(vectors.matrices, sum(columns))


@given(length=small, width=small, tasks=small, rank=small, seed=seeds, a=st.floats(-3, 3), b=st.floats(-3, 3))
@settings(deadline=None, max_examples=40)
def test_compose_is_linear_in_the_shared_prompt(length, width, tasks, rank, seed, a, b):
    vectors = random_vectors(tasks, length, width, rank, seed)
    one, other = torch.randn(2, length, width, generator=seeded(seed + 1))
    both = compose(a * one + b * other, vectors)
    assert both.shape == (tasks, length, width)
    torch.testing.assert_close(both, a * compose(one, vectors) + b * compose(other, vectors), rtol=1e-4, atol=1e-4)


@given(length=small, width=small, tasks=small, rank=small, seed=seeds)
@settings(deadline=None, max_examples=40)
def test_a_tasks_prompt_does_not_depend_on_the_other_tasks(length, width, tasks, rank, seed):
    vectors = random_vectors(tasks, length, width, rank, seed)
    shared = torch.randn(length, width, generator=seeded(seed + 1))
    together = compose(shared, vectors)
    for k in range(tasks):
        alone = compose(shared, TaskVectors(vectors.u[k : k + 1], vectors.v[k : k + 1]))
        torch.testing.assert_close(together[k], alone[0])


def test_turning_the_sign_of_both_vectors_changes_no_prompt():
    vectors = random_vectors(2, 3, 4, rank=1)
    shared = torch.randn(3, 4, generator=seeded())
    assert torch.equal(compose(shared, vectors), compose(shared, TaskVectors(-vectors.u, -vectors.v)))


@pytest.mark.parametrize(
    ("tasks", "per_task"),
    [
        pytest.param(1, 77_668, id="one target: l d + l + d"),
        pytest.param(8, 10_468, id="a group of eight: l d / 8 + l + d"),
    ],
)
def test_the_parameter_counts_are_the_papers(tasks, per_task):
    names = [Task(name=f"t{k}", template="{text}", verbalizer={"0": "no", "1": "yes"}) for k in range(tasks)]
    card = Card(stage="target", tasks=tuple(names), backbone="t5-base", fingerprint="none")
    vectors = neutral_vectors(tasks, 100, 768, rank=1, noise=0.0, generator=seeded())
    prompt = MultitaskPrompt(torch.zeros(100, 768), vectors, card)
    assert sum(p.numel() for p in prompt.parameters()) == tasks * per_task


# prepend


def test_the_prompt_stands_before_the_text_and_is_never_masked():
    prompts, embedded = torch.randn(2, 3, 4, generator=seeded()), torch.randn(2, 5, 4, generator=seeded(1))
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    longer, longer_mask = prepend(prompts, embedded, mask, left=False)
    assert torch.equal(longer[:, :3], prompts)
    assert torch.equal(longer[:, 3:], embedded)
    assert longer_mask.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]
    assert longer_mask.dtype == mask.dtype


def test_padding_on_the_left_stands_before_the_prompt():
    prompts, embedded = torch.randn(2, 3, 4, generator=seeded()), torch.randn(2, 5, 4, generator=seeded(1))
    longer, mask = prepend(prompts, embedded, torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]), left=True)
    assert mask.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8]
    assert torch.equal(longer[0], torch.cat([embedded[0, :2], prompts[0], embedded[0, 2:]]))
    assert torch.equal(longer[1], torch.cat([prompts[1], embedded[1]]))


@pytest.mark.parametrize("left", [False, True])
def test_an_empty_prompt_changes_nothing(left):
    embedded, mask = torch.randn(2, 5, 4, generator=seeded()), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    longer, longer_mask = prepend(torch.zeros(2, 0, 4), embedded, mask, left=left)
    assert torch.equal(longer, embedded)
    assert torch.equal(longer_mask, mask)


# where a prompt starts


@given(seed=seeds, length=st.integers(0, 60), pieces=st.integers(60, 200))
@settings(deadline=None, max_examples=25)
def test_a_vocabulary_sample_has_distinct_rows_of_the_table(seed, length, pieces):
    table = torch.arange(pieces, dtype=torch.float)[:, None].expand(pieces, 3)
    rows = sample_vocabulary(table, length, seeded(seed))
    assert rows.shape == (length, 3)
    assert len(set(rows[:, 0].tolist())) == length


def test_a_vocabulary_sample_takes_only_the_first_five_thousand_pieces_and_reaches_all_of_them():
    assert VOCABULARY_SAMPLE == 5_000
    table = torch.arange(8_000, dtype=torch.float)[:, None]
    drawn = sample_vocabulary(table, 5_000, seeded())
    assert sorted(drawn[:, 0].tolist()) == list(range(5_000))


def test_a_vocabulary_sample_depends_on_its_generator_alone():
    table = torch.randn(400, 8, generator=seeded())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample_vocabulary(table, 20, seeded(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sample_vocabulary(table, 20, seeded(7)), first)
    assert not torch.equal(sample_vocabulary(table, 20, seeded(8)), first)


def test_more_soft_tokens_than_pieces_are_drawn_with_replacement():
    table = torch.arange(7, dtype=torch.float)[:, None]
    rows = sample_vocabulary(table, 50, seeded())
    assert rows.shape == (50, 1)
    assert set(rows[:, 0].tolist()) == set(range(7))


def test_a_vocabulary_sample_is_a_float32_copy_that_can_learn_alone():
    table = torch.nn.Parameter(torch.randn(30, 4, generator=seeded()).bfloat16())
    rows = sample_vocabulary(table, 30, seeded())
    assert rows.dtype == torch.float32
    assert not rows.requires_grad
    before = table.detach().clone()
    rows.zero_()
    assert torch.equal(table, before)


@pytest.mark.parametrize("rank", [1, 3])
def test_neutral_vectors_without_noise_leave_the_shared_prompt_unchanged(rank):
    shared = torch.randn(6, 5, generator=seeded())
    prompts = compose(shared, neutral_vectors(4, 6, 5, rank, noise=0.0, generator=seeded()))
    assert torch.equal(prompts, shared.expand(4, 6, 5))


@pytest.mark.parametrize("rank", [1, 3])
def test_neutral_vectors_are_around_one_and_no_two_tasks_or_columns_are_alike(rank):
    vectors = neutral_vectors(4, 200, 300, rank, noise=0.02, generator=seeded())
    assert vectors.u.shape == (4, 200, rank)
    assert vectors.v.shape == (4, rank, 300)
    assert float(vectors.matrices.mean()) == pytest.approx(1, abs=0.01)
    assert float(vectors.u.std(dim=1).mean()) == pytest.approx(0.02, rel=0.1)
    assert float(vectors.v.std(dim=2).mean()) == pytest.approx(0.02, rel=0.1)
    for start in (vectors.u.mean(1), vectors.v.mean(2)):  # the first column carries the one, the others start at zero
        torch.testing.assert_close(start, torch.eye(rank)[:1].expand(4, rank), atol=0.01, rtol=0)
    columns = vectors.u.transpose(1, 2).flatten(0, 1)
    assert len(torch.unique(columns, dim=0)) == 4 * rank


def test_every_column_of_a_noisy_start_gets_a_gradient():
    vectors = neutral_vectors(1, 6, 5, rank=3, noise=0.02, generator=seeded())
    u, v = vectors.u.requires_grad_(), vectors.v.requires_grad_()
    compose(torch.randn(6, 5, generator=seeded(1)), TaskVectors(u, v)).pow(2).sum().backward()
    assert u.grad is not None
    assert v.grad is not None
    assert u.grad.ne(0).all()
    assert v.grad.ne(0).all()


# averages


def test_the_mean_of_vectors_is_the_mean_of_u_and_the_mean_of_v():
    vectors = TaskVectors(torch.tensor([[[1.0], [3.0]], [[3.0], [5.0]]]), torch.tensor([[[2.0, 0.0]], [[4.0, 6.0]]]))
    mean = mean_of_vectors(vectors)
    assert mean.u.tolist() == [[[2.0], [4.0]]]
    assert mean.v.tolist() == [[[3.0, 3.0]]]


def test_the_product_of_the_means_is_not_the_mean_of_the_products():
    vectors = TaskVectors(torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[[1.0]], [[3.0]]]))
    assert vectors.matrices.mean() == 5
    assert mean_of_vectors(vectors).matrices.item() == 4
    assert mean_of_matrices(vectors).matrices.item() == pytest.approx(5)


@given(seed=seeds, tasks=small, rank=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_the_mean_of_matrices_is_the_nearest_of_its_rank(seed, tasks, rank):
    vectors = random_vectors(tasks, 6, 7, rank, seed)
    target = vectors.matrices.mean(0)
    mean = mean_of_matrices(vectors)
    assert mean.u.shape == (1, 6, rank)
    assert mean.v.shape == (1, rank, 7)
    error = float((mean.matrices[0] - target).norm())
    assert error == pytest.approx(optimal_error(target, rank), rel=1e-3, abs=1e-4)


def test_the_mean_of_matrices_is_nearer_than_the_mean_of_vectors():
    vectors = random_vectors(4, 6, 7, rank=1)
    target = vectors.matrices.mean(0)
    by_matrices = (mean_of_matrices(vectors).matrices[0] - target).norm()
    by_vectors = (mean_of_vectors(vectors).matrices[0] - target).norm()
    assert by_matrices < by_vectors


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("average", [mean_of_vectors, mean_of_matrices])
def test_the_average_of_equal_tasks_is_that_task(average, rank):
    one = random_vectors(1, 6, 5, rank)
    same = TaskVectors(one.u.expand(4, -1, -1), one.v.expand(4, -1, -1))
    torch.testing.assert_close(average(same).matrices, one.matrices, rtol=1e-4, atol=1e-4)


def test_tasks_of_equal_matrices_average_to_them_whatever_their_signs_and_scales():
    one = random_vectors(1, 6, 5, rank=2)
    factors = torch.tensor([1.0, -1.0, 3.0, -0.5])[:, None, None]
    same = TaskVectors(one.u * factors, one.v / factors)
    torch.testing.assert_close(mean_of_matrices(same).matrices, one.matrices, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mean_of_vectors(same).matrices, one.matrices)  # which is why the rule exists


def test_the_mean_of_neutral_matrices_is_neutral_again_and_positive():
    mean = mean_of_matrices(neutral_vectors(3, 6, 5, rank=1, noise=0.0, generator=seeded()))
    torch.testing.assert_close(mean.matrices, torch.ones(1, 6, 5))
    assert (mean.u > 0).all()
    assert (mean.v > 0).all()


# summaries
