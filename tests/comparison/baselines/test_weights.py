"""Baselines that learn weights: what each adds or moves is its definition, written out, in every family."""

import copy
import math
import sys

import pytest
import torch
from torch import nn
from transformers import (
    PhiConfig,
    PhiForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.pytorch_utils import Conv1D

from mptune.comparison.baselines import weights
from mptune.comparison.methods import METHODS
from mptune.comparison.methods import WEIGHTS as FAMILY
from mptune.config import BackboneConfig, WeightsConfig
from mptune.errors import BackboneError, MissingExtraError
from mptune.model.backbone import Backbone
from mptune.stages.losses import task_loss
from mptune.stages.weights import BareText, fine_tuning, thawed
from support.models import FAMILIES, batch_of, make_backbone, make_tokenizer, some_prompts

OF_WEIGHTS = {
    name: row
    for name, row in METHODS.items()
    if row.family == FAMILY and row.runs_on == "a target" and not row.wants_unlabelled
}
WEIGHTS = {name: getattr(weights, name.replace("-", "_"), fine_tuning) for name in OF_WEIGHTS}
BY_PEFT = tuple(name for name, row in OF_WEIGHTS.items() if row.extra)
KNOWN_TO_PEFT = [family for family in FAMILIES if family != "marian"]
CASES = [(kind, f) for kind in WEIGHTS for f in (KNOWN_TO_PEFT if kind in BY_PEFT else FAMILIES)]

pytestmark = [
    pytest.mark.slow,  # every method on every family
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),  # PEFT mends it for GPT-2, and says so
]


def changed(kind, backbone, **config):
    """A thawed copy with what a baseline adds, and what of it learns."""
    copied = thawed(backbone)
    torch.manual_seed(0)
    learnt = WEIGHTS[kind](copied, WeightsConfig(**config))
    for parameter in learnt:
        parameter.requires_grad_(True)
    return copied, learnt


def logits(backbone):
    batch = batch_of(backbone)
    return backbone(some_prompts(backbone), batch).logits[batch.labels >= 0]


@torch.no_grad()
def scramble(parameters, around=0.0):
    """Give parameters values that no start has."""
    random = torch.Generator().manual_seed(3)
    for parameter in parameters:
        parameter.copy_(around + 0.5 * torch.randn(parameter.shape, generator=random))


def names_of(learnt, backbone):
    ids = {id(parameter) for parameter in learnt}
    return {name for name, parameter in backbone.model.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_at_its_start_every_kind_answers_as_the_backbone(kind, family):
    backbone = make_backbone(family)
    copied, _ = changed(kind, backbone)
    torch.testing.assert_close(logits(copied), logits(backbone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_all_that_is_counted_gets_a_gradient_and_nothing_else_does(kind, family):
    copied, learnt = changed(kind, make_backbone(family))
    batch = batch_of(copied)
    prompts, batch = BareText(learnt, copied.width)(batch)
    assert prompts.shape == (1, 0, copied.width)
    task_loss(copied(prompts, batch).logits, batch.labels).backward()
    ids = {id(parameter) for parameter in learnt}
    assert len(ids) == len(learnt), "nothing is counted twice"
    assert all(parameter.grad is not None for parameter in learnt)
    assert all(p.grad is None for p in copied.model.parameters() if id(p) not in ids)
    assert any(parameter.grad.abs().max() > 0 for parameter in learnt)


@pytest.fixture
def group(tmp_path):
    """A group of processes, of this one alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.filterwarnings("ignore")  # torch would rather not look for unused parameters
def test_processes_that_train_together_see_every_gradient(kind, backbone, group):
    copied, learnt = changed(kind, backbone)
    batch, found = batch_of(copied), []
    alone = nn.parallel.DistributedDataParallel(BareText(learnt, copied.width), find_unused_parameters=True)
    for reads in (alone, alone, BareText(learnt, copied.width)):
        reads.zero_grad()
        task_loss(copied(*reads(batch)).logits, batch.labels).backward()
        found.append([parameter.grad.clone() for parameter in learnt])
    for first, second, own in zip(*found, strict=True):
        torch.testing.assert_close(first, own)
        torch.testing.assert_close(second, own)


# -- fine-tuning ------------------------------------------------------------------------------------------------------


def test_fine_tuning_learns_every_weight(any_backbone):
    copied, learnt = changed("fine-tuning", any_backbone)
    own = {name for name, _ in any_backbone.model.named_parameters()}
    if any_backbone.config.name == "tiny-marian":  # whose positions are sines and cosines
        own -= {"model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"}
    assert names_of(learnt, copied) == own


# -- BitFit -----------------------------------------------------------------------------------------------------------

# Biases of two layers, or of two and two, counted by hand: T5 has none but the new ones of q, k, v, o (twice in the
# decoder) and of the feed-forward part's two or three; the other families' are their own, those of norms among them.
BIASES = {"t5": 2 * 6 + 2 * 10, "mt5": 2 * 7 + 2 * 11, "bart": 2 * 8 + 2 * 13 + 2, "marian": 2 * 8 + 2 * 13,
          "gpt2": 2 * 6 + 1, "llama": 2 * 7}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_bitfit_learns_all_biases_and_nothing_but_biases(family):
    copied, learnt = changed("bitfit", make_backbone(family))
    names = names_of(learnt, copied)
    assert len(names) == BIASES[family]
    assert {name.rpartition(".")[2] for name in names} == {"bias"}
    assert copied.model.get_output_embeddings().bias is None


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_a_bias_that_bitfit_adds_is_added_to_what_its_layer_gives(family):
    backbone = make_backbone(family)
    copied, learnt = changed("bitfit", backbone)
    assert all((parameter == 0).all() for parameter in learnt)
    scramble(learnt)
    oracle = thawed(backbone)
    for name, bias in copied.model.named_parameters():
        if name.endswith(".bias"):
            layer = oracle.model.get_submodule(name.removesuffix(".bias"))
            layer.register_forward_hook(lambda module, inputs, given, bias=bias: given + bias)
    torch.testing.assert_close(logits(copied), logits(oracle))
    assert not torch.allclose(logits(copied), logits(backbone), atol=0.1)


def test_bitfit_leaves_the_output_layers_own_bias_alone():
    config = PhiConfig(
        vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, eos_token_id=1
    )
    named = BackboneConfig(name="phi")
    copied, learnt = changed("bitfit", Backbone(PhiForCausalLM(config), make_tokenizer(adds_eos=False), named))
    assert copied.model.lm_head.bias is not None
    assert len(learnt) == 4 + 2 + 2  # attention, feed-forward, and the two norms
    assert "lm_head.bias" not in names_of(learnt, copied)


def test_a_model_without_linear_layers_has_nothing_for_bitfit():
    class Product(nn.Module):
        """What stands where layers are stored in another form, as quantised ones are."""

        def __init__(self, weight):
            super().__init__()
            self.weight = weight

    backbone = make_backbone("t5")
    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            backbone.model.set_submodule(name, Product(module.weight))
    with pytest.raises(BackboneError, match=r"tiny-t5 has no linear layers, and so no biases for BitFit to learn"):
        changed("bitfit", backbone)


# -- adapters ---------------------------------------------------------------------------------------------------------

# Self-attention and feed-forward of each layer. Attention from decoder to encoder is not among them.
_T5 = {
    "encoder.block.{}": ("layer.0.SelfAttention", "layer.1.DenseReluDense"),
    "decoder.block.{}": ("layer.0.SelfAttention", "layer.2.DenseReluDense"),
}
_BART = {"model.encoder.layers.{}": ("self_attn", "fc2"), "model.decoder.layers.{}": ("self_attn", "fc2")}
PARTS = {"t5": _T5, "mt5": _T5, "bart": _BART, "marian": _BART, "gpt2": {"transformer.h.{}": ("attn", "mlp")},
         "llama": {"model.layers.{}": ("self_attn", "mlp")}}  # fmt: skip


class Adapted(nn.Module):
    """A part of a layer with the adapter's equation written out behind it."""

    def __init__(self, part, down, down_bias, up, up_bias):
        super().__init__()
        self.part, self.adapter = part, (down, down_bias, up, up_bias)

    def forward(self, *args, **kw):
        down, down_bias, up, up_bias = self.adapter
        given = self.part(*args, **kw)
        h = given[0] if isinstance(given, tuple) else given
        z = h @ down.T + down_bias
        gelu = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        adapted = h + gelu @ up.T + up_bias
        return (adapted, *given[1:]) if isinstance(given, tuple) else adapted


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_stand_behind_self_attention_and_feed_forward_of_every_layer(family):
    backbone = make_backbone(family)
    copied, learnt = changed("adapters", backbone, reduction=4)
    places = [f"{layer.format(i)}.{part}" for layer, parts in PARTS[family].items() for i in (0, 1) for part in parts]
    values = learnt[: 4 * len(places)]
    assert [tuple(p.shape) for p in values] == [(4, 16), (4,), (16, 4), (16,)] * len(places)
    scramble(values)
    oracle = thawed(backbone)
    for number, place in enumerate(places):
        part = oracle.model.get_submodule(place)
        oracle.model.set_submodule(place, Adapted(part, *values[4 * number : 4 * number + 4]))
    torch.testing.assert_close(logits(copied), logits(oracle), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(copied), logits(backbone), atol=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_norms_learn_beside_the_adapters(family):
    copied, learnt = changed("adapters", make_backbone(family))
    names = {name for name, _ in copied.model.named_parameters()}
    norms = {name for name in names if "norm" in name or ".ln_" in name}
    assert names_of(learnt, copied) == norms
    assert len(norms) > 4


def test_a_bottleneck_is_at_least_one_wide(backbone):
    _, learnt = changed("adapters", backbone, reduction=1000)
    assert learnt[0].shape == (1, 16)


def test_an_adapter_starts_with_small_numbers_of_its_own(backbone):
    _, learnt = changed("adapters", backbone, reduction=1)
    down = torch.cat([p.detach().flatten() for p in learnt[:32:4]])
    assert float(down.std()) == pytest.approx(0.01, rel=0.1)
    assert not torch.equal(learnt[0], learnt[4])


def test_a_model_whose_layers_are_unknown_gets_no_adapters():
    config = RwkvConfig(vocab_size=400, hidden_size=16, attention_hidden_size=16, num_hidden_layers=2)
    tokenizer = make_tokenizer(adds_eos=False)
    backbone = Backbone(RwkvForCausalLM(config), tokenizer, BackboneConfig(name="rwkv"))
    with pytest.raises(
        BackboneError,
        match=r"where adapters stand in a rwkv is not known; its layers hold none of Self.*self_attn.*fc2",
    ):
        changed("adapters", backbone)


# -- LoRA and (IA)³ ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def merged_lora(backbone, copied):
    """The backbone with every update in its weight: ``W + (alpha / r) B A``, where alpha is twice r."""
    oracle, values = thawed(backbone), dict(copied.model.named_parameters())
    for name, a in values.items():
        place, found, _ = name.partition(".lora_A.")
        if found:
            b, layer = values[f"{place}.lora_B.default.weight"], oracle.model.get_submodule(place)
            layer.weight += 2 * (b @ a).T if isinstance(layer, Conv1D) else 2 * (b @ a)
    return oracle


@torch.no_grad()
def merged_ia3(backbone, copied):
    """The backbone with every scale in its weight: of what a layer gives [out, 1], or of what it takes [1, in]."""
    oracle = thawed(backbone)
    for name, scale in copied.model.named_parameters():
        place, found, _ = name.partition(".ia3_l.")
        if found:
            layer = oracle.model.get_submodule(place)
            layer.weight *= scale.T if isinstance(layer, Conv1D) else scale
            if layer.bias is not None and scale.shape[1] == 1:
                layer.bias *= scale[:, 0]
    return oracle


@pytest.mark.parametrize("family", KNOWN_TO_PEFT)
@pytest.mark.parametrize(("kind", "merged", "around"), [("lora", merged_lora, 0.0), ("ia3", merged_ia3, 1.0)])
def test_lora_and_ia3_equal_the_model_with_their_numbers_merged(family, kind, merged, around):
    backbone = make_backbone(family)
    copied, learnt = changed(kind, backbone, rank=3)
    scramble(learnt, around)
    torch.testing.assert_close(logits(copied), logits(merged(backbone, copied)), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(logits(copied), logits(backbone), atol=0.1)


@pytest.mark.parametrize("kind", BY_PEFT)
def test_a_family_without_a_place_is_refused_by_name(kind):
    with pytest.raises(
        BackboneError,
        match=rf"PEFT does not say where {kind.upper()} stands in a marian; take adapters, BitFit or another model",
    ):
        changed(kind, make_backbone("marian"))


@pytest.mark.parametrize("kind", BY_PEFT)
def test_without_peft_the_command_that_installs_it_is_said(kind, backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"LoRA or \(IA\)³ needs more libraries.*pip install 'mptune\[peft\]'"):
        changed(kind, backbone)


# -- how many numbers -------------------------------------------------------------------------------------------------

V, D, INNER, LAYERS, HEADS, BUCKETS = 32_128, 768, 3_072, 12, 12, 32  # T5-base
ATTENTIONS, FEED_FORWARDS = 3 * LAYERS, 2 * LAYERS  # of the decoder's two attentions, one looks at the encoder
NORMS = ATTENTIONS + FEED_FORWARDS + 2  # before each part, and behind each stack


@pytest.fixture(scope="module")
def t5_base():
    """T5-base without its numbers."""
    with torch.device("meta"):
        shapes = T5Config(vocab_size=V, d_model=D, d_kv=D // HEADS, d_ff=INNER, num_layers=LAYERS, num_heads=HEADS)
        return T5ForConditionalGeneration(shapes)


@pytest.mark.parametrize(
    ("kind", "derived", "count"),
    [
        pytest.param(
            "fine-tuning",
            V * D + ATTENTIONS * 4 * D * D + FEED_FORWARDS * 2 * D * INNER + NORMS * D + 2 * BUCKETS * HEADS,
            222_903_552,
            id="fine-tuning: embeddings, which are the output layer too, parts, norms, two tables of distances",
        ),
        pytest.param(
            "bitfit",
            ATTENTIONS * 4 * D + FEED_FORWARDS * (INNER + D),
            202_752,
            id="bitfit: one for each number that q, k, v, o, wi and wo give",
        ),
        pytest.param(
            "adapters",
            4 * LAYERS * (24 * D + 24 + D * 24 + D) + NORMS * D,
            1_855_104,
            id="adapters: 24 wide, two a layer, and all norms",
        ),
        pytest.param("lora", ATTENTIONS * 2 * (8 * D + D * 8), 884_736, id="lora: rank 8, behind q and v"),
        pytest.param("ia3", ATTENTIONS * 2 * D + FEED_FORWARDS * INNER, 129_024, id="ia3: k, v and the inner states"),
    ],
)
def test_numbers_trained_on_t5_base(t5_base, kind, derived, count):
    tokenizer = make_tokenizer(adds_eos=True)
    backbone = Backbone(copy.deepcopy(t5_base), tokenizer, BackboneConfig(name="t5-base"))
    learnt = WEIGHTS[kind](backbone, WeightsConfig())
    assert sum(parameter.numel() for parameter in learnt) == derived == count
