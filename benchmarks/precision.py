"""Two runs of one recipe, pair by pair: whether another type of numbers, or another version, changes the scores.

mptune bench recipes/quickstart.yaml --out a
mptune bench recipes/quickstart.yaml --out b --set backbone.dtype=float32
python benchmarks/precision.py a b
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy import stats

from mptune.comparison.intervals import interval
from mptune.comparison.results import Line, read_results


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Return each method's scores in both, and the paired difference over tasks and seeds."""
    found = [{line.key: line for line in read_results(folder)} for folder in (first, second)]
    both = [key for key in found[0] if key in found[1]]
    if not both:
        raise SystemExit(f"{first} and {second} have no run in common; each wants the folder of a recipe's results")
    methods = {}
    for method in dict.fromkeys(key[0] for key in both):
        lines = [[results[key] for key in both if key[0] == method] for results in found]
        methods[method] = {
            "means": [round(sum(values) / len(values), 2) for values in map(_values, lines)],
            "difference": _difference(*map(_values, lines)),
            "seconds": [round(sum(line.seconds or 0 for line in each), 1) for each in lines],
        }
    about = [{name: getattr(results[both[0]], name) for name in ("dtype", "commit", "versions")} for results in found]
    return {"benchmark": "precision", "runs": about, "methods": methods}


def _values(lines: Sequence[Line]) -> list[float]:
    return [line.scores[0].value for line in lines]


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the paired difference with its 95 % interval and the p-value of the paired t-test."""
    difference = interval([a - b for a, b in zip(ours, theirs, strict=True)])
    if difference.high > difference.low:
        p = float(stats.ttest_rel(ours, theirs).pvalue)
    else:  # pairs that all differ alike leave nothing to chance
        p = float(difference.mean == 0 or difference.count == 1)
    ends = f"[{difference.low:+.1f}, {difference.high:+.1f}]"
    return f"{difference.mean:+.1f} {ends}, p = {p:.2g}, {difference.count} pairs"


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("first", type=Path, help="folder with results.jsonl")
    parser.add_argument("second", type=Path, help="another")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the closing JSON object here too")
    options = parser.parse_args()
    found = compare(options.first, options.second)
    names = [str(run["dtype"]) for run in found["runs"]]
    table = Table("method", *names, "first minus second, 95 %", title="precision")
    for method, figures in found["methods"].items():
        table.add_row(method, *(f"{mean:.1f}" for mean in figures["means"]), figures["difference"])
    Console(width=120).print(table)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
