"""Free text of many tasks, one token of each row at a time: rows leave when they end, and others join meanwhile.

`mptune.model.scoring.write` writes a batch to the end of its longest row. Here nobody waits for that: between two steps
something else may be computed, and a row that comes is read at once and steps with those that are there.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from mptune.model.backbone import Backbone
from mptune.model.batch import Batch
from mptune.model.padding import positions_of
from mptune.model.prefixes import BY_POSITION_IDS

# A decoder whose positions are relative reads a row the same behind any padding, so that rows of unlike ages step
# together. Others of this kind (BART, Marian) count their steps, and a row steps with those that came with it.
RELATIVE = frozenset({"t5", "mt5"})


@dataclass(eq=False)
class Draft:
    """A row that is being written."""

    most: int  # tokens
    ends: frozenset[int]  # tokens that end it
    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 1.0
    generator: torch.Generator | None = None  # draws, where the temperature is above 0
    ids: list[int] = field(default_factory=list)  # written so far, without the end
    log_odds: list[float] = field(default_factory=list)  # of what was written, before temperature and top_p
    ended: bool = False  # by a token of its own, and not by its length

    @property
    def done(self) -> bool:
        """Whether nothing more is written."""
        return self.ended or len(self.ids) >= self.most


@dataclass
class _Group:
    """Rows that step together, and what the model remembers of them."""

    lines: list[Draft]
    cache: Any
    mask: Tensor  # of what is remembered: of a decoder-only model [B, t], of a text that an encoder read [B, T]
    written: Tensor | None  # of an encoder-decoder: which of the decoder's places are a row's own [B, t]
    last: Tensor  # the token that each row reads next [B]


class Writer:
    """Writes rows of any tasks, step by step."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._groups: list[_Group] = []
        forward = inspect.signature(backbone.model.forward).parameters
        self._places = "position_ids" in forward
        bans = getattr(backbone.model.generation_config, "bad_words_ids", None) or []
        self._banned = [ids[0] for ids in bans if len(ids) == 1]

    @property
    def lines(self) -> list[Draft]:
        """The rows that are being written."""
        return [line for group in self._groups for line in group.lines]

    def drop(self, lines: Sequence[Draft]) -> None:
        """Write some rows no further."""
        gone = set(map(id, lines))
        self._keep(lambda line: id(line) not in gone)

    @torch.no_grad()
    def join(self, prompts: Tensor, batch: Batch, lines: Sequence[Draft]) -> None:
        """Read rows, and write the first token of each.

        Args:
            prompts: of the batch's tasks. [K, L, D]
            lines: one for each row of the batch.
        """
        backbone = self._backbone
        prompts = backbone.begun(prompts, batch.chat)
        if backbone.is_encoder_decoder:
            embedded, mask = backbone.prompted(prompts, batch)
            start = torch.full((len(lines), 1), backbone.start_token, device=embedded.device)
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            group = _Group(list(lines), cache, mask, mask.new_ones(len(lines), 0), start[:, 0])
            logits = self._decode(group, self._read(embedded, mask))
        else:
            embedded, mask, read = backbone.behind_prompts(prompts, batch)
            group = _Group(
                list(lines), DynamicCache() if read is None else read, mask, None, mask.new_zeros(len(lines))
            )
            logits = self._continue(group, {"inputs_embeds": embedded}, mask)
        self._choose(group, logits)
        self._groups.append(group)
        self._keep(lambda line: not line.done)
        self._merge()

    @torch.no_grad()
    def step(self) -> None:
        """Write one token more of every row; those that end leave."""
        for group in self._groups:
            if group.written is None:
                mask = torch.cat([group.mask, group.mask.new_ones(len(group.lines), 1)], dim=1)
                logits = self._continue(group, {"input_ids": group.last[:, None]}, mask)
            else:
                logits = self._decode(group, None)
            self._choose(group, logits)
        self._keep(lambda line: not line.done)

    # -- the model ----------------------------------------------------------------------------------------------------

    def _read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Return what the encoder makes of an input. [B, T, D]"""
        found = self._backbone.encoded(embedded, mask)
        read = found.get("encoder_outputs") or self._backbone.model.get_encoder()(**found, attention_mask=mask)
        states: Tensor = read.last_hidden_state
        return states

    def _decode(self, group: _Group, memory: Tensor | None) -> Tensor:
        """Return the logits of the next token of an encoder-decoder. [B, V]

        Args:
            memory: what the encoder made of the texts, at the first step; remembered as keys and values from then on.
        """
        assert group.written is not None
        if memory is None:  # its shape is looked at, and no number of it
            memory = group.mask.new_zeros(*group.mask.shape, 1, dtype=self._backbone.dtype)
        group.written = torch.cat([group.written, group.written.new_ones(len(group.lines), 1)], dim=1)
        relative = {"decoder_attention_mask": group.written} if self._merges(group) else {}
        out = self._backbone.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=group.mask,
            decoder_input_ids=group.last[:, None],
            past_key_values=group.cache,
            use_cache=True,
            **relative,
        )
        group.cache = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits

    def _continue(self, group: _Group, inputs: dict[str, Tensor], mask: Tensor) -> Tensor:
        """Return the logits of the next token of a decoder-only model. [B, V]"""
        to_read = next(iter(inputs.values())).shape[1]
        places = {"position_ids": positions_of(mask)[:, -to_read:]} if self._places else {}
        out = self._backbone.model(**inputs, attention_mask=mask, past_key_values=group.cache, use_cache=True, **places)
        group.cache, group.mask = out.past_key_values, mask
        logits: Tensor = out.logits[:, -1]
        return logits

    def _choose(self, group: _Group, logits: Tensor) -> None:
        """Write the next token of every row."""
        odds = logits.float().log_softmax(-1)  # [B, V]
        allowed = odds.clone()
        allowed[:, self._banned] = -torch.inf
        likeliest = allowed.argmax(-1).tolist()
        chosen = []
        for row, line in enumerate(group.lines):
            token = likeliest[row] if line.temperature == 0 else _drawn(allowed[row], line)
            chosen.append(token)
            if token in line.ends:
                line.ended = True
            else:
                line.ids.append(token)
                line.log_odds.append(float(odds[row, token]))
        group.last = torch.tensor(chosen, device=logits.device)

    # -- who is there -------------------------------------------------------------------------------------------------

    def _keep(self, stays: Any) -> None:
        """Forget the rows that do not stay, and padding that none of the others needs."""
        for group in self._groups:
            rows = [row for row, line in enumerate(group.lines) if stays(line)]
            if len(rows) == len(group.lines):
                continue
            group.lines = [group.lines[row] for row in rows]
            if not rows:
                continue
            at = torch.tensor(rows, device=group.mask.device)
            group.mask, group.last = group.mask[at], group.last[at]
            group.cache.batch_select_indices(at)
            group.written = None if group.written is None else group.written[at]
            if self._merges(group):
                _narrow(group)
        self._groups = [group for group in self._groups if group.lines]

    def _merges(self, group: _Group) -> bool:
        """Return whether rows of unlike ages may step together."""
        model = self._backbone.model.config.model_type
        if group.written is not None:
            return model in RELATIVE
        plain = isinstance(group.cache, DynamicCache) and all(type(x) is DynamicLayer for x in group.cache.layers)
        return model in BY_POSITION_IDS and plain

    def _merge(self) -> None:
        """Let all groups step as one where the model allows it."""
        if len(self._groups) < 2 or not all(map(self._merges, self._groups)):
            return
        groups = self._groups
        widest = max(group.mask.shape[1] for group in groups)
        lines = [line for group in groups for line in group.lines]
        last = torch.cat([group.last for group in groups])
        if groups[0].written is None:
            mask = torch.cat([_left(group.mask, widest) for group in groups])
            self._groups = [_Group(lines, _together([g.cache for g in groups], left=True), mask, None, last)]
            return
        oldest = max(group.written.shape[1] for group in groups if group.written is not None)
        mask = torch.cat([F.pad(group.mask, (0, widest - group.mask.shape[1])) for group in groups])
        written = torch.cat([_left(group.written, oldest) for group in groups if group.written is not None])
        own = _together([group.cache.self_attention_cache for group in groups], left=True)
        read = _together([group.cache.cross_attention_cache for group in groups], left=False)
        self._groups = [_Group(lines, EncoderDecoderCache(own, read), mask, written, last)]


def _narrow(group: _Group) -> None:
    """Forget the padding that no row needs any more; where rows come and go without an end it would grow so too."""
    if group.written is None:
        group.mask = _cut(group.cache, group.mask, left=True)
    else:
        group.written = _cut(group.cache.self_attention_cache, group.written, left=True)
        group.mask = _cut(group.cache.cross_attention_cache, group.mask, left=False)


def _cut(cache: DynamicCache, mask: Tensor, *, left: bool) -> Tensor:
    """Return a mask without the columns on one side in which no row has anything, and cut keys and values alike."""
    used = mask.any(0).nonzero()
    kept = slice(int(used[0]), None) if left else slice(int(used[-1]) + 1)
    layer: Any
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]
    return mask[:, kept]


def _left(mask: Tensor, width: int) -> Tensor:
    return F.pad(mask, (width - mask.shape[1], 0))


def _together(caches: Sequence[DynamicCache], *, left: bool) -> DynamicCache:
    """Return the keys and values of several groups as one's, padded to the longest. Each [B, H, t, d]

    Args:
        left: whether padding stands on the left.
    """
    whole = DynamicCache()
    for number, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
        width = max(layer.keys.shape[2] for layer in layers)

        def wide(each: Tensor, width: int = width) -> Tensor:
            missing = width - each.shape[2]
            return F.pad(each, (0, 0, missing, 0) if left else (0, 0, 0, missing))

        whole.update(torch.cat([wide(x.keys) for x in layers]), torch.cat([wide(x.values) for x in layers]), number)
    return whole


def _drawn(odds: Tensor, line: Draft) -> int:
    """Return a token drawn from the likeliest ones that together have ``top_p`` of the probability. [V]

    Source: nucleus sampling, Holtzman et al. 2020 (arXiv:1904.09751).
    """
    chances = (odds / line.temperature).softmax(-1)
    ordered, tokens = chances.sort(descending=True)
    within = ordered.cumsum(-1) - ordered < line.top_p  # the likeliest always is
    drawn = torch.multinomial(ordered * within, 1, generator=line.generator)
    return int(tokens[drawn])
