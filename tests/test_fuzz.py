"""Files changed by chance, at every command that reads them: one message, a documented exit code, and soon.

`python tests/test_fuzz.py COUNT [SEED]` makes COUNT changes and counts how they ended; a test makes a few hundred.
"""

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors import safe_open
from safetensors.torch import load, save

import mptune.cli
from mptune.prompts.card import Calibration
from mptune.prompts.folder import write_calibration
from mptune.stages.run import Run
from mptune.tasks.tables import write_sheet
from support.models import make_backbone, saved
from support.mutations import changed_bytes, changed_json
from support.toys import task_yaml

SHARE, SEED = 15, 0  # of changes to each kind of file in a test
SLOWEST = 5  # seconds
LONGEST = 50_000  # characters of a message: twenty rows, each of a long line
TEACH = ("teach", "--backbone", "model", "--set", "teach.prompt_length=2", "--set", "teach.save_every=1",
         "--set", "teach.max_target_tokens=4")  # fmt: skip
AT_ONCE = (*TEACH, "--out", "made", "--set", "teach.steps=0", "--tasks")
GO_ON = (*TEACH, "--out", "new", "--set", "teach.steps=2", "--tasks", "mood.yaml")
PREDICT = ("predict", "--prompt", "prompt", "--set", "evaluate.max_target_tokens=4")
CARD, CONFIG, STATE = "prompt/prompt.safetensors", "prompt/config.json", "new/mood.partial/state.safetensors"
EXPORT = ("export", "prompt", "--to", "peft", "--out", "made")
IMPORT = ("import", "adapter", "--out", "made", "--backbone", "model")
FOUND = Calibration(temperature=1.5, threshold=0.6, precision=0.9, rows=20, split="test")
RECIPE = """
name: toy
sources: [mood.yaml]
targets: [speed.yaml]
methods: [mpt, lora, alone]
variants: {alone: {of: mpt, distill: {distill_weight: 0.0}}}
shots: [2]
seeds: 2
budget: {steps: 6, validate_every: 3, validation_shots: 2}
teach: {steps: 3, prompt_length: 4}
adapt: {steps: 2, initialise: mood}
lora: {rank: 2}
rates: {mpt: [0.1, 0.3]}
backbone: {name: model}
out: results
"""


@dataclass(frozen=True)
class Target:
    """A file, what changes it, and the command that reads it."""

    file: str
    change: str  # bytes, json, or header: the JSON in the header of a file of tensors
    command: tuple[str, ...]
    key: str = ""  # of the header


INIT = ("init", "labelled.csv", "--backbone", "model", "--out", "t.yaml")
TARGETS = {
    "a card, shown": Target(CARD, "header", ("show", "prompt"), "card"),
    "a card, used": Target(CARD, "header", (*PREDICT, "--input", "rows.jsonl"), "card"),
    "a card, exported": Target(CARD, "header", EXPORT, "card"),
    "a prompt's bytes": Target(CARD, "bytes", ("show", "prompt", "--json")),
    "a configuration": Target(CONFIG, "json", ("evaluate", "--prompt", "prompt")),
    "a configuration's bytes": Target(CONFIG, "bytes", ("evaluate", "--prompt", "prompt")),
    "an adapter": Target("adapter/adapter_config.json", "json", (*IMPORT, "--tasks", "mood.yaml")),
    "an adapter's tensors": Target("adapter/adapter_model.safetensors", "bytes", IMPORT),
    "a model's configuration": Target("model/config.json", "json", (*AT_ONCE, "mood.yaml")),
    "a task": Target("task.yaml", "json", (*AT_ONCE, "task.yaml")),
    "a task's bytes": Target("mood.yaml", "bytes", (*AT_ONCE, "mood.yaml")),
    "a recipe": Target("recipe.json", "json", ("bench", "recipe.json", "--only", "none")),
    "a recipe's bytes": Target("recipe.yaml", "bytes", ("bench", "recipe.yaml", "--only", "none")),
    "a state": Target(STATE, "header", GO_ON, "progress"),
    "a state's bytes": Target(STATE, "bytes", GO_ON),
    "a run": Target("new/mood.partial/config.json", "json", GO_ON),
    "a run's metrics": Target("new/mood.partial/metrics.jsonl", "bytes", GO_ON),
    "training rows": Target("mood.train.jsonl", "bytes", (*AT_ONCE, "mood.yaml")),
    "a table": Target("rows.csv", "bytes", (*PREDICT, "--input", "rows.csv")),
    "rows": Target("rows.jsonl", "bytes", (*PREDICT, "--input", "rows.jsonl")),
    "a list": Target("rows.json", "json", (*PREDICT, "--input", "rows.json")),
    "columns": Target("rows.parquet", "bytes", (*PREDICT, "--input", "rows.parquet")),
    "a sheet": Target("rows.xlsx", "bytes", (*PREDICT, "--input", "rows.xlsx")),
    "a labelled table": Target("labelled.csv", "bytes", INIT),
    "compressed rows": Target("rows.jsonl.gz", "bytes", (*PREDICT, "--input", "rows.jsonl.gz")),
}  # fmt: skip


def made(folder: Path) -> Path:
    """A folder with one of everything that is read, and a training that was killed before its end.

    A training goes on only where it began, so what is changed is restored in this folder from a copy beside it.
    """
    folder.mkdir()
    import gzip

    import yaml

    saved(make_backbone("t5"), folder / "model")
    for name in ("mood", "speed"):
        task_yaml(folder, name)
    (folder / "task.yaml").write_text(json.dumps(yaml.load((folder / "mood.yaml").read_text(), Loader=yaml.BaseLoader)))
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "recipe.json").write_text(json.dumps(yaml.load(RECIPE, Loader=yaml.BaseLoader)))
    rows = [{"text": text, "id": number} for number, text in enumerate(("good", "a bad one", "the sky, blue"))]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "rows.csv").write_text("id,text\n" + "".join(f'{row["id"]},"{row["text"]}"\n' for row in rows))
    write_sheet(folder / "rows.xlsx", ["id", "text"], [[row["id"], row["text"]] for row in rows])
    labelled = [f"the {word} day {number},{word}" for number in range(6) for word in ("good", "bad")]
    (folder / "labelled.csv").write_text("\n".join(["text,label", *labelled]) + "\n")
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    parquet.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    with contextlib.chdir(folder):
        assert called(*AT_ONCE, "mood.yaml")[0] == 0
        (folder / "made" / "mood").rename(folder / "prompt")
        shutil.rmtree("made")
        write_calibration(Path("prompt"), {"mood": FOUND})
        assert called("export", "prompt", "--to", "prompt-tuning", "--out", "adapter")[0] == 0
        with mock.patch.object(Run, "finish", side_effect=KeyboardInterrupt):
            assert called(*GO_ON)[0] == 130
    return Path(shutil.copytree(folder, folder.with_name("copy")))


def restored(copy: Path) -> Path:
    """The folder as it was made."""
    place = copy.with_name("place")
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(copy, place))


def called(*arguments: str) -> tuple[object, str]:
    """The exit code of a command, or what it raised; and what it said."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    code: object = "no exit"
    with (
        mock.patch.object(sys, "argv", ["mptune", *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO())),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            mptune.cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        except BaseException as error:
            code = f"{type(error).__name__}: {traceback.format_exc(limit=-3)}"
    return code, said.buffer.getvalue().decode()


def change(target: Target, file: Path, draw: random.Random) -> None:
    """Write a file anew as chance has it."""
    if target.change == "bytes":
        file.write_bytes(changed_bytes(file.read_bytes(), draw))
    elif target.change == "json":
        file.write_bytes(changed_json(file.read_text(), draw).encode("utf-8", "surrogatepass"))
    else:
        with safe_open(file, framework="pt") as stored:
            text = stored.metadata()[target.key]
        changed = changed_json(text, draw)
        if draw.random() < 0.2:
            changed = changed_bytes(changed.encode("utf-8", "replace"), draw).decode("utf-8", "replace")
        metadata = {target.key: changed.encode("utf-8", "replace").decode()}
        file.write_bytes(save(load(file.read_bytes()), metadata=metadata))


def faults(target: Target, code: object, said: str, seconds: float) -> list[str]:
    """What is wrong with how a command ended."""
    found = []
    if code not in (0, 1, 2, 3):
        found.append(str(code))
    if code in (1, 2, 3) and "mptune: " not in said:
        found.append("it said nothing")
    found += [f"it said {sign!r}" for sign in ("Traceback", "\x1b", "\x00") if sign in said]
    if seconds > SLOWEST:
        found.append(f"it took {seconds:.0f} s")
    if code and len(said) > LONGEST:
        found.append(f"it said {len(said):,} characters")
    return found


def fuzz(name: str, copy: Path, count: int, seed: int) -> tuple[Counter[object], list[str]]:
    """How often each exit code came of some changes to one kind of file, and what was wrong."""
    target, codes, wrong = TARGETS[name], Counter(), []
    for number in range(count):
        draw = random.Random(f"{name} {seed} {number}")
        with contextlib.chdir(restored(copy)):
            change(target, Path(target.file), draw)
            started = time.monotonic()
            code, said = called(*target.command)
            seconds = time.monotonic() - started
        codes[code if isinstance(code, int) else "raised"] += 1
        wrong += [f"{name}, seed {seed}, change {number}: {fault}" for fault in faults(target, code, said, seconds)]
        if code == 1:
            print(f"{name}, seed {seed}, change {number}: exit code 1: {said.strip()[-300:]}")
    return codes, wrong


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return made(tmp_path_factory.mktemp("fuzz") / "place")


def test_what_is_to_be_changed_is_read_as_it_is(copy):
    for name, target in TARGETS.items():
        with contextlib.chdir(restored(copy)):
            code, said = called(*target.command)
        wanted = 2 if target.command[0] == "bench" else 0  # there is no method that is called none
        assert code == wanted, (name, said)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_change_of_a_file_ends_in_a_traceback_or_takes_long(name, copy):
    _, wrong = fuzz(name, copy, SHARE, SEED)
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    import os

    os.environ["HF_HUB_OFFLINE"] = "1"
    total, start = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    with tempfile.TemporaryDirectory(prefix="mptune-fuzz-") as folder:
        everything, all_codes, all_wrong = made(Path(folder) / "place"), Counter(), []
        for kind in TARGETS:
            began = time.monotonic()
            kinds, wrong = fuzz(kind, everything, -(-total // len(TARGETS)), start)
            print(f"{kind}: {dict(kinds)}, {len(wrong)} faults, {time.monotonic() - began:.0f} s", flush=True)
            print(*wrong, sep="\n", flush=True)
            all_codes, all_wrong = all_codes + kinds, all_wrong + wrong
    print(f"{sum(all_codes.values()):,} changes: {dict(all_codes)}, {len(all_wrong)} faults")
    sys.exit(bool(all_wrong))
