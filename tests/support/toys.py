"""Toy tasks that can be learnt, in files of their own; a file system that is full."""

import builtins
import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from mptune.tasks.dataset import Dataset
from mptune.tasks.task import Task
from support.models import WORDS


@contextmanager
def largest_file(size):
    """A file system on which no file grows beyond so many bytes, as a full disk stops them."""
    import resource  # not on every system

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files_opened(monkeypatch) -> Counter:
    """How often each file of rows is opened from here on, by its name."""
    names, opened = Counter(), builtins.open

    def counting(file, *args, **kwargs):
        if str(file).endswith((".jsonl", ".json", ".csv")):
            names[Path(file).name] += 1
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting)
    return names


def write_rows(path, rows):
    """Write rows as a jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def toy_rows(good: str, bad: str, count: int, start: int = 0) -> list[dict]:
    """Rows whose label is decided by one word among distractors; no two are equal."""
    rows = []
    for i in range(start, start + count):
        filler = " ".join(WORDS[(i * 7 + j * 5) % 20] for j in range(2 + i % 3))
        rows.append({"text": f"{filler} {good if i % 2 else bad} {i}", "label": i % 2})
    return rows


def make_task(folder, name: str, good: str = "good", bad: str = "bad", **changes) -> Task:
    """A toy task with its three files."""
    splits = {"train": (48, 0), "validation": (16, 100), "test": (20, 200)}
    for split, (count, start) in splits.items():
        write_rows(folder / f"{name}.{split}.jsonl", toy_rows(good, bad, count, start))
    values = {
        "name": name,
        "dataset": Dataset(**{s: str(folder / f"{name}.{s}.jsonl") for s in splits}),
        "template": f"{name} text: {{text}}",
        "verbalizer": {"0": "no", "1": "yes"},
        **changes,
    }
    return Task(**values)


def make_tasks(folder) -> list[Task]:
    """Three toy tasks, of which no two are alike."""
    words = {"mood": ("good", "awful"), "speed": ("fast", "slow"), "colour": ("blue", "red")}
    return [make_task(folder, name, good, bad) for name, (good, bad) in words.items()]


def task_yaml(folder, name, good="good", bad="bad", template="{name} text: {{text}}"):
    """A toy task with its three files and a YAML file that describes it."""
    make_task(folder, name, good, bad)
    lines = [
        f"name: {name}",
        "dataset:",
        *[f"  {split}: {name}.{split}.jsonl" for split in ("train", "validation", "test")],
        f'template: "{template.format(name=name)}"',
        "verbalizer:",
        "  0: no",
        "  1: yes",
    ]
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines))
    return path
