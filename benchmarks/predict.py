"""Peak memory of `mptune predict` on few and on many rows, killed on its way and gone on with; and that none is lost.

    .venv/bin/python benchmarks/predict.py --prompt DIR --rows 1000000 --kills 5

The prompt's task reads a field ``text``; its backbone should be tiny, for what is measured is the rows.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

FEW = 10_000


def answered(prompt: Path, count: int, kills: int, folder: Path) -> dict[str, float]:
    """Answer rows; return the largest resident memory of the processes, in MiB, and the seconds of the last."""
    source, output = folder / f"{count}.jsonl", folder / f"{count}.answers.jsonl"
    with source.open("w") as file:
        file.writelines(json.dumps({"text": f"the soup of day {n} was good"}) + "\n" for n in range(count))
    command = [sys.executable, "-m", "mptune", "predict", "--prompt", str(prompt)]
    peak = 0
    for left in range(kills, -1, -1):
        started = time.monotonic()
        process = subprocess.Popen([*command, "--input", str(source), "--output", str(output)])
        if left:
            time.sleep(random.uniform(15, 40))  # noqa: S311 - no secret
            process.kill()
        _, status, used = os.wait4(process.pid, 0)
        peak = max(peak, used.ru_maxrss)
        if not left and status:
            raise SystemExit(f"predict ended with {status}")
    with output.open() as file:
        lines = sum(1 for line in file if json.loads(line))
    if lines != count or len(list(folder.glob("*.partial"))):
        raise SystemExit(f"{lines} answers to {count} rows")
    return {"rows": count, "kills": kills, "peak_mib": peak / 1024, "seconds": time.monotonic() - started}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        few = answered(options.prompt, FEW, 0, Path(folder))
        many = answered(options.prompt, options.rows, options.kills, Path(folder))
    print(json.dumps({"few": few, "many": many, "more_mib": many["peak_mib"] - few["peak_mib"]}))


if __name__ == "__main__":
    main()
