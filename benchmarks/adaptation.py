"""Seconds until a 16-shot target reaches its best validation score, by the real command's function.

Without --from, the multitask prompt is an untrained one: as long and as costly as a trained one, and no better a start.
"""

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

from common import arguments, data_notes, model_folder, ours, report, start
from mptune.artifacts import MultitaskPrompt
from mptune.backbone import FrozenBackbone
from mptune.config import AdaptConfig
from mptune.stages.adaptation import adapt
from mptune.tasks import get_task

LENGTH = 20


def one(source: MultitaskPrompt, name: str, seed: int, steps: int, backbone: FrozenBackbone, data_dir: Path | None
        ) -> dict[str, Any]:  # fmt: skip
    """Return when the best validation score was reached, and the whole time."""
    config = AdaptConfig(shots=16, seed=seed, steps=steps, validate_every=10)
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


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--from", dest="source", metavar="PROMPT", help="multitask prompt to adapt")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
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
    notes = [*data_notes(options.data), f"{steps} steps of 8, 16 examples per class."]
    if not options.source:
        notes.append("No --from: an untrained multitask prompt.")
    head = ["task", "seed", "start", "best", "at step", "seconds to best", "seconds in all"]
    report("adaptation", head, cells, {"runs": found}, options.out, notes)


if __name__ == "__main__":
    main()
