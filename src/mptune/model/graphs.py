"""Passes of a model that a GPU computes by itself: recorded once for each shape, then replayed (CUDA graphs).

A pass of a small batch waits for Python to start some two thousand kernels one by one, while the card idles. A graph
starts them all at once, with the same numbers. What it reads and writes lies in the same places at every replay, and
from that come the rules here: inputs are copied in and outputs copied out, and between a pass that learns and its
gradient the same recording is not replayed.

Source: PyTorch's notes on CUDA graphs; the trial in docs/LOG.md, 2026-11-26.
"""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mptune.model.batch import Batch

logger = logging.getLogger(__name__)

MET = 3  # times until a shape is recorded: that takes as long as five steps
WIDTHS = 32  # tokens; inputs are padded to multiples, so that there are few shapes
IN_FLIGHT = 2  # passes that learn and wait for their gradients: on labelled rows, and on unlabelled ones
KEPT_FREE = 0.15  # of the card's memory; nothing is recorded beyond

Passes = Callable[..., tuple[Tensor, ...]]


class Unrecordable(Exception):
    """A pass that cannot be recorded, or should not be."""


class Recording(Protocol):
    """A pass of one shape, replayed on other numbers."""

    pool: Any
    """The memory that it computes in."""

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs."""

    def backward(self, gradients: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs that learn, those of the outputs given."""


class Graphs:
    """The recordings of one model's passes."""

    def __init__(self, record: "Callable[..., Recording] | None" = None) -> None:
        """Begin without any.

        Args:
            record: makes a recording; the CUDA graph of a pass where None.
        """
        self._record = record or CudaGraph
        self._met: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, Recording | None] = {}
        self._pools: dict[int | None, Any] = {}  # of memory: one for each slot, whose recordings take turns
        self._free = list(range(IN_FLIGHT))
        self.replays = 0  # how often, for those who look whether it works

    def __call__(self, name: Hashable, passes: Passes, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what a pass makes of its inputs: replayed, or computed as it is.

        Args:
            name: of the pass, with all that it depends on beside the inputs.
            passes: takes the inputs, and nothing else in it learns; it reads no number of theirs to decide what to
                compute.
        """
        learns = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
        if learns and not self._free:
            return passes(*inputs)
        slot = self._free[-1] if learns else None
        shape = (name, slot, *((tuple(each.shape), each.dtype, learns and each.requires_grad) for each in inputs))
        recording = self._recorded(shape, slot, passes, inputs)
        if recording is None:
            return passes(*inputs)
        self.replays += 1
        if slot is None:
            return recording.forward(inputs)
        replay: Any = _Replay.apply
        outputs: tuple[Tensor, ...] = replay(recording, Lease(self._free), *inputs)
        return outputs

    def _recorded(
        self, shape: Hashable, slot: int | None, passes: Passes, inputs: Sequence[Tensor]
    ) -> Recording | None:
        self._met[shape] += 1
        if shape not in self._recordings and self._met[shape] >= MET:
            try:
                self._recordings[shape] = recording = self._record(passes, inputs, self._pools.get(slot))
                self._pools.setdefault(slot, recording.pool)
            except (Unrecordable, RuntimeError) as error:
                said = str(error).strip().partition("\n")[0]
                logger.info("a pass is computed kernel by kernel, since it cannot be recorded: %s", said)
                self._recordings[shape] = None
        return self._recordings.get(shape)


class Lease:
    """The right to one recording, from a pass that learns to its gradient, or until nobody waits for that."""

    def __init__(self, free: list[int]) -> None:
        self._slot: int | None = free.pop()
        self._free = free

    def end(self) -> None:
        """Give it back."""
        if self._slot is not None:
            self._free.append(self._slot)
            self._slot = None

    def __del__(self) -> None:
        self.end()


class _Replay(torch.autograd.Function):
    """A replayed pass in autograd's eyes."""

    @staticmethod
    def forward(ctx: Any, recording: Recording, lease: Lease, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.recording, ctx.lease = recording, lease
        return recording.forward(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = iter(ctx.recording.backward(gradients))
        ctx.lease.end()
        return (None, None, *(next(found) if needed else None for needed in ctx.needs_input_grad[2:]))


class CudaGraph:
    """A pass, and its way back where something learns, as CUDA graphs."""

    def __init__(self, passes: Passes, inputs: Sequence[Tensor], pool: Any) -> None:
        """Record.

        Args:
            pool: the memory of recordings that are replayed in turn with this one; its own where None.

        Raises:
            Unrecordable: the card's memory is nearly full.
            RuntimeError: the pass does what cannot be recorded, as reading a number to decide what comes next.
        """
        free, room = torch.cuda.mem_get_info()
        if free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated() < KEPT_FREE * room:
            raise Unrecordable(f"only {free / 2**30:.1f} GiB of the card's memory are free")
        learns = any(each.requires_grad for each in inputs)
        self._inputs = [each.detach().clone().requires_grad_(each.requires_grad) for each in inputs]
        self._learning = [each for each in self._inputs if each.requires_grad]
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self.pool = pool or torch.cuda.graph_pool_handle()
        with torch.enable_grad() if learns else torch.no_grad():
            self._warm_up(passes, learns=learns)
            with torch.cuda.graph(self._forward, pool=self.pool):
                self._outputs = passes(*self._inputs)
            if not learns:
                return
            self._places = [number for number, each in enumerate(self._outputs) if each.requires_grad]
            self._given = [torch.empty_like(each) for each in self._differentiable]
            with torch.cuda.graph(self._backward, pool=self.pool):
                self._found = self._gradients(self._given)
            self._outputs = tuple(each.detach() for each in self._outputs)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs."""
        with torch.no_grad():
            for mine, given in zip(self._inputs, inputs, strict=True):
                mine.copy_(given)
            self._forward.replay()
            return tuple(each.clone() for each in self._outputs)

    def backward(self, gradients: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Return the gradients of what learns."""
        for mine, place in zip(self._given, self._places, strict=True):
            mine.copy_(gradients[place])
        self._backward.replay()
        return tuple(None if each is None else each.clone() for each in self._found)

    def _warm_up(self, passes: Passes, *, learns: bool) -> None:
        """Compute the pass on a stream of its own: libraries set themselves up at their first call."""
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._outputs = passes(*self._inputs)
                if learns:
                    self._gradients([torch.ones_like(each) for each in self._differentiable])
        torch.cuda.current_stream().wait_stream(stream)
        self._outputs = ()

    @property
    def _differentiable(self) -> list[Tensor]:
        return [each for each in self._outputs if each.requires_grad]

    def _gradients(self, given: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            self._differentiable, self._learning, list(given), allow_unused=True
        )
        return found


def in_few_shapes(batch: Batch, length: int, positions: int | None, *, left: bool) -> Batch:
    """Return a batch with more rows and padding, so that batches have few shapes.

    Args:
        length: L, the soft tokens that will stand before its texts.
        positions: how many soft tokens and tokens a model reads; None where there is no limit.
        left: whether it is padded on the left of the text, as for a decoder-only model.
    """
    (rows, width), room = batch.input_ids.shape, batch.labels.shape[1]
    wide, roomy = rounded(length + width, to=WIDTHS) - length, rounded(room, to=8)
    if positions is not None and max(length + wide + (roomy if left else 0), roomy) > positions:
        wide, roomy = width, room
    return batch.widened(rounded(rows, to=8), wide, roomy, left=left)


def rounded(number: int, *, to: int) -> int:
    """Return a size of which there are few: powers of two, then multiples.

    >>> [rounded(n, to=8) for n in (1, 3, 5, 9, 17)]
    [1, 4, 8, 16, 24]
    """
    if number <= to:
        return 1 << (number - 1).bit_length()
    return -(-number // to) * to
