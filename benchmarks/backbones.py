"""What a frozen backbone takes whole, in 8 and in 4 bits: memory, a training step, rows answered.

    .venv/bin/python benchmarks/backbones.py embedded runs/smollm2 --out benchmarks/results/backbones.json

Each is measured in a process of its own. Rows are those of the written sample task `teams`, eight in a step, behind 20
soft tokens; a model with a chat template reads them inside it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from common import machine
from mptune.answers.evaluation import answer
from mptune.config import BackboneConfig, EvaluateConfig, ExamplesConfig
from mptune.model.encoding import collate, encode
from mptune.model.loading import load_backbone
from mptune.model.memory import keep_pages
from mptune.stages.losses import supervised_loss
from mptune.tasks.data import load_data
from mptune.tasks.registry import get_task

STEPS, ROWS, ANSWERED, LENGTH = 6, 8, 64, 20


def measured(name: str, bits: int | None) -> dict[str, object]:
    """Return what one backbone takes in this process."""
    keep_pages()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    backbone = load_backbone(BackboneConfig(name=name, bits=bits))
    task = get_task("teams").model_copy(update={"chat": "user" if backbone.tokenizer.chat_template else None})
    rows = load_data(task, ["train", "test"])
    lengths = ExamplesConfig(max_input_tokens=256, max_target_tokens=8)
    train, test = (encode(task, some, backbone, lengths, LENGTH) for some in (rows.train, rows.test[:ANSWERED]))
    prompt = backbone.embeddings[:LENGTH].float().clone().requires_grad_()
    took = []
    for step in range(STEPS):
        batch = collate([(0, (step * ROWS + row) % len(train.inputs)) for row in range(ROWS)], [train], backbone)
        began = time.perf_counter()
        supervised_loss(backbone, prompt[None], batch, backbone(prompt[None], batch).logits, 0.0).backward()
        took.append(time.perf_counter() - began)
    began = time.perf_counter()
    answer(backbone, [prompt.detach()], [test], EvaluateConfig(), labelled=False)
    answered = time.perf_counter() - began
    return {
        "backbone": Path(name).name, "bits": bits or 32, "parameters": backbone.model.num_parameters(),
        "weights_mb": sum(p.numel() * p.element_size() for p in backbone.model.parameters()) / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "libraries_mb": before / 1024,
        "tokens_a_row": statistics.mean(map(len, train.inputs)),
        "step_ms": 1000 * statistics.median(took[1:]), "rows_a_second": ANSWERED / answered,
        "dtype": str(backbone.dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
    }  # fmt: skip


def main() -> None:
    """Measure every backbone every way, each in a process of its own, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="+", metavar="ID")
    parser.add_argument("--bits", type=int, help="measure one way, in this process")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object here too")
    options = parser.parse_args()
    if options.bits is not None:
        print(json.dumps(measured(options.backbones[0], options.bits or None)))
        return
    lines = []
    for name in options.backbones:
        for bits in (0, 8, 4):
            command = [sys.executable, __file__, name, "--bits", str(bits)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            lines.append(json.loads(said.splitlines()[-1]))
            print(json.dumps(lines[-1]))
    found = json.dumps({"lines": lines, **machine()}, indent=1)
    if options.out:
        options.out.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
