"""The dimension letters, and the one function that checks them.

B  examples in a batch          L  prompt length, in soft tokens
K  tasks                        R  rank of a task matrix (1 in the paper)
T  input tokens, padded         D  width of the backbone's embeddings
S  label tokens, padded         V  vocabulary size
C  labels of a verbalizer
"""

from torch import Tensor

from mptune.errors import ShapeError


def check_shape(name: str, tensor: Tensor, letters: str, **sizes: int) -> None:
    """Raise ShapeError unless ``tensor`` has the dimensions that ``letters`` names.

    >>> check_shape("prompt", torch.zeros(20, 512), "L D", D=768)
    ShapeError: prompt should be [L, D=768]; got [20, 512]
    """
    dims = letters.split()
    fits = len(dims) == tensor.ndim and all(sizes.get(d, n) == n for d, n in zip(dims, tensor.shape, strict=True))
    if not fits:
        wanted = ", ".join(f"{d}={sizes[d]}" if d in sizes else d for d in dims)
        raise ShapeError(f"{name} should be [{wanted}]; got {list(tensor.shape)}")
