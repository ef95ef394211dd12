"""What a decoder-only model remembers of the prompts it has read: keys and values, for many rows and for later ones.

Text stands behind a prompt and does not change how it is read. So a prompt that several rows of a batch have is read
once for all of them, and with room given (a server does), once until others need its place.
"""

import hashlib
import inspect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from mptune.model.batch import Batch
from mptune.model.grouping import PASS_COST

# Their layers see where a token stands by its position id alone (and by a window, where a layer remembers no more).
BY_POSITION_IDS = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi", "qwen2", "qwen3", "smollm3"})
KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)  # what layers may remember of a prompt that rows share


@dataclass(frozen=True)
class Prefix:
    """What every layer remembers of one prompt."""

    keys: tuple[Tensor, ...]  # each [H, L, d]
    values: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.nbytes for each in (*self.keys, *self.values))


class Prefixes:
    """Reads the prompts of rows once. For one thread."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        named = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in named else {}
        self._by_position = model.config.model_type in BY_POSITION_IDS
        self.possible = not model.config.is_encoder_decoder  # until a model turns out to remember something else
        self._kept: OrderedDict[str, Prefix] = OrderedDict()  # by digest, the least lately asked for first
        self._room = self._held = 0

    def keep(self, room: int) -> None:
        """Keep what was read for later batches, in so many bytes; for who asks without gradients."""
        self._room = room

    @property
    def keeps(self) -> bool:
        """Whether something is kept for later batches."""
        return self._room > 0 and self.possible

    def __call__(self, prompts: Tensor, batch: Batch) -> DynamicCache | None:
        """Return what the model remembers of each row's prompt; None where little is saved by that, or it cannot be.

        A shorter row's padding stands between prompt and text then, which is right only where places are counted by
        position ids.

        Args:
            prompts: of the batch's tasks. [K, L, D]
        """
        saved = (len(batch.task_ids) - len(prompts)) * prompts.shape[1]
        if not self._room and saved <= PASS_COST:
            return None  # before anything is looked at: so it is with most steps of a training
        rows = batch.mask.sum(1)
        padded = bool((rows < batch.mask.shape[1]).any())
        if not self.possible or (padded and not self._by_position) or not rows.all():
            return None  # a row without a token of its own goes on behind its prompt, and not behind padding
        if self._room and prompts.shape[1] and not prompts.requires_grad:
            read = self._known(prompts)
            if read is not None:
                return _of_rows([read[task] for task in batch.task_ids.tolist()])
        if saved <= PASS_COST:
            return None
        shared = self._read(prompts)
        if shared is None or (padded and not _plain(shared)):
            return None  # a window counts by place
        layer: Any
        for layer in shared.layers:
            layer.keys, layer.values = layer.keys[batch.task_ids], layer.values[batch.task_ids]
        return shared

    def _read(self, prompts: Tensor) -> DynamicCache | None:
        """Return what the model remembers of prompts. [K, L, D]"""
        out = self._model(inputs_embeds=prompts.to(self._model.dtype), use_cache=True, **self._last_only)
        read = getattr(out, "past_key_values", None)
        # Layers of other kinds (linear attention, convolutions) remember more than keys and values.
        if isinstance(read, DynamicCache) and all(type(layer) in KEYS_AND_VALUES for layer in read.layers):
            return read
        self.possible = False  # asked once, not at every step
        return None

    def _known(self, prompts: Tensor) -> list[Prefix] | None:
        """Return what is kept of each prompt, those among them that are read now; None where nothing can be kept."""
        names = [hashlib.sha256(each.contiguous().view(torch.uint8).numpy().data).hexdigest() for each in prompts.cpu()]
        new = {name: number for number, name in enumerate(names) if name not in self._kept}  # equal ones once
        if new:
            read = self._read(prompts[list(new.values())])
            if read is None or not _plain(read):
                return None
            layers: list[Any] = read.layers
            for row, name in enumerate(new):
                # Copies: a view would hold the prompts that were read beside it.
                one = Prefix(tuple(each.keys[row].clone() for each in layers),
                             tuple(each.values[row].clone() for each in layers))  # fmt: skip
                self._kept[name] = one
                self._held += one.size
        found = [self._kept[name] for name in names]
        for name in names:
            self._kept.move_to_end(name)
        while self._held > self._room and self._kept:
            self._held -= self._kept.popitem(last=False)[1].size
        return found


def _plain(read: DynamicCache) -> bool:
    return all(type(layer) is DynamicLayer for layer in read.layers)


def _of_rows(rows: list[Prefix]) -> DynamicCache:
    """Return what is kept of each row's prompt as one batch's."""
    read = DynamicCache()
    for layer in range(len(rows[0].keys)):
        read.update(torch.stack([each.keys[layer] for each in rows]),
                    torch.stack([each.values[layer] for each in rows]), layer)  # fmt: skip
    return read
