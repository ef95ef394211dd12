"""A prompt's card for people: the README.md of its folder, with the hub's metadata, and a table. Pure functions."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mptune.config import EMBEDDED, EMBEDDED_IS
from mptune.prompts.card import Calibration, Card, public_name
from mptune.tasks.task import Task
from mptune.terminal import visible

METHOD = "Method: Multitask Prompt Tuning (Wang et al., ICLR 2023, arXiv:2303.02861)."
STILL = "this is the state before its first step"
HEAD = ["library_name", "tags", "pipeline_tag", "base_model"]  # the order of the metadata


def model_card(card: Card, length: int, rank: int, width: int) -> str:
    """Return the Markdown page of a prompt of L soft tokens, rank R and width D."""
    names = ", ".join(task.name for task in card.tasks)
    lines = [
        "---",
        _metadata(card),
        "---",
        "",
        f"# Soft prompt: {names}",
        "",
        f"A {_plain(card.stage)} prompt of {length} soft tokens, rank {rank}: {_numbers(card, length, rank, width)} "
        f"numbers in front of the frozen backbone {_described(card)}. It means nothing to any other model.",
        "",
        "```python",
        "from mptune import Predictor",
        "",
        'predictor = Predictor.from_pretrained("<this folder or repository>")',
        "```",
        "",
        "| task | template | label words |",
        "|---|---|---|",
        *[f"| {_protocol(t)} | {_template(t)} | {_plain(', '.join(t.label_words)) or 'free text'} |"
          for t in card.tasks],
        "",
    ]  # fmt: skip
    if card.scores:
        lines += ["| task | split | metric | score | examples |", "|---|---|---|---|---|"]
        for s in card.scores:
            task, split, metric = (_plain(s[field]) for field in ("task", "split", "metric"))
            lines.append(f"| {task} | {split} | {metric} | {s['value']:.1f} | {s['examples']} |")
        lines += ["", *([f"Training did not help: {STILL}.", ""] if card.kept_start else [])]
    for name, found in (card.calibration or {}).items():
        lines += [f"Confidences of {_plain(name)}: {_calibrated(found)}.", ""]
    if card.sources:
        lines += [f"Source tasks: {_plain(', '.join(card.sources))}.", ""]
    lines += [
        "Method: Multitask Prompt Tuning (Wang et al., ICLR 2023, arXiv:2303.02861), trained with mptune "
        f"{_plain(card.versions.get('mptune', ''))}, seed {_plain(str(card.seeds.get('seed', 'unknown')))}.",
        "",
    ]
    return "\n".join(lines)


def adapter_card(
    card: Card, length: int, is_encoder_decoder: bool, frame: tuple[str, str] | None = None, begins: int = 0
) -> str:
    """Return the Markdown page of an adapter that PEFT opens: which model it fits, and what to write before it.

    Args:
        length: L, and the tokens that a chat template writes before the prompt.
        frame: what the model's chat template writes before a text and behind it.
        begins: how many of those tokens there are.
    """
    several = len(card.tasks) > 1
    auto = "AutoModelForSeq2SeqLM" if is_encoder_decoder else "AutoModelForCausalLM"
    where = f"{public_name(card.backbone)!r}" + (f", revision={card.revision!r}" if card.revision else "")
    load = [f"from transformers import AutoTokenizer, {auto}", "", f"model = {auto}.from_pretrained({where})",
            f"tokenizer = AutoTokenizer.from_pretrained({where})"]  # fmt: skip
    if card.backbone == EMBEDDED:
        load = ["from mptune import load_backbone  # with its extra, quickstart", "", "backbone = load_backbone()",
                "model, tokenizer = backbone.model, backbone.tokenizer"]  # fmt: skip
    behind = "" if is_encoder_decoder else "[inputs.input_ids.shape[1] :]"  # a decoder-only model gives its input back
    first = f"{'0: ' if several else ''}{card.tasks[0].name}"
    text = '"<the text of a row>"'
    if frame:  # whose special tokens are all that the model reads
        text = f"{frame[0]!r} + {text} + {frame[1]!r}, add_special_tokens=False".removeprefix("'' + ")
    return "\n".join([
        f"# Adapter: {visible(', '.join(task.name for task in card.tasks))}",
        "",
        f"{length} soft tokens before the frozen backbone {_described(card)}, written by mptune for PEFT"
        f"{f'; the first {begins} are what the chat template writes before the prompt' if begins else ''}. What the "
        "model reads is a task's template with a row's fields in it, and what it writes is one of the label words.",
        "",
        "```python",
        *(["import torch"] if several else []),
        "from peft import PeftModel",
        *load,
        'adapter = PeftModel.from_pretrained(model, "<this folder>")',
        f'inputs = tokenizer({text}, return_tensors="pt")  # of task {visible(first)}',
        f"written = adapter.generate(**inputs{', task_ids=torch.tensor([0])' if several else ''}, max_new_tokens=10)",
        f"answer = tokenizer.decode(written[0]{behind}, skip_special_tokens=True)",
        "```",
        "",
        f"| {'`task_ids`' if several else 'task'} | template | label words |",
        "|---|---|---|",
        *[f"| {f'{n}: ' if several else ''}{_protocol(t)} | {_template(t)} | "
          f"{_plain(', '.join(t.label_words)) or 'free text'} |" for n, t in enumerate(card.tasks)],
        "",
        METHOD,
        "",
    ])  # fmt: skip


def vllm_card(
    card: Card, length: int, words: Mapping[str, Sequence[int]], around: Sequence[str], *, in_a_chat: bool
) -> str:
    """Return the Markdown page of a folder for vLLM: how it is served and asked, and what stands where.

    Args:
        words: the label words, and their tokens that tell them apart.
        around: what is written before the prompt, between it and the text, and behind the text.
    """
    (task,), (before, between, behind) = card.tasks, around
    who = "the chat template writes" if in_a_chat else "the tokenizer writes"
    order = [
        (before, f"what {who} before the prompt: {_code(repr(before), in_table=False)}"),
        ("soft", f"the {length} soft tokens: `prompt` of `prompt.safetensors`"),
        (between, f"what {who} before the text: {_code(repr(between), in_table=False)}"),
        ("text", f"the text of a row: {_code(task.template, in_table=False)} with its fields"),
        (behind, f"what {who} behind the text: {_code(repr(behind), in_table=False)}"),
        ("more" if any(len(ids) > 1 for ids in words.values()) else "", "the first tokens of label words that begin "
         "alike, one input for each"),
    ]  # fmt: skip
    return "\n".join(
        [
            f"# For vLLM: {visible(task.name)}",
            "",
            f"{length} soft tokens before the frozen backbone {_described(card)}, written by mptune for a vLLM server "
            "that takes embeddings in place of a text. Tried with vLLM 0.32; it has to know `logprob_token_ids`.",
            "",
            "```bash",
            f"vllm serve {shlex.quote(visible(public_name(card.backbone)))} --enable-prompt-embeds",
            'python client.py "<the text of a row>" http://localhost:8000',
            "```",
            "",
            "The client says how likely each label word is (natural logarithms), and the answer is the likeliest. It "
            "needs torch, safetensors and transformers, and no model: the embedding table is in `prompt.safetensors`, "
            "and is under the model's licence. Whoever may reach a server with this option may send it tensors.",
            "",
            "What the server reads, at `/v1/completions` as `prompt_embeds`, is one tensor of [tokens, width]:",
            "",
            *[f"{place}. {what}" for place, (_, what) in enumerate([each for each in order if each[0]], start=1)],
            "",
            "Nothing else stands there: the server adds no begin-of-text token and no template to embeddings. "
            + ("Special tokens in a text are read as plain letters. " if in_a_chat else "")
            + "A text is not cut here; mptune cuts a long one at the end of its longest fields.",
            "",
            "| label word | tokens |",
            "|---|---|",
            *[f"| {_plain(word)} | {', '.join(map(str, ids))} |" for word, ids in words.items()],
            "",
            METHOD,
            "",
        ]
    )


def vocabulary_card(
    card: Card, tokens: Sequence[str], around: tuple[str, str], is_encoder_decoder: bool, *, adds: bool, in_a_chat: bool
) -> str:
    """Return the Markdown page of a model whose vocabulary holds a prompt: what to write before a text.

    Args:
        tokens: the soft tokens' names, in their order.
        around: what is to be written before a text, the soft tokens among it, and behind it.
        adds: whether the tokenizer is to add its special tokens by itself.
    """
    (task,), length = card.tasks, len(tokens)
    auto = "AutoModelForSeq2SeqLM" if is_encoder_decoder else "AutoModelForCausalLM"
    soft = "".join(tokens)
    before, between = around[0].split(soft)
    named = f'"".join(f"{tokens[0].removesuffix("0>")}{{n}}>" for n in range({length}))'
    said = " + ".join([*([repr(before)] if before else []), "soft", *([repr(between)] if between else []), "text",
                       *([repr(around[1])] if around[1] else [])])  # fmt: skip
    own = "" if adds else ", add_special_tokens=False"
    new = "" if is_encoder_decoder else "[inputs.input_ids.shape[1] :]"  # a decoder-only model gives its input back
    return "\n".join([
        f"# A model that knows a soft prompt: {visible(task.name)}",
        "",
        f"The frozen backbone {_described(card)} with {length} more tokens, {_code(tokens[0])} to {_code(tokens[-1])}, "
        "whose embeddings are a soft prompt of mptune. Whatever runs the model reads the prompt where these tokens are "
        "written; without them it answers as before. The folder is under the model's licence.",
        "",
        "```python",
        f"from transformers import AutoTokenizer, {auto}",
        "",
        f'model = {auto}.from_pretrained("<this folder>")',
        'tokenizer = AutoTokenizer.from_pretrained("<this folder>")',
        f"soft = {named}",
        'text = "<the text of a row>"',
        f'inputs = tokenizer({said}, return_tensors="pt"{own})',
        "written = model.generate(**inputs, max_new_tokens=10)",
        f"answer = tokenizer.decode(written[0]{new}, skip_special_tokens=True)",
        "```",
        "",
        "What is written there is all that the model is to read, in that order. "
        + ("The tokenizer adds its own special tokens to it, as to any text. " if adds else
           "An engine that adds a begin-of-text token by itself would put it before the prompt, where mptune has none, "
           "or twice: tell it not to. ")
        + ("A text that holds marks of the chat template would be read as if it ended its turn; mptune reads them as "
           "letters, and an engine that is given one string does not. Remove them from texts of strangers. "
           if in_a_chat else "")
        + "The text is a row's, as the task's template makes it:",
        "",
        "| task | template | label words |",
        "|---|---|---|",
        f"| {_protocol(task)} | {_template(task)} | {_plain(', '.join(task.label_words)) or 'free text'} |",
        "",
        "The new tokens are never an answer. `generation_config.json` names them as `suppress_tokens`, which "
        "transformers heeds. To an engine that does not, give them as tokens to suppress, or allow the first tokens of "
        "the label words alone. Logits of all other tokens are what they were before; their logarithms of "
        "probabilities may all be lower by one number, as the new tokens have a share.",
        "",
        METHOD,
        "",
    ])  # fmt: skip


def card_rows(card: Card, length: int, rank: int, width: int) -> list[tuple[str, str]]:
    """Return what a prompt is for, which model it fits and what it scored, as names and values."""
    return [
        ("stage", card.stage),
        ("tasks", ", ".join(task.name for task in card.tasks)),
        *([("chat", f"{card.tasks[0].chat}, in the model's own chat template")] if card.tasks[0].chat else []),
        ("backbone", f"{card.backbone_at} ({card.fingerprint[:12]})"),
        ("prompt", f"{length} soft tokens, rank {rank}, width {width}"),
        ("numbers", _numbers(card, length, rank, width)),
        ("seed", str(card.seeds.get("seed", "unknown"))),
        *([("sources", ", ".join(card.sources))] if card.sources else []),
        *[(f"{s['task']} {s['split']} {s['metric']}", f"{s['value']:.1f}, {s['examples']} rows") for s in card.scores],
        *[(f"{name} confidences", _calibrated(found)) for name, found in (card.calibration or {}).items()],
        *([("state", f"after step {card.kept} of {card.config.get('steps')}")] if card.kept is not None else []),
        *([("training", f"did not help: {STILL}")] if card.kept_start else []),
        *([("stopped", f"at step {card.stopped}, whose numbers were not finite")] if card.stopped is not None else []),
        ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
    ]


def _numbers(card: Card, length: int, rank: int, width: int) -> str:
    """Return how many numbers P* and the task vectors are."""
    return f"{length * width + len(card.tasks) * rank * (length + width):,}"


def _calibrated(found: Calibration) -> str:
    """Return what was found of a task's confidences, in words."""
    abstains = "no threshold" if found.threshold is None else f"abstains below {found.threshold:g}"
    return (
        f"temperature {found.temperature:g}, {abstains} for a precision of {found.precision:g}; "
        f"{found.rows} {found.split} rows"
    )


def _metadata(card: Card) -> str:
    """Return what the hub reads of a prompt, in YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    kind = "text-classification" if all(task.verbalizer for task in card.tasks) else "text-generation"
    backbone = public_name(card.backbone)
    base_model = "google/flan-t5-small" if card.backbone == EMBEDDED else None
    if card.backbone != EMBEDDED and "/" in backbone.removeprefix("./"):
        base_model = backbone
    results = [
        EvalResult(
            task_type=kind,
            task_name=score["task"],
            dataset_name=score["task"],
            dataset_type=score["task"],
            dataset_split=score["split"],
            metric_type=score["metric"],
            metric_value=round(score["value"], 2),
        )
        for score in card.scores
    ]
    data: Any = ModelCardData(
        library_name="mptune",
        tags=["multitask-prompt-tuning", "prompt-tuning", "soft-prompt"],
        pipeline_tag=kind,
        base_model=base_model,
        model_name="+".join(task.name for task in card.tasks) if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml(original_order=HEAD))


def _described(card: Card) -> str:
    if card.backbone == EMBEDDED:
        return f"`embedded` ({EMBEDDED_IS})"
    revision = f" at revision {_code(card.revision)}" if card.revision else ""
    return f"{_code(public_name(card.backbone))}{revision}"


def _protocol(task: Task) -> str:
    """Return a task's name, and whose protocol it follows where that is not the recommended one."""
    return task.name + ("" if task.protocol == "recommended" else f" ({task.protocol}'s protocol)")


def _template(task: Task) -> str:
    """Return a task's template, and where in the model's chat template its prompt stands."""
    return _code(task.template) + (f", chat: {task.chat}" if task.chat else "")


def _code(text: str, *, in_table: bool = True) -> str:
    """Return a text as code, in a cell of a table or elsewhere: fenced by more backticks than stand in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    space = " " if longest else ""
    fence = "`" * (longest + 1)
    shown = _in_line(text).replace("|", "\\|") if in_table else _in_line(text)
    return f"{fence}{space}{shown}{space}{fence}"


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is, in a cell of a table: no link, picture or HTML of a stranger's."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", _in_line(text))


def _in_line(text: str) -> str:
    return visible(text.replace("\n", " "))
