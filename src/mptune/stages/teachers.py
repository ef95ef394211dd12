"""Stage 1: one source task in, one teacher prompt out. The same function is plain prompt tuning."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from mptune.artifacts import MultitaskPrompt
from mptune.backbone import FrozenBackbone, load_backbone
from mptune.config import TeachConfig
from mptune.optimization import two_speed
from mptune.prompts import neutral_vectors, sample_vocabulary
from mptune.runs import opened
from mptune.sampling import single_task
from mptune.tasks import Task
from mptune.training import Learner, identity_of, label_losses, local_of, make_card, train, training_data, with_steps


def teach(
    task: Task,
    backbone: FrozenBackbone | None = None,
    config: TeachConfig | None = None,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> MultitaskPrompt:
    """Return a soft prompt trained on one task alone, the best of its run by validation score.

    Args:
        out: folder of the prompt; a killed run goes on from ``<out>.partial``. In memory only where None.
        data_dir: local rows of hub tasks.
        report_to: trackers, as ``("tensorboard",)``.

    Raises:
        DataError: rows that do not fit the task, all of them at once.
        ResumeError: ``out`` holds a run with another configuration.

    Source: prompt tuning, Lester et al. 2021; as a teacher, Wang et al. 2023, section 3.2.
    """
    backbone, config = backbone or load_backbone(), config or TeachConfig()
    data = training_data([task], backbone, config, config.prompt_length, data_dir)
    config = with_steps(config, data)
    identity = identity_of("teacher", [task], backbone, config, data)
    with opened(out, identity, local_of([task], backbone, data_dir)) as run:
        if (made := run.finished()) is not None:
            return made
        random = torch.Generator().manual_seed(config.seed)
        prompt = MultitaskPrompt(
            sample_vocabulary(backbone.embeddings, config.prompt_length, random),
            neutral_vectors(1, config.prompt_length, backbone.width, rank=1, noise=0, generator=random),
            make_card("teacher", [task], backbone, config, data),
        )
        optimizer = two_speed(prompt, config, shared_lr=config.lr * backbone.embedding_rms, task_lr=None)

        batches = single_task(len(data.train[0].examples), config.batch_size, random)
        learner = Learner(prompt, optimizer, batches, data, config, run)
        train([learner], partial(label_losses, backbone), backbone, title=f"teach {task.name}", report_to=report_to)
        run.finish(prompt)
        return prompt
