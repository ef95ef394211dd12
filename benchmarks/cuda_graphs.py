"""What a training step on a GPU gains when the frozen model's passes are recorded once and replayed: CUDA graphs.

A step of a small batch waits for Python to start some two thousand kernels one by one. A graph starts all of them at
once. Its shapes are fixed, so every batch is padded to the widest of them, rounded up to 32 tokens. Not part of the
package yet: docs/LOG.md, 2026-11-26.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import (
    T5_BASE,
    arguments,
    data_notes,
    in_turn,
    milliseconds,
    model_folder,
    options_of,
    ours,
    ratio,
    report,
    rows_of,
    shown,
    start,
)
from mptune.model.batch import Batch
from mptune.model.encoding import collate
from mptune.stages.losses import task_loss

MULTIPLE = 32  # of tokens


class Passes(nn.Module):
    """The frozen model from an embedded input to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded: Tensor, mask: Tensor, decoder_ids: Tensor) -> Tensor:
        """Return logits. [B, L + T, D], [B, L + T], [B, S] -> [B, S, V]"""
        out = self.model(inputs_embeds=embedded, attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False)
        logits: Tensor = out.logits
        return logits


def compare(model: str, size: int, length: int, rounds: int, data_dir: Path | None) -> dict[str, Any]:
    """Return the figures of one model and batch size."""
    backbone = ours(model_folder(model))
    data = rows_of("mnli", backbone, size * 4, data_dir, prompt_length=length)
    prompt = start([data.task], backbone, length)
    batches = [collate([(0, n * size + i) for i in range(size)], [data], backbone) for n in range(4)]
    widest = max(batch.input_ids.shape[1] for batch in batches)
    width = -(-widest // MULTIPLE) * MULTIPLE

    def inputs(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        embedded, mask = backbone.prompted(prompt(batch.tasks), batch)
        room = width - batch.input_ids.shape[1]
        pad = nn.functional.pad
        return pad(embedded, (0, 0, 0, room)), pad(mask, (0, room)), backbone._shift_right(batch.labels)

    def step_of(passes: Callable[..., Tensor]) -> Callable[[int], Tensor]:
        def step(number: int) -> Tensor:
            batch = batches[number % len(batches)]
            prompt.zero_grad(set_to_none=True)
            loss = task_loss(passes(*inputs(batch)), batch.labels)
            loss.backward()
            return loss.detach()

        return step

    passes = Passes(backbone.model)
    sample = tuple(t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs(batches[0]))
    eager, graphed = (
        step_of(passes),
        step_of(torch.cuda.make_graphed_callables(passes, sample, allow_unused_input=True)),
    )
    found = []
    for step in (eager, graphed):
        loss, gradient = step(0), prompt.shared.grad
        assert gradient is not None
        found.append((float(loss), gradient.clone()))
    (one, before), (other, after) = found
    seconds = in_turn({"eager": eager, "graphed": graphed}, rounds, warmup=len(batches))
    return {
        "model": model,
        "batch": size,
        "prompt_length": length,
        "padded_to": width,
        "rounds": rounds,
        "dtype": backbone.config.dtype,
        "ms": {name: milliseconds(values) for name, values in seconds.items()},
        "eager_vs_graphed": ratio(seconds["eager"], seconds["graphed"]),
        "loss_differs_by": abs(one - other),
        "gradient_differs_by": float((after - before).norm() / before.norm()),
    }


def main() -> None:
    """Run the benchmark."""
    options = options_of(arguments(str(__doc__).partition("\n")[0]))
    if not torch.cuda.is_available():
        raise SystemExit("cuda_graphs needs a GPU of NVIDIA's: CUDA records its graphs there, and none was found.")
    shapes = [(options.backbone, 16, 20)] if options.quick else [(options.backbone, 16, 20), (T5_BASE, 32, 100)]
    found = [compare(*shape, 4 if options.quick else 20, options.data) for shape in shapes]
    cells = [
        [f["model"], str(f["batch"]), f"{f['ms']['eager']:.1f} ms", f"{f['ms']['graphed']:.1f} ms",
         shown(f["eager_vs_graphed"]), f"{f['gradient_differs_by']:.1e}"]
        for f in found
    ]  # fmt: skip
    head = ["model", "rows a step", "as it is", "as graphs", "gain", "gradient differs by"]
    report("cuda_graphs", head, cells, {"shapes": found}, options.out, data_notes(options.data))


if __name__ == "__main__":
    main()
