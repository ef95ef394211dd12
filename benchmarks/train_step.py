"""One training step of a soft prompt: ours, PEFT as documented, PEFT at its best, and the machine's limit.

All systems train the same prompt length on the same rows over the same frozen weights with AdamW.

- *documented*: PEFT's MULTITASK_PROMPT_TUNING in float32, every text padded to 256 tokens.
- *best*: the same in bfloat16 (where that is native), padded to the longest text of its batch, fused attention.
- *floor*: the floating-point operations that the step needs without any padding, at the rate at which this machine
  multiplies matrices of the same shapes and type.
- *unrecorded*, on a GPU: ours, kernel by kernel, in place of the CUDA graph of a pass.

With --profile: where our step's time goes instead.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from peft import MultitaskPromptTuningConfig, TaskType, get_peft_model
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from common import (
    LLAMA,
    T5_BASE,
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
    rows_of,
    shown,
    start,
    update,
)
from mptune.config import AdaptConfig
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE
from mptune.model.encoding import Encoded, collate
from mptune.model.graphs import MET
from mptune.stages.losses import task_loss
from mptune.stages.optimization import two_speed

BATCH = 16
PADDED_TO = 256  # what public code pads GLUE's texts to

Step = Callable[[int], object]

# What torch's operations are for, in a step of T5's family; all else is norms, residuals, copies and bookkeeping.
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm"),
    "attention's products": ("aten::bmm", "aten::baddbmm"),
    "softmax": ("aten::_softmax", "aten::_softmax_backward_data", "aten::add_"),
    "activation and gate": ("aten::gelu", "aten::gelu_backward", "aten::mul"),
    "gathers": ("aten::index_select", "aten::index_copy_", "aten::index_add_"),
}


def our_step(backbone: Backbone, data: Encoded, length: int, rows: int = BATCH) -> Step:
    """Return one step as the training loop takes it."""
    prompt = start([data.task], backbone, length)
    config = AdaptConfig()
    optimizer = two_speed(prompt, config, config.shared_lr * backbone.embedding_rms, config.task_lr)

    def step(number: int) -> None:
        batch = collate(picks(data, number, rows), [data], backbone)
        loss = task_loss(backbone(prompt(batch.tasks), batch).logits, batch.labels)
        update(loss, optimizer)

    return step


def peft_step(folder: str, backbone: Backbone, data: Encoded, length: int, rows: int, *, documented: bool) -> Step:
    """Return one step of PEFT's multitask prompt tuning."""
    dtype = torch.float32 if documented else backbone.model.dtype
    attention = {} if documented else {"attn_implementation": "sdpa"}
    seq2seq = backbone.is_encoder_decoder
    auto = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    base = auto.from_pretrained(folder, dtype=dtype, **attention)
    config = MultitaskPromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if seq2seq else TaskType.CAUSAL_LM,
        num_tasks=1,
        num_virtual_tokens=length,
        num_transformer_submodules=1,
    )
    model = get_peft_model(base, config).train(False).to(backbone.device)  # no dropout, as ours
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step(number: int) -> None:
        batch = collate(picks(data, number, rows), [data], backbone)
        ids, mask, labels = batch.input_ids, batch.mask, batch.labels
        padding = int(backbone.tokenizer.pad_token_id)
        if not seq2seq:  # a decoder-only model reads the text and goes on with the label
            written = (labels != IGNORE).long()
            labels = torch.cat([torch.full_like(ids, IGNORE), labels], dim=1)
            ids = torch.cat([ids, batch.labels.masked_fill(written == 0, padding)], dim=1)
            mask = torch.cat([mask, written], dim=1)
        if documented:
            room = (0, PADDED_TO - ids.shape[1])
            ids, mask = torch.nn.functional.pad(ids, room, value=padding), torch.nn.functional.pad(mask, room)
            if not seq2seq:
                labels = torch.nn.functional.pad(labels, room, value=IGNORE)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, task_ids=batch.task_ids).loss
        update(loss, optimizer)

    return step


def picks(data: Encoded, number: int, rows: int = BATCH) -> list[tuple[int, int]]:
    """Return the rows of one round."""
    return [(0, (number * rows + i) % len(data.inputs)) for i in range(rows)]


def needed_operations(backbone: Backbone, data: Encoded, length: int, rounds: int, rows: int) -> list[int]:
    """Return the floating-point operations of each round's batch, counted on rows one by one: nothing is padded."""
    prompt, counts = start([data.task], backbone, length), []
    for number in range(rounds):
        total = 0
        for pick in picks(data, number, rows):
            batch = collate([pick], [data], backbone)
            with FlopCounterMode(display=False) as counter:
                task_loss(backbone(prompt(batch.tasks), batch).logits, batch.labels).backward()
            total += counter.get_total_flops()
        counts.append(total)
    return counts


def profiled(model: str, task: str, length: int, rounds: int, data_dir: Any) -> dict[str, Any]:
    """Return the share of each kind of operation in the processor time of our step."""
    backbone = ours(model_folder(model))
    data = rows_of(task, backbone, BATCH * rounds, data_dir, prompt_length=length)
    step = our_step(backbone, data, length)
    for number in range(2 * rounds):
        step(number % rounds)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for number in range(rounds):
            step(number)
    spent = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    total = sum(spent.values())
    shares = {kind: round(sum(spent.get(name, 0) for name in names) / total, 3) for kind, names in KINDS.items()}
    return {"model": model, "task": data.task.name, "prompt_length": length, "dtype": backbone.config.dtype,
            "shares": {**shares, "all else": round(1 - sum(shares.values()), 3)}}  # fmt: skip


def compare(model: str, task: str, length: int, rounds: int, data_dir: Any, rows: int = BATCH) -> dict[str, Any]:
    """Return the figures of one shape."""
    folder = model_folder(model)
    backbone = ours(folder)
    plain = backbone if backbone.graphs is None else ours(folder)
    plain.graphs = None
    data = rows_of(task, backbone, rows * rounds, data_dir, prompt_length=length)
    tokens = [sum(len(data.inputs[i]) + length for _, i in picks(data, n, rows)) for n in range(rounds)]
    systems = {
        "ours": our_step(backbone, data, length, rows),
        "peft_best": peft_step(folder, backbone, data, length, rows, documented=False),
        "peft_documented": peft_step(folder, backbone, data, length, rows, documented=True),
    }
    if backbone.graphs is not None:
        systems["unrecorded"] = our_step(plain, data, length, rows)
    # Every batch once before it counts: the first of each size has new pages to touch. Recording takes a few more.
    seconds = in_turn(systems, rounds, warmup=rounds if backbone.graphs is None else max(rounds, MET * 4))
    rate = matmul_rate(backbone, int(sum(tokens) / rounds))
    floor = {}
    if backbone.is_encoder_decoder:  # single rows of a decoder-only model cannot share the reading of their prompt
        needed = needed_operations(plain, data, length, min(rounds, 4), rows)
        share = statistics.median(n / rate / s for n, s in zip(needed, seconds["ours"], strict=False))
        floor = {"gflop_needed": round(sum(needed) / len(needed) / 1e9, 1), "share_of_floor": round(share, 3)}
    labels = sum(len(t) for t in data.targets) / len(data.targets)
    return {
        "model": model,
        "task": data.task.name,
        "prompt_length": length,
        "batch": rows,
        "rounds": rounds,
        "dtype": backbone.config.dtype,
        "text_tokens": round(sum(tokens) / rounds / rows - length, 1),
        "label_tokens": round(labels, 1),
        "ms": {name: milliseconds(values) for name, values in seconds.items()},
        "vs_peft_documented": ratio(seconds["peft_documented"], seconds["ours"]),
        "vs_peft_best": ratio(seconds["peft_best"], seconds["ours"]),
        **({"vs_unrecorded": ratio(seconds["unrecorded"], seconds["ours"])} if "unrecorded" in seconds else {}),
        "matmul_gflops": round(rate / 1e9),
        **floor,
    }


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--card", action="store_true", help="the shapes that a GPU is measured by, and no others")
    parser.add_argument("--profile", action="store_true", help="where our step's time goes, by kind of operation")
    options = options_of(parser)
    assert IGNORE == -100, "PEFT's models ignore the same label"
    tasks = ("sst2",) if options.quick else ("sst2", "mnli", "boolq", "squad")
    if options.profile:
        seen = [profiled(options.backbone, task, 20, 3 if options.quick else 8, options.data) for task in tasks]
        rows = [[each["task"], *(f"{100 * share:.0f} %" for share in each["shares"].values())] for each in seen]
        head = ["rows", *seen[0]["shares"]]
        report("train_step_profile", head, rows, {"shapes": seen}, options.out, data_notes(options.data))
        return
    shapes = [(options.backbone, task, 20, 3 if options.quick else 8) for task in tasks]
    if not options.quick:
        shapes += [(options.backbone, task, 100, 6) for task in ("sst2", "mnli")]
        shapes += [(T5_BASE, "sst2", 100, 3), (LLAMA, "sst2", 100, 4)]
    sized: list[tuple[Any, ...]] = [(*shape, options.data, BATCH) for shape in shapes]
    if options.card:
        sized = [(options.backbone, "mnli", 20, 8, options.data, 16), (T5_BASE, "mnli", 100, 8, options.data, 32),
                 (LLAMA, "sst2", 100, 8, options.data, 16)]  # fmt: skip
    found = [compare(*shape) for shape in sized]
    cells = [
        [f["model"], f"{f['batch']} of {f['task']}", str(f["prompt_length"]), f"{f['ms']['ours']:.0f} ms",
         shown(f["vs_peft_documented"]), shown(f["vs_peft_best"]),
         f"{100 * f['share_of_floor']:.0f} %" if "share_of_floor" in f else ""]
        for f in found
    ]  # fmt: skip
    head = ["model", "rows", "soft tokens", "ours", "vs PEFT documented", "vs PEFT best", "share of floor"]
    notes = [*data_notes(options.data), "Ratios: median (quartiles) of rounds measured in turn."]
    report("train_step", head, cells, {"shapes": found}, options.out, notes)


if __name__ == "__main__":
    main()
