"""Frozen weights in 4 or 8 bits, by bitsandbytes: a backbone takes a quarter or less of the memory, and prompts learn.

Source: LLM.int8, Dettmers et al. 2022 (arXiv:2208.07339); NF4, Dettmers et al. 2023 (arXiv:2305.14314), section 3.
"""

import logging
from importlib.util import find_spec
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig

from mptune.errors import MissingExtraError

Bits = Literal[4, 8]


def quantized(bits: Bits, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return how transformers is asked for a model whose layers hold their weights in few bits.

    Embeddings and the output layer stay as they are: a prompt stands among the ones, answers are read off the other.

    Args:
        dtype: in which it computes.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(f"a backbone in {bits} bits", "quantized")
    # It says in every layer that float32 is rounded on the way in, which is what was asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    how = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": how, "device_map": {"": device}}


def keep_layout(model: Any) -> None:
    """Let layers of 4 bits hold their weights as they were read, on every processor.

    Where one multiplies bfloat16 (AVX-512), bitsandbytes lays them out anew at the first pass without gradients, for a
    kernel that has no gradient: from then on a prompt would learn past every such layer, without a word. That layout
    wants widths of 32 besides, and rounds what it computes to bfloat16.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
