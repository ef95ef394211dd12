"""What a backbone reads and what it answers: values, without a model or a tokenizer.

Soft prompts travel as a table, one for each task that has rows in a batch, [K, L, D]; ``task_ids`` says which of them
stands before which row. They are gathered where they are laid before the text, in `Backbone.prompted`, and nowhere
else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mptune.model.chat import Chat

IGNORE = -100  # label of padding; what torch's cross entropy skips by default

Pick = tuple[int, int]  # (task, row): which row of which of several tasks
UNLABELLED = -1  # in place of a pick's task: the row is one of those without labels, of the only task


@dataclass(frozen=True)
class Batch:
    """Examples of one or many tasks, padded to one length."""

    tasks: tuple[int, ...]  # the K tasks that have rows here, growing
    task_ids: Tensor  # each row's place among them, and so in their table of prompts [B]
    input_ids: Tensor  # [B, T]
    mask: Tensor  # 1 on tokens, 0 on padding [B, T]
    labels: Tensor  # [B, S], IGNORE on padding
    added: Tensor | None = None  # to the embedded input, by methods that change it [B, T, D]
    choices: Sequence[Sequence[list[int]]] = ()  # each row's label words as tokens, none for free text; B of C of [S]
    answers: Tensor | None = None  # which of its words is a row's label, IGNORE where it has none [B]
    texts: Tensor | None = None  # which text each row of labels stands behind, where several stand behind one [B]
    chat: Chat | None = None  # what a chat template writes around every row's prompt and text

    @classmethod
    def of_tasks(cls, row_tasks: Sequence[int], input_ids: Tensor, mask: Tensor, labels: Tensor) -> "Batch":
        """Return the batch of rows whose tasks are given by number."""
        tasks = tuple(sorted(set(row_tasks)))
        place = {task: number for number, task in enumerate(tasks)}
        return cls(tasks, torch.tensor([place[task] for task in row_tasks]), input_ids, mask, labels)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        tensors = {name: each for name, each in vars(self).items() if isinstance(each, Tensor)}
        moved: dict[str, Any] = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        return replace(self, **moved)

    def behind(self, rows: Sequence[int], labels: Tensor) -> "Batch":
        """Return the same texts with other labels [len(rows), S], each behind a text that is named by its row."""
        return replace(self, labels=labels, choices=(), answers=None, texts=torch.tensor(rows, device=labels.device))

    def spread(self) -> "Batch":
        """Return the batch with a text for each row of labels."""
        if self.texts is None:
            return self
        added = None if self.added is None else self.added[self.texts]
        ids, inputs, mask = self.task_ids[self.texts], self.input_ids[self.texts], self.mask[self.texts]
        return replace(self, task_ids=ids, input_ids=inputs, mask=mask, added=added, texts=None)

    def of_one_prompt(self) -> "Batch":
        """Return the batch with one prompt for all its rows, whatever their tasks: a table of one."""
        return replace(self, tasks=(0,), task_ids=torch.zeros_like(self.task_ids))

    def of_own_prompts(self) -> "Batch":
        """Return the batch with a prompt for each row: a table of B."""
        rows = len(self.task_ids)
        return replace(self, tasks=tuple(range(rows)), task_ids=torch.arange(rows, device=self.task_ids.device))

    def widened(self, rows: int, width: int, room: int, *, left: bool) -> "Batch":
        """Return the batch with more rows, the first one again, and more padding; nothing to choose from.

        Args:
            rows, width, room: the larger B, T and S.
            left: whether padding stands on the left of the text.
        """
        missing = width - self.input_ids.shape[1]
        side = (missing, 0) if left else (0, missing)

        def more(each: Tensor) -> Tensor:
            again = each[:1].expand(rows - len(each), *each.shape[1:])
            return torch.cat([each, again])

        return Batch(
            self.tasks,
            more(self.task_ids),
            more(F.pad(self.input_ids, side)),
            more(F.pad(self.mask, side)),
            more(F.pad(self.labels, (0, room - self.labels.shape[1]), value=IGNORE)),
            None if self.added is None else more(F.pad(self.added, (0, 0, *side))),
        )

    def only(self, rows: Sequence[int], *, left: bool) -> tuple["Batch", list[int]]:
        """Return some rows, padded no further than they need, and which of the K prompts they have.

        Args:
            left: whether padding stands on the left of the text.
        """
        mask, labels = self.mask[rows], self.labels[rows]
        width, room = int(mask.sum(1).max()), int((labels != IGNORE).sum(1).max())
        text = slice(mask.shape[1] - width, None) if left else slice(width)
        added = None if self.added is None else self.added[rows][:, text]
        of_row = self.task_ids[rows].tolist()
        part = Batch.of_tasks(of_row, self.input_ids[rows][:, text], mask[:, text], labels[:, :room])
        kept = list(part.tasks)
        part = replace(part, tasks=tuple(self.tasks[k] for k in kept), task_ids=part.task_ids.to(mask.device))
        return replace(part, added=added), kept


@dataclass(frozen=True)
class Output:
    """What a backbone answers to a batch."""

    logits: Tensor  # [B, S, V], at the positions that predict the labels
    hidden: tuple[Tensor, ...] = ()  # of the asked layers: text positions [B, T, D], then label positions [B, S, D]

    def cut(self, batch: Batch, wider: Batch, *, left: bool) -> "Output":
        """Return the output to a batch, of that to the same batch with more rows and padding."""
        (rows, width), room = batch.input_ids.shape, batch.labels.shape[1]
        missing = wider.input_ids.shape[1] - width
        half, text = len(self.hidden) // 2, slice(missing, None) if left else slice(width)
        hidden = [*(each[:rows, text] for each in self.hidden[:half]), *(e[:rows, :room] for e in self.hidden[half:])]
        return Output(self.logits[:rows, :room], tuple(hidden))
