"""The mathematics of soft prompts: composing, starting and averaging them.

Pure functions of tensors: no files, no model, no global random state. Letters: see `mptune.model.shapes`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

VOCABULARY_SAMPLE = 5_000  # the most frequent pieces; Lester et al. 2021 and ATTEMPT use this number


@dataclass(frozen=True)
class TaskVectors:
    """What is private to each of K tasks: u and v, whose product rescales the shared prompt."""

    u: Tensor  # [K, L, R]
    v: Tensor  # [K, R, D]

    @property
    def matrices(self) -> Tensor:
        """The task matrices W_k = u_k v_kᵀ. [K, L, D]"""
        return self.u @ self.v


def compose(shared: Tensor, task_vectors: TaskVectors) -> Tensor:
    """Return every task's soft prompt, ``P_k = P* ∘ (u_k v_kᵀ)``.

    Args:
        shared: P*, the prompt that all tasks share. [L, D]
        task_vectors: u_k and v_k of the K tasks.

    Returns:
        One soft prompt per task. [K, L, D]

    Source: Wang et al. 2023 (arXiv:2303.02861), section 3.1, prompt decomposition.
    """
    return shared * task_vectors.matrices


def sample_vocabulary(embeddings: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return ``length`` distinct rows of the embedding table's first 5,000. [V, D] -> [L, D]

    The first pieces of a vocabulary are its most frequent ones. Where more soft tokens than pieces are
    wanted, the sample is drawn with replacement.

    Source: Lester et al. 2021 (arXiv:2104.08691), "sampled vocabulary" initialisation.
    """
    population = min(VOCABULARY_SAMPLE, len(embeddings))
    if length <= population:
        rows = torch.randperm(population, generator=generator)[:length]
    else:
        rows = torch.randint(population, (length,), generator=generator)
    return embeddings[rows.to(embeddings.device)].detach().float().clone()


def neutral_vectors(
    tasks: int, length: int, width: int, rank: int, noise: float, generator: torch.Generator
) -> TaskVectors:
    """Return task vectors whose matrices are about one everywhere.

    The first of the R columns carries the ones; the others start at noise around zero, so that they learn
    different directions. A start near zero (PEFT draws N(0, 0.02²)) would throw the vocabulary sample away.

    Args:
        noise: standard deviation around the neutral value; 0 makes W exactly one, and leaves a rank above one
            without a gradient in its further columns.
    """
    u = noise * torch.randn(tasks, length, rank, generator=generator)
    v = noise * torch.randn(tasks, rank, width, generator=generator)
    u[:, :, 0] += 1
    v[:, 0, :] += 1
    return TaskVectors(u, v)


def mean_of_vectors(source: TaskVectors) -> TaskVectors:
    """Return the average u and the average v of K tasks, as the one task of a new pair.

    Each pair's sign is free, (-u)(-v)ᵀ = u vᵀ, and so is the order of its columns; vectors that never crossed
    zero from their common start at one agree on both, which is what makes this average meaningful.

    Source: Wang et al. 2023, section 3.2.
    """
    return TaskVectors(source.u.mean(0, keepdim=True), source.v.mean(0, keepdim=True))


def mean_of_matrices(source: TaskVectors) -> TaskVectors:
    """Return the best rank-R pair for the average of K task matrices, by singular value decomposition."""
    rank = source.u.shape[-1]
    left, sizes, right = torch.linalg.svd(source.matrices.mean(0), full_matrices=False)
    root = sizes[:rank].sqrt()
    u, v = left[:, :rank] * root, root[:, None] * right[:rank]
    # An SVD fixes each pair up to its sign; take the one with the positive v, as the start at one has.
    sign = v.sum(1).sign()
    sign[sign == 0] = 1
    return TaskVectors((u * sign)[None], (sign[:, None] * v)[None])
