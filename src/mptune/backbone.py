"""The one file that touches transformers' models: a frozen backbone that reads soft prompts.

Training, label scoring and generation all pass through `FrozenBackbone._inputs`, so that they cannot disagree on where
a prompt stands. Encoder-decoders read it in front of the encoder's input, decoder-only models in front of the text.
"""

import copy
import hashlib
import inspect
import json
import logging
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging as theirs

from mptune.config import BackboneConfig
from mptune.embedded import EMBEDDED, build_embedded
from mptune.errors import BackboneError
from mptune.losses import IGNORE
from mptune.prompts import prepend, rms
from mptune.speed import PASS_COST, like_lengths
from mptune.t5 import PackedT5

logger = logging.getLogger(__name__)

# A tokenizer answers with more than ids: 9 KiB for a text of 46 tokens. A million texts are read in portions.
TEXTS_AT_ONCE = 1_000

KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)  # what layers may remember of a prompt that rows share

# T5 adds a bias to every attention score. Fused attention kernels for the CPU are slower with such a bias than plain
# matrix products: 0.49 against 0.38 ms a token for a training step on two cores (docs/LOG.md, 2026-11-20).
RELATIVE_BIAS = ("t5", "mt5", "umt5")


@dataclass(frozen=True)
class Batch:
    """Examples of one or many tasks, padded to one length."""

    task_ids: Tensor  # [B]
    input_ids: Tensor  # [B, T]
    mask: Tensor  # 1 on tokens, 0 on padding [B, T]
    labels: Tensor  # [B, S], IGNORE on padding
    added: Tensor | None = None  # to the embedded input, by methods that change it [B, T, D]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        return replace(self, **{n: t.to(device, non_blocking=True) for n, t in vars(self).items() if t is not None})

    def only(self, rows: Sequence[int], *, left: bool) -> "Batch":
        """Return some rows, padded no further than they need.

        Args:
            left: whether padding stands on the left of the text.
        """
        mask, labels = self.mask[rows], self.labels[rows]
        width, room = int(mask.sum(1).max()), int((labels != IGNORE).sum(1).max())
        text = slice(mask.shape[1] - width, None) if left else slice(width)
        added = None if self.added is None else self.added[rows][:, text]
        return Batch(self.task_ids[rows], self.input_ids[rows][:, text], mask[:, text], labels[:, :room], added)


@dataclass(frozen=True)
class Output:
    """What a backbone answers to a batch."""

    logits: Tensor  # [B, S, V], at the positions that predict the labels
    hidden: tuple[Tensor, ...] = ()  # of the asked layers: text positions [B, T, D], then label positions [B, S, D]


class FrozenBackbone:
    """A pretrained transformer that is read and never written.

    Its weights have no gradients, and dropout is off unless `dropout` is switched on.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: BackboneConfig):
        self.model = model.requires_grad_(False).train(False)
        self.tokenizer = tokenizer
        self.config = config
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
            raise BackboneError(f"{config.name} has a tokenizer without an end-of-sequence token; it is needed")
        # Marian and its kin multiply embeddings by sqrt(D) inside forward, but only those they look up themselves.
        table = model.get_input_embeddings()
        stack = model.get_encoder() if self.is_encoder_decoder else model
        self._scale = 1.0 if hasattr(table, "embed_scale") else float(getattr(stack, "embed_scale", None) or 1.0)
        # What a model's folder says about generation (a forced first token, banned repeats, a least length) would let
        # it write otherwise than it is trained. Bans stay: Marian bans padding, whose logit is always zero.
        bans = getattr(model.generation_config, "bad_words_ids", None)
        model.generation_config = GenerationConfig.from_dict({"bad_words_ids": bans})
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._shares_prompts = not self.is_encoder_decoder
        self._warned = False
        self._fingerprint: str | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def depth(self) -> int | None:
        """How many layers it has; of encoder and decoder, the one with fewer. None where nothing says so."""
        parts = [self.model.config.get_text_config(decoder=True), self.model.config.get_text_config(encoder=True)]
        names = ("num_hidden_layers", "num_decoder_layers")
        return min((int(n) for part in parts for name in names if (n := getattr(part, name, None))), default=None)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, and of what is computed."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def vocabulary(self) -> int:
        """V, the number of tokens among which the output layer chooses."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def width(self) -> int:
        """D, the width of the input embeddings."""
        return int(self.embeddings.shape[1])

    @property
    def embeddings(self) -> Tensor:
        """The input embedding table, as the first layer sees it. [V, D]"""
        table = self.model.get_input_embeddings()
        weight: Tensor = table.weight
        return weight * (self._scale * float(getattr(table, "embed_scale", 1.0)))

    @property
    def embedding_rms(self) -> float:
        """Typical size of one entry of the embeddings: the unit of the prompts' learning rates."""
        return rms(self.embeddings)

    @property
    def positions(self) -> int | None:
        """How many soft tokens and tokens fit into the input; None where positions are relative."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @cached_property
    def _packed(self) -> PackedT5 | None:
        """The same model without padding, where there is one."""
        return PackedT5(self.model) if self.device.type == "cpu" and PackedT5.computes(self.model) else None

    def thawed(self) -> "FrozenBackbone":
        """Return a copy whose weights may learn, for methods that change them; none of them learns yet.

        The copy's weights are float32, since bfloat16 would lose small updates; it computes in the type of this one.
        """
        made = FrozenBackbone(copy.deepcopy(self.model).float(), self.tokenizer, self.config)
        made._packed = None  # its own forward pass has no gradients of weights
        made._fingerprint = self.fingerprint()
        if self.dtype != torch.float32:
            made.model.forward = torch.autocast(self.device.type, self.dtype)(made.model.forward)
        return made

    def embedded(self, batch: Batch) -> Tensor:
        """Return the input's embeddings, as the first layer sees them, before any prompt. [B, T, D]"""
        return self._embed(batch.input_ids)

    def set_dropout(self, on: bool) -> None:
        """Switch the backbone's dropout on or off."""
        self.model.train(on)

    # -- text to tensors ----------------------------------------------------------------------------------------------

    def encode_inputs(self, texts: Sequence[str], max_tokens: int, prompt_length: int, room: int) -> "list[array[int]]":
        """Return the token ids of input texts, cut to what fits beside the prompt; the prompt is never cut.

        Args:
            room: tokens to leave free after the text; decoder-only models write the target there.

        Raises:
            BackboneError: prompt and target alone fill all positions.
        """
        if self.positions is not None:
            limit = self.positions - prompt_length - (0 if self.is_encoder_decoder else room)
            if limit < 1:
                also, remedy = "", "a shorter prompt"
                if not self.is_encoder_decoder:
                    also, remedy = f" and {room} target tokens", "a shorter prompt or a smaller max_target_tokens"
                raise BackboneError(
                    f"{self.config.name} reads {self.positions} positions, and a prompt of {prompt_length} soft tokens"
                    f"{also} would leave none for the text. Take {remedy}."
                )
            max_tokens = min(max_tokens, limit)
        ids: list[array[int]] = []  # four bytes a token; a list of numbers takes nine times as much
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            some = list(texts[first : first + TEXTS_AT_ONCE])
            found = self.tokenizer(some, add_special_tokens=True, verbose=False)["input_ids"]
            ids += [array("i", row) for row in found]
        cut = sum(len(i) > max_tokens for i in ids)
        if cut and not self._warned:
            self._warned = True
            logger.warning(
                "%d of %d texts are longer than %d tokens and are cut; the prompt is kept whole. (Said once.)",
                cut, len(ids), max_tokens,
            )  # fmt: skip
        end = array("i", [int(self.tokenizer.eos_token_id)] if self.is_encoder_decoder else [])
        return [i if len(i) <= max_tokens else i[: max_tokens - len(end)] + end for i in ids]

    def encode_targets(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return the token ids of target texts, each closed by the end-of-sequence token."""
        eos = int(self.tokenizer.eos_token_id)
        if self.is_encoder_decoder:
            ids = self.tokenizer(text_target=list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        else:
            ids = [self._continuation(t) for t in texts]
        return [[*i[: max_tokens - 1], eos] for i in ids]

    def _continuation(self, text: str) -> list[int]:
        """Return the tokens of a text that follows another, with the space between them.

        Some tokenizers write a space of their own before every text, and `" yes"` would have two.
        """
        before, both, alone = self.tokenizer(["a", f"a {text}", f" {text}"], add_special_tokens=False)["input_ids"]
        ids: list[int] = both[len(before) :] if both[: len(before)] == before else alone
        return ids

    def collate(self, task_ids: Sequence[int], inputs: Sequence[Sequence[int]], targets: Sequence[list[int]]) -> Batch:
        """Return one padded batch on the backbone's device.

        Decoder-only models are padded on the left of the text, so that the text's last token stands beside the target.
        """
        left = not self.is_encoder_decoder
        input_ids, mask = _pad(inputs, int(self.tokenizer.pad_token_id), left=left)
        labels, counted = _pad(targets, IGNORE, left=False)
        del counted
        return Batch(torch.tensor(task_ids), input_ids, mask, labels).to(self.device)

    # -- the forward pass ---------------------------------------------------------------------------------------------

    def __call__(self, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int] = ()) -> Output:
        """Return the logits of every label token, teacher-forced.

        Args:
            prompts: one soft prompt per example; L may be 0. [B, L, D]
            hidden_layers: layers whose states are returned too; -1 is the last.
        """
        costs = prompts.shape[1] + batch.mask.sum(1) + (batch.labels != IGNORE).sum(1)
        apart = self.device.type == "cpu" and self._packed is None
        groups = like_lengths(costs.tolist(), PASS_COST) if apart else []
        if len(groups) < 2:
            return self._forward(prompts, batch, hidden_layers)
        left = not self.is_encoder_decoder
        parts = [self._forward(prompts[rows], batch.only(rows, left=left), hidden_layers) for rows in groups]
        return _joined(parts, groups, batch, left=left)

    def _forward(self, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int]) -> Output:
        if self._packed is not None and not self.model.training:  # it knows no dropout
            return self._end_to_end(self._packed, prompts, batch, hidden_layers)
        length, width = prompts.shape[1], batch.input_ids.shape[1]
        embedded, mask = self._inputs(prompts, batch)
        wants_hidden = bool(hidden_layers)
        if self.is_encoder_decoder:
            out = self.model(
                inputs_embeds=embedded,
                attention_mask=mask,
                decoder_input_ids=self._shift_right(batch.labels),
                output_hidden_states=wants_hidden,
                use_cache=False,
            )
            text = [out.encoder_hidden_states[i][:, length:] for i in hidden_layers]
            label = [out.decoder_hidden_states[i] for i in hidden_layers]
            return Output(out.logits, (*text, *label))
        label_ids = batch.labels.masked_fill(batch.labels == IGNORE, int(self.tokenizer.pad_token_id))
        embedded = torch.cat([embedded, self._embed(label_ids).to(embedded.dtype)], dim=1)
        mask = torch.cat([mask, (batch.labels != IGNORE).to(mask)], dim=1)
        read = self._read_prompts(prompts, batch.task_ids)
        start = length if read is not None else 0  # of what is still to be read
        spots = slice(-batch.labels.shape[1] - 1, -1)  # each label token is predicted one position before its own
        # A vocabulary wide, so only where needed. Named one by one: the output layer is slow on what a slice leaves.
        needed = torch.arange(mask.shape[1] - start, device=mask.device)[spots.start :]
        out = self.model(
            inputs_embeds=embedded[:, start:],
            attention_mask=mask,
            position_ids=_positions_of(mask)[:, start:],
            output_hidden_states=wants_hidden,
            use_cache=read is not None,
            **({"past_key_values": read} if read is not None else {}),
            **({"logits_to_keep": needed} if self._keeps_logits else {}),
        )
        text = [out.hidden_states[i][:, length - start :][:, :width] for i in hidden_layers]
        label = [out.hidden_states[i][:, spots] for i in hidden_layers]
        return Output(out.logits[:, spots], (*text, *label))

    def _read_prompts(self, prompts: Tensor, task_ids: Tensor) -> DynamicCache | None:
        """Return keys and values of a decoder-only model's prompts, read once per task; None where little is saved.

        Text stands behind a prompt and does not change how it is read. Rows of one task share its prompt.
        """
        tasks, of_row = torch.unique(task_ids, return_inverse=True)
        saved = (len(prompts) - len(tasks)) * prompts.shape[1]
        if saved <= PASS_COST or self.model.training or not self._shares_prompts:
            return None
        first = (of_row == torch.arange(len(tasks), device=of_row.device)[:, None]).long().argmax(1)
        own = prompts[first]
        if not torch.equal(own[of_row], prompts):
            return None
        keep = {"logits_to_keep": 1} if self._keeps_logits else {}
        read = getattr(self.model(inputs_embeds=own.to(self.dtype), use_cache=True, **keep), "past_key_values", None)
        # Layers of other kinds (linear attention, convolutions) remember more than keys and values.
        if not isinstance(read, DynamicCache) or any(type(layer) not in KEYS_AND_VALUES for layer in read.layers):
            self._shares_prompts = False  # asked once, not at every step
            return None
        layer: Any
        for layer in read.layers:
            layer.keys, layer.values = layer.keys[of_row], layer.values[of_row]
        return read

    def _end_to_end(self, packed: PackedT5, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int]) -> Output:
        """Return the output without having computed any padding."""
        embedded, mask = self._inputs(prompts, batch)
        text, label = packed.rows(mask), packed.rows(batch.labels != IGNORE)
        read = packed.encode(embedded, text)
        said = packed.decode(self._shift_right(batch.labels), label, text.apart(read[-1]), mask)
        hidden = [text.apart(read[i])[:, prompts.shape[1] :] for i in hidden_layers]
        return Output(label.apart(packed.logits(said[-1])), (*hidden, *(label.apart(said[i]) for i in hidden_layers)))

    @torch.no_grad()
    def label_scores(self, prompts: Tensor, batch: Batch, label_ids: Sequence[Sequence[list[int]]]) -> Tensor:
        """Return the log-probability of every label word, over as many of its tokens as tell a row's words apart.

        Rows of different tasks may stand together. Every word is read behind the tokens before its last telling one;
        most tasks' words differ at once, and then there is nothing before it, and one pass for all of them.

        Args:
            prompts: [B, L, D]
            label_ids: each row's label words, each word's tokens with its end. B lists of C lists

        Returns:
            Scores, comparable within a row; -inf where a row has fewer words than another. [B, C]
        """
        depths = [distinguishing_depth(words) for words in label_ids]
        behind = [
            list(dict.fromkeys(tuple(ids[: depth - 1]) for ids in words))
            for words, depth in zip(label_ids, depths, strict=True)
        ]
        missing = torch.arange(max(map(len, label_ids))) >= torch.tensor([[len(words)] for words in label_ids])
        scores = torch.zeros(missing.shape).masked_fill(missing, -torch.inf).to(self.device)
        for turn in range(max(map(len, behind))):
            rows = [row for row, prefixes in enumerate(behind) if turn < len(prefixes)]
            # These labels only feed the decoder; the value of the last position is never read.
            labels, _ = _pad([[*behind[row][turn], 0] for row in rows], IGNORE, left=False)
            added = None if batch.added is None else batch.added[rows]
            some = Batch(batch.task_ids[rows], batch.input_ids[rows], batch.mask[rows], labels.to(self.device), added)
            logps = self(prompts[rows], some).logits.float().log_softmax(-1)
            terms = [
                (i, spot, token, row, column)
                for i, row in enumerate(rows)
                for column, ids in enumerate(label_ids[row])
                if tuple(ids[: depths[row] - 1]) == behind[row][turn]
                for spot, token in enumerate(ids[: depths[row]])
            ]
            *of_logps, to_row, to_column = torch.tensor(terms, device=self.device).unbind(1)
            scores.index_put_((to_row, to_column), logps[tuple(of_logps)], accumulate=True)
        return scores

    @torch.no_grad()
    def generate(self, prompts: Tensor, batch: Batch, max_new_tokens: int, num_beams: int = 1) -> list[str]:
        """Return the text that greedy (or beam) search writes for each example."""
        embedded, mask = self._inputs(prompts, batch)
        read: dict[str, Any] = {"inputs_embeds": embedded}
        if self._packed is not None:
            text = self._packed.rows(mask)
            memory = text.apart(self._packed.encode(embedded, text)[-1])
            read = {"encoder_outputs": BaseModelOutput(last_hidden_state=memory)}
        ids = self.model.generate(
            **read,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            decoder_start_token_id=self._start() if self.is_encoder_decoder else None,
        )
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [t.strip() for t in texts]

    def _inputs(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the embedded input with the prompts in front [B, L + T, D], and its mask [B, L + T]."""
        embedded = self._embed(batch.input_ids)
        if batch.added is not None:
            embedded = embedded + batch.added.to(embedded.dtype)
        return prepend(prompts.to(embedded.dtype), embedded, batch.mask)

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded * self._scale if self._scale != 1.0 else embedded

    def _shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder's input: its start token, then all labels but the last. [B, S] -> [B, S]"""
        ids = torch.cat([labels.new_full((len(labels), 1), self._start()), labels[:, :-1]], dim=1)
        return ids.masked_fill(ids == IGNORE, int(self.tokenizer.pad_token_id))

    def _start(self) -> int:
        """Return the token that a decoder reads first."""
        named = (getattr(self.model.config, f"{name}_token_id", None) for name in ("decoder_start", "bos"))
        return int(next((token for token in named if token is not None), self.tokenizer.pad_token_id))

    # -- identity -----------------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """Return a hash of the embeddings and the vocabulary; equal for one model in float32 and in bfloat16."""
        if self._fingerprint is not None:  # the weights never change, and hashing them takes up to a second
            return self._fingerprint
        table = self.model.get_input_embeddings().weight.detach().to("cpu", torch.bfloat16).contiguous()
        digest = hashlib.sha256(table.view(torch.int16).numpy().tobytes())
        digest.update(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        self._fingerprint = digest.hexdigest()[:32]
        return self._fingerprint


def _joined(parts: Sequence[Output], groups: Sequence[Sequence[int]], batch: Batch, *, left: bool) -> Output:
    """Return the outputs of groups of rows as the output of their batch; what was not computed is zero."""
    places = torch.tensor([row for rows in groups for row in rows]).argsort()
    width, room = batch.input_ids.shape[1], batch.labels.shape[1]

    def join(tensors: Sequence[Tensor], size: int, *, left: bool = False) -> Tensor:
        missing = [size - t.shape[1] for t in tensors]
        padded = [F.pad(t, (0, 0, n, 0) if left else (0, 0, 0, n)) for t, n in zip(tensors, missing, strict=True)]
        return torch.cat(padded)[places]

    states = list(zip(*(part.hidden for part in parts), strict=True))
    text, label = states[: len(states) // 2], states[len(states) // 2 :]
    hidden = [*(join(s, width, left=left) for s in text), *(join(s, room) for s in label)]
    return Output(join([part.logits for part in parts], room), tuple(hidden))


def _positions_of(mask: Tensor) -> Tensor:
    """Return position ids that skip padding, as `generate` computes them. [B, T] -> [B, T]"""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def distinguishing_depth(label_ids: Sequence[list[int]]) -> int:
    """Return the number of first tokens by which all label words differ; 0 where two are the same throughout."""
    for depth in range(1, max(map(len, label_ids)) + 1):
        if len({tuple(ids[:depth]) for ids in label_ids}) == len(label_ids):
            return depth
    return 0


def load_backbone(config: BackboneConfig | str | None = None) -> FrozenBackbone:
    """Return the frozen backbone that a configuration, a hub id or a folder names; the embedded one without any.

    Raises:
        BackboneError: nothing of that name can be loaded.
        MissingExtraError: the embedded backbone's libraries are not installed.
    """
    if not isinstance(config, BackboneConfig):
        config = BackboneConfig(name=config) if config else BackboneConfig()
    device = _device(config.device)
    source = str(build_embedded()) if config.name == EMBEDDED else config.name
    try:
        with _Quiet():
            # Never a repository's own code; without this, transformers would ask for leave at a terminal.
            hub: dict[str, Any] = {"trust_remote_code": False}
            if not Path(source).is_dir():
                hub["revision"] = config.revision
            found = AutoConfig.from_pretrained(source, **hub)
            auto: Any = AutoModelForSeq2SeqLM if found.is_encoder_decoder else AutoModelForCausalLM
            dtype = _dtype(config.dtype, device)
            if device.type == "cpu" and found.model_type in RELATIVE_BIAS:
                hub["attn_implementation"] = "eager"
            model, report = auto.from_pretrained(source, dtype=dtype, output_loading_info=True, **hub)
            tokenizer = AutoTokenizer.from_pretrained(source, **hub)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackboneError(
            f"the backbone {config.name!r} cannot be loaded: {first} "
            "Give a Hugging Face id, a folder with config.json, or `embedded`."
        ) from error
    # Transformers fills missing weights with random numbers, and a missing vocabulary with a few special tokens.
    missing, pieces, rows = sorted(report["missing_keys"]), len(tokenizer), model.get_input_embeddings().num_embeddings
    if missing:
        raise BackboneError(
            f"the backbone {config.name!r} lacks {len(missing)} of its weights, among them {missing[0]!r}. "
            "Download or save it again."
        )
    if 2 * pieces < rows:
        raise BackboneError(
            f"the backbone {config.name!r} reads a vocabulary of {rows}, but its tokenizer knows {pieces} pieces. "
            "Save the tokenizer into the same folder."
        )
    resolved = str(model.dtype).removeprefix("torch.")
    return FrozenBackbone(model.to(device), tokenizer, config.model_copy(update={"dtype": resolved}))


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError) as error:
            first = str(error).splitlines()[0].partition(". ")[0]
            raise BackboneError(f"the device {name!r} cannot be used: {first}. Try cpu or auto.") from None
        if device.type == "meta":  # torch's name for shapes without numbers
            raise BackboneError("the device 'meta' cannot be used: it computes nothing. Try cpu or auto.")
        return device
    if torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK")  # of one process a GPU, as `accelerate launch` and `torchrun` start them
        return torch.device("cuda", int(rank) % torch.cuda.device_count()) if rank else torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the processor multiplies bfloat16 natively; elsewhere it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if multiplies_bfloat16(device) else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _pad(rows: Sequence[Sequence[int]], value: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Return rows padded to the longest, and the mask of what is not padding. both [B, T]"""
    width = max(1, *(len(r) for r in rows)) if rows else 1
    ids = torch.full((len(rows), width), value)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        spot = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, spot] = torch.tensor(row, dtype=torch.long)
        mask[i, spot] = 1
    return ids, mask


class _Quiet:
    """Hold back transformers' loading messages: its bar, and its hint on tied weights that do not concern the user."""

    def __enter__(self) -> None:
        self.level = theirs.get_verbosity()
        theirs.set_verbosity(logging.ERROR)
        theirs.disable_progress_bar()  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        theirs.set_verbosity(self.level)
