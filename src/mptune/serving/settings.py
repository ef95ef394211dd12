"""What a server takes, and how much of it."""

from pydantic import Field

from mptune.config import AdaptConfig, Config, ExamplesConfig

LOOPBACK = ("127.0.0.1", "::1", "localhost")  # what this machine calls itself


class ServeConfig(Config):
    """Limits of a server: what it reads at once, what may wait, how long."""

    max_batch_tokens: int = Field(4_096, ge=1)
    """Soft tokens and tokens of a text that are read together, over all rows of a batch."""
    max_queue: int = Field(4_096, ge=1)
    """Rows that may wait; more are refused with 429."""
    max_rows: int = Field(1_000, ge=1)
    """Rows of one request."""
    max_body: int = Field(4_000_000, ge=1)
    """Bytes of one request."""
    timeout: float = Field(60.0, gt=0)
    """Seconds in which a row is answered, or refused with 503; and in which a server that ends answers the rest."""
    max_input_tokens: int = Field(256, ge=1)
    """Tokens of a text, as ``EvaluateConfig.max_input_tokens``; a task's own number comes first."""
    max_target_tokens: int = Field(64, ge=1)
    """Tokens that are written at most, where a request does not say how many."""
    cache_megabytes: int = Field(128, ge=1)
    """Of prompts that are ready to be read; the others lie in their files."""
    keys_megabytes: int = Field(512, ge=0)
    """Of what a decoder-only model remembers of prompts it has read, and does not read again; 0 keeps nothing."""
    watch: float = Field(0.0, ge=0)
    """Seconds after which the folder of prompts is looked at again; 0 looks once."""
    label: str | None = None
    """The task of the routes for a labelling tool that name none; where absent, the only task that is served."""
    train_every: int = Field(20, ge=0)
    """New labels of a task after which it is adapted in the background; 0 waits until the labelling tool asks."""
    adapt: AdaptConfig = AdaptConfig(validation_shots=0)
    """Of such an adaptation. No row chooses between its states: the labels are few, and rows held out decide whether it
    takes over at all."""

    @property
    def lengths(self) -> ExamplesConfig:
        """How texts are read and written where a request says nothing."""
        return ExamplesConfig(max_input_tokens=self.max_input_tokens, max_target_tokens=self.max_target_tokens)
