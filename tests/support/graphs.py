"""What a GPU's recordings are to their caller, on a processor."""

import torch

from mptune.model.backbone import Backbone
from mptune.model.graphs import Graphs


class Held:
    """What a CUDA graph is to its caller: everything lies in the same places at every replay, and is overwritten."""

    pool = "a pool"

    def __init__(self, passes, inputs, pool):
        self.passes = passes
        self.inputs = [each.detach().clone().requires_grad_(each.requires_grad) for each in inputs]
        self.outputs = None

    def forward(self, inputs):
        with torch.no_grad():
            for mine, given in zip(self.inputs, inputs, strict=True):
                mine.copy_(given)
        with torch.enable_grad():
            self.computed = self.passes(*self.inputs)
        return tuple(each.detach().clone() for each in self.computed)

    def backward(self, gradients):
        learning = [each for each in self.inputs if each.requires_grad]
        used = [(each, g) for each, g in zip(self.computed, gradients, strict=True) if each.requires_grad]
        outputs, given = zip(*used, strict=True)
        return torch.autograd.grad(outputs, learning, given, allow_unused=True)


def recorded(backbone: Backbone, record=Held) -> Backbone:
    """The backbone, reading as on a GPU."""
    backbone.packed = None
    backbone.graphs = Graphs(record)
    return backbone
