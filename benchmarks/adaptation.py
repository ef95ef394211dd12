"""Seconds until a 16-shot target reaches its best validation score, and ten seeds side by side against one.

By the functions behind `mptune adapt`, from their call to their return: rows are read and validated within.

Without --from, the multitask prompt is an untrained one: as long and as costly as a trained one, and no better a start.
"""

import contextlib
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from common import (
    arguments,
    data_notes,
    in_turn,
    matmul_rate,
    milliseconds,
    model_folder,
    options_of,
    ours,
    ratio,
    report,
    shown,
    start,
)
from mptune.config import AdaptConfig
from mptune.model.backbone import Backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.adaptation import Target, adapt, adapt_together
from mptune.tasks.registry import get_task

LENGTH = 20


def one(source: MultitaskPrompt, name: str, seed: int, steps: int, backbone: Backbone, data_dir: Path | None
        ) -> dict[str, Any]:  # fmt: skip
    """Return when the best validation score was reached, and the whole time."""
    config = AdaptConfig(shots=16, validation_shots=16, seed=seed, steps=steps, validate_every=10)
    log = io.StringIO()  # no terminal: progress comes as JSON lines with their seconds
    began = time.perf_counter()
    with contextlib.redirect_stderr(log):
        adapt(source, get_task(name), backbone, config, data_dir=data_dir)
    whole = time.perf_counter() - began
    lines = [json.loads(line) for line in log.getvalue().splitlines() if line.startswith("{")]
    checks = [line for line in lines if "validation" in line]
    best = max(checks, key=lambda line: (line["validation"], -line["validation_loss"]))
    return {"task": name, "seed": seed, "seconds": round(whole, 1), "best_after": round(best["seconds"], 1),
            "best_step": best["step"], "start": round(checks[0]["validation"], 1),
            "best": round(best["validation"], 1)}  # fmt: skip


def side_by_side(source: MultitaskPrompt, name: str, steps: int, backbone: Backbone, data_dir: Path | None,
                 seeds: int, rounds: int) -> dict[str, Any]:  # fmt: skip
    """Return how long so many seeds take in one batch, against one alone."""
    task = get_task(name)

    def adapted(count: int) -> None:
        few = {"shots": 16, "validation_shots": 16, "steps": steps, "validate_every": 10}
        configs = [AdaptConfig(**few, seed=seed) for seed in range(count)]
        with contextlib.redirect_stderr(io.StringIO()):
            adapt_together(source, [Target((task,), config) for config in configs], backbone, data_dir=data_dir)

    seconds = in_turn({"one": lambda _: adapted(1), "together": lambda _: adapted(seeds)}, rounds)
    with FlopCounterMode(display=False) as counter:
        adapted(seeds)
    # What the seeds' operations alone would take at the machine's rate, in units of one seed's measured time.
    limit = counter.get_total_flops() / matmul_rate(backbone, 1_000) / statistics.median(seconds["one"])
    return {"task": name, "seeds": seeds, "steps": steps, "ms": {k: milliseconds(v) for k, v in seconds.items()},
            "together_vs_one": ratio(seconds["together"], seconds["one"]), "limit_vs_one": round(limit, 2)}  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--from", dest="source", metavar="PROMPT", help="multitask prompt to adapt")
    parser.add_argument("--steps", type=int, default=60)
    options = options_of(parser)
    backbone = ours(model_folder(options.backbone))
    names = ["rte", "mrpc", "cola"] if options.data else ["urgency", "aspects", "feelings"]
    steps, seeds = (10, 1) if options.quick else (options.steps, 3)
    if options.source:
        source = MultitaskPrompt.from_pretrained(options.source)
    else:
        source = start([get_task(names[0])], backbone, LENGTH)
    found = [one(source, name, seed, steps, backbone, options.data)
             for name in names[: 1 if options.quick else 3] for seed in range(seeds)]  # fmt: skip
    cells = [
        [f["task"], str(f["seed"]), f"{f['start']:.1f}", f"{f['best']:.1f}", str(f["best_step"]),
         f"{f['best_after']:.1f}", f"{f['seconds']:.1f}"]
        for f in found
    ]  # fmt: skip
    many, rounds = (3, 1) if options.quick else (10, 3)
    packed = side_by_side(source, names[0], 10, backbone, options.data, many, rounds)
    notes = [*data_notes(options.data), f"{steps} steps of 8, 16 examples per class."]
    if not options.source:
        notes.append("No --from: an untrained multitask prompt.")
    notes.append(f"{many} seeds of {names[0]} in one batch, 10 steps: {shown(packed['together_vs_one'])} one seed; "
                 f"their operations alone, at the machine's rate: {packed['limit_vs_one']:.2f}x.")  # fmt: skip
    head = ["task", "seed", "start", "best", "at step", "seconds to best", "seconds in all"]
    report("adaptation", head, cells, {"runs": found, "side_by_side": packed}, options.out, notes)


if __name__ == "__main__":
    main()
