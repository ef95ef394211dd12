"""Training steps and answers on a machine that is not alone: how threads wait decides what a busy neighbour costs.

Each way in a process of its own, alone and beside a process that computes on one core without a pause.

- *spinning*: OpenMP's default; a thread that waits keeps its core for milliseconds.
- *brief*: what `mptune` sets, GOMP_SPINCOUNT (mptune.model.threads).
- *one thread*: nobody waits for anybody, and one core of two is idle.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from common import (
    arguments,
    data_notes,
    milliseconds,
    model_folder,
    options_of,
    ours,
    ratio,
    report,
    rows_of,
    shown,
    start,
)
from mptune.answers.evaluation import answer
from mptune.config import EvaluateConfig
from mptune.model.threads import SPINS
from train_step import our_step

ROWS, LENGTH = 64, 20
SET: Mapping[str, Mapping[str, str]] = {
    "spinning": {},
    "brief": {"GOMP_SPINCOUNT": SPINS},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
KINDS = ("a training step", "64 answers")


def work(folder: str, data_dir: Path | None, times: int) -> list[float]:
    """Return the seconds of a training step of 16 rows, and of 64 answers, in this process."""
    backbone = ours(folder)
    data = rows_of("mnli", backbone, ROWS, data_dir, prompt_length=LENGTH)
    prompt = start([data.task], backbone, LENGTH).collapse()[0]
    step = our_step(backbone, data, LENGTH)
    ways = {KINDS[0]: step, KINDS[1]: lambda _: answer(backbone, [prompt], [data], EvaluateConfig())}
    seconds = {}
    for kind, once in ways.items():
        once(0)
        began = time.perf_counter()
        for number in range(times):
            once(number)
        seconds[kind] = (time.perf_counter() - began) / times
    return [seconds[kind] for kind in KINDS]


def measured(way: str, folder: str, data_dir: Path | None, times: int) -> list[float]:
    """Return what `work` does in a process of its own, whose threads wait in one of the ways."""
    own = {n: v for n, v in os.environ.items() if n not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    command = [sys.executable, __file__, "--work", folder, "--times", str(times)]
    command += ["--data", str(data_dir)] if data_dir else []
    done = subprocess.run(command, env={**own, **SET[way]}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def beside(busy: bool) -> Iterator[None]:
    """Keep one core busy in another process, for the time of a block."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--work", metavar="FOLDER", help="used by the benchmark itself")
    parser.add_argument("--rounds", type=int, default=3, help="each way, alone and beside, so many times in turn")
    parser.add_argument("--times", type=int, default=8, help="steps, and passes over the rows, of each round")
    options = options_of(parser)
    if options.work:
        print(json.dumps(work(options.work, options.data, options.times)))
        return
    folder = model_folder(options.backbone)
    rounds, times = (1, 2) if options.quick else (options.rounds, options.times)
    seconds: dict[tuple[str, str, bool], list[float]] = {}
    for _ in range(rounds):
        for busy in (False, True):
            for way in SET:
                with beside(busy):
                    for kind, took in zip(KINDS, measured(way, folder, options.data, times), strict=True):
                        seconds.setdefault((kind, way, busy), []).append(took)
    found = []
    for kind in KINDS:
        alone = {way: seconds[kind, way, False] for way in SET}
        disturbed = {way: seconds[kind, way, True] for way in SET}
        found.append({
            "kind": kind,
            "ms_alone": {way: milliseconds(took) for way, took in alone.items()},
            "ms_beside": {way: milliseconds(took) for way, took in disturbed.items()},
            "brief_vs_spinning_alone": ratio(alone["brief"], alone["spinning"]),
            "spinning_vs_brief_beside": ratio(disturbed["spinning"], disturbed["brief"]),
            "brief_beside_vs_one_thread_alone": ratio(disturbed["brief"], alone["one thread"]),
        })  # fmt: skip
    cells = [
        [f"{each['kind']}, {way}", f"{each['ms_alone'][way]} ms", f"{each['ms_beside'][way]} ms"]
        for each in found
        for way in SET
    ]
    notes = [
        f"{each['kind']}: brief, beside, {shown(each['brief_beside_vs_one_thread_alone'])} of one thread alone; "
        f"spinning there {shown(each['spinning_vs_brief_beside'])} of brief; brief alone "
        f"{shown(each['brief_vs_spinning_alone'])} of spinning."
        for each in found
    ]
    report("neighbour", ["work and waiting", "alone", "beside a busy process"], cells, {"kinds": found}, options.out,
           [*data_notes(options.data), *notes])  # fmt: skip


if __name__ == "__main__":
    main()
