"""Real models of every family, tiny and random; a real tokenizer; batches for them. Nothing is downloaded."""

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from mptune.config import BackboneConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode_inputs, encode_targets, pad_batch

WORDS = (
    "the sky is blue red green and a cat sat on mat dog ran fast slow good bad fine awful yes no maybe true false "
    "colour mood text label one two three what who where it was not very quite"
).split()


def exact_norms(monkeypatch):
    """Let T5 and mT5 take their norms in the model's own type; transformers takes them in float32 even in float64."""

    def exact(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    for norm in (T5LayerNorm, MT5LayerNorm):
        monkeypatch.setattr(norm, "forward", exact)


def make_tokenizer(*, adds_eos: bool, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few words: real merges, real spaces, nothing downloaded."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>", "<unk>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    if adds_eos or adds_bos:
        single = ("<s> " if adds_bos else "") + "$A" + (" </s>" if adds_eos else "")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("</s>", 1), ("<s>", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


class Noting:
    """A tokenizer that notes the texts it is given."""

    def __init__(self, tokenizer, seen):
        self._tokenizer, self._seen = tokenizer, seen

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, texts=None, **how):
        self._seen += texts or []
        return self._tokenizer(texts, **how)


VOCABULARY = 400
# Weights of 0.3 instead of 0.02 where the family lets one choose: with smaller ones attention is uniform, and a token
# at a wrong position would change the logits by hardly more than rounding does.
_T5 = dict(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
_BART = dict(
    vocab_size=VOCABULARY, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
    pad_token_id=0, bos_token_id=3, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None,
    init_std=0.3,
)  # fmt: skip
_SMALL = dict(vocab_size=VOCABULARY, bos_token_id=3, eos_token_id=1, pad_token_id=0, initializer_range=0.3)

FAMILIES = {
    "t5": lambda: T5ForConditionalGeneration(T5Config(**_T5)),
    "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**_T5)),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**_BART, scale_embedding=True)),
    "marian": lambda: MarianMTModel(MarianConfig(**_BART, scale_embedding=True, decoder_vocab_size=VOCABULARY)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**_SMALL, n_embd=16, n_layer=2, n_head=2, n_positions=64)),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            **_SMALL, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=64,
        )
    ),
}  # fmt: skip


def make_backbone(family: str, seed: int = 0) -> Backbone:
    """A two-layer model of a family with random weights."""
    torch.manual_seed(seed)
    seq2seq = family in ("t5", "mt5", "bart", "marian")
    tokenizer = make_tokenizer(adds_eos=seq2seq, adds_bos=family == "llama")
    return Backbone(FAMILIES[family](), tokenizer, BackboneConfig(name=f"tiny-{family}", device="cpu"))


def doubled(backbone: Backbone) -> Backbone:
    """The backbone, now in float64."""
    backbone.model.double()
    return backbone


def saved(backbone: Backbone, folder: Path) -> Path:
    """The folder into which model and tokenizer were written."""
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


def rms(values):
    """The typical size of one entry."""
    return float(values.detach().float().pow(2).mean().sqrt())


TEXTS = ["the sky is blue", "a cat sat on mat and the dog ran fast"]
TARGETS = ["yes", "not very good"]


def batch_of(backbone, texts=TEXTS, targets=TARGETS, tasks=None):
    """The texts and their targets as one padded batch; without numbers of tasks, each row is a task of its own."""
    inputs = encode_inputs(backbone, texts, max_tokens=40, prompt_length=0, room=8)
    row_tasks = range(len(texts)) if tasks is None else tasks
    return pad_batch(backbone, row_tasks, inputs, encode_targets(backbone, targets, max_tokens=8))


def choosing(batch, words):
    """A batch whose rows have these label words, as tokens, to choose from."""
    return replace(batch, choices=words)


def some_prompts(backbone, count=2, length=3):
    """A table of prompts of random numbers."""
    return torch.randn(count, length, backbone.width, generator=torch.Generator().manual_seed(7))


def sentence_encoder(folder):
    """A tiny random sentence encoder in a folder."""
    if not folder.exists():
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        tokenizer = make_tokenizer(adds_eos=True)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder / "bert")
        tokenizer.save_pretrained(folder / "bert")
        SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)]).save(str(folder))
    return folder
