"""A server's rows a second by how many tasks they are of, what HTTP takes of it, and the same rows through PEFT.

    .venv/bin/python benchmarks/serving.py --tasks 10000 --rows 1500 --rounds 3

Prompts of drawn u and v beside the shared prompt of `general`, one folder for each task; rows of a written sample task.
All ways are asked in turn, round after round, in one process; a client of HTTP is another process.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch
import uvicorn
from peft import PeftModel
from safetensors.torch import save
from transformers import AutoModelForSeq2SeqLM

from asking import ask
from common import machine, model_folder
from mptune.answers.prediction import Predictor, rendered_row
from mptune.config import EMBEDDED, BackboneConfig, ExamplesConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode
from mptune.model.loading import load_backbone
from mptune.prompts.card import Card
from mptune.prompts.peft import export_peft
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import TaskVectors
from mptune.serving.app import make_app
from mptune.serving.engine import Engine
from mptune.serving.keys import Gate
from mptune.serving.settings import ServeConfig
from mptune.serving.store import Store
from mptune.tasks.data import load_data
from mptune.tasks.registry import get_task

MIB = 2**20
ADAPTERS = 10  # of PEFT


def resident(process: int | str = "self") -> float:
    """Return a process's memory, in MiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / MIB


def sample_texts() -> list[str]:
    """Return the written messages."""
    data = load_data(get_task("teams"), ["train", "test"])
    return [example.input[span.start : span.end] for example in (*data.train, *data.test) for span in example.spans]


def write_prompts(folder: Path, count: int, backbone: Backbone) -> list[str]:
    """Write a prompt of each of some tasks; return their names."""
    general, sample = MultitaskPrompt.from_pretrained("general"), get_task("teams")
    draw = torch.Generator().manual_seed(0)
    length, width = general.shared.shape
    names = [f"{sample.name}-{number:05d}" for number in range(count)]
    for name in names:
        task = sample.model_copy(update={"name": name}).without_paths()
        card = Card(stage="target", tasks=(task,), backbone=EMBEDDED, fingerprint=backbone.fingerprint)
        u = 1 + 0.1 * torch.randn(1, length, 1, generator=draw)
        v = 1 + 0.1 * torch.randn(1, 1, width, generator=draw)
        tensors = MultitaskPrompt(general.shared.detach(), TaskVectors(u, v), card).tensors()
        (folder / name).mkdir(parents=True)
        header = {"card": card.model_dump_json(exclude_none=True)}
        (folder / name / "prompt.safetensors").write_bytes(save(tensors, metadata=header))
    return names


def through_engine(store: Store, engine: Engine, texts: list[str], tasks: int) -> float:
    """Return the rows a second of an engine that is given all rows, each of the next of so many tasks."""
    began = time.perf_counter()
    rows = []
    for number, text in enumerate(texts):
        ready = store.ready(f"teams-{number % tasks:05d}")
        rows += engine.submit(ready, [rendered_row(ready.task, {ready.task.text_fields[0]: text})])
    for row in rows:
        row.answer.result()
    return len(texts) / (time.perf_counter() - began)


def offline(predictor: Predictor, texts: list[str]) -> float:
    """Return the rows a second of `Predictor.predict`."""
    field = predictor.tasks[0].text_fields[0]
    began = time.perf_counter()
    predictor.predict([{field: text} for text in texts])
    return len(texts) / (time.perf_counter() - began)


def clients(
    address: str, texts: list[str], tasks: int, count: int, answer: "multiprocessing.Queue[list[float]]"
) -> None:
    """Ask for one row at a time, by so many clients at once; tell the seconds in all, then of each request."""
    took: list[float] = []

    def heard(number: int, status: int, said: object, seconds: float) -> None:
        assert status == 200, (number, said)
        took.append(seconds)

    requests = [("/v1/classify", {"model": f"teams-{n % tasks:05d}", "input": text}) for n, text in enumerate(texts)]
    answer.put([asyncio.run(ask(address, iter(enumerate(requests)), count, heard)), *took])


def over_http(address: str, texts: list[str], tasks: int, count: int) -> tuple[float, list[float]]:
    """Return the rows a second of many clients, and the seconds of each request."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    asking = context.Process(target=clients, args=(address, texts, tasks, count, told))
    asking.start()
    seconds, *took = told.get()
    asking.join()
    return len(texts) / seconds, took


class Adapters:
    """The same tasks as PEFT has them: an adapter for each, set before each row."""

    def __init__(self, folder: Path, backbone: Backbone, scratch: Path) -> None:
        base = AutoModelForSeq2SeqLM.from_pretrained(model_folder(EMBEDDED), dtype=backbone.dtype)
        for number in range(ADAPTERS):
            place = scratch / f"adapter-{number}"
            prompt = MultitaskPrompt.from_pretrained(folder / f"teams-{number:05d}")
            export_peft(prompt, place, "prompt-tuning", backbone=backbone)
            if number:
                self.model.load_adapter(place, adapter_name=str(number))
            else:
                self.model = PeftModel.from_pretrained(base, place, adapter_name="0")
        self.model.eval()
        self._backbone = backbone
        self._task = get_task("teams")

    @torch.no_grad()
    def rate(self, texts: list[str]) -> float:
        """Return the rows a second where each row is of the next task."""
        examples = [rendered_row(self._task, {self._task.text_fields[0]: text}) for text in texts]
        data = encode(self._task, examples, self._backbone, ExamplesConfig(), 20)
        began = time.perf_counter()
        for number, ids in enumerate(data.inputs):
            self.model.set_adapter(str(number % ADAPTERS))
            start = torch.tensor([[self._backbone.start_token]])
            tokens = torch.tensor([list(ids)])
            out = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), decoder_input_ids=start)
            out.logits[0, -1, [words[0] for words in data.label_ids]].argmax()
        return len(texts) / (time.perf_counter() - began)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    backbone = load_backbone(BackboneConfig(dtype="auto"))
    field = get_task("teams").text_fields[0]
    written = sample_texts()
    texts = [written[n % len(written)] for n in range(options.rows)]
    counts = [count for count in (1, 10, 100, 1_000, 10_000) if count <= options.tasks]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "prompts"
        write_prompts(folder, options.tasks, backbone)
        before, began = resident(), time.perf_counter()
        config = ServeConfig()
        store = Store(folder, backbone, config.lengths, config.cache_megabytes)
        opened = {"seconds": time.perf_counter() - began, "mib": resident() - before}
        engine = Engine(backbone, config)
        server = uvicorn.Server(uvicorn.Config(make_app(store, engine, Gate(()), config), port=0, log_config=None))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        predictor = Predictor(backbone, [MultitaskPrompt.from_pretrained(folder / "teams-00000")])
        adapters = Adapters(folder, backbone, Path(scratch))
        rates: dict[str, list[float]] = {}
        took: list[float] = []
        for turn in range(options.rounds + 1):  # the first warms up
            found = {"offline": offline(predictor, texts), "peft": adapters.rate(texts[: options.rows // 5])}
            found |= {f"tasks {count}": through_engine(store, engine, texts, count) for count in counts}
            found["http"], of_each = over_http(address, texts, min(1_000, options.tasks), options.clients)
            if turn:
                took += of_each
                for name, rate in found.items():
                    rates.setdefault(name, []).append(rate)
        used = resident() - before
        server.should_exit = True
    medians = {name: statistics.median(each) for name, each in rates.items()}
    ratio = {name: rate / medians["offline"] for name, rate in medians.items()}
    quantiles = statistics.quantiles(took, n=100)
    print(json.dumps({
        "tasks": options.tasks, "rows": options.rows, "rounds": options.rounds, "clients": options.clients,
        "field": field, "opened": opened, "mib_after_all": used, "rows_a_second": medians, "of_offline": ratio,
        "http_ms": {"p50": 1000 * quantiles[49], "p99": 1000 * quantiles[98]},
        "dtype": str(backbone.dtype).removeprefix("torch."), **machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
