"""Rows without labels, and what teachers think of them."""

import itertools

import pytest
import torch

from mptune.answers.evaluation import answer
from mptune.config import EvaluateConfig, ExamplesConfig
from mptune.model.batch import UNLABELLED
from mptune.model.encoding import encode
from mptune.stages.pseudo_labels import PseudoLabels
from mptune.stages.sampling import single_task
from mptune.tasks.data import TaskRows
from support.trained import trained_backbone


@pytest.fixture
def rows(toy_task):
    return encode(toy_task, TaskRows(toy_task).data("test").test, trained_backbone(), ExamplesConfig(), 4)


def odds_of(prompt, rows):
    return answer(trained_backbone(), [prompt], [rows], EvaluateConfig(), labelled=False)[0].probabilities


def test_teachers_are_averaged_and_what_they_agree_on_is_sharpened(source, rows):
    one, two = source.collapse()[:2]
    taught = PseudoLabels.of_teachers([(trained_backbone(), one), (trained_backbone(), two)], rows, sharpening=2.0)
    mean = (odds_of(one, rows) + odds_of(two, rows)) / 2
    assert torch.allclose(taught.odds, mean**2 / (mean**2).sum(1, keepdim=True))
    assert torch.equal(taught.odds.argmax(1), mean.argmax(1))
    assert (taught.odds.max(1).values >= mean.max(1).values).all()


def test_a_power_of_one_leaves_the_mean(source, rows):
    prompt = source.collapse()[0]
    taught = PseudoLabels.of_teachers([(trained_backbone(), prompt)], rows, sharpening=1.0)
    assert torch.allclose(taught.odds, odds_of(prompt, rows))


def test_every_batch_has_labelled_rows_and_as_many_without_labels(rows):
    taught = PseudoLabels(rows, torch.rand(20, 2))

    def drawn(seed):
        random = torch.Generator().manual_seed(seed)
        return list(itertools.islice(taught.beside(single_task(6, 4, random), 4, random), 10))

    batches = drawn(0)
    for batch in batches:
        assert [task for task, _ in batch] == [0] * 4 + [UNLABELLED] * 4
    unlabelled = [row for batch in batches for task, row in batch if task == UNLABELLED]
    assert sorted(unlabelled[:20]) == list(range(20))  # each once before any twice
    assert batches == drawn(0) != drawn(1)


def test_the_loss_is_of_the_unlabelled_rows_each_against_its_own_odds(source, rows):
    backbone, prompts = trained_backbone(), source.collapse()[:1]
    odds = torch.rand(20, 2).softmax(1)
    picks = [(0, 3), (UNLABELLED, 7), (0, 1), (UNLABELLED, 2)]
    loss = PseudoLabels(rows, odds).loss(picks, backbone, lambda batch: (prompts, batch))
    likely = odds_of(source.collapse()[0], rows)[[7, 2]].log()
    assert float(loss) == pytest.approx(float(-(odds[[7, 2]] * likely).sum(1).mean()), rel=1e-4)
