"""Rows answered per second: label words and free text, one task or a thousand, against PEFT's `generate`.

- *documented*: PEFT in float32, every text padded to 256 tokens, answers of at most 10 tokens, as its examples have it.
- *best*: bfloat16 (where that is native), padded to the longest text of its batch, answers as long as the labels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import MultitaskPromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from common import arguments, data_notes, in_turn, model_folder, options_of, ours, ratio, report, rows_of, shown, start
from mptune.answers.prediction import Predictor
from mptune.config import EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded, collate
from mptune.tasks.task import Task

LENGTH = 20
BATCH = 32
PADDED_TO = 256


def predicted(backbone: Backbone, task: Task, rows: list[dict[str, Any]], tasks: int) -> Callable[[int], object]:
    """Return the answering of rows that belong, turn by turn, to so many tasks."""
    several = [task.model_copy(update={"name": f"{task.name}-{i}"}) for i in range(tasks)]
    config = EvaluateConfig(batch_size=BATCH, max_target_tokens=16)
    predictor = Predictor(backbone, [start(several, backbone, LENGTH)], config)
    named = [{**row, "task": several[i % tasks].name} for i, row in enumerate(rows)]
    return lambda _: predictor.predict(named)


def peft_generate(folder: str, backbone: Backbone, data: Encoded, *, documented: bool) -> Callable[[int], object]:
    """Return the answering of the same rows by PEFT."""
    dtype = torch.float32 if documented else backbone.dtype
    base = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype)
    config = MultitaskPromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, num_tasks=1, num_virtual_tokens=LENGTH, num_transformer_submodules=1
    )
    model = get_peft_model(base, config).train(False).to(backbone.device)
    room = max(map(len, data.label_ids), default=16)
    if documented and data.label_ids:
        room = 10

    def answer(_: int) -> None:
        for first in range(0, len(data.inputs), BATCH):
            picks = [(0, i) for i in range(first, min(first + BATCH, len(data.inputs)))]
            batch = collate(picks, [data], backbone)
            ids, mask = batch.input_ids, batch.mask
            if documented:
                pad = (0, PADDED_TO - ids.shape[1])
                ids = torch.nn.functional.pad(ids, pad, value=int(backbone.tokenizer.pad_token_id))
                mask = torch.nn.functional.pad(mask, pad)
            with torch.no_grad():
                model.generate(input_ids=ids, attention_mask=mask, task_ids=batch.task_ids, max_new_tokens=room,
                               do_sample=False)  # fmt: skip

    return answer


def compare(folder: str, name: str, kind: str, count: int, rounds: int, data_dir: Path | None,
            tasks: tuple[int, ...]) -> dict[str, Any]:  # fmt: skip
    """Return the figures of one kind of answer."""
    backbone = ours(folder)
    data = rows_of(name, backbone, count, data_dir, prompt_length=LENGTH)
    task = Task(name=data.task.name, template="{text}", verbalizer=data.task.verbalizer) if kind == "labels" else Task(
        name=data.task.name, template="{text}", target="{text}"
    )  # fmt: skip
    rows = [{"text": example.input} for example in data.examples]
    systems: dict[str, Callable[[int], object]] = {f"{n} tasks": predicted(backbone, task, rows, n) for n in tasks}
    systems["peft_best"] = peft_generate(folder, backbone, data, documented=False)
    systems["peft_documented"] = peft_generate(folder, backbone, data, documented=True)
    seconds = in_turn(systems, rounds)
    one = seconds[f"{tasks[0]} tasks"]
    return {
        "kind": kind,
        "task": name,
        "rows": len(rows),
        "rounds": rounds,
        "dtype": backbone.config.dtype,
        "rows_per_second": {n: round(len(rows) / sorted(s)[len(s) // 2], 1) for n, s in seconds.items()},
        "rate_vs_one_task": {str(n): ratio(one, seconds[f"{n} tasks"]) for n in tasks[1:]},
        "vs_peft_best": ratio(seconds["peft_best"], one),
        "vs_peft_documented": ratio(seconds["peft_documented"], one),
    }


def main() -> None:
    """Run the benchmark."""
    options = options_of(arguments(str(__doc__).partition("\n")[0]))
    folder = model_folder(options.backbone)
    count, rounds, tasks = (64, 2, (1, 10, 64)) if options.quick else (1_000, 3, (1, 10, 1_000))
    found = [compare(folder, "sst2", "labels", count, rounds, options.data, tasks)]
    if options.data and not options.quick:  # the written samples have no free text
        found.append(compare(folder, "squad", "free text", 64, 2, options.data, (1, 10)))
    cells = []
    for f in found:
        for n, rate in f["rows_per_second"].items():
            against = f["rate_vs_one_task"].get(n.partition(" ")[0])
            cells.append([f"{f['kind']}, {f['task']}", n, f"{rate:.0f}", shown(against) if against else ""])
    notes = [
        *data_notes(options.data),
        *(f"{f['kind']}: {shown(f['vs_peft_documented'])} PEFT documented, {shown(f['vs_peft_best'])} PEFT best"
          for f in found),
    ]  # fmt: skip
    head = ["answers", "system", "rows a second", "rate vs one task"]
    report("scoring", head, cells, {"kinds": found}, options.out, notes)


if __name__ == "__main__":
    main()
