"""Documents that are checked: docs/cli.md is the help pages; links lead somewhere; numbers are those of committed runs.

`python tests/test_docs.py --write` writes docs/cli.md anew.
"""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main

from mptune.cli import app
from mptune.comparison.intervals import interval
from mptune.comparison.report.findings import gap
from mptune.comparison.report.markdown import results_page
from mptune.comparison.report.means import score_table
from mptune.comparison.report.reading import read_folder

ROOT = Path(__file__).parents[1]
CLI = ROOT / "docs" / "cli.md"


def help_pages() -> str:
    """The help page of every command, as a person sees it at 100 columns."""
    command = typer.main.get_command(app)
    pages = [
        "# The command line",
        "",
        "Written by `make docs` from the help pages; `make check` fails when it is stale.",
        "",
    ]
    names = [[], *[[name] for name in command.commands]]
    for name in names:
        run = subprocess.run(
            [sys.executable, "-m", "mptune", *name, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "", "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "HOME": "/nonexistent"},
        )
        page = run.stdout.replace("python -m mptune", "mptune").rstrip()
        pages += [f"## `{' '.join(['mptune', *name])}`", "", "```text", page, "```", ""]
    return "\n".join(pages)


def test_the_command_line_page_is_what_help_says():
    assert CLI.read_text(encoding="utf-8") == help_pages(), "stale: run `make docs`"


def test_links_between_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


COMMANDS = typer.main.get_command(app).commands
OPTIONS = {name: {text for option in command.params for text in option.opts} | {"--help"}
           for name, command in COMMANDS.items()}  # fmt: skip
GENERAL = {text for option in typer.main.get_command(app).params for text in option.opts}
FOREIGN = {  # of benchmarks and of this file; torchrun's; pip's; git's; docker's
    "--quick", "--write", "--nproc-per-node", "--force-reinstall", "--always", "--dirty", "--abbrev", "--error-unmatch",
    "--exclude", "--enable-prompt-embeds", "--build-arg",
}  # fmt: skip


def messages() -> dict[str, str]:
    """All texts that the package can print, by file; what stands in braces is left out."""
    texts: dict[str, str] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        parts = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts.append("".join(each.value if isinstance(each, ast.Constant) else "…" for each in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts.append(node.value)
        texts[path.name] = "\n".join(parts)
    return texts


def documents() -> dict[str, str]:
    """What the documents say, but for the log and the list of changes, which speak of their day."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.yaml")]
    dated = {"LOG.md", "CHANGELOG.md"}
    return {page.name: page.read_text(encoding="utf-8") for page in sorted(pages) if page.name not in dated}


def calls(text: str) -> list[tuple[str, list[str]]]:
    """The commands that a text names, in backticks or as lines of a block, with the options that follow them."""
    blocks = re.findall(r"```.*?```", text, re.DOTALL)
    lines = [line for block in blocks for line in re.findall(r"^(?:\$ )?mptune (.+)", block.replace("\\\n", " "), re.M)]
    inline = re.findall(r"`mptune ([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    named = [re.split(r"\s[#|>]", call)[0] for call in (*lines, *inline)]
    return [(call.split()[0], re.findall(r"(?<!\S)--[a-z][a-z-]*", call)) for call in named if call[0].isalpha()]


@pytest.mark.parametrize("texts", [messages, documents])
def test_every_command_that_is_named_exists_with_its_options(texts):
    found = [(place, *call) for place, text in texts().items() for call in calls(text)]
    assert len(found) > 5
    for place, command, options in found:
        assert command in COMMANDS, f"{place}: mptune {command}"
        assert set(options) <= OPTIONS[command], f"{place}: mptune {command} {options}"


@pytest.mark.parametrize("texts", [messages, documents])
def test_every_option_that_is_named_belongs_to_a_command(texts):
    known = GENERAL.union(FOREIGN, *OPTIONS.values())
    found = {(place, option) for place, text in texts().items()
             for option in re.findall(r"(?<![\w(-])--[a-z][a-z-]*(?![\w:-])", text)}  # fmt: skip
    assert len(found) > 10
    assert sorted((place, option) for place, option in found if option not in known) == []


def test_a_command_or_option_that_does_not_exist_would_be_seen():
    assert calls("run `mptune bench r.yaml --data DIR`") == [("bench", ["--data"])]
    assert calls("```bash\nmptune teach --task a \\\n  --lr 3 # or --no\n```") == [("teach", ["--task", "--lr"])]
    assert "--data" not in OPTIONS["bench"]


@pytest.mark.parametrize(
    ("page", "begins", "ends", "folder"),
    [
        ("docs/results.md", "## The quick start", "## Few labels, seven", "quickstart"),
        ("docs/results.md", "## Few labels, seven", "## Eight public tasks", "few/confirming"),
    ],
)
def test_every_row_of_scores_in_a_document_is_in_its_committed_results(page, begins, ends, folder):
    text = (ROOT / page).read_text(encoding="utf-8")
    table = (ROOT / "results" / folder / "results.md").read_text(encoding="utf-8")
    section = text[text.index(begins) : text.index(ends)]
    rows = [line for line in section.splitlines() if line.startswith(("| ", "- ")) and not line.endswith(":")]
    assert len(rows) >= 8
    for row in rows:
        assert row in table


@pytest.mark.parametrize("file", sorted((ROOT / "results").rglob("results.md")), ids=lambda file: file.parent.name)
def test_a_committed_table_is_what_the_package_makes_of_its_lines(file):
    table, results = file.read_text(encoding="utf-8"), read_folder(file.parent)
    rows = table[table.index("*test rows*") :].split("\n\n")[0].splitlines()[1:]
    methods = [row.split(" | ")[0].removeprefix("| ") for row in rows if not row.startswith("| *")]
    page = results_page(replace(results, recipe={**results.recipe, "methods": methods}), [])
    assert table[table.index("| method |") :] == page[page.index("| method |") :]


SYSTEMS = {
    "(IA)³": "ia3",
    "**MPT**": "mpt",
    "LoRA": "lora",
    "SPoT, closest source": "spot-closest",
    "fine-tuning": "fine-tuning",
    "SPoT, from mnli": "spot",
    "adapters": "adapters",
    "ATTEMPT": "attempt",
    "*constant*": "constant",
    "multitask fine-tuning": "multitask-fine-tuning",
    "MPT as a group": "mpt-group",
    "prompt tuning": "prompt-tuning",
    "BitFit": "bitfit",
    "DePT": "dept",
    "*MPT, unadapted*": "transfer",
    "*zero-shot*": "zero-shot",
}


def test_the_table_of_systems_is_that_of_the_committed_runs():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    section = text[text.index("## Eight public tasks") : text.index("**Twenty steps decide")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]
    table = {name: cells for name, *cells in rows[1:]}
    assert set(table) == set(SYSTEMS)
    results = read_folder(ROOT / "results" / "small" / "fewshot")
    for name, method in SYSTEMS.items():
        lines = [line for line in results.lines if line.method == method]
        accuracy, f1, trained = (cell.strip("*") for cell in table[name])
        for said, metric in ((accuracy, "accuracy"), (f1, "f1_macro")):
            values = [value for line in lines if (value := line.value(metric)) is not None]
            assert said == f"{sum(values) / len(values):.1f}", (name, metric)
        assert trained.partition(" ")[0] == f"{lines[0].parameters.trained:,}"


VARIANTS = {
    "both": (True, 0.9),
    "decomposition only": (True, 0.0),
    "distillation only": (False, 0.9),
    "`neither`": (False, 0.0),
}


def test_the_table_of_the_ablation_is_that_of_the_committed_runs():
    folder = ROOT / "results" / "small" / "ablation"
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    text = text[text.index("(`small/ablation/`)") : text.index("(`small/initialisation/`)")]
    sources = [json.loads(line) for line in (folder / "sources.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {}
    for line in sources:
        if line["stage"] == "source":
            firsts = {s["task"]: s["value"] for s in reversed(line["scores"])}  # a task's first metric counts
            config, values = line["config"], list(firsts.values())
            made = found.setdefault((config["decomposition"], config["distill_weight"]), {})
            made[config["seed"]] = sum(values) / len(values)
    for name, variant in VARIANTS.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name}")]
        assert f"| {interval(list(found[variant].values()))} |" in row
        gap = interval([found[True, 0.9][seed] - value for seed, value in found[variant].items()])
        assert name == "both" or f"| {gap.mean:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}] |" in row
    table = (folder / "results.md").read_text(encoding="utf-8")
    for method in ("mpt", "no-distillation", "no-decomposition", "neither"):
        means = re.findall(rf"^\| {method} \|.*\*\*(.*)\*\* \|$", table, re.MULTILINE)
        (row,) = [line for line in text.splitlines() if line.startswith("| ") and f"`{method}`" in line]
        assert row.endswith(f"| {means[0]} | {means[1]} |")


LENGTHS = {
    "10": ("tuned-10", "mpt-10"),
    "20": ("prompt-tuning", "mpt"),
    "50": ("tuned-50", "mpt-50"),
    "100": ("tuned-100", "mpt-100"),
}


def test_the_table_of_prompt_lengths_is_that_of_the_committed_runs():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    run = read_folder(ROOT / "results" / "small" / "prompt-length")
    accuracy, f1 = ({r.method: r.mean.score for r in score_table(run, 16, m).rows} for m in (None, "f1_macro"))
    for length, (tuned, mpt) in LENGTHS.items():
        found = gap(run, mpt, tuned, 16).over_seeds
        difference = f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        assert f"| {length} | {accuracy[tuned]} | {accuracy[mpt]} | {difference} | {f1[tuned]} | {f1[mpt]} |" in text


def test_the_figures_on_initialisation_are_those_of_the_committed_runs():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    text = text[text.index("(`small/initialisation/`)") :].partition("\n## ")[0]
    means = {r.method: r.mean.score for r in score_table(read_folder(ROOT / "results/small/initialisation"), 16).rows}
    for method, mean in means.items():
        assert (str(mean) in text) or method in ("constant", "zero-shot"), method


def test_committed_results_carry_the_versions_they_came_from():
    files = list((ROOT / "results").rglob("results.jsonl"))
    assert files
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            assert {"torch", "transformers", "mptune"} <= set(json.loads(line)["versions"])


if __name__ == "__main__" and "--write" in sys.argv:
    CLI.write_text(help_pages(), encoding="utf-8")
