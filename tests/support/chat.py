"""Tiny models with chat templates, written for these tests in the manner of three families."""

import torch
from tokenizers import pre_tokenizers

from mptune.model.backbone import Backbone
from support.models import make_backbone

TURNS = ["<|start|>", "<|end|>"]
EACH = "{% for m in messages %}"
OPEN = "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
TEMPLATES = {
    "plain": EACH + "{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}" + OPEN,
    "begins": "{{ bos_token }}" + EACH + "{{ '<|start|>' + m.role + '\n' + (m.content | trim) + '<|end|>' }}"
    "{% endfor %}" + OPEN,
    "dated": "{% if messages[0].role != 'system' %}{{ '<|start|>system\nit is ' + strftime_now('%d %b %Y') }}<|end|>"
    "{% endif %}{% for m in messages %}{{ '<|start|>' + m.role + '\n' + m.content + '<|end|>' }}{% endfor %}" + OPEN,
}  # fmt: skip


def talking(
    template: str = TEMPLATES["plain"], family: str = "llama", *, spaced: bool = False, special: bool = True
) -> Backbone:
    """A tiny model with a chat template, whose turns end with a token of their own.

    Args:
        special: whether the tokenizer calls the marks of turns special; not all do.
        spaced: whether its tokenizer writes a space before what it begins with, as older ones do.
    """
    backbone = make_backbone(family)
    tokenizer = backbone.tokenizer
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": TURNS})
    else:
        tokenizer.add_tokens(TURNS)
    tokenizer.chat_template = template
    torch.manual_seed(1)
    backbone.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return Backbone(backbone.model, tokenizer, backbone.config)
