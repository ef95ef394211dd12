"""The README.md of a prompt's folder: Hub metadata, what it is for, what it scored. A pure function of its card."""

from pathlib import PurePath
from typing import Any

import yaml

from mptune.embedded import EMBEDDED, TITLE


def model_card(card: dict[str, Any], length: int, rank: int, width: int) -> str:
    """Return the Markdown page of a prompt.

    Args:
        card: the fields of a `Card`.
    """
    names = [task["name"] for task in card["tasks"]]
    backbone = public_name(card["backbone"])
    metadata: dict[str, Any] = {
        "library_name": "mptune",
        "tags": ["multitask-prompt-tuning", "prompt-tuning", "soft-prompt"],
        "pipeline_tag": "text-classification" if all(t["verbalizer"] for t in card["tasks"]) else "text-generation",
    }
    if card["backbone"] == EMBEDDED:
        metadata["base_model"] = "google/flan-t5-small"
    elif "/" in backbone:
        metadata["base_model"] = backbone
    if card["scores"]:
        metadata["model-index"] = [
            {"name": "+".join(names), "results": [_result(s, metadata["pipeline_tag"]) for s in card["scores"]]}
        ]
    numbers = length * width + len(names) * rank * (length + width)
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# Soft prompt: {', '.join(names)}",
        "",
        f"A {card['stage']} prompt of {length} soft tokens, rank {rank}: {numbers:,} numbers in front of the frozen "
        f"backbone {_described(card)}. It means nothing to any other model.",
        "",
        "```python",
        "from mptune import Predictor",
        "",
        'predictor = Predictor.from_pretrained("<this folder or repository>")',
        "```",
        "",
        "| task | template | label words |",
        "|---|---|---|",
        *[f"| {_protocol(t)} | `{_cell(t['template'])}` | {_cell(', '.join(t['verbalizer'].values())) or 'free text'} |"
          for t in card["tasks"]],
        "",
    ]  # fmt: skip
    if card["scores"]:
        lines += ["| task | split | metric | score | examples |", "|---|---|---|---|---|"]
        lines += [
            f"| {s['task']} | {s['split']} | {s['metric']} | {s['value']:.1f} | {s['examples']} |"
            for s in card["scores"]
        ]
        lines.append("")
    if card["sources"]:
        lines += [f"Source tasks: {', '.join(card['sources'])}.", ""]
    lines += [
        "Method: Multitask Prompt Tuning (Wang et al., ICLR 2023, arXiv:2303.02861), trained with mptune "
        f"{card['versions'].get('mptune', '')}, seed {card['seeds'].get('seed', 'unknown')}.",
        "",
    ]
    return "\n".join(lines)


def _described(card: dict[str, Any]) -> str:
    if card["backbone"] == EMBEDDED:
        return f"`embedded` ({TITLE})"
    revision = f" at revision `{card['revision']}`" if card["revision"] else ""
    return f"`{public_name(card['backbone'])}`{revision}"


def public_name(backbone: str) -> str:
    """Return a hub id as it is, and of a local folder only its name: a card is made to be shared."""
    path = PurePath(backbone)
    return path.name if path.is_absolute() or backbone.startswith(".") or len(path.parts) > 2 else backbone


def _result(score: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "task": {"type": kind, "name": score["task"]},
        "dataset": {"name": score["task"], "type": score["task"], "split": score["split"]},
        "metrics": [{"type": score["metric"], "value": round(score["value"], 2)}],
    }


def _protocol(task: dict[str, Any]) -> str:
    """Return a task's name, and whose protocol it follows where that is not the recommended one."""
    protocol = task.get("protocol", "recommended")
    return str(task["name"]) + ("" if protocol == "recommended" else f" ({protocol}'s protocol)")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
