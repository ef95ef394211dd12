"""Hyper-parameters of the methods beside which multitask prompt tuning is put; its own stand in `mptune.config`."""

from pydantic import Field

from mptune.config import MOST_RANK, MOST_ROWS, MOST_TOKENS, BaselineConfig, ExamplesConfig, WeightsConfig


class BitFitConfig(WeightsConfig):
    """BitFit."""

    lr: float = Field(1e-2, gt=0)
    """Learning rate of AdamW, of biases that begin at zero."""


class AdaptersConfig(WeightsConfig):
    """Adapters."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate of AdamW, of layers that add nothing at their start."""


class LoraConfig(WeightsConfig):
    """LoRA."""

    lr: float = Field(3e-3, gt=0)
    """Learning rate of AdamW, of updates that are zero at their start."""


class Ia3Config(WeightsConfig):
    """(IA)³."""

    lr: float = Field(3e-2, gt=0)
    """Learning rate of AdamW, of factors that begin at one."""


class ProbeConfig(ExamplesConfig):
    """Logistic regression on features that do not learn. All labelled rows train it, those for validation too."""

    strength: float = Field(0.1, gt=0)
    """C, the inverse of the regularisation: larger fits the examples more closely."""


class InContextConfig(ExamplesConfig):
    """Labelled rows before the text, and nothing that learns."""

    max_input_tokens: int = Field(512, ge=1, le=MOST_TOKENS)
    """Of the rows and the text together; as many rows stand there as fit. T5 was trained on 512."""


class SetFitConfig(ExamplesConfig):
    """SetFit: a sentence encoder tuned on pairs of rows, then logistic regression on its embeddings."""

    encoder: str = "embedded"
    """Hub name or folder of a sentence-transformers model; ``embedded`` is all-MiniLM-L6-v2 (22 M parameters), which
    comes with the extra."""
    iterations: int = Field(20, ge=1, le=MOST_RANK)
    """Pairs of either kind, of one label and of two, for each row. Tunstall et al. 2022: 20."""
    batch_size: int = Field(16, ge=1, le=MOST_ROWS)
    """Pairs per update. Tunstall et al. 2022: 16."""
    lr: float = Field(2e-5, gt=0)
    """Learning rate of the encoder. SetFit's own default."""


class AttemptConfig(BaselineConfig):
    """ATTEMPT: a target prompt, and for every text a mixture of source prompts beside it."""

    lr: float = Field(0.3, gt=0)
    """Learning rate of the target prompt, in units of the embeddings' RMS."""
    attention_lr: float = Field(0.1, gt=0)
    """Learning rate of the attention over prompts. Asai et al. 2022: 0.1."""
    projection: int = Field(100, ge=1, le=MOST_RANK)
    """Width between the attention's two projections. Asai et al. 2022: 100."""
    temperature: float | None = Field(None, gt=0)
    """Of the softmax over prompts; e times D where absent, as in Asai et al. 2022."""


class DeptConfig(BaselineConfig):
    """DePT: a shorter prompt, and a low-rank update of the embedded text by position."""

    prompt_length: int = Field(40, ge=1, le=MOST_TOKENS)
    """Soft tokens of the shorter prompt. Shi and Lipani 2024: 20 to 80, searched per task."""
    rank: int = Field(45, ge=1, le=MOST_RANK)
    """Of the update: (256 + 768) * 45 + 40 * 768 numbers are the 76,800 of a prompt of 100 on T5-base."""
    lr: float = Field(0.3, gt=0)
    """Learning rate of the prompt, in units of the embeddings' RMS."""
    low_rank_lr: float = Field(1e-3, gt=0)
    """Learning rate of the update's two factors. Shi and Lipani 2024: 1e-4 to 5e-3, searched per task."""
    scale: float = Field(1.0, gt=0)
    """Of the update, before the division by the root of its rank."""
