"""What a long-lived process keeps: pages of the GNU C library's allocator, and compiled kernels."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
IN_THE_HEAP = 32 * 2**20  # bytes of a block; more is refused
APART = 512 * 2**10  # bytes of a block; docs/LOG.md has what other sizes cost
KERNELS = "128"  # for as many shapes of products; a step of the embedded backbone has about 40

_glibc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
_keeps = False


def keep_pages() -> None:
    """Let the allocator keep what a step frees for the next one; for programs, once at their start.

    It gives large blocks back to the system otherwise, which maps and clears new ones in the next step.
    """
    global _keeps
    if _glibc is not None:
        _keeps = True
        _glibc.mallopt(M_MMAP_THRESHOLD, IN_THE_HEAP)
        _glibc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # the heap never shrinks


def keep_few_kernels() -> None:
    """Keep the kernels of the last products only; for programs, before they import torch.

    oneDNN compiles one for every shape, and keeps 1,024 of them; torch keeps as many again, by names of its own. That
    is half a megabyte a shape, and rows of unlike lengths have a new shape at every step. A user's own numbers stand.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    os.environ.setdefault("LRU_CACHE_CAPACITY", KERNELS)


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Where pages are kept, keep none of large blocks for a while: each is mapped by itself and goes when it is freed.

    Steps of weight methods keep gigabytes of activations, of other sizes for every batch. In the heap the pieces that
    they leave do not fit the next ones, and it grows to twice what is in use (docs/LOG.md, 2026-11-27: memory of a
    comparison). Prompts train on shorter rows and without gradients of weights; for them kept pages are faster.
    """
    if _glibc is None or not _keeps:
        yield
        return
    _glibc.mallopt(M_MMAP_THRESHOLD, APART)
    try:
        yield
    finally:
        _glibc.mallopt(M_MMAP_THRESHOLD, IN_THE_HEAP)


def give_back() -> None:
    """Return to the system what is free; between two runs, not between two steps.

    It lies in pieces between what is not, where the next run, of other lengths, finds no place.
    """
    if _glibc is not None:
        _glibc.malloc_trim(0)
