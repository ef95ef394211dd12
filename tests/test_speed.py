"""What is made faster computes what it computed before."""

import copy
import itertools
import platform
import subprocess
import sys

import pytest
import torch
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm

from conftest import make_backbone
from mptune.speed import RMSNorm, fuse, like_lengths


@pytest.mark.parametrize(
    ("costs", "pass_cost", "groups"),
    [
        ([5, 5, 5], 1, [[0, 1, 2]]),
        ([9, 2, 9, 2], 1, [[0, 2], [1, 3]]),
        ([9, 2, 9, 2], 14, [[1, 3, 0, 2]]),  # 22 + 2 passes, or 36 + one
        ([1, 50, 2, 49, 100], 10, [[4], [3, 1], [0, 2]]),
        ([7], 0, [[0]]),
    ],
)
def test_rows_are_grouped_where_padding_costs_more_than_another_pass(costs, pass_cost, groups):
    assert like_lengths(costs, pass_cost) == groups


@pytest.mark.parametrize("pass_cost", [0, 3, 20])
def test_no_other_grouping_costs_less(pass_cost):
    costs = [3, 17, 4, 30, 4, 9, 12]

    def price(groups):
        return sum(pass_cost + len(rows) * max(costs[row] for row in rows) for rows in groups)

    order = sorted(range(7), key=lambda row: costs[row])
    cuts = ([c for c in range(1, 7) if bits >> c & 1] for bits in range(0, 128, 2))
    every = ([order[a:b] for a, b in itertools.pairwise([0, *chosen, 7])] for chosen in cuts)
    assert price(like_lengths(costs, pass_cost)) == min(price(groups) for groups in every)


# -- fewer passes -----------------------------------------------------------------------------------------------------


def theirs_and_ours(width=24, dtype=torch.float64):
    norm = T5LayerNorm(width, eps=1e-3).to(dtype).requires_grad_(False)
    norm.weight.copy_(torch.linspace(-1, 2, width))
    return norm, RMSNorm(norm.weight, norm.variance_epsilon)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_the_norm_and_its_gradient_are_those_of_transformers(dtype, near):
    theirs, ours = theirs_and_ours(dtype=dtype)
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    grad = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = []
    for norm in (theirs, ours):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        assert y.dtype == dtype
        y.backward(grad)
        found.append((y.detach(), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=near * float(one.abs().max()), rtol=near)


def test_the_norms_gradient_is_that_of_finite_differences():
    _, ours = theirs_and_ours(width=6)
    x = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(ours, (x,))


def test_the_norm_changes_neither_its_input_nor_its_gradient():
    _, ours = theirs_and_ours(dtype=torch.float32)
    x, grad = torch.randn(2, 24).requires_grad_(), torch.randn(2, 24)
    before = x.detach().clone(), grad.clone()
    ours(x).backward(grad)
    assert torch.equal(x.detach(), before[0])
    assert torch.equal(grad, before[1])


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_a_fused_model_gives_the_logits_and_gradients_of_the_model(family):
    plain = make_backbone(family).model
    fused = copy.deepcopy(plain)
    fuse(fused)
    kinds = [type(m) for m in fused.modules()]
    assert RMSNorm in kinds
    assert not any("LayerNorm" in kind.__name__ or kind is NewGELUActivation for kind in kinds)
    inputs = torch.randn(2, 7, plain.config.d_model, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[5, 1], [6, 1]])
    found = []
    for model in (plain, fused):
        leaf = inputs.clone().requires_grad_()
        out = model(inputs_embeds=leaf, labels=labels)
        out.loss.backward()
        found.append((out.logits.detach(), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_fused_model_saves_and_names_the_same_weights():
    model = make_backbone("t5").model
    before = {name: p.clone() for name, p in model.state_dict().items()}
    fuse(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], p) for name, p in before.items())


FAULTS = """
import ctypes, resource, sys
from mptune.speed import keep_pages
if sys.argv[1] == "kept":
    keep_pages()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(30 << 20) for _ in range(6)]
    for block in blocks:
        libc.memset(block, 1, 30 << 20)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told to keep pages")
def test_what_a_step_frees_is_not_mapped_again_in_the_next():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("given back", "kept")
    }
    assert faults["given back"] > 10_000
    assert faults["kept"] < 100
