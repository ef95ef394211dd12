"""CIDEr-D, which no kept library has: how like its references a text is, in n-grams that tell this row from others.

Source: Vedantam et al. 2015 (arXiv:1411.5726), section "CIDEr-D", with the constants given there. Counts and lengths
are raw, as in the captioning challenge's scorer; words are not stemmed.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

Gram = tuple[str, ...]
ORDERS = (1, 2, 3, 4)
SIGMA = 6.0  # words by which lengths may differ before it tells


def cider_d(answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """Return each answer's CIDEr-D, from 0 to 10.

    For every order n, ``10 / m · Σ_j exp(-(|c| - |s_j|)² / 2σ²) · min(g(c), g(s_j)) · g(s_j) / (‖g(c)‖ ‖g(s_j)‖)``,
    where ``g`` weighs n-grams by tf-idf and a row's m references are one document; then the mean over the orders.

    An n-gram that stands in every row weighs nothing, and so all scores of a single row are 0.

    Args:
        answers: words of each row's answer.
        references: words of each row's references, one or more.
    """
    documents = Counter(g for row in references for g in {g for words in row for g in _grams(words)})
    total = math.log(len(references)) if references else 0.0

    def weighed(words: Sequence[str]) -> list[dict[Gram, float]]:
        """Return the tf-idf of the n-grams of words, order by order."""
        tf_idf = {g: n * (total - math.log(max(1, documents[g]))) for g, n in Counter(_grams(words)).items()}
        return [{g: w for g, w in tf_idf.items() if len(g) == order} for order in ORDERS]

    scores = []
    for words, row in zip(answers, references, strict=True):
        ours = weighed(words)
        likeness = 0.0
        for reference in row:
            gap = math.exp(-((len(words) - len(reference)) ** 2) / (2 * SIGMA**2))
            likeness += gap * sum(_clipped_cosine(c, s) for c, s in zip(ours, weighed(reference), strict=True))
        scores.append(10 * likeness / len(row) / len(ORDERS))
    return scores


def _grams(words: Sequence[str]) -> Iterable[Gram]:
    for order in ORDERS:
        yield from zip(*(words[i:] for i in range(order)), strict=False)


def _clipped_cosine(ours: dict[Gram, float], theirs: dict[Gram, float]) -> float:
    """Return the cosine of two sparse vectors, in which ours counts no more than theirs."""
    norm = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    return sum(min(w, theirs[g]) * theirs[g] for g, w in ours.items() if g in theirs) / norm if norm else 0.0
