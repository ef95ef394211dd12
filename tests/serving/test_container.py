"""The container's file, step by step in a folder that stands for the image: what an index would bring is here already.

Where a builder runs, `docker build` says more; none is needed here, and no network.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest

from support.models import make_backbone, saved
from support.serving import MOOD, PAIR, prompts_folder

ROOT = Path(__file__).parents[2]


def instructions():
    """The container's file as (instruction, rest), a stage after the other."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def of(name):
    return [rest for found, rest in instructions() if found == name]


class Image:
    """A folder in which the steps are carried out, its own paths in place of the image's."""

    def __init__(self, root, port):
        self.root, self.port, self.work, self.values = root, port, root, {}
        self.env = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "OMP_NUM_THREADS": "1",
                    "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HOME": str(root), "PATH": os.environ["PATH"]}  # fmt: skip

    def here(self, text):
        """A text with this folder's paths, the stage's values and a free port."""
        text = re.sub(r"\$\{(\w+)\}", lambda found: self.values[found[1]], text)
        text = re.sub(r"(?<![\w.:/])/(opt|build|home|prompts|keys)", rf"{self.root}/\1", text)
        return text.replace("8000", str(self.port))

    def run(self, words, **how):
        return subprocess.run(words, cwd=self.work, env=self.env, capture_output=True, text=True, check=False, **how)

    def step(self, name, rest):
        if name == "ARG":
            self.values.setdefault(*rest.split("=", 1))
        elif name == "WORKDIR":
            self.work = Path(self.here(rest))
            self.work.mkdir(parents=True, exist_ok=True)
        elif name == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                place = self.work / target / ("" if (ROOT / source).is_dir() else source)
                (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
        elif name == "RUN" and not rest.startswith("useradd"):
            words = shlex.split(self.here(rest))
            done = self.run([sys.executable if words[0] == "python" else words[0], *words[1:]])
            assert done.returncode == 0, done.stdout + done.stderr
            if "venv" in words:  # what an index would bring; the package itself is not among it
                packages = next(Path(words[-1]).glob("lib/python*/site-packages"))
                (packages / "index.pth").write_text(sysconfig.get_path("purelib") + "\n")
        elif name == "ENV":
            key, value = self.here(rest).split("=", 1)
            self.env[key] = value


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    root = tmp_path_factory.mktemp("image")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    built = Image(root, port)
    for name, rest in instructions():
        built.step(name, rest)
    backbone = make_backbone("t5")
    saved(backbone, root / "model")
    prompts_folder(root / "prompts", backbone, [MOOD, PAIR])
    return built


@pytest.mark.slow
def test_its_steps_end_in_a_server_that_answers_who_has_a_key_and_ends_when_it_is_told_to(image):
    key = image.run(["mptune", "keys", f"{image.root}/keys.json", "--add", "me"], timeout=60).stdout.strip()
    where = image.run(["python", "-c", "import mptune; print(mptune.__file__)"], timeout=60).stdout
    assert where.startswith(str(image.root / "opt" / "mptune"))
    start = json.loads(image.here(of("ENTRYPOINT")[0]))
    server = subprocess.Popen([*start, "--backbone", f"{image.root}/model"], cwd=image.work, env=image.env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert server.stdout.readline().startswith("2 tasks at http://0.0.0.0:")
    healthy = json.loads(image.here(of("HEALTHCHECK")[0]).split("CMD ")[1])
    assert image.run(healthy, timeout=60).returncode == 0
    asked = {"url": f"http://127.0.0.1:{image.port}/v1/classify", "json": {"model": "mood", "input": "good"}}
    assert httpx.post(**asked, timeout=20).status_code == 401
    answered = httpx.post(**asked, timeout=20, headers={"Authorization": f"Bearer {key}"})
    assert answered.json()["data"][0]["answer"] in MOOD.verbalizer.values()
    server.send_signal(getattr(signal, of("STOPSIGNAL")[0]))
    assert server.wait(30) == 0
    assert image.run(healthy, timeout=60).returncode != 0


def test_nobody_in_it_is_root_and_nothing_needs_to_be():
    names = [name for name, _ in instructions()]
    (made,) = [rest.split() for rest in of("RUN") if rest.startswith("useradd")]
    assert of("USER") == [made[-1]]
    assert int(made[made.index("--uid") + 1]) > 0
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]


def test_what_it_copies_is_there_and_comes_past_what_is_ignored():
    copied = [source for rest in of("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]]
    assert all((ROOT / source).exists() for source in copied)
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(let_in) == sorted(copied)


def test_its_extras_are_those_of_the_package():
    extras = dict(rest.split("=", 1) for rest in of("ARG"))["EXTRAS"]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r"EXTRAS=([\w,]+)", (ROOT / "Containerfile").read_text(encoding="utf-8"))
    assert extras == "serve"
    for extra in {each for some in named for each in some.split(",")}:
        assert re.search(rf"^{extra} = \[", text, re.MULTILINE), extra
