"""Peak resident memory of training, adaptation and scoring, each in a process of its own."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import arguments, data_notes, model_folder, ours, report, rows_of, start

LENGTH = 20
WORK = ("imports alone", "backbone loaded", "teaching", "distillation", "adaptation", "scoring")


def work(kind: str, folder: str, data_dir: Path | None, steps: int) -> None:
    """Do one kind of work in this process."""
    if kind == "imports alone":
        return
    from mptune.answers.evaluation import answer
    from mptune.config import AdaptConfig, DistillConfig, EvaluateConfig, TeachConfig
    from mptune.model.memory import keep_pages
    from mptune.stages.adaptation import adapt
    from mptune.stages.distillation import distill
    from mptune.stages.teachers import teach

    keep_pages()
    backbone = ours(folder)
    if kind == "backbone loaded":
        return
    tasks = [rows_of(name, backbone, 64, data_dir, prompt_length=LENGTH).task for name in ("sst2", "mnli")]
    common: dict[str, Any] = {"steps": steps, "validate_every": steps, "validation_rows": 64, "max_input_tokens": 256}
    source = start(tasks, backbone, LENGTH)
    if kind == "teaching":
        teach(tasks[1], backbone, TeachConfig(prompt_length=LENGTH, batch_size=16, **common), data_dir=data_dir)
    elif kind == "distillation":
        distill(tasks, [source], backbone, DistillConfig(batch_size=16, **common), data_dir=data_dir)
    elif kind == "adaptation":
        adapt(source, tasks[1], backbone, AdaptConfig(shots=16, **common), data_dir=data_dir)
    else:
        data = rows_of("mnli", backbone, 256, data_dir, prompt_length=LENGTH)
        answer(backbone, [source.collapse()[1]], [data], EvaluateConfig())


def peak(kind: str, folder: str, data_dir: Path | None, steps: int) -> float:
    """Return the peak resident size of a process that does one kind of work, in MiB."""
    command = [sys.executable, __file__, "--work", kind, "--folder", folder, "--steps", str(steps)]
    if data_dir:
        command += ["--data", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--work", choices=WORK, help="used by the benchmark itself")
    parser.add_argument("--folder", help="used by the benchmark itself")
    parser.add_argument("--steps", type=int, default=10, help="training steps of each kind")
    options = parser.parse_args()
    if options.work:
        work(options.work, options.folder, options.data, options.steps)
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(size / (1024 if sys.platform == "linux" else 2**20)))
        return
    folder = model_folder(options.backbone)
    kinds = ("imports alone", "backbone loaded", "adaptation") if options.quick else WORK
    found = {kind: round(peak(kind, folder, options.data, 2 if options.quick else options.steps)) for kind in kinds}
    cells = [[kind, f"{size} MiB"] for kind, size in found.items()]
    report("memory", ["work", "peak resident size"], cells, {"mib": found}, options.out, data_notes(options.data))


if __name__ == "__main__":
    main()
