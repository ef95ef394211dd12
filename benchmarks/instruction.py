"""A written instruction against the soft prompt that learnt from it: the same answers, right answers, tokens, seconds.

    .venv/bin/python benchmarks/instruction.py recipes/few/tasks/question-types.yaml \
        recipes/instruction/question-types.txt --template "{text}" --rows 3000 --out build/instruction

The instruction is the teacher: the frozen model that reads it before every row. Rows are the task's training rows,
whose labels no teacher and no student sees; a fifth of them, at most 500, is held out, and only there the two are
compared: with each other, and with the labels. One request is one row, alone.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from common import machine
from mptune.answers.evaluation import answer
from mptune.answers.metrics import constant_answer, score
from mptune.config import BackboneConfig, DistillConfig, EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded, encode
from mptune.model.loading import load_backbone
from mptune.stages.distillation import distill
from mptune.stages.instructions import Instruction, answered_rows
from mptune.tasks.data import TaskRows, draw_rows
from mptune.tasks.registry import get_task

TIMED = 40  # requests


def seconds(backbone: Backbone, ways: list[tuple[torch.Tensor, Encoded]], how: EvaluateConfig) -> list[float]:
    """Return the median seconds of a request each way, row after row and way after way."""
    took: list[list[float]] = [[] for _ in ways]
    for row in range(min(TIMED, len(ways[0][1].inputs))):
        for way, (prompt, data) in enumerate(ways):
            one = replace(data, examples=data.examples[row : row + 1], inputs=data.inputs[row : row + 1],
                          targets=data.targets[row : row + 1], answers=data.answers[row : row + 1])  # fmt: skip
            began = time.perf_counter()
            answer(backbone, [prompt], [one], how, labelled=False)
            took[way].append(time.perf_counter() - began)
    return [statistics.median(each) for each in took]


def main() -> None:
    """Distil, compare, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("instruction", type=Path)
    parser.add_argument("--template", help="what the student reads of a row; the task's own without it")
    parser.add_argument("--data", type=Path, help="folder with rows of hub tasks")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.3)
    parser.add_argument("--room", type=int, default=256, help="tokens of a row that are read")
    parser.add_argument("--most", type=int, default=24, help="tokens of an answer")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; a killed one goes on there")
    options = parser.parse_args()

    task = get_task(options.task)
    if options.template:
        task = task.model_copy(update={"template": options.template})
    gold = {e.row: e for e in draw_rows(TaskRows(task, options.data).data("train").train, options.rows, seed=0)}
    texts = TaskRows.of_examples(task, unlabelled=gold.values())
    backbone = load_backbone(BackboneConfig(name=options.backbone, dtype="auto"))
    instruction = Instruction(task, options.instruction.read_text(encoding="utf-8"))
    config = DistillConfig(
        steps=options.steps, prompt_length=options.length, shared_lr=options.lr, max_input_tokens=options.room,
        max_target_tokens=options.most, validate_every=50,
    )  # fmt: skip
    rows = answered_rows(instruction, texts, backbone, config)
    prompt = distill([rows], [instruction], backbone, config, out=options.out)

    taught = rows.data("test").test  # with the teacher's answers
    how = EvaluateConfig(max_target_tokens=config.max_target_tokens)
    read = encode(task, taught, backbone, config, options.length)
    student = prompt.collapse()[0]
    (answers,) = answer(backbone, [student], [read], how)
    right = [gold[e.row] for e in taught]
    metric = task.metrics[0]

    def scored(said: list[str]) -> float:
        return score(task, "test", right, said)[0].value

    bare = torch.zeros(0, backbone.width)
    (unprompted,) = answer(backbone, [bare], [encode(task, taught, backbone, config, 0)], how)
    behind = instruction.encode(taught, backbone, config)
    teacher_seconds, student_seconds = seconds(backbone, [(bare, behind), (student, read)], how)
    print(json.dumps({
        "task": task.name, "instruction_tokens": len(instruction.tokens(backbone)), "soft_tokens": options.length,
        "rows_learnt_from": len(rows.data("train").train), "rows_held_out": len(taught), "steps": options.steps,
        "same_answer": 100 * statistics.mean(e.target == said for e, said in zip(taught, answers.texts, strict=True)),
        "metric": metric, "teacher": scored([e.target for e in taught]), "student": scored(list(answers.texts)),
        "commonest": scored([constant_answer(task, right)] * len(right)), "bare": scored(list(unprompted.texts)),
        "teacher_ms": 1000 * teacher_seconds, "student_ms": 1000 * student_seconds,
        "backbone": options.backbone, "dtype": str(backbone.dtype).removeprefix("torch."),
        **machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
