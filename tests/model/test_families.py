"""Every family of language models: a row is answered the same alone and in any batch, or the family is refused."""

import re
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import FalconConfig, FalconForCausalLM, MistralConfig, MistralForCausalLM

from mptune.config import BackboneConfig
from mptune.errors import BackboneError
from mptune.model import backbone as module
from mptune.model import families, prefixes
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode_targets
from mptune.model.families import TESTED, check_family, reading_fault
from mptune.model.loading import load_backbone
from mptune.model.prefixes import BY_POSITION_IDS
from mptune.model.scoring import generate, label_scores
from mptune.stages.losses import task_loss
from support.families import NAMES, Unbuildable, tiny_backbone
from support.models import batch_of, choosing, make_tokenizer, saved, some_prompts

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
COMMON = [
    "bart",
    "bloom",
    "gemma",
    "gemma2",
    "gpt2",
    "gpt_neo",
    "gpt_oss",
    "llama",
    "llama4_text",
    "marian",
    "mistral",
    "mpt",
    "t5",
]
TEXTS = ["the sky", "bad", "the dog ran fast and slow", "a cat sat on mat and the dog was blue and very good and fast"]
TARGETS = ["yes", "no", "not very good", "yes"]  # and padding of fewer and of more tokens than a prompt has
NEAR = 1e-4


@pytest.fixture(params=COMMON)
def common(request, monkeypatch):
    """A tiny backbone of a family, whose rows are not grouped by length, as on a GPU."""
    return ungrouped(tiny_backbone(request.param), monkeypatch)


def ungrouped(backbone, monkeypatch, *, shares=False):
    """The backbone, reading every batch in one pass, as on a GPU: T5 in transformers' own way."""
    monkeypatch.setattr(module, "PASS_COST", 0 if shares else 10**6)
    monkeypatch.setattr(prefixes, "PASS_COST", 0 if shares else 10**6)
    monkeypatch.setattr(module, "like_lengths", lambda costs, _: [list(range(len(costs)))])
    backbone.packed = None
    return backbone


def answers(backbone, prompts, texts, targets):
    """Logits at the labels, each row's loss, the scores of label words, and what is written."""
    words = encode_targets(backbone, ["yes", "no", "not very good", "not good"], max_tokens=8)
    batch = choosing(batch_of(backbone, texts, targets, [0] * len(texts)), [words] * len(texts))
    logits = backbone(prompts, batch).logits
    loss = [float(task_loss(own, labels)) for own, labels in zip(logits[:, None], batch.labels[:, None], strict=True)]
    return loss, label_scores(backbone, prompts, batch), generate(backbone, prompts, batch, 6)


def assert_alike(backbone):
    prompts = some_prompts(backbone, 1, 9)
    losses, scores, written = answers(backbone, prompts, TEXTS, TARGETS)
    for row, (text, target) in enumerate(zip(TEXTS, TARGETS, strict=True)):
        loss, own, said = answers(backbone, prompts, [text], [target])
        assert losses[row] == pytest.approx(loss[0], abs=NEAR)
        torch.testing.assert_close(scores[row], own[0], atol=NEAR, rtol=0)
        assert written[row] == said[0]


def test_a_row_is_answered_the_same_alone_and_in_any_batch(common):
    assert_alike(common)


def test_a_row_is_answered_the_same_where_rows_share_the_reading_of_a_prompt(common, monkeypatch):
    ungrouped(common, monkeypatch, shares=True)
    assert_alike(common)


OTHERS = {
    "alibi": lambda sizes: FalconForCausalLM(FalconConfig(**sizes, alibi=True, bias=True)),
    "no window": lambda sizes: MistralForCausalLM(MistralConfig(**sizes, num_key_value_heads=2, sliding_window=None)),
}


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("kind", OTHERS)
def test_so_it_is_with_other_configurations_of_a_family(kind, shares, monkeypatch):
    torch.manual_seed(0)
    sizes = dict(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3)
    sizes |= dict(bos_token_id=3, eos_token_id=1, pad_token_id=0)
    model = OTHERS[kind](sizes)
    backbone = Backbone(model, make_tokenizer(adds_eos=False), BackboneConfig(name=kind, device="cpu"))
    assert_alike(ungrouped(backbone, monkeypatch, shares=shares))


@pytest.mark.parametrize("family", sorted(BY_POSITION_IDS))
def test_families_that_count_by_position_ids_may_have_padding_behind_a_shared_prompt(family, monkeypatch):
    backbone = ungrouped(tiny_backbone(family), monkeypatch, shares=True)
    assert_alike(backbone)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "fault"),
    [
        pytest.param(
            "rwkv", "a row is answered otherwise when a longer one stands beside it", id="a state over padding"
        ),
        pytest.param("gemma3n_text", "with embeddings it answers otherwise than with the same tokens", id="token ids"),
        pytest.param("gemma4_text", r"it fails with RuntimeError \(.*inputs_embeds.*\)", id="token ids looked up"),
        pytest.param("roberta", "with embeddings it answers otherwise than with the same tokens", id="own positions"),
    ],
)
def test_a_family_that_cannot_read_prompts_is_refused_by_name_when_it_is_loaded(family, fault, tmp_path):
    folder = saved(tiny_backbone(family), tmp_path / "model")
    with pytest.raises(
        BackboneError, match=f"is of the family '{family}', which cannot be used with soft prompts: {fault}. Take"
    ):
        load_backbone(BackboneConfig(name=str(folder), device="cpu"))


def test_padding_between_prompt_and_text_would_be_found(monkeypatch):
    backbone = tiny_backbone("mpt")
    assert reading_fault(backbone) is None
    monkeypatch.setattr(
        module,
        "prepend",
        lambda prompts, text, mask, left: (
            torch.cat([prompts, text], 1),
            torch.cat([mask.new_ones(prompts.shape[:2]), mask], 1),
        ),
    )
    assert reading_fault(backbone) == "a row is answered otherwise when a longer one stands beside it"


def test_families_that_were_tested_are_not_asked_again(monkeypatch):
    monkeypatch.setattr(families, "reading_fault", lambda _: pytest.fail("it was asked"))
    check_family(tiny_backbone("llama"))


def test_the_check_holds_in_bfloat16():
    for family in ("llama", "mistral", "t5"):
        backbone = tiny_backbone(family)
        for weight in backbone.model.parameters():
            weight.data *= 0.3  # with larger ones random layers make much of every rounding
        backbone.model.bfloat16()
        assert reading_fault(backbone) is None


# -- every family -----------------------------------------------------------------------------------------------------

HEAD = """# Families of models

Soft prompts are laid before the text as embeddings, and rows of unlike length share a batch. A family of models that
does not read that as it reads text would answer wrongly and say nothing. So every language model that transformers
{version} knows was built tiny (windows of four tokens, random weights) and asked: with an empty prompt, is the answer
the model's own for the same tokens; is a row answered the same alone and beside a longer one; is what it writes what
it finds likeliest? Answers may differ by 1e-4 of the largest logit.

*right* is loaded at once. Any other is asked the same when it is loaded, and refused by name where it fails: those
that fail here, and those that cannot be built small, as models of pictures and sound are, whose text part may well be
right.

This page is written by `python tests/model/test_families.py --write`, and checked by `make sweep`.

| family | outcome |
|---|---|
"""


def outcome(name):
    """What the page says of a family."""
    try:
        backbone = tiny_backbone(name)
    except Exception as error:  # whatever a configuration's own checks may raise
        return "asked when loaded: " + (str(error) if isinstance(error, Unbuildable) else "cannot be built tiny")
    return f"refused: {fault}" if (fault := reading_fault(backbone)) else "right"


def listed():
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8").partition("|---|")[2], re.M))


def test_the_page_names_those_families_as_right_that_are_loaded_at_once():
    assert {name for name, said in listed().items() if said == "right"} == TESTED


@pytest.mark.sweep
@pytest.mark.parametrize("name", NAMES)
def test_a_family_does_what_the_page_says(name):
    assert outcome(name) == listed()[name]


if __name__ == "__main__" and "--write" in sys.argv:
    rows = [f"| {name} | {outcome(name)} |" for name in NAMES]
    PAGE.write_text(HEAD.format(version=transformers.__version__) + "\n".join(rows) + "\n", encoding="utf-8")
