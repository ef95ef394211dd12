"""Two runs of one recipe, pair by pair: whether another type of numbers, or another version, changes the scores.

mptune bench recipes/quickstart.yaml --out a
mptune bench recipes/quickstart.yaml --out b --set backbone.dtype=float32
python benchmarks/precision.py a b
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mptune.results import read_results
from mptune.statistics import paired


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Return each method's scores in both, and the paired difference over tasks and seeds."""
    found: list[dict[tuple[Any, ...], dict[str, Any]]] = [
        {(line["method"], line["task"], line["shots"], line["seed"]): line for line in read_results(folder)}
        for folder in (first, second)
    ]
    both = [key for key in found[0] if key in found[1]]
    if not both:
        raise SystemExit(f"{first} and {second} have no run in common; each wants the folder of a recipe's results")
    methods = {}
    for method in dict.fromkeys(key[0] for key in both):
        keys = [key for key in both if key[0] == method]
        one, two = ([results[key]["scores"][0]["value"] for key in keys] for results in found)
        methods[method] = {
            "means": [round(sum(values) / len(values), 2) for values in (one, two)],
            "difference": str(paired(one, two)),
            "seconds": [round(sum(results[key]["seconds"] for key in keys), 1) for results in found],
        }
    about = [{name: results[both[0]].get(name) for name in ("dtype", "commit", "versions")} for results in found]
    return {"benchmark": "precision", "runs": about, "methods": methods}


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
