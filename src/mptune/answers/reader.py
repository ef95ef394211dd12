"""How a batch is read by what is no plain soft prompt: the systems that multitask prompts are compared with."""

from collections.abc import Callable

from torch import Tensor, nn

from mptune.model.batch import Batch
from mptune.prompts.card import Card

# A table of prompts [K, L, D], and the batch as it is read, whose ``task_ids`` say which of them stands before a row.
Reader = Callable[[Batch], tuple[Tensor, Batch]]


class Baseline(nn.Module):
    """A baseline while it learns: its parameters are all that changes, and it reads the batches of K tasks.

    The loop that trains prompts trains it as one; it is not saved as a prompt, since no other program could read it.
    """

    def __init__(self, reads: nn.Module, card: Card) -> None:
        """Wrap a module.

        Args:
            reads: takes a batch, returns what a `Reader` does.
        """
        super().__init__()
        self.reads = reads
        self.card = card

    def forward(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return a table of prompts [K, L, D], and the batch as it is read."""
        read: tuple[Tensor, Batch] = self.reads(batch)
        return read

    def collapse(self) -> list[Reader]:
        """Return what reads each of the K tasks."""
        return [self] * len(self.card.tasks)
