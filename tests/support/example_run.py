"""A run's folder as `mptune bench` writes it: seeded numbers of a realistic size, nothing trained."""

import json
import random
from pathlib import Path

SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad", "record")
TARGETS = {"rte": (139, 51.0), "mrpc": (204, 68.1), "cb": (56, 50.0), "wic": (200, 50.0), "boolq": (200, 62.0),
           "cola": (200, 70.5), "scitail": (200, 50.4), "paws": (200, 55.8)}  # fmt: skip
PARAMETERS = {
    "constant": (0, 0), "zero-shot": (0, 0), "fine-tuning": (76_961_152, 76_961_152), "bitfit": (69_120, 69_120),
    "adapters": (822_528, 822_528), "lora": (344_064, 344_064), "ia3": (34_816, 34_816),
    "prompt-tuning": (10_240, 10_240), "spot": (10_240, 10_240), "spot-closest": (10_240, 10_240),
    "attempt": (113_364, 25_600), "dept": (9_932, 9_932), "transfer": (0, 10_240), "mpt": (10_772, 10_240),
    "mpt-group": (14_496, 1_812), "multitask-fine-tuning": (76_961_152, 9_620_144), "teacher": (10_240, 10_240),
    "mpt-no-distillation": (10_772, 10_240),
}  # fmt: skip
SKILL = {
    "zero-shot": 2, "fine-tuning": 15, "bitfit": 11, "adapters": 13, "lora": 14, "ia3": 9, "prompt-tuning": 6,
    "spot": 10, "spot-closest": 10.5, "attempt": 8, "dept": 7, "transfer": 8, "mpt": 14, "mpt-group": 13,
    "multitask-fine-tuning": 14.5, "teacher": 13, "mpt-no-distillation": 11,
}  # fmt: skip
METHODS = (
    "constant", "zero-shot", "fine-tuning", "bitfit", "adapters", "lora", "ia3", "prompt-tuning", "spot",
    "spot-closest", "attempt", "dept", "transfer", "mpt", "mpt-group", "multitask-fine-tuning", "teacher",
)  # fmt: skip
ONCE = ("constant", "zero-shot", "transfer", "teacher")  # use no example of the target
VERSIONS = {"python": "3.11.7", "mptune": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"}


def lines(shots=(16,), seeds=5, targets=tuple(TARGETS), methods=METHODS, skill=None):
    """Return the lines of every run; a score is the mean of its credit, so that all numbers belong together."""
    chance = random.Random(16)
    found = []
    for method in (*methods, *(f"from:{source}" for source in SOURCES)):
        for task in targets:
            once = method in ONCE or method.startswith("from:")
            cells = [(0, 0)] if once else [(k, s) for k in shots for s in range(seeds)]
            found += [_line(method, task, k, s, {**SKILL, **(skill or {})}, chance) for k, s in cells]
    return found


def _line(method, task, shots, seed, skill, chance):
    rows, constant = TARGETS[task]
    gain = 0.0 if method == "constant" else skill.get(method, chance.uniform(-2, 9)) + chance.gauss(0, 2)
    gain *= {0: 1.0, 4: 0.5, 16: 1.0, 32: 1.2}.get(shots, 1.4)
    right = min(rows, max(0, round(rows * min(98.0, constant + gain) / 100)))
    credit = [1] * right + [0] * (rows - right)
    random.Random(f"{task}{seed}{method}").shuffle(credit)
    if method == "constant":
        credit.sort()
    accuracy = 100 * right / rows
    macro = accuracy / 2 if method == "constant" else accuracy - 3.5
    trained, stored = PARAMETERS.get(method, (0, 10_240))
    curve = [
        {"step": step, "validation": constant + gain * step / 30 + chance.gauss(0, 1),
         "validation_loss": 0.7 * 0.98**step + abs(chance.gauss(0, 0.01))}
        for step in range(0, 31, 5)
    ] if trained else []  # fmt: skip
    score = {"task": task, "split": "test", "metric": "accuracy", "value": accuracy, "examples": rows}
    return {
        "method": method, "task": task, "shots": shots, "seed": seed,
        "scores": [score, {**score, "metric": "f1_macro", "value": macro}],
        "credit": credit, "parameters": {"trained": trained, "stored": stored}, "curve": curve,
        "seconds": round(chance.uniform(2, 20), 1), "dtype": "bfloat16", "versions": VERSIONS,
        "commit": "4debfe6a1b2c", "machine": "2 cores of an AMD EPYC, no GPU",
    }  # fmt: skip


def recipe(shots=(16,), seeds=5, targets=tuple(TARGETS), methods=METHODS):
    """Return recipe.json."""
    return {
        "name": "example", "backbone": {"name": "embedded", "dtype": "bfloat16"}, "sources": list(SOURCES),
        "targets": list(targets), "methods": list(methods), "variants": {"mpt-no-distillation": {"of": "mpt"}},
        "shots": list(shots), "seeds": seeds, "teach": {"prompt_length": 20, "steps": 150},
        "distill": {"steps": 500, "distill_weight": 0.9}, "adapt": {"steps": 30, "shared_lr": 0.2},
    }  # fmt: skip


def similarity():
    """Return similarity.json: sources and targets in one order, cosines of a Gram matrix."""
    chance = random.Random(4)
    tasks = [*((name, "source") for name in SOURCES), *((name, "target") for name in TARGETS)]

    def cosines(share):
        spots = [[chance.gauss(share, 1) for _ in range(6)] for _ in tasks]
        norms = [sum(x * x for x in spot) ** 0.5 for spot in spots]
        return [
            [sum(x * y for x, y in zip(a, b, strict=True)) / (m * n) for b, n in zip(spots, norms, strict=True)]
            for a, m in zip(spots, norms, strict=True)
        ]

    return {
        "tasks": [{"name": name, "role": role} for name, role in tasks],
        "prompts": cosines(1.2),
        "matrices": cosines(0.2),
    }


def write(folder: Path, found=None, **choices) -> Path:
    """Write a whole folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    found = lines(**choices) if found is None else found
    known = {k: v for k, v in choices.items() if k in ("shots", "seeds", "targets", "methods")}
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    (folder / "recipe.json").write_text(json.dumps(recipe(**known)))
    (folder / "similarity.json").write_text(json.dumps(similarity()))
    return folder
