"""One default learning rate serves backbones whose embeddings differ a hundredfold in size."""

import pytest
import torch

from mptune.config import TeachConfig
from mptune.model.encoding import encode_inputs, encode_targets, pad_batch
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import neutral_vectors, sample_vocabulary
from mptune.stages.losses import task_loss
from mptune.stages.optimization import two_speed
from mptune.tasks.task import Task
from support.models import make_backbone, rms

FAMILIES = [pytest.param("t5", 13.5, id="T5's large embeddings"), pytest.param("llama", 0.02, id="Llama's small ones")]
TASK = Task(name="toy", template="{text}", verbalizer={"0": "no", "1": "yes"})


def scaled_backbone(family, size):
    """A tiny backbone whose input embeddings have the given root mean square."""
    backbone = make_backbone(family)
    head = backbone.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # only the input embeddings are to grow
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight.mul_(size / backbone.embedding_rms)
    return backbone


def descend(backbone, lr, steps):
    """Train a prompt on four texts, without choosing the best; return the first and last prompt and losses."""
    random = torch.Generator().manual_seed(0)
    card = Card(stage="teacher", tasks=(TASK,), backbone="tiny", fingerprint=backbone.fingerprint)
    shared = sample_vocabulary(backbone.embeddings, 8, random)
    prompt = MultitaskPrompt(shared, neutral_vectors(1, 8, backbone.width, 1, 0.0, random), card)
    optimizer = two_speed(prompt, TeachConfig(), shared_lr=lr * backbone.embedding_rms, task_lr=None)
    inputs = encode_inputs(backbone, ["the sky is blue", "a cat sat", "the dog ran", "red and green"], 32, 8, 2)
    batch = pad_batch(backbone, [0] * 4, inputs, encode_targets(backbone, ["yes", "yes", "no", "yes"], 4))
    losses = []
    for _ in range(steps):
        loss = task_loss(backbone(prompt(batch.tasks), batch).logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return shared, prompt.shared.detach(), losses


@pytest.mark.parametrize(("family", "size"), FAMILIES)
def test_the_default_moves_a_prompt_by_a_like_share_of_its_size(family, size):
    start, end, _ = descend(scaled_backbone(family, size), TeachConfig().lr, steps=1)
    assert rms(end - start) == pytest.approx(TeachConfig().lr * size, rel=0.05)


@pytest.mark.parametrize(("family", "size"), FAMILIES)
def test_the_default_learns_and_does_not_explode(family, size):
    start, end, losses = descend(scaled_backbone(family, size), TeachConfig().lr, steps=30)
    assert losses[-1] < losses[0] - 0.1  # nats; a random backbone leaves a prompt little to gain
    assert rms(end) < 10 * rms(start)


def test_the_papers_absolute_rate_would_bury_a_llamas_vocabulary_sample_in_a_step():
    backbone = scaled_backbone("llama", 0.02)
    start, end, _ = descend(backbone, 0.3 / backbone.embedding_rms, steps=1)
    assert rms(end - start) > 10 * rms(start)
