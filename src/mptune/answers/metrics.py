"""Scores. Each metric is a function of a task's examples and the answers to them, from a library that is kept.

An answer that is a right one has full marks in every script, and one that is wrong or unreadable has less. For English
the numbers are those of sacrebleu, rouge_score and the scripts of SQuAD and GLUE, where these are defined.

All run from 0 to 100 and larger is better, but for these: Matthews and the correlations begin at -100; NIST (0 to about
15) and CIDEr (0 to 10) keep the scale in which they are quoted everywhere; of TER, which counts edits, less is better.
"""

import math
import re
import string
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from pydantic import FiniteFloat

from mptune.answers.cider import cider_d
from mptune.errors import DataError, MissingExtraError
from mptune.tasks.task import Example, Task

NO_NUMBER = -1.0  # what an answer that is no number counts as, or one below the least right answer
OF_WRITTEN_TEXT = frozenset({"bleu", "chrf", "cider", "meteor", "nist", "ter"})  # by libraries of an extra
NIST_ORDER = 5  # n-grams of up to so many words: Doddington 2002
# Chinese characters and kana stand without spaces; each counts as a word, as in sacrebleu's zh.
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_ARTICLES = {"a", "an", "the"}
_NO_SIGNS = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Score:
    """The value of a metric on the rows of one split."""

    task: str
    split: str
    metric: str
    value: FiniteFloat  # on the metric's scale, mostly 0..100
    examples: int  # rows

    def as_dict(self) -> dict[str, Any]:
        """Return the score as JSON holds it."""
        return asdict(self)


def score(task: Task, split: str, examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    """Return the task's metrics, in its order; then, where rows have several subsets, each one's, as ``bleu_unseen``.

    Args:
        answers: the predicted label words, or free texts; one that is no label word counts as wrong.

    Raises:
        MissingExtraError: the libraries that score written text are not installed.
        DataError: right answers that are no numbers, where a correlation is wanted.
    """
    pairs = list(zip(examples, answers, strict=True))
    parts = {"": pairs}
    subsets = sorted({e.subset for e in examples if e.subset is not None})
    if len(subsets) > 1:
        parts |= {f"_{subset}": [pair for pair in pairs if pair[0].subset == subset] for subset in subsets}
    scores = []
    for part, chosen in parts.items():
        rows, words = [e for e, _ in chosen], [a for _, a in chosen]
        scores += [Score(task.name, split, m + part, _value(m, task, rows, words), len(rows)) for m in task.metrics]
    return scores


def credits(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[float] | None:
    """Return what each row gives to the task's first metric, 0..1, for comparing two systems row by row.

    Where the metric is a mean over rows, it is the mean of these. Where it is one of classes and of all rows together,
    as F1, these are ones for right answers. There are none for BLEU and its like, and for correlations.
    """
    first = task.metrics[0]
    if first in _OF_ROWS:
        return _OF_ROWS[first](task, examples, answers)
    return _right(task, examples, answers) if task.verbalizer else None


def _value(name: str, task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    if name in _OF_ROWS:
        return 100 * sum(_OF_ROWS[name](task, examples, answers)) / max(1, len(examples))
    return _OF_ALL[name](task, examples, answers)


def constant_answer(task: Task, examples: Sequence[Example]) -> str:
    """Return the commonest target: what a predictor that learnt nothing but the frequencies says."""
    targets = [e.target for e in examples]
    return Counter(targets).most_common(1)[0][0]


def _classes(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return right and predicted classes as numbers; -1 is an answer that is no label word."""
    number = {word: i for i, word in enumerate(task.label_words)}
    return [number[e.target] for e in examples], [number.get(a, -1) for a in answers]


def _right(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
    return [float(e.target == a) for e, a in zip(examples, answers, strict=True)]


def _f1(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    """F1 of the verbalizer's last label, the positive one in GLUE; over all answers, as here, it is MultiRC's F1a."""
    from sklearn.metrics import f1_score

    right, predicted = _classes(task, examples, answers)
    if right == predicted:
        return 100.0  # also where no row has the positive label, and F1 is not defined
    last = len(task.label_words) - 1
    return 100 * float(f1_score(right, predicted, labels=[last], average="macro", zero_division=0))


def _f1_macro(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    from sklearn.metrics import f1_score

    right, predicted = _classes(task, examples, answers)
    labels = sorted({*right, *predicted} - {-1})  # of a class that is neither there nor answered there is no F1
    return 100 * float(f1_score(right, predicted, labels=labels, average="macro", zero_division=0))


def _matthews(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    from sklearn.metrics import matthews_corrcoef

    right, predicted = _classes(task, examples, answers)
    if right == predicted:
        return 100.0  # also where the rows have one class, and it is not defined
    return 100 * float(matthews_corrcoef(right, predicted))


def _group_exact_match(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    """The share of groups all of whose rows are right; MultiRC's EM, where a group is a question's answers."""
    groups: dict[str | int, bool] = {}
    for i, (e, a) in enumerate(zip(examples, answers, strict=True)):
        key = i if e.group is None else e.group
        groups[key] = groups.get(key, True) and e.target == a
    return 100 * sum(groups.values()) / max(1, len(groups))


def _squad(key: str) -> "OfRows":
    """Exact match or token F1 after SQuAD's normalisation, the best over an example's right answers; ReCoRD's too."""

    def of_rows(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics warns of optional parts that are not used here
            from torchmetrics.functional.text import squad

        values = []
        for e, a in zip(examples, answers, strict=True):
            if _ARTICLES.issuperset(a.lower().translate(_NO_SIGNS).split()):
                # To SQuAD's script "A", "?" and silence are one answer, of which nothing is left.
                values.append(float(_unsigned(a) in map(_unsigned, e.references)))
                continue
            right: dict[str, Any] = {"text": list(e.references), "answer_start": [0] * len(e.references)}
            scores = squad([{"id": "0", "prediction_text": a}], [{"id": "0", "answers": right}])
            values.append(float(scores[key]) / 100)
        return values

    return of_rows


def _unsigned(text: str) -> list[str]:
    """Return the words of a text without signs, or its signs where it has nothing else."""
    return text.lower().translate(_NO_SIGNS).split() or text.split()


def _correlation(statistic: Callable[[Sequence[float], Sequence[float]], float]) -> "OfAll":
    """A correlation of answers with right answers."""

    def of_all(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
        right = [_number(e.references[0]) for e in examples]
        problems = [
            f"row {e.row}: a correlation wants numbers as right answers; got {e.references[0]!r}"
            for e, r in zip(examples, right, strict=True)
            if r is None
        ]
        if problems:
            raise DataError(task.name, problems)
        wanted = [r for r in right if r is not None]
        silent = min(NO_NUMBER, min(wanted, default=0.0) - 1)  # below what any row wants, so that silence never pays
        numbers = [silent if (n := _number(a)) is None else n for a in answers]
        return 100.0 if numbers == wanted else 100 * statistic(wanted, numbers)  # nothing varies in equal numbers

    return of_all


def pearson(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the correlation of pairs, -1..1; 0 where either does not vary."""
    from scipy import stats

    return float(stats.pearsonr(ours, theirs).statistic) if _both_vary(ours, theirs) else 0.0


def spearman(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the correlation of the ranks of pairs, -1..1; 0 where either does not vary."""
    from scipy import stats

    return float(stats.spearmanr(ours, theirs).statistic) if _both_vary(ours, theirs) else 0.0


def _both_vary(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return len(set(ours)) > 1 and len(set(theirs)) > 1


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _sacrebleu(metric: str) -> "OfAll":
    """BLEU, chrF or TER of sacrebleu with its standard settings, against all references of a row.

    Where no answer is long enough for n-grams of four words, BLEU is of the orders that there are, and not 0.
    """

    def of_all(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
        try:
            from sacrebleu import metrics
        except ImportError:
            raise _no_nlg() from None
        if not examples:
            return 0.0
        most = max(len(e.references) for e in examples)
        # The n-th references of all rows; None where a row has fewer, since an empty text would be one more reference.
        streams = [[_apart(e.references[n]) if n < len(e.references) else None for e in examples] for n in range(most)]
        settings = {"effective_order": True} if metric == "BLEU" else {}
        return float(getattr(metrics, metric)(**settings).corpus_score(list(map(_apart, answers)), streams).score)

    return of_all


def _nist(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    """NIST of nltk, on its own scale: n-gram matches weighed by how much they tell. Words as in BLEU."""
    try:
        from nltk.translate.nist_score import corpus_nist
    except ImportError:
        raise _no_nlg() from None
    words = [_words(a) for a in answers]
    longest = max(map(len, words), default=0)
    if not longest:
        return 0.0
    # Orders that no answer is long enough for add nothing; nltk would divide by their number of n-grams, zero.
    return float(corpus_nist([[_words(r) for r in e.references] for e in examples], words, n=min(NIST_ORDER, longest)))


class _NoWordNet:
    """In place of WordNet's files, which are no library: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _meteor(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
    """METEOR of nltk (alpha 0.9, beta 3, gamma 0.5), the best over the references, by words and by Porter's stems.

    Published numbers count synonyms of WordNet too, and are higher.
    """
    try:
        from nltk.translate.meteor_score import meteor_score
    except ImportError:
        raise _no_nlg() from None
    return [
        float(meteor_score([_words(r) for r in e.references], _words(a), wordnet=_NoWordNet()))
        for e, a in zip(examples, answers, strict=True)
    ]


def _rouge_l(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
    """F1 of the longest common subsequence of words, by torchmetrics, the best over the references.

    Words are runs of letters, marks and digits in lower case, which in ASCII are those of rouge_score.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.text import rouge_score

    return [
        float(
            rouge_score([a], [list(e.references)], normalizer=_lettered, rouge_keys="rougeL", accumulate="best")[
                "rougeL_fmeasure"
            ]
        )
        for e, a in zip(examples, answers, strict=True)
    ]


def _cider(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    """CIDEr-D, on its own scale, over lower-cased words."""
    words = [_words(a.lower()) for a in answers]
    values = cider_d(words, [[_words(r.lower()) for r in e.references] for e in examples])
    return sum(values) / max(1, len(values))


def _words(text: str) -> list[str]:
    """Return the words and signs of a text as BLEU counts them (mteval-v13a)."""
    try:
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    except ImportError:
        raise _no_nlg() from None
    return str(Tokenizer13a()(_apart(text))).split()  # type: ignore[no-untyped-call]


def _apart(text: str) -> str:
    """Return a text with spaces around the characters of scripts that have none."""
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", text)


def _lettered(text: str) -> str:
    """Return the letters and digits of a text in lower case, with spaces for all else; a text of signs as it is."""
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in _apart(text.lower()))
    return " ".join("".join(kept).split()) or text.strip()


def require_libraries(metrics: Collection[str]) -> None:
    """Raise MissingExtraError if metrics cannot be computed here: long work should not end in that."""
    if not OF_WRITTEN_TEXT.isdisjoint(metrics) and not all(map(find_spec, ("sacrebleu", "nltk"))):
        raise _no_nlg()


def _no_nlg() -> MissingExtraError:
    return MissingExtraError(f"scoring written text ({', '.join(sorted(OF_WRITTEN_TEXT))})", "nlg")


OfRows = Callable[[Task, Sequence[Example], Sequence[str]], list[float]]
OfAll = Callable[[Task, Sequence[Example], Sequence[str]], float]

_OF_ROWS: dict[str, OfRows] = {  # means over rows: what each row gives, 0..1
    "accuracy": _right,
    "exact_match": _squad("exact_match"),
    "squad_f1": _squad("f1"),
    "meteor": _meteor,
    "rouge_l": _rouge_l,
}
_OF_ALL: dict[str, OfAll] = {
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
    "group_exact_match": _group_exact_match,
    "pearson": _correlation(pearson),
    "spearman": _correlation(spearman),
    "bleu": _sacrebleu("BLEU"),
    "chrf": _sacrebleu("CHRF"),
    "ter": _sacrebleu("TER"),
    "nist": _nist,
    "cider": _cider,
}
