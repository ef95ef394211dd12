"""A prompt for vLLM's server, which takes embeddings in place of a text: tensors, tokens of label words, a client.

    prompt.safetensors   prompt [L, D], embeddings [V, D]
    task.json            label words as tokens, and what stands around prompt and text
    tokenizer/           the model's own
    client.py            asks the server how likely each label word is

The server reads what it is sent as the whole of its input, so that the client embeds the text too. A part of a chat
message would not do: the server writes a line break between such a part and a text, and reads marks in a text.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from mptune.errors import UsageError
from mptune.files import refuse_existing, write_file, write_folder
from mptune.model.backbone import Backbone
from mptune.model.chat import Chat
from mptune.model.encoding import chat_for, distinguishing_depth, label_ids, written_around
from mptune.prompts.modelcard import vllm_card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.tasks.task import Task

MOST_ASKED = 128  # tokens whose log-probabilities vLLM 0.32 gives in one answer
# Of few lines, so that who serves the model reads all of it. vLLM reads a tensor as torch writes it, and no other way;
# the client writes one, and nothing here reads any.
CLIENT = '''\
"""How likely vLLM finds each label word: python client.py "a row's text" [server]. README.md says what is sent."""
import base64, io, json, pathlib, sys, urllib.request
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
TASK = json.loads((HERE / "task.json").read_text(encoding="utf-8"))
TENSORS, TOKENIZER = load_file(HERE / "prompt.safetensors"), AutoTokenizer.from_pretrained(HERE / "tokenizer")

def tokens(text):
    for mark in TASK["marks"]:  # of a chat template, which no text may hold
        text = text.replace(mark, f"{mark[:1]} {mark[1:]}")
    lead, (both, alone) = TASK["lead_ids"], TOKENIZER([TASK["lead"] + text, text], **TASK["how"])["input_ids"]
    return TASK["between"] + (both[len(lead):] if both[:len(lead)] == lead else alone) + TASK["behind"]

def packed(*parts):  # soft tokens as they are, others by their embeddings
    parts = [TENSORS["embeddings"][part].float() if isinstance(part, list) else part for part in parts]
    torch.save(torch.cat(parts), file := io.BytesIO())
    return base64.b64encode(file.getvalue()).decode()

def classify(text, server="http://localhost:8000"):
    inputs = [packed(TASK["before"], TENSORS["prompt"], tokens(text) + start) for start in TASK["starts"]]
    body = json.dumps({"prompt_embeds": inputs, **TASK["asked"]}).encode()
    asked = urllib.request.Request(f"{server}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        told = {each["index"]: each["logprobs"]["top_logprobs"][0] for each in json.load(answer)["choices"]}
    return {word: sum(told[n][f"token_id:{token}"] for n, token in ids) for word, ids in TASK["words"].items()}

if __name__ == "__main__": print(json.dumps(classify(*sys.argv[1:]), ensure_ascii=False))
'''


def export_vllm(prompt: MultitaskPrompt, folder: Path, *, backbone: Backbone, task: str | None = None) -> None:
    """Write one task's prompt as a folder whose client asks a vLLM server that takes embeddings.

    Args:
        backbone: the model that the prompt was made for, and that the server runs.
        task: which one; may be left out where there is only one.

    Raises:
        BackboneMismatch: the prompt was made for another model.
        UnknownNameError: no such task in this prompt.
        UsageError: the folder exists already; several tasks and no name; an encoder-decoder; a task without label
            words, or with more than an answer of the server tells.
    """
    prompt.check_backbone(backbone)
    refuse_existing(folder)
    number = prompt.task_number(task)
    chosen = prompt.tasks[number]
    if backbone.is_encoder_decoder:
        raise UsageError(
            f"vLLM takes prompt embeddings of decoder-only models, and {backbone.config.name} is an encoder-decoder. "
            "Export with --to vocabulary for what runs it, or with --to prompt-tuning for PEFT."
        )
    if not chosen.verbalizer:
        raise UsageError(
            f"the client for vLLM chooses among label words, and {chosen.name} has none: its answers are free text. "
            "Export with --to vocabulary, by which the model writes."
        )
    chat = chat_for(chosen, backbone)
    around = (chat.opening, *chat.frame) if chat else ("", *written_around(backbone))
    values = {"name": chosen.name, "template": chosen.template, **_as_read(chosen, chat, backbone)}
    tensors = {
        "prompt": prompt.collapse()[number].cpu().contiguous(),
        "embeddings": backbone.embeddings.detach().cpu().contiguous(),
    }

    def write(scratch: Path) -> None:
        backbone.tokenizer.save_pretrained(scratch / "tokenizer")
        lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
        write_file(scratch / "task.json", "{\n" + ",\n".join(lines) + "\n}\n")
        write_file(scratch / "client.py", CLIENT)
        card = prompt.card.of_one(chosen).shareable()
        write_file(
            scratch / "README.md", vllm_card(card, prompt.prompt_length, values["tokens"], around, in_a_chat=bool(chat))
        )
        header = {"card": card.model_dump_json(exclude_none=True)}
        write_file(scratch / "prompt.safetensors", save(tensors, metadata=header))

    write_folder(folder, write)


def _as_read(task: Task, chat: Chat | None, backbone: Backbone) -> dict[str, Any]:
    """Return what the client reads of a task: tokens around prompt and text, and those that tell label words apart.

    Raises:
        UsageError: too many of these.
    """
    ids = label_ids(task, backbone)
    depth = distinguishing_depth(ids)
    words = {word: each[:depth] for word, each in zip(task.label_words, ids, strict=True)}
    # Behind what label words begin with, the server is asked for their next tokens; mostly behind nothing.
    starts = sorted({tuple(each[:n]) for each in words.values() for n in range(len(each))})
    told = sorted({token for each in words.values() for token in each})
    if len(told) > MOST_ASKED:
        raise UsageError(
            f"vLLM tells how likely {MOST_ASKED} tokens are in one answer, and the label words of {task.name} begin "
            f"with {len(told)}. Export with --to vocabulary or --to prompt-tuning."
        )
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    lead = chat.leads[0] if chat else ""
    return {
        "tokens": words,
        "starts": [list(start) for start in starts],
        "words": {word: [(starts.index(tuple(each[:n])), token) for n, token in enumerate(each)]
                  for word, each in words.items()},
        "before": list(chat.before) if chat else [],
        "between": list(chat.between) if chat else [],
        "behind": list(chat.behind) if chat else [],
        "lead": lead,
        "lead_ids": backbone.tokenizer(lead, **plain)["input_ids"] if lead else [],
        "marks": list(chat.marks) if chat else [],
        "how": plain if chat else {},
        "asked": {"max_tokens": 1, "temperature": 0, "logprobs": 1, "logprob_token_ids": told,
                  "return_tokens_as_token_ids": True},
    }  # fmt: skip
