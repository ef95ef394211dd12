"""A server under mixed load: every answer beside the offline one, the seconds of a request, the process's memory.

    .venv/bin/python benchmarks/load.py --seconds 60 --turns 2

64 clients ask `mptune serve`, a process of its own, at once. In turn, all of them ask for labels (of one row, now and
then of sixteen), or most of them do while the others have long texts written. Prompts of drawn u and v beside the
shared one of `general`; messages of a written sample task.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from asking import Request, ask
from common import machine
from mptune.answers.prediction import Predictor
from mptune.config import EMBEDDED, BackboneConfig, EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.loading import load_backbone
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt, load_prompts
from mptune.prompts.vectors import neutral_vectors
from mptune.tasks.task import Task
from serving import resident, sample_texts, write_prompts

TEXTS_OF = 10  # that a task is asked of
MANY = 16  # rows of a large request, one of twenty
LENGTH = 96  # tokens of a text at most
WRITTEN = Task(name="french", template="{message}", target="{message}")
WORDS = "Translate to French:"  # whose embeddings are the soft prompt of that task: it writes long texts
NEAR = 1e-4  # of a probability: rounding differs with a batch's other rows


@dataclass(frozen=True)
class Row:
    """What is asked, and what `mptune predict` answers to it."""

    task: str
    text: str
    answer: str
    probabilities: Mapping[str, float] | None

    def differs(self, said: Any) -> bool:
        """Return whether a server says something else."""
        if self.probabilities is None:
            return bool(said["text"] != self.answer)
        found = said["probabilities"]
        near = all(abs(found[word] - value) <= NEAR for word, value in self.probabilities.items())
        return not near or (said["answer"] != self.answer and sorted(found.values())[-2] < max(found.values()) - NEAR)


def write_words(folder: Path, backbone: Backbone) -> list[str]:
    """Write the prompt of the task whose texts are long; return its name."""
    words = backbone.embed(torch.tensor(backbone.tokenizer(WORDS, add_special_tokens=False)["input_ids"])).float()
    vectors = neutral_vectors(1, *words.shape, 1, 0.0, torch.Generator())
    card = Card(stage="target", tasks=(WRITTEN,), backbone=EMBEDDED, fingerprint=backbone.fingerprint)
    MultitaskPrompt(words, vectors, card).save_pretrained(folder / WRITTEN.name)
    return [WRITTEN.name]


def known_rows(folder: Path, names: list[str], texts: list[str], backbone: Backbone) -> list[Row]:
    """Return rows of some tasks with their offline answers."""
    how, rows = EvaluateConfig(max_target_tokens=LENGTH), []
    for number, name in enumerate(names):
        own = [texts[(7 * number + n) % len(texts)] for n in range(TEXTS_OF)]
        predictor = Predictor(backbone, load_prompts(folder / name), how)
        for text, found in zip(own, predictor.predict([{"message": text} for text in own]), strict=True):
            rows.append(Row(name, text, found.answer, found.probabilities))
    return rows


@dataclass
class Heard:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    rows: int = 0
    unlike: int = 0  # answers that are not the offline ones
    tokens: int = 0  # written

    def figures(self) -> dict[str, Any]:
        """Return what is told of them."""
        if len(self.seconds) < 2:
            return {}
        quantiles = statistics.quantiles(self.seconds, n=100)
        return {"requests": len(self.seconds), "rows": self.rows, "statuses": dict(self.statuses),
                "unlike_offline": self.unlike, "p50_ms": 1000 * quantiles[49], "p99_ms": 1000 * quantiles[98],
                "tokens": self.tokens}  # fmt: skip


async def asked(address: str, rows: list[Row], clients: int, until: float, heard: Heard, draw: random.Random) -> None:
    """Let clients ask for rows of a kind, drawn one after the other, until it is time to end."""
    sent: dict[int, list[Row]] = {}

    def requests() -> Iterator[tuple[int, Request]]:
        number = 0
        while time.perf_counter() < until:
            number += 1
            row = draw.choice(rows)
            if row.probabilities is None:
                sent[number] = [row]
                yield number, ("/v1/completions", {"model": row.task, "prompt": row.text, "max_tokens": LENGTH})
            else:
                of_task = [each for each in rows if each.task == row.task]
                sent[number] = draw.choices(of_task, k=MANY) if draw.random() < 0.05 else [row]
                yield number, ("/v1/classify", {"model": row.task, "input": [each.text for each in sent[number]]})

    def hear(number: int, status: int, answer: Any, seconds: float) -> None:
        wanted = sent.pop(number)
        heard.seconds.append(seconds)
        heard.statuses[status] += 1
        if status == 200:
            said = answer.get("data") or answer["choices"]
            heard.rows += len(wanted)
            heard.unlike += sum(row.differs(each) for row, each in zip(wanted, said, strict=True))
            heard.tokens += answer["usage"]["completion_tokens"]

    await ask(address, requests(), clients, hear)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """Start the command line's server; yield its address and process."""
    command = [sys.executable, "-m", "mptune", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield next(word.strip(",") for word in line.split() if word.startswith("http://")), process.pid
    finally:
        process.terminate()
        process.wait(90)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--writers", type=int, default=8, help="of the clients, where texts are written")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    ways = {"labels": 0, "labels and texts": options.writers}
    labelled = {way: Heard() for way in ways}
    texts, draw = Heard(), random.Random(0)  # noqa: S311 - no secret
    memory: list[list[float]] = [[]]  # MiB, second after second, of each way in its turns
    with tempfile.TemporaryDirectory() as scratch:
        folder, messages = Path(scratch), sample_texts()
        backbone = load_backbone(BackboneConfig(dtype="auto"))
        rows = known_rows(folder, write_prompts(folder, options.tasks, backbone), messages, backbone)
        long = [" ".join(messages[n : n + 4]) for n in range(len(messages) - 3)]
        to_write = known_rows(folder, write_words(folder, backbone), long, backbone)

        async def both(address: str, writers: int, heard: Heard, seconds: float) -> None:
            until = time.perf_counter() + seconds
            await asyncio.gather(
                asked(address, rows, options.clients - writers, until, heard, draw),
                asked(address, to_write, writers, until, texts, draw),
            )

        with served(folder) as (address, process):
            began, ended = resident(process), threading.Event()

            def watch() -> None:
                while not ended.wait(1):
                    memory[-1].append(resident(process))

            asyncio.run(both(address, options.writers, Heard(), min(10, options.seconds)))  # warms up
            threading.Thread(target=watch, daemon=True).start()
            for _ in range(options.turns):
                for way, writers in ways.items():
                    memory.append([])
                    asyncio.run(both(address, writers, labelled[way], options.seconds))
            ended.set()
    p99 = {way: heard.figures().get("p99_ms", 0.0) for way, heard in labelled.items()}
    print(json.dumps({
        "tasks": options.tasks, "clients": options.clients, "writers": options.writers, "seconds": options.seconds,
        "turns": options.turns, **{way: heard.figures() for way, heard in labelled.items()}, "texts": texts.figures(),
        "p99_with_texts": p99["labels and texts"] / max(p99["labels"], 1e-9),
        "mib": {"at_first": began, "medians_in_turn": [statistics.median(each or [0.0]) for each in memory[1:]],
                "most": max(map(max, filter(None, memory)), default=0.0)},
        "dtype": str(backbone.dtype).removeprefix("torch."), **machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
