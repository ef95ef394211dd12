"""Prompts as they are kept and handed on: prompts, show, export, import."""

from pathlib import Path
from typing import Annotated

import typer

from mptune.commands.options import BackboneOption, PromptArgument, Text, load, named_tasks, open_prompt, option
from mptune.errors import one_of
from mptune.terminal import say, say_json, table


def prompts(as_json: Annotated[bool, option("One JSON object per prompt.", name="--json")] = False) -> None:
    """List the multitask prompts that come with the package, from which `adapt` starts."""
    from mptune.prompts.stored import shipped_prompts, stored_prompt

    found = [(name, stored_prompt(name)) for name in shipped_prompts()]
    if as_json:
        for name, prompt in found:
            say_json({"name": name, "backbone": prompt.card.backbone, "prompt_length": prompt.length,
                      "tasks": [task.name for task in prompt.card.tasks]})  # fmt: skip
    else:
        rows = [[name, p.card.backbone, p.length, ", ".join(t.name for t in p.card.tasks)] for name, p in found]
        table(["prompt", "backbone", "soft tokens", "has seen"], rows)
        say("`mptune adapt` without --from starts from the one for its backbone.", err=True)


def show(
    prompt: PromptArgument,
    as_json: Annotated[bool, option("The card as JSON.", name="--json")] = False,
) -> None:
    """Show a prompt's card: what it is for, which model it fits, what it scored."""
    from mptune.prompts.modelcard import card_rows
    from mptune.prompts.stored import stored_prompt

    stored = stored_prompt(prompt)
    if as_json:
        say(stored.card.model_dump_json(exclude_none=True, indent=2))
    else:
        table(["", ""], card_rows(stored.card, stored.length, stored.rank, stored.width))


def export_prompt(
    prompt: PromptArgument,
    out: Annotated[Path, option("New folder.", "DIR")],
    to: Annotated[
        str,
        option(
            "For PEFT: peft (all tasks) or prompt-tuning (one task, collapsed). vllm: for its server. vocabulary: "
            "a copy of the model that knows the prompt as tokens."
        ),
    ] = "peft",
    task: Annotated[Text, option("The task, where a prompt has several.", "NAME")] = None,
    backbone: BackboneOption = None,
) -> None:
    """Write a prompt for another program: an adapter that PEFT opens, or what vLLM or any other engine reads."""
    from mptune.prompts.stored import ADAPTER_KINDS, OTHER_PROGRAMS

    kind = one_of("format", to, (*ADAPTER_KINDS, *OTHER_PROGRAMS))
    loaded = open_prompt(prompt)
    from mptune.prompts.peft import export_peft
    from mptune.prompts.vllm import export_vllm
    from mptune.prompts.vocabulary import export_vocabulary

    model = load(backbone, {}, loaded, prompt)
    if kind == "vllm":
        export_vllm(loaded, out, backbone=model, task=task)
        say(f"{out}: tensors and a client for a vLLM server; its README.md says how it is started")
    elif kind == "vocabulary":
        export_vocabulary(loaded, out, backbone=model, task=task)
        say(f"{out}: the model with the prompt among its tokens; its README.md says what to write before a text")
    else:
        export_peft(loaded, out, one_of("format", to, ADAPTER_KINDS), backbone=model, task=task)
        say(f"{out}: an adapter for peft's PeftModel.from_pretrained")


def import_prompt(
    folder: Annotated[Path, typer.Argument(help="Folder of a PEFT adapter: multitask or plain prompt tuning.")],
    out: Annotated[Path, option("Folder of the prompt.", "DIR")],
    tasks: Annotated[Text, option("Its tasks, in the adapter's order.", "NAMES")] = None,
    backbone: BackboneOption = None,
) -> None:
    """Read a PEFT adapter as a prompt."""
    from mptune.files import refuse_existing
    from mptune.prompts.peft import import_peft, refuse_foreign

    refuse_foreign(folder)
    chosen = named_tasks(tasks, "--tasks")
    refuse_existing(out)
    prompt = import_peft(folder, backbone=load(backbone, {}), tasks=chosen)
    prompt.save_pretrained(out)
    say(f"{out}: {', '.join(t.name for t in prompt.tasks)}")
