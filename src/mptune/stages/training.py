"""The loop that takes prompts down their losses: devices, validation, saved states and progress; no loss of its own.

A stage iterates over a `Training` and sees, step by step, the rows of a batch; it computes a loss and says `descend`.
Devices, processes and trackers are Accelerate's.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mptune.answers.evaluation import Validated, validate
from mptune.answers.reader import Baseline
from mptune.config import TrainingConfig
from mptune.errors import UsageError
from mptune.model.backbone import Backbone
from mptune.model.batch import UNLABELLED, Batch, Pick
from mptune.model.encoding import collate
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.experiment import Experiment
from mptune.stages.optimization import warmup_then_linear
from mptune.stages.run import interruptible, pack_state, processes, unpack_state
from mptune.terminal import StepProgress, step_progress


@dataclass
class Learner:
    """A prompt, or a baseline, on its way, with all that is its own."""

    experiment: Experiment[Any]
    prompt: MultitaskPrompt | Baseline
    optimizer: torch.optim.Optimizer
    batches: Iterator[list[Pick]]  # endless; a resumed run skips those that were taken
    step: int = 0
    best: tuple[float, float] | None = None  # key of the best validated state
    kept: int = 0  # after how many steps that state stood
    state: Mapping[str, Tensor] = field(default_factory=dict)  # that state
    validated: Validated | None = None  # its scores, where this process took them
    schedule: LambdaLR = field(init=False)
    # The prompt as all processes share it: numbers of tasks to their prompts [K, L, D]; a baseline's, a batch to them.
    module: Callable[..., Any] = field(init=False)

    @property
    def config(self) -> TrainingConfig:
        """The configuration, which counts in steps."""
        config: TrainingConfig = self.experiment.config
        return config

    def begin(self, accelerator: Accelerator) -> None:
        """Take up the saved state of a killed run, or the start."""
        run = self.experiment.run
        self.state = self._copy()
        saved = run.load_state()
        if saved is not None:
            tensors, progress = saved
            self.state = unpack_state(tensors, self.prompt, self.optimizer)
            self.step, self.best, self.kept = progress["step"], tuple(progress["best"]), progress["kept"]
        self.schedule = warmup_then_linear(self.optimizer, self.config, self.step)
        self.batches = itertools.islice(self.batches, self.step, self.config.steps)
        run.forget_after(self.step if saved is not None else -1)
        self.module, self.optimizer = accelerator.prepare(self.prompt, self.optimizer)

    def judge(self, validated: Validated) -> None:
        """Remember the present state if it is the best so far, or if nothing tells which is."""
        if self.best is None or validated.key > self.best or not validated.scores:
            self.best, self.validated, self.state = validated.key, validated, self._copy()
            self.kept = self.step

    def save(self) -> None:
        """Write what a later process needs to go on."""
        progress = {"step": self.step, "best": self.best, "kept": self.kept}
        self.experiment.run.save_state(pack_state(self.prompt, self.optimizer, self.state), progress)

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.prompt.named_parameters()}


@dataclass(frozen=True)
class Step:
    """One step of a training: who takes it, and on which rows."""

    learners: Sequence[Learner]
    picks: Sequence[Sequence[Pick]]  # each learner's rows, of this process
    backbone: Backbone

    @property
    def prompt(self) -> Callable[..., Any]:
        """The only learner's prompt, as all processes share it: numbers of tasks to prompts [K, L, D]."""
        (learner,) = self.learners
        return learner.module

    def batch(self) -> Batch:
        """Return the only learner's labelled rows as one batch."""
        (learner,), (picks,) = self.learners, self.picks
        labelled = [pick for pick in picks if pick[0] != UNLABELLED]
        return collate(labelled, learner.experiment.data.train, self.backbone)


class Training:
    """The steps of one learner, or of several that share forward passes; a context, to be iterated over once.

    The start is validated too, so that training never returns less than it was given. At the end the best of the
    validated states is left in each learner's prompt, with its scores: multitask prompts in the processor's memory,
    wherever the backbone is; baselines beside it.
    """

    def __init__(
        self, learners: Sequence[Learner], backbone: Backbone, *, title: str, report_to: Sequence[str] = ()
    ) -> None:
        """Prepare the steps.

        Args:
            learners: one; or several, whose configurations differ in seed and shots alone.
            report_to: trackers, as ``("tensorboard",)``.

        Raises:
            UsageError: trackers without a folder, or for several learners.
        """
        self._learners, self._backbone, self._title = learners, backbone, title
        self._config = learners[0].config
        self._stack = ExitStack()
        self._accelerator = _accelerator(learners, backbone, report_to)
        self._tracked = bool(report_to)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Step]:
        """Yield what is left of the steps; each wants `descend` before the next.

        Raises:
            KeyboardInterrupt: Ctrl-C, after the state was saved.
        """
        config, learners, accelerator, backbone = self._config, self._learners, self._accelerator, self._backbone
        for learner in learners:
            learner.prompt.to(backbone.device)
            learner.begin(accelerator)
        start = min(learner.step for learner in learners)
        progress = self._stack.enter_context(
            step_progress(self._title, config.steps, start, shown=accelerator.is_main_process)
        )
        self._stack.callback(backbone.set_dropout, False)
        stopped = self._stack.enter_context(interruptible())
        if new := [learner for learner in learners if learner.best is None]:
            self._validate(new, progress)
        share = slice(accelerator.process_index, None, accelerator.num_processes)
        for step in range(start, config.steps):
            going = [learner for learner in learners if learner.step == step]  # killed, some may have come further
            picks = [next(learner.batches) for learner in going]
            # Seeded by step, not carried on: a resumed run meets the same dropout.
            torch.manual_seed(config.seed * 1_000_003 + step)
            backbone.set_dropout(config.dropout)
            self._step = Step(going, [rows[share] or rows[:1] for rows in picks], backbone)
            yield self._step
            assert all(learner.step > step for learner in going), "every step wants `descend`"
            progress.show(step + 1)
            if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
                for learner, loss in zip(going, self._losses, strict=True):
                    mean = float(accelerator.reduce(loss.detach(), reduction="mean"))
                    self._note(learner, progress, loss=mean)
                self._validate(going, progress)
            asked_to_stop = stopped()  # looked at once: Ctrl-C may come between two looks
            if (asked_to_stop or (step + 1) % config.save_every == 0) and accelerator.is_main_process:
                for learner in going:
                    learner.save()
            if asked_to_stop:
                raise KeyboardInterrupt
        self._take_best()

    def descend(self, *losses: Tensor) -> None:
        """Take the present step down each learner's loss, of which none depends on another learner's parameters."""
        learners = self._step.learners
        self._accelerator.backward(sum(losses[1:], losses[0]))
        for learner in learners:
            self._accelerator.clip_grad_norm_(learner.prompt.parameters(), self._config.clip)
            learner.optimizer.step()
            # None, so that absent tasks are passed over; at once, so that the next forward pass has their room.
            learner.optimizer.zero_grad(set_to_none=True)
            learner.schedule.step()
            learner.step += 1
        self._losses = losses

    def _validate(self, learners: Sequence[Learner], progress: StepProgress) -> None:
        prompts = [(learner.prompt, learner.experiment.data.validation) for learner in learners]
        for learner, validated in zip(learners, validate(self._backbone, prompts, self._config), strict=True):
            learner.judge(validated)
            if validated.scores:
                score, loss = validated.key[0], -validated.key[1]
                self._note(learner, progress, validation=score, validation_loss=loss)

    def _note(self, learner: Learner, progress: StepProgress, **values: float) -> None:
        if self._accelerator.is_main_process:
            learner.experiment.run.log({"step": learner.step, **values})
            progress.show(learner.step, **values)
        if self._tracked:
            self._accelerator.log(values, step=learner.step)

    def _take_best(self) -> None:
        """Leave each learner's best state in its prompt, and its scores in the card."""
        for learner in self._learners:
            prompt, rows = learner.prompt, learner.experiment.data.validation
            prompt.load_state_dict(learner.state)
            # The best state may have been scored by a process that was killed later: asked again.
            validated = learner.validated or validate(self._backbone, [(prompt, rows)], self._config)[0]
            scores = tuple(score.as_dict() for score in validated.scores)
            prompt.card = prompt.card.model_copy(update={"scores": scores, "kept": learner.kept})
            if isinstance(prompt, MultitaskPrompt):
                prompt.cpu()  # where those that are read from a folder are: the two meet in one tensor
        if self._tracked:
            self._accelerator.end_training()


def _accelerator(learners: Sequence[Learner], backbone: Backbone, report_to: Sequence[str]) -> Accelerator:
    """Return what knows devices, processes and trackers."""
    run = learners[0].experiment.run
    if report_to and run.out is None:
        raise UsageError("trackers write into the run's folder; give out=..., or leave report_to away")
    if report_to and len(learners) > 1:
        raise UsageError(
            f"a tracker follows one run, and {len(learners)} are to train side by side; leave it away, "
            "or train one at a time"
        )
    # Tasks that are absent from a process's part of a batch have no gradients there.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        # Accelerate has one device for as long as the process lives, the first that it is told; a process may train on
        # a GPU and on the processor in turn. So what learns is put beside the backbone here, and never moved there.
        device_placement=False,
        cpu=backbone.device.type == "cpu" and processes() > 1,
        log_with=list(report_to) or None,
        project_dir=str(run.folder) if run.out is not None else None,
        kwargs_handlers=[unused],
    )
    if report_to:
        settings = learners[0].config.model_dump(mode="json")
        # TensorBoard takes no lists.
        accelerator.init_trackers("mptune", {k: str(v) if isinstance(v, list) else v for k, v in settings.items()})
    return accelerator
