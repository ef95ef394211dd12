"""A frozen transformer that reads soft prompts: the one way into the model.

Training, label scoring and generation all pass through `Backbone.prompted`, so that they cannot disagree on where a
prompt stands. Encoder-decoders read it in front of the encoder's input, decoder-only models in front of the text.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from mptune.config import BackboneConfig
from mptune.errors import BackboneError
from mptune.model.batch import IGNORE, Batch, Output
from mptune.model.chat import Chat
from mptune.model.graphs import Graphs, in_few_shapes, rounded
from mptune.model.grouping import LONG_BATCH, PASS_COST, at_most, like_lengths
from mptune.model.logits import exact_logits
from mptune.model.padding import joined, positions_of, prepend, shared_start
from mptune.model.prefixes import Prefixes
from mptune.model.t5 import PackedT5


class Backbone:
    """A pretrained transformer that is read and not written: its weights have no gradients, and it has no dropout.

    A method that changes weights thaws a copy (`mptune.stages.weights`), and `set_dropout` is for those
    who ask for it.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: BackboneConfig):
        self.model = model.requires_grad_(False).train(False)
        self.tokenizer = tokenizer
        self.config = config
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self.warned_of_cuts: set[str] = set()  # tasks: that texts are cut is said once of each
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings:
            tokenizer.pad_token = tokenizer.eos_token  # padding is masked: any token does that has an embedding
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
        self.prefixes = Prefixes(model)
        self.graphs = Graphs() if self.device.type == "cuda" and not config.bits else None

    # -- what it is ---------------------------------------------------------------------------------------------------

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
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def embeddings(self) -> Tensor:
        """The input embedding table, as the first layer sees it. [V, D]"""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight * self.embedding_scale

    @property
    def embedding_scale(self) -> float:
        """By what the rows of the table are multiplied before the first layer sees them."""
        return self._scale * float(getattr(self.model.get_input_embeddings(), "embed_scale", 1.0))

    @property
    def embedding_rms(self) -> float:
        """Typical size of one entry of the embeddings, the root of their mean square: the unit of learning rates."""
        return float(self.embeddings.detach().float().pow(2).mean().sqrt())

    @cached_property
    def positions(self) -> int | None:
        """How many soft tokens and tokens fit into the input; None where positions are relative.

        Computed once: transformers copies a whole configuration to say it, a tenth of what a server's request costs.
        """
        config = self.model.config.get_text_config(decoder=True)
        return getattr(config, "max_position_embeddings", getattr(config, "max_seq_len", None))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the embeddings and the vocabulary; equal for one model in float32 and in bfloat16.

        Computed once: the weights never change, and hashing them takes up to a second.
        """
        table = self.model.get_input_embeddings().weight.detach().to("cpu", torch.bfloat16).contiguous()
        digest = hashlib.sha256(table.view(torch.int16).numpy().tobytes())
        digest.update(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()[:32]

    @cached_property
    def longest_token(self) -> int:
        """How many letters the longest token of the vocabulary has."""
        return max(map(len, self.tokenizer.get_vocab()))

    def set_dropout(self, on: bool) -> None:
        """Switch the backbone's dropout on or off."""
        self.model.train(on)

    # -- the forward pass ---------------------------------------------------------------------------------------------

    def __call__(self, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int] = ()) -> Output:
        """Return the logits of every label token, teacher-forced.

        Args:
            prompts: one soft prompt for each of the batch's tasks; L may be 0. [K, L, D]
            hidden_layers: layers whose states are returned too; -1 is the last.
        """
        prompts = self.begun(prompts, batch.chat)
        if self.packed is not None and not self.model.training:
            return self._forward(prompts, batch, hidden_layers, told=self._told(batch))
        batch = batch.spread()
        if self.graphs is not None:
            return self._in_few_shapes(prompts, batch, hidden_layers)
        costs = prompts.shape[1] + batch.mask.sum(1) + (batch.labels != IGNORE).sum(1)
        apart = self.device.type == "cpu" and self.packed is None
        groups = like_lengths(costs.tolist(), PASS_COST) if apart else []
        learns = apart and torch.is_grad_enabled() and any(p.requires_grad for p in self.model.parameters())
        again = learns and int(costs.sum()) > LONG_BATCH
        if again:
            groups = [part for rows in groups for part in at_most(rows, costs.tolist(), LONG_BATCH)]
        forward = partial(self._forward, told=self._told(batch))
        if len(groups) < 2:
            return forward(prompts, batch, hidden_layers)
        left = not self.is_encoder_decoder
        parts = [batch.only(rows, left=left) for rows in groups]
        read = partial(checkpoint, forward, use_reentrant=False) if again else forward
        outputs = [read(prompts[kept], part, hidden_layers) for part, kept in parts]
        return joined(outputs, groups, batch, left=left)

    def begun(self, prompts: Tensor, chat: Chat | None) -> Tensor:
        """Return prompts behind the H tokens that a chat template writes before them. [K, L, D] -> [K, H + L, D]"""
        if chat is None or not chat.before:
            return prompts
        start = self.embed(torch.tensor(chat.before, device=self.device)).to(prompts)
        return torch.cat([start.expand(len(prompts), -1, -1), prompts], dim=1)

    def prompted(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the embedded input with each row's prompt in front [B, L + T, D], and its mask [B, L + T].

        Here prompts [K, L, D] are gathered by the rows' ``task_ids``. An encoder reads ``[prompt][text][padding]``, a
        decoder-only model ``[padding][prompt][text]``.
        """
        embedded = self.embed(batch.input_ids)
        if batch.added is not None:
            embedded = embedded + batch.added.to(embedded.dtype)
        of_rows = prompts.index_select(0, batch.task_ids).to(embedded.dtype)
        return prepend(of_rows, embedded, batch.mask, left=not self.is_encoder_decoder)

    def behind_prompts(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor, DynamicCache | None]:
        """Return what a decoder-only model has still to read of a batch, the mask of all, and what it remembers.

        Returns:
            Embedded prompts and text [B, L + T, D], or the text alone [B, T, D] behind prompts that are remembered; the
            mask of both [B, L + T]; keys and values of the prompts.
        """
        read = self.prefixes(prompts, batch) if self._reads_once else None
        embedded, mask = self.prompted(prompts if read is None else prompts[:, :0], batch)
        if read is not None:  # what is remembered stands before all that is still to be read
            mask = torch.cat([mask.new_ones(len(mask), prompts.shape[1]), mask], dim=1)
        return embedded, mask, read

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings of tokens, as the first layer sees them. [B, T] -> [B, T, D]"""
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded * self._scale if self._scale != 1.0 else embedded

    def encoded(self, embedded: Tensor, mask: Tensor) -> dict[str, Any]:
        """Return what transformers' `generate` reads of an input: its embeddings, or what the encoder made of them."""
        if self.packed is None:
            return {"inputs_embeds": embedded}
        text = self.packed.layout(mask)
        memory = text.apart(self.packed.encode(embedded, text)[-1])
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=memory)}

    @property
    def start_token(self) -> int:
        """The token that a decoder reads first."""
        named = (getattr(self.model.config, f"{name}_token_id", None) for name in ("decoder_start", "bos"))
        return int(next((token for token in named if token is not None), self.tokenizer.pad_token_id))

    @cached_property
    def packed(self) -> PackedT5 | None:
        """The same model without padding, where there is one; it has no dropout and no gradients of weights."""
        return PackedT5(self.model) if self.device.type == "cpu" and PackedT5.computes(self.model) else None

    def _forward(
        self, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int], told: Tensor | None = None
    ) -> Output:
        """Return the output to rows that share a pass; the logits of some tokens are exact."""
        if self.packed is not None and not self.model.training:
            with self._exact(told):
                return self._end_to_end(self.packed, prompts, batch, hidden_layers)
        read = self._encoder_decoder if self.is_encoder_decoder else self._decoder_only
        return read(prompts, batch, hidden_layers, told)

    def _in_few_shapes(self, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int]) -> Output:
        """Return the output, computed with more rows and padding, so that recorded passes fit it."""
        left = not self.is_encoder_decoder
        wider = in_few_shapes(batch, prompts.shape[1], self.positions, left=left)
        return self._forward(prompts, wider, hidden_layers, self._told(batch)).cut(batch, wider, left=left)

    def _passes(self, stack: Callable[..., tuple[Tensor, ...]], hidden_layers: Sequence[int], inputs: Sequence[Tensor],
                **static: Any) -> tuple[Tensor, ...]:  # fmt: skip
        """Return what the model makes of its inputs: computed, or replayed where that has been recorded."""
        passes = partial(stack, tuple(hidden_layers), **static)
        if self.graphs is None or self.model.training:
            return passes(*inputs)
        return self.graphs((stack.__name__, tuple(hidden_layers), *static.items()), passes, inputs)

    def _told(self, batch: Batch) -> Tensor | None:
        """Return the tokens of a batch's label words, if the weights' type rounds so that two of them may tie.

        On a GPU the last is named again, so that they are one of few numbers.
        """
        if not any(batch.choices) or torch.finfo(self.dtype).bits >= 32:
            return None
        of_tasks = {id(words): words for words in batch.choices}.values()  # rows of a task share theirs
        tokens = {token for words in of_tasks for ids in words for token in ids}
        told = sorted(tokens)
        if self.graphs is not None:
            told += told[-1:] * (rounded(len(told), to=64) - len(told))
        return torch.tensor(told, device=self.device)

    def _exact(self, told: Tensor | None) -> AbstractContextManager[None]:
        """Let the output layer compute the logits of some tokens in float32."""
        return nullcontext() if told is None else exact_logits(self.model.get_output_embeddings(), told)

    def _end_to_end(self, packed: PackedT5, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int]) -> Output:
        """Return the output without having computed any padding."""
        embedded, mask = self.prompted(prompts, batch)
        text, label = packed.layout(mask), packed.layout(batch.labels != IGNORE)
        read = packed.encode(embedded, text)
        memory = text.apart(read[-1])
        if batch.texts is not None:  # of a text that several labels stand behind, once
            memory, mask = memory.index_select(0, batch.texts), mask.index_select(0, batch.texts)
        said = packed.decode(self._shift_right(batch.labels), label, memory, mask)
        hidden = [text.apart(read[i])[:, prompts.shape[1] :] for i in hidden_layers]
        return Output(label.apart(packed.logits(said[-1])), (*hidden, *(label.apart(said[i]) for i in hidden_layers)))

    def _encoder_decoder(
        self, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int], told: Tensor | None
    ) -> Output:
        embedded, mask = self.prompted(prompts, batch)
        inputs = [embedded, mask, self._shift_right(batch.labels), *([] if told is None else [told])]
        logits, *hidden = self._passes(self._both_stacks, hidden_layers, inputs)
        text = [each[:, prompts.shape[1] :] for each in hidden[: len(hidden_layers)]]
        return Output(logits, (*text, *hidden[len(hidden_layers) :]))

    def _both_stacks(
        self,
        hidden_layers: Sequence[int],
        embedded: Tensor,
        mask: Tensor,
        decoder_ids: Tensor,
        told: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return logits, then states of the encoder's layers and the decoder's."""
        with self._exact(told):
            out = self.model(
                inputs_embeds=embedded,
                attention_mask=mask,
                decoder_input_ids=decoder_ids,
                output_hidden_states=bool(hidden_layers),
                use_cache=False,
            )
        text = [out.encoder_hidden_states[i] for i in hidden_layers]
        return (out.logits, *text, *(out.decoder_hidden_states[i] for i in hidden_layers))

    def _decoder_only(self, prompts: Tensor, batch: Batch, hidden_layers: Sequence[int], told: Tensor | None) -> Output:
        if not hidden_layers:
            prompts, batch = self._begun_alike(prompts, batch)
        width, room = batch.input_ids.shape[1], batch.labels.shape[1]
        embedded, mask, read = self.behind_prompts(prompts, batch)
        label_ids = batch.labels.masked_fill(batch.labels == IGNORE, int(self.tokenizer.pad_token_id))
        embedded = torch.cat([embedded, self.embed(label_ids).to(embedded.dtype)], dim=1)
        mask = torch.cat([mask, (batch.labels != IGNORE).to(mask)], dim=1)
        inputs = [embedded, mask, *([] if told is None else [told])]
        logits, *states = self._passes(self._one_stack, hidden_layers, inputs, room=room, read=read)
        text = [each[:, -room - width :][:, :width] for each in states]
        return Output(logits, (*text, *(each[:, -room - 1 : -1] for each in states)))

    def _one_stack(
        self, hidden_layers: Sequence[int], embedded: Tensor, mask: Tensor, told: Tensor | None = None, *, room: int,
        read: DynamicCache | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Return logits of the last tokens but one, which predict the labels, then states of layers."""
        to_read = embedded.shape[1]
        spots = slice(-room - 1, -1)  # each label token is predicted one position before its own
        # A vocabulary wide, so only where needed. Named one by one: the output layer is slow on what a slice leaves.
        needed = torch.arange(to_read, device=mask.device)[spots.start :]
        with self._exact(told):
            out = self.model(
                inputs_embeds=embedded,
                attention_mask=mask,
                position_ids=positions_of(mask)[:, -to_read:],
                output_hidden_states=bool(hidden_layers),
                use_cache=read is not None,
                **({"past_key_values": read} if read is not None else {}),
                **({"logits_to_keep": needed} if self._keeps_logits else {}),
            )
        return (out.logits[:, spots], *(out.hidden_states[i] for i in hidden_layers))

    @property
    def _reads_once(self) -> bool:
        """Whether it may remember what many rows share; a recorded pass costs less than reading that apart."""
        return self.prefixes.possible and not self.model.training and self.graphs is None

    def _begun_alike(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """Return one prompt with what all its rows begin with behind it, an instruction say, and the rows without it.

        It is read once with the prompt then. So are the words that a template begins with.
        """
        if len(prompts) > 1 or len(batch.task_ids) < 2 or batch.added is not None or not self._reads_once:
            return prompts, batch
        if self.prefixes.keeps:  # the prompt alone, which is what comes again
            return prompts, batch
        start, rest = shared_start(batch)
        if start.shape[1] * (len(batch.task_ids) - 1) <= PASS_COST:
            return prompts, batch
        return torch.cat([prompts, self.embed(start).to(prompts)], dim=1), rest

    def _shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder's input: its start token, then all labels but the last. [B, S] -> [B, S]"""
        ids = torch.cat([labels.new_full((len(labels), 1), self.start_token), labels[:, :-1]], dim=1)
        return ids.masked_fill(ids == IGNORE, int(self.tokenizer.pad_token_id))
