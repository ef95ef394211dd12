"""How alike the tasks of a comparison are: cosines of their prompts and of their task matrices."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mptune.comparison.results import Line
from mptune.comparison.trials import place
from mptune.config import PUBLISHED_SEEDS
from mptune.prompts.prompt import MultitaskPrompt


def similarities(source: MultitaskPrompt, folder: Path, lines: Sequence[Line]) -> dict[str, Any]:
    """Return the cosines of all tasks' prompts and of their task matrices.

    Source tasks come first, then targets as `mpt` adapted them with the first seed and the fewest shots.

    Args:
        source: from which the targets' prompts of the folder began.
    """
    prompts, matrices = [source.collapse()], [source.task_vectors.matrices]
    tasks = [{"name": task.name, "role": "source"} for task in source.tasks]
    adapted = [line for line in lines if line.method == "mpt" and line.seed == PUBLISHED_SEEDS[0]]
    for line in sorted(adapted, key=lambda line: math.inf if line.shots is None else line.shots):
        kept = place(folder, "mpt", (line.task,), line.shots, line.seed, line.lr)
        # A prompt may have been removed since, and of a target that is a source task its own vectors stand already.
        if line.task not in {task["name"] for task in tasks} and kept.is_dir():
            prompt = MultitaskPrompt.from_pretrained(kept)
            tasks.append({"name": line.task, "role": "target"})
            prompts.append(prompt.collapse())
            matrices.append(prompt.task_vectors.matrices)
    return {"tasks": tasks, "prompts": _cosines(prompts), "matrices": _cosines(matrices)}


def _cosines(tasks: Sequence[Tensor]) -> list[list[float]]:
    """Return the cosine of each two tasks. K of [1, L, D] -> [K, K]"""
    unit = torch.nn.functional.normalize(torch.cat(tuple(tasks)).flatten(1), dim=1)
    return [[round(float(cosine), 4) for cosine in row] for row in unit @ unit.T]
