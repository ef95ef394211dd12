"""Recorded passes: the padding, the turns and the falling back, here; the recording itself where a GPU is."""

import gc

import pytest
import torch

from mptune.config import AdaptConfig, TeachConfig
from mptune.model.batch import IGNORE
from mptune.model.graphs import MET, Graphs, Unrecordable, in_few_shapes, rounded
from mptune.stages.adaptation import adapt
from mptune.stages.teachers import teach
from mptune.stages.weights import thawed
from support.graphs import Held, recorded
from support.models import FAMILIES, batch_of, doubled, make_backbone, some_prompts


def read(backbone, layers=(-1,)):
    """Logits, states, and the gradient of the prompts from both."""
    prompts = some_prompts(backbone).to(backbone.dtype).requires_grad_(True)
    batch = batch_of(backbone)
    out = backbone(prompts, batch, layers)
    counted = batch.labels != IGNORE
    loss = out.logits[counted].logsumexp(-1).sum()
    half = len(out.hidden) // 2
    loss = loss + sum((each[batch.mask.bool()] ** 2).sum() for each in out.hidden[:half])
    loss = loss + sum((each[counted] ** 2).sum() for each in out.hidden[half:])
    loss.backward()
    hidden = [each[batch.mask.bool()] for each in out.hidden[:half]] + [each[counted] for each in out.hidden[half:]]
    return [out.logits[counted], *hidden, prompts.grad]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_replayed_pass_is_the_pass(family):
    plain = doubled(make_backbone(family))
    backbone = recorded(doubled(make_backbone(family)))
    for _ in range(MET + 2):
        for one, other in zip(read(backbone), read(plain), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)  # T5's norms are float32
    assert backbone.graphs.replays == 3  # from the third time on


def test_a_shape_is_recorded_when_it_is_met_again_and_not_before():
    seen = []

    def record(passes, inputs, pool):
        seen.append(pool)
        return Held(passes, inputs, pool)

    graphs = Graphs(record)
    for _ in range(MET - 1):
        graphs("double", lambda x: (2 * x,), [torch.ones(3)])
    assert not seen
    assert not graphs.replays
    assert graphs("double", lambda x: (2 * x,), [torch.full((3,), 4.0)])[0].tolist() == [8.0] * 3
    assert seen == [None]
    assert graphs.replays == 1
    for _ in range(MET):
        graphs("double", lambda x: (2 * x,), [torch.ones(4)])
    assert seen == [None, "a pool"], "recordings that are replayed in turn share their memory"


def test_passes_of_other_names_or_that_learn_have_recordings_of_their_own():
    graphs = Graphs(Held)
    for _ in range(MET):
        assert graphs("double", lambda x: (2 * x,), [torch.ones(3)])[0].sum() == 6
        assert graphs("triple", lambda x: (3 * x,), [torch.ones(3)])[0].sum() == 9
        x = torch.ones(3, requires_grad=True)
        (y,) = graphs("double", lambda x: (2 * x,), [x])
        y.sum().backward()
        assert x.grad.tolist() == [2.0] * 3
    assert graphs.replays == 3


def squares(x):
    return (x * x,)


def test_two_passes_may_wait_for_their_gradients_and_a_third_is_computed_as_it_is():
    graphs = Graphs(Held)
    for _ in range(2 * MET):
        before = graphs.replays
        xs = [torch.tensor([float(n)], requires_grad=True) for n in (1, 2, 3)]
        ys = [graphs("square", squares, [x])[0] for x in xs]
        sum(ys).backward()
        assert [x.grad.item() for x in xs] == [2.0, 4.0, 6.0]
    assert graphs.replays - before == 2


def test_a_teacher_s_pass_does_not_disturb_a_student_s_gradient():
    graphs = Graphs(Held)
    for _ in range(MET + 1):
        x = torch.tensor([3.0], requires_grad=True)
        (y,) = graphs("square", squares, [x])
        with torch.no_grad():
            (taught,) = graphs("square", squares, [torch.tensor([5.0])])
        (y - taught).sum().backward()
        assert [x.grad.item(), taught.item(), y.item()] == [6.0, 25.0, 9.0]


def test_a_pass_whose_gradient_nobody_asks_for_gives_its_recording_back():
    graphs = Graphs(Held)
    for _ in range(MET + 5):
        graphs("square", squares, [torch.tensor([3.0], requires_grad=True)])
        gc.collect()
    assert graphs.replays == 6


@pytest.mark.parametrize("error", [Unrecordable("no room is left"), RuntimeError("a number was read\nwhile capturing")])
def test_what_cannot_be_recorded_is_computed_as_it_is_and_said_once(error, caplog):
    def record(*_):
        raise error

    graphs = Graphs(record)
    with caplog.at_level("INFO", "mptune"):
        for _ in range(MET + 3):
            assert graphs("square", squares, [torch.tensor([3.0])])[0].item() == 9.0
    said = str(error).partition("\n")[0]
    assert caplog.messages == [f"a pass is computed kernel by kernel, since it cannot be recorded: {said}"]


@pytest.mark.parametrize("left", [False, True])
def test_batches_have_few_shapes(left):
    backbone = make_backbone("llama" if left else "t5")
    batch = batch_of(backbone)
    wider = in_few_shapes(batch, 5, None, left=left)
    assert 5 + wider.input_ids.shape[1] == 16
    rows = len(batch.labels)
    assert len(wider.labels) == rounded(rows, to=8)
    assert torch.equal(wider.mask.sum(1)[:rows], batch.mask.sum(1))
    side = slice(-batch.input_ids.shape[1], None) if left else slice(batch.input_ids.shape[1])
    assert torch.equal(wider.input_ids[:rows, side], batch.input_ids)
    assert torch.equal(wider.labels[:rows, : batch.labels.shape[1]], batch.labels)
    assert not (wider.labels[:, batch.labels.shape[1] :] != IGNORE).any()
    assert [rounded(n, to=8) for n in (1, 2, 3, 5, 8, 9, 17)] == [1, 2, 4, 8, 8, 16, 24]


def test_a_batch_is_not_padded_beyond_a_model_s_positions():
    batch = batch_of(make_backbone("gpt2"))
    need = batch.input_ids.shape[1] + 5 + batch.labels.shape[1]
    assert in_few_shapes(batch, 5, need, left=True).input_ids.shape[1] == batch.input_ids.shape[1]
    assert in_few_shapes(batch, 5, 100, left=True).input_ids.shape[1] == 11
    assert in_few_shapes(batch, 30, 100, left=True).input_ids.shape[1] == 34


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_training_and_scores_are_those_without_recordings(family, toy_tasks):
    found = []
    for make in (lambda b: b, recorded):
        backbone = make(make_backbone(family))
        few = dict(steps=8, validate_every=4, batch_size=4)
        source = teach(toy_tasks[0], backbone, TeachConfig(prompt_length=4, **few))
        target = adapt(source, toy_tasks[1], backbone, AdaptConfig(**few, label_weight=1))
        found.append((target.shared.detach(), [score["value"] for score in target.card.scores]))
    (one, scores), (other, again) = found
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert scores == again
    assert backbone.graphs.replays > 8


def test_weights_that_learn_are_not_recorded():
    assert thawed(recorded(make_backbone("t5"))).graphs is None
