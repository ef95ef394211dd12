"""What the benchmarks share: rows, frozen backbones, timing in turn, the table and the closing line of JSON."""

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from mptune.comparison.provenance import commit
from mptune.config import EMBEDDED, BackboneConfig, TrainingConfig
from mptune.model.backbone import Backbone
from mptune.model.embedded import build_embedded
from mptune.model.encoding import Encoded, encode
from mptune.model.loading import load_backbone
from mptune.model.memory import keep_pages
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import neutral_vectors, sample_vocabulary
from mptune.tasks.data import draw_rows, load_data
from mptune.tasks.registry import get_task
from mptune.tasks.task import Task

# Where no real rows are at hand, a written sample task of about the same kind stands in.
STAND_INS = {"sst2": "opinions", "mnli": "claims", "boolq": "answers", "squad": "topics", "qqp": "paraphrase"}
# Real sizes, random weights: how long a step takes does not depend on what the weights have learnt.
T5_BASE = "t5-base, random weights"
LLAMA = "llama of 50 M parameters, random weights"


def arguments(what: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--quick", action="store_true", help="few rounds and small shapes: under a minute")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with real rows; sample tasks without it")
    parser.add_argument("--backbone", default=EMBEDDED, metavar="ID", help="frozen model of the shapes that name none")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the closing JSON object here too")
    return parser


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what the command line says; the allocator keeps its pages for all systems alike, as `mptune` tells it."""
    keep_pages()
    return parser.parse_args()


def model_folder(name: str) -> str:
    """Return the folder or hub id of a frozen model, from which every system loads its own copy."""
    if name == EMBEDDED:
        return str(build_embedded())
    if name not in (T5_BASE, LLAMA):
        return name
    folder = mkdtemp(prefix="mptune-bench-")
    torch.manual_seed(0)
    if name == T5_BASE:
        base = T5Config(vocab_size=32_128, d_model=768, d_kv=64, d_ff=3_072, num_layers=12, num_heads=12,
                        decoder_start_token_id=0)  # fmt: skip
        T5ForConditionalGeneration(base).save_pretrained(folder)
    else:
        llama = LlamaConfig(vocab_size=32_128, hidden_size=512, intermediate_size=1_376, num_hidden_layers=8,
                            num_attention_heads=8, pad_token_id=0, bos_token_id=0, eos_token_id=1)  # fmt: skip
        LlamaForCausalLM(llama).save_pretrained(folder)
    AutoTokenizer.from_pretrained(build_embedded()).save_pretrained(folder)
    return folder


def ours(folder: str, dtype: str = "auto") -> Backbone:
    """Return a frozen backbone as this package loads it."""
    return load_backbone(BackboneConfig(name=folder, dtype=dtype))  # type: ignore[arg-type]


def rows_of(
    name: str, backbone: Backbone, count: int, data_dir: Path | None, *, prompt_length: int, split: str = "train"
) -> Encoded:
    """Return rows of a task as token ids: real ones from ``data_dir``, else those of a sample task."""
    task = get_task(name if data_dir else STAND_INS.get(name, name))
    found = getattr(load_data(task, [split], data_dir), split)  # type: ignore[list-item]
    rows = draw_rows(found, count, seed=0)
    return encode(task, rows, backbone, TrainingConfig(max_input_tokens=256, max_target_tokens=32), prompt_length)


def start(tasks: Sequence[Task], backbone: Backbone, length: int) -> MultitaskPrompt:
    """Return an untrained prompt of some tasks."""
    random = torch.Generator().manual_seed(0)
    return MultitaskPrompt(
        sample_vocabulary(backbone.embeddings, length, random),
        neutral_vectors(len(tasks), length, backbone.width, 1, 0.02, random),
        Card(stage="source", tasks=tuple(tasks), backbone=backbone.config.name, fingerprint=backbone.fingerprint),
    ).to(backbone.device)


def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take one step down a loss, clipped as in training."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def in_turn(systems: Mapping[str, Callable[[int], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Return each system's seconds per round, measured A B C A B C ..., so that a slow minute is slow for all.

    Args:
        systems: each is called with the number of the round.
        warmup: rounds before the first that counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(-warmup, rounds):
        for name, system in systems.items():
            start = time.perf_counter()
            system(number % max(1, rounds))
            _wait()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_rate(backbone: Backbone, tokens: int, repeats: int = 30) -> float:
    """Return operations per second of products as wide and tall as those of the step, in its type.

    Of each shape the faster half counts: a limit is not an average. A GPU gets many products to do before it is waited
    for, since the wait takes longer than one.
    """
    at_once = 50 if backbone.device.type == "cuda" else 1
    layers = [m for m in backbone.model.modules() if isinstance(m, torch.nn.Linear)]
    shapes = {tuple(m.weight.shape) for m in layers if m.weight.shape[0] < 20_000}  # without the output layer
    operations = seconds = 0.0
    for out, into in sorted(shapes):
        times = len([m for m in layers if tuple(m.weight.shape) == (out, into)])
        x = torch.randn(tokens, into, dtype=backbone.model.dtype, device=backbone.device)
        w = torch.randn(out, into, dtype=backbone.model.dtype, device=backbone.device)
        spent = []
        for _ in range(repeats):
            _wait()
            began = time.perf_counter()
            for _ in range(at_once):
                torch.nn.functional.linear(x, w)
            _wait()
            spent.append((time.perf_counter() - began) / at_once)
        fast = sorted(spent)[: repeats // 2]
        operations += times * 2.0 * tokens * out * into
        seconds += times * sum(fast) / len(fast)
    return operations / seconds


def ratio(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """Return how many times as long one took as the other: median and quartiles of the rounds' ratios."""
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    # Of two rounds the quartiles lie beyond both, even below zero.
    low, high = max(low, min(ratios)), min(high, max(ratios))
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def milliseconds(seconds: Sequence[float]) -> float:
    """Return the median."""
    return round(1e3 * statistics.median(seconds), 1)


def shown(ratio_of: Mapping[str, float]) -> str:
    """Return a ratio as a cell: ``1.52x (1.48–1.60)``."""
    return f"{ratio_of['median']:.2f}x ({ratio_of['low']:.2f}–{ratio_of['high']:.2f})"


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    names = ("mptune", "torch", "transformers", "peft", "accelerate")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "processor": gpu or _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = set(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
    matrix = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_bf16") if flag in flags]
    told = ", ".join([torch.backends.cpu.get_cpu_capability(), *matrix])
    return f"{named[0] if named else platform.processor()}, {told}"


def report(name: str, head: Sequence[str], cells: Sequence[Sequence[str]], result: dict[str, Any], out: Path | None,
           notes: Sequence[str] = ()) -> None:  # fmt: skip
    """Print the table, then everything as one line of JSON."""
    table = Table(*head, title=name)
    for row in cells:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # in a log, rows stay whole
    console.print(table)
    for note in notes:
        console.print(note)
    whole = {"benchmark": name, **machine(), "notes": list(notes), **result}
    if out is not None:
        out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(whole))


def data_notes(data_dir: Path | None) -> list[str]:
    """Return what must be said of the rows."""
    return [] if data_dir else ["No --data: rows of the written sample tasks stand in for the public ones."]
