"""The loop that takes prompts down their losses: devices, validation, saved states and progress; no loss of its own.

A stage iterates over a `Training` and sees, step by step, the rows of a batch; it computes a loss and says `descend`.
Devices, processes and trackers are Accelerate's.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mptune.answers.evaluation import Validated, validate
from mptune.answers.reader import Baseline
from mptune.config import TrainingConfig
from mptune.errors import DivergedError, UsageError, one_of
from mptune.model.backbone import Backbone
from mptune.model.batch import UNLABELLED, Batch, Pick
from mptune.model.encoding import collate
from mptune.model.loading import multiplies_bfloat16
from mptune.progress import StepProgress, goes_on, step_progress
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.experiment import Experiment, section_of
from mptune.stages.optimization import warmup_then_linear
from mptune.stages.run import interruptible, pack_state, processes, unpack_state

logger = logging.getLogger(__name__)

SHORT_TEXT = 128  # tokens: half of the default, and what most labelled texts fit in


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
    stopped: int | None = None  # the step after which its numbers were finite no more
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
            try:
                self.state = unpack_state(tensors, self.prompt, self.optimizer)
                self.step, self.kept = int(progress["step"]), int(progress["kept"])
                score, loss = map(float, progress["best"])
                if not (0 <= self.kept <= self.step <= self.config.steps and math.isfinite(score + loss)):
                    at = f"it stands at step {self.step}, and its best at step {self.kept}"
                    raise ValueError(f"{at}, {score}, {loss}, of {self.config.steps}")
            except (RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
                raise run.damaged(error) from None
            self.best = (score, loss)
        self.schedule = warmup_then_linear(self.optimizer, self.config, self.step)
        self.batches = itertools.islice(self.batches, self.step, self.config.steps)
        run.forget_after(self.step if saved is not None else -1)
        self.module, self.optimizer = accelerator.prepare(self.prompt, self.optimizer)

    def judge(self, validated: Validated) -> None:
        """Remember the present state if it is the best so far, or if nothing tells which is; stop if it is broken."""
        numbers = [*map(torch.tensor, validated.key), *self.prompt.parameters()]
        if not all(bool(each.isfinite().all()) for each in numbers):
            self.stopped = self.step
        elif self.best is None or validated.key > self.best or not validated.scores:
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
            DivergedError: not even the start's numbers were finite.
        """
        config, learners, accelerator, backbone = self._config, self._learners, self._accelerator, self._backbone
        for learner in learners:
            learner.prompt.to(backbone.device)
            learner.begin(accelerator)
        start = min(learner.step for learner in learners)
        if accelerator.is_main_process:
            goes_on(self._title, start, config.steps)
        progress = self._stack.enter_context(
            step_progress(self._title, config.steps, start, shown=accelerator.is_main_process, cheaper=self._cheaper())
        )
        self._stack.callback(backbone.set_dropout, False)
        stopped = self._stack.enter_context(interruptible())
        if new := [learner for learner in learners if learner.best is None]:
            self._validate(new, progress)
        share = slice(accelerator.process_index, None, accelerator.num_processes)
        for step in range(start, config.steps):
            going = [learner for learner in learners if learner.step == step and learner.stopped is None]
            if not going:  # killed, some may have come further
                continue
            picks = [next(learner.batches) for learner in going]
            # Seeded by step, not carried on: a resumed run meets the same dropout.
            torch.manual_seed(config.seed * 1_000_003 + step)
            backbone.set_dropout(config.dropout)
            self._step = Step(going, [rows[share] or rows[:1] for rows in picks], backbone)
            yield self._step
            going = [learner for learner in going if learner.stopped is None]
            assert all(learner.step > step for learner in going), "every step wants `descend`"
            progress.show(step + 1)
            if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
                for learner in going:
                    self._note(learner, progress, loss=self._losses[id(learner)])
                self._validate(going, progress)
            asked_to_stop = stopped()  # looked at once: Ctrl-C may come between two looks
            if (asked_to_stop or (step + 1) % config.save_every == 0) and accelerator.is_main_process:
                for learner in going:
                    learner.save()
            if asked_to_stop:
                raise KeyboardInterrupt
            if all(learner.stopped is not None for learner in learners):
                break
        self._take_best()

    def descend(self, *losses: Tensor) -> None:
        """Take the present step down each learner's loss, of which none depends on another learner's parameters.

        A learner whose loss or gradient is not finite takes no step any more: the others do.
        """
        learners, device = self._step.learners, losses[0].device
        self._accelerator.backward(sum(losses[1:], losses[0]))
        numbers = [self._accelerator.reduce(loss.detach(), reduction="mean") for loss in losses]
        for learner in learners:
            norm = self._accelerator.clip_grad_norm_(learner.prompt.parameters(), self._config.clip)
            numbers.append(torch.as_tensor(0.0 if norm is None else norm, device=device, dtype=numbers[0].dtype))
        found = torch.stack(numbers).tolist()  # a GPU is waited for here, and nowhere else in a step
        self._losses = {id(learner): mean for learner, mean in zip(learners, found, strict=False)}
        for learner, norm in zip(learners, found[len(learners) :], strict=True):
            if not math.isfinite(self._losses[id(learner)]) or not math.isfinite(norm):
                learner.stopped = learner.step + 1
                self._warn(learner)
            else:
                learner.optimizer.step()
                learner.schedule.step()
                learner.step += 1
            # None, so that absent tasks are passed over; at once, so that the next forward pass has their room.
            learner.optimizer.zero_grad(set_to_none=True)

    def _validate(self, learners: Sequence[Learner], progress: StepProgress) -> None:
        prompts = [(learner.prompt, learner.experiment.data.validation) for learner in learners]
        for learner, validated in zip(learners, validate(self._backbone, prompts, self._config), strict=True):
            learner.judge(validated)
            if learner.stopped is not None:
                self._warn(learner)
            elif validated.scores:
                loss = {} if validated.loss is None else {"validation_loss": validated.loss}
                self._note(learner, progress, validation=validated.key[0], **loss)

    def _warn(self, learner: Learner) -> None:
        if self._accelerator.is_main_process and learner.best is not None:
            logger.warning(
                "%s: the numbers of step %d are not finite, and training stops there; the best state before it is "
                "kept, that after step %d. Lower %s.",
                self._title, learner.stopped, learner.kept, " or ".join(_rates(learner)),
            )  # fmt: skip

    def _note(self, learner: Learner, progress: StepProgress, **values: float) -> None:
        if self._accelerator.is_main_process:
            learner.experiment.run.log({"step": learner.step, **values})
            progress.show(learner.step, **values)
        if self._tracked:
            self._accelerator.log(values, step=learner.step)

    def _cheaper(self) -> str:
        """Return which settings would make the training cheaper, for who learns that it will take long."""
        section, config = section_of(self._learners[0].experiment.kind), self._config
        ways = [f"--set {section}.steps={max(config.steps // 3, 1)}"]
        if config.max_input_tokens > SHORT_TEXT:
            ways.append(f"--set {section}.max_input_tokens={SHORT_TEXT}, where texts are longer")
        if self._backbone.dtype == torch.float32 and multiplies_bfloat16(self._backbone.device):
            ways.append("--set backbone.dtype=bfloat16")
        return "; ".join([*ways, *(["a GPU"] if self._backbone.device.type == "cpu" else [])])

    def _take_best(self) -> None:
        """Leave each learner's best state in its prompt, and its scores in the card.

        Raises:
            DivergedError: no state was finite, not even the start.
        """
        for learner in self._learners:
            if learner.best is None:
                raise DivergedError(
                    f"{self._title}: already at its start the answers are not finite, so no rate is too high; the "
                    "backbone is damaged, or cannot compute in its dtype. Try --set backbone.dtype=float32."
                )
            prompt, rows = learner.prompt, learner.experiment.data.validation
            prompt.load_state_dict(learner.state)
            # The best state may have been scored by a process that was killed later: asked again.
            validated = learner.validated or validate(self._backbone, [(prompt, rows)], self._config)[0]
            scores = tuple(score.as_dict() for score in validated.scores)
            found = {"scores": scores, "kept": learner.kept, "stopped": learner.stopped}
            prompt.card = prompt.card.model_copy(update=found)
            if isinstance(prompt, MultitaskPrompt):
                prompt.cpu()  # where those that are read from a folder are: the two meet in one tensor
        if self._tracked:
            self._accelerator.end_training()


def _rates(learner: Learner) -> list[str]:
    """Return a learner's rates and what multiplies them, as they are set."""
    section, config = section_of(learner.experiment.kind), learner.config.model_dump()
    fields = [field for field in config if field.endswith("lr")] + ["weight_decay"] * (config["weight_decay"] > 0)
    return [f"{section}.{field} = {config[field]:g}" for field in fields]


def _accelerator(learners: Sequence[Learner], backbone: Backbone, report_to: Sequence[str]) -> Accelerator:
    """Return what knows devices, processes and trackers."""
    run = learners[0].experiment.run
    for name in report_to:
        if name not in [str(each) for each in get_available_trackers()]:
            known = one_of("tracker", name, [str(each) for each in LOGGER_TYPE_TO_CLASS])
            raise UsageError(f"the tracker {known} is not installed; pip install {known}, or leave it away")
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
