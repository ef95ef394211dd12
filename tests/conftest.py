"""Real models of every family, tiny and random; a real tokenizer; a toy task that can be learnt. No network."""

import io
import json
import os
import socket
import sys
from contextlib import contextmanager

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
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

import mptune.cli
from mptune.backbone import FrozenBackbone
from mptune.config import BackboneConfig
from mptune.tasks import Dataset, Task

torch.set_num_threads(1)  # of tiny tensors, two threads only wait for each other

WORDS = (
    "the sky is blue red green and a cat sat on mat dog ran fast slow good bad fine awful yes no maybe true false "
    "colour mood text label one two three what who where it was not very quite"
).split()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Any connection but to this machine itself is a defect of the test."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "unix"
        if host not in ("127.0.0.1", "::1", "localhost", "unix"):
            raise AssertionError(f"a test reached for the network: {host}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run `mptune` in this process; return exit code, standard output and standard error."""

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["mptune", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as stopped:
            mptune.cli.main()
        said = capsys.readouterr()
        return stopped.value.code or 0, said.out, said.err

    return run


@contextmanager
def largest_file(size):
    """A file system on which no file grows beyond so many bytes, as a full disk stops them."""
    import resource  # not on every system

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def terminal(monkeypatch):
    """Let rich take the captured stream for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


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
    from tokenizers import decoders

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


def make_backbone(family: str, seed: int = 0) -> FrozenBackbone:
    """A two-layer model of a family with random weights."""
    torch.manual_seed(seed)
    seq2seq = family in ("t5", "mt5", "bart", "marian")
    tokenizer = make_tokenizer(adds_eos=seq2seq, adds_bos=family == "llama")
    return FrozenBackbone(FAMILIES[family](), tokenizer, BackboneConfig(name=f"tiny-{family}", device="cpu"))


@pytest.fixture
def backbone() -> FrozenBackbone:
    """A T5 of two layers, random but seeded; every test gets its own."""
    return make_backbone("t5")


@pytest.fixture(params=FAMILIES)
def any_backbone(request) -> FrozenBackbone:
    """One backbone of every family."""
    return make_backbone(request.param)


TEXTS = ["the sky is blue", "a cat sat on mat and the dog ran fast"]
TARGETS = ["yes", "not very good"]


def batch_of(backbone, texts=TEXTS, targets=TARGETS):
    """The texts and their targets as one padded batch."""
    inputs = backbone.encode_inputs(texts, max_tokens=40, prompt_length=0, room=8)
    return backbone.collate(range(len(texts)), inputs, backbone.encode_targets(targets, max_tokens=8))


def some_prompts(backbone, count=2, length=3):
    """Prompts of random numbers, another one for every row."""
    return torch.randn(count, length, backbone.width, generator=torch.Generator().manual_seed(7))


def write_rows(path, rows):
    """Write rows as a jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def toy_rows(good: str, bad: str, count: int, start: int = 0) -> list[dict]:
    """Rows whose label is decided by one word among distractors; no two are equal."""
    rows = []
    for i in range(start, start + count):
        filler = " ".join(WORDS[(i * 7 + j * 5) % 20] for j in range(2 + i % 3))
        rows.append({"text": f"{filler} {good if i % 2 else bad} {i}", "label": i % 2})
    return rows


def make_task(folder, name: str, good: str = "good", bad: str = "bad", **changes) -> Task:
    """A toy task with its three files."""
    splits = {"train": (48, 0), "validation": (16, 100), "test": (20, 200)}
    for split, (count, start) in splits.items():
        write_rows(folder / f"{name}.{split}.jsonl", toy_rows(good, bad, count, start))
    values = {
        "name": name,
        "dataset": Dataset(**{s: str(folder / f"{name}.{s}.jsonl") for s in splits}),
        "template": f"{name} text: {{text}}",
        "verbalizer": {"0": "no", "1": "yes"},
        **changes,
    }
    return Task(**values)


@pytest.fixture
def toy_task(tmp_path) -> Task:
    """One toy task in files of its own."""
    return make_task(tmp_path, "toy")


@pytest.fixture
def toy_tasks(tmp_path) -> list[Task]:
    """Three toy tasks in files of their own."""
    return [
        make_task(tmp_path, "mood", "good", "awful"),
        make_task(tmp_path, "speed", "fast", "slow"),
        make_task(tmp_path, "colour", "blue", "red"),
    ]
