"""Label while a server runs: messages labelled one by one, adaptations in the background, right answers meanwhile.

    .venv/bin/python benchmarks/labelling.py

A labelling tool's part: it asks for suggestions, shows the text that the model is least sure of, and tells what a
person says. `mptune serve` is a process of its own and begins with `general`, unadapted. Messages of the written sample
task `teams`: of its training rows some are labelled, and its test rows, which no adaptation sees, are counted.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch

from common import machine
from load import served
from mptune.config import EMBEDDED, BackboneConfig
from mptune.model.loading import load_backbone
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import neutral_vectors
from mptune.tasks.data import load_data
from mptune.tasks.registry import get_task
from mptune.tasks.task import Example

TASK = get_task("teams")
FIELD = TASK.text_fields[0]
CHOICES = "".join(f'<Choice value="{word}"/>' for word in TASK.verbalizer.values())
CONFIG = f'<View><Text name="shown" value="${FIELD}"/><Choices name="which" toName="shown">{CHOICES}</Choices></View>'


def message(example: Example) -> str:
    """Return what a person reads."""
    return example.input[example.spans[0].start : example.spans[0].end]


def first_prompt(folder: Path) -> None:
    """Write the prompt that answers first: `general`, as it ships."""
    general = MultitaskPrompt.from_pretrained("general")
    backbone = load_backbone(BackboneConfig(dtype="auto"))
    card = Card(stage="target", tasks=(TASK.without_paths(),), backbone=EMBEDDED, fingerprint=backbone.fingerprint)
    vectors = neutral_vectors(1, *general.shared.shape, 1, 0.0, torch.Generator())
    MultitaskPrompt(general.shared.detach(), vectors, card).save_pretrained(folder / TASK.name)


class Tool:
    """A labelling tool beside a server."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=120)
        self._labelled = 0

    def _post(self, path: str, body: Any) -> Any:
        answer = self._client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def least_sure(self, pool: list[Example]) -> Example:
        """Return the row whose suggestion has the lowest score."""
        tasks = [{"id": example.row, "data": {FIELD: message(example)}} for example in pool]
        results = self._post("/label/teams/predict", {"tasks": tasks, "label_config": CONFIG})["results"]
        scores = [result["score"] for result in results]
        return pool[scores.index(min(scores))]

    def label(self, example: Example) -> Any:
        """Tell what a person says of a row."""
        self._labelled += 1
        choice = {"from_name": "which", "to_name": "shown", "type": "choices", "value": {"choices": [example.target]}}
        return self._post("/label/teams/webhook", {
            "action": "ANNOTATION_CREATED", "project": {"id": 1, "label_config": CONFIG},
            "task": {"id": example.row, "data": {FIELD: message(example)}},
            "annotation": {"id": self._labelled, "result": [choice], "was_cancelled": False},
        })  # fmt: skip

    def rested(self) -> Any:
        """Wait until nothing is adapted; return what is known of the labels."""
        while True:
            told = self._client.get("/v1/tasks/teams/labelling").json()
            if told["state"] not in ("waiting", "running"):
                return told
            time.sleep(1)

    def right(self, rows: list[Example]) -> float:
        """Return the share of rows that are answered as they are labelled, in per cent."""
        said = self._post("/v1/classify", {"model": "teams", "input": [message(each) for each in rows]})["data"]
        return 100 * sum(a["answer"] == row.target for a, row in zip(said, rows, strict=True)) / len(rows)


def main() -> None:
    """Label, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--every", type=int, default=20, help="labels after which it adapts")
    options = parser.parse_args()
    data = load_data(TASK, ["train", "test"])
    pool, rows = list(data.train), list(data.test)
    with tempfile.TemporaryDirectory() as scratch:
        first_prompt(Path(scratch))
        with served(Path(scratch)) as (address, _):
            tool = Tool(address)
            steps = [{"labels": 0, "right": tool.right(rows), "version": "teams"}]
            for count in range(1, options.labels + 1):
                example = tool.least_sure(pool)
                pool.remove(example)
                tool.label(example)
                if count % options.every == 0:
                    began = time.perf_counter()
                    told = tool.rested()
                    steps.append({"labels": count, "right": tool.right(rows), "version": told["version"],
                                  "seconds": time.perf_counter() - began, "held_out": told["held_out"]})  # fmt: skip
            outcomes = told["outcomes"]
    print(json.dumps({"task": TASK.name, "counted_on": len(rows), "steps": steps, "outcomes": outcomes, **machine()}))


if __name__ == "__main__":
    main()
