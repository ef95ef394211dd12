"""What `mptune doctor` says of an environment, good and bad."""

import os
import shutil
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from mptune.commands import doctor
from mptune.commands.doctor import GIB, examine


def found(name):
    """Return the check of a name."""
    (check,) = (c for c in examine() if c.name == name)
    return check


@pytest.fixture
def installed(monkeypatch):
    """Pretend other versions; None stands for a missing package."""

    def pretend(**versions):
        real = doctor.version

        def version(name):
            if name not in versions:
                return real(name)
            if versions[name] is None:
                raise PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(doctor, "version", version)

    return pretend


def test_this_environment_can_train():
    assert [c for c in examine() if c.state == "fail"] == []


def test_everything_but_what_is_fine_says_what_to_do(installed, monkeypatch, tmp_path):
    installed(torch=None, transformers="4.57.0", peft=None, onnx=None, setfit=None, matplotlib=None, sacrebleu=None)
    monkeypatch.setenv("MPTUNE_CACHE", str(tmp_path / "cache"))
    bad = [c for c in examine() if c.state != "ok" and c.name != "hub"]
    assert {"torch", "transformers", "peft", "setfit", "report", "nlg", "embedded backbone"} <= {c.name for c in bad}
    assert all(c.fix for c in bad)


def test_transformers_before_5_fail(installed):
    installed(transformers="4.57.0")
    check = found("transformers")
    assert (check.state, check.found, check.fix) == ("fail", "4.57.0", "pip install 'transformers>=5'")


def test_without_the_extra_the_embedded_backbone_is_a_note(installed, monkeypatch, tmp_path):
    monkeypatch.setenv("MPTUNE_CACHE", str(tmp_path))
    installed(onnx=None)
    check = found("embedded backbone")
    assert (check.state, check.found) == ("note", "not installed")
    assert "mptune[quickstart]" in check.fix


def test_the_embedded_backbone_is_built_once_its_folder_is_there(installed, monkeypatch, tmp_path):
    installed(**{doctor.WHEEL: doctor.VERSION, "onnx": "1.0"})
    monkeypatch.setenv("MPTUNE_CACHE", str(tmp_path))
    assert "first use" in found("embedded backbone").found
    folder = tmp_path / f"embedded-{doctor.VERSION}"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    damaged = found("embedded backbone")
    assert (damaged.state, damaged.found, damaged.fix) == (
        "note", f"{folder} is damaged", "it is built again on next use"
    )  # fmt: skip
    monkeypatch.setattr(doctor, "is_whole", lambda _, thorough: thorough)
    assert found("embedded backbone").found == "built"


def test_a_cache_that_does_not_exist_yet_is_judged_by_the_folder_above(monkeypatch, tmp_path):
    monkeypatch.setenv("MPTUNE_CACHE", str(tmp_path / "not" / "yet"))
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: not asked.append((path, mode)))
    assert found("cache folder").state == "ok"
    assert asked == [(tmp_path, os.W_OK)]


def test_a_cache_that_cannot_be_written_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("MPTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    check = found("cache folder")
    assert (check.state, check.found) == ("fail", f"{tmp_path} cannot be written")
    assert "MPTUNE_CACHE" in check.fix


@pytest.mark.parametrize(("free", "state"), [(0.9, "fail"), (1.1, "ok")])
def test_the_cache_wants_a_gibibyte(free, state, monkeypatch, tmp_path):
    monkeypatch.setenv("MPTUNE_CACHE", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert found("cache folder").state == state


@pytest.mark.parametrize(("native", "state", "advice"), [(True, "ok", "auto"), (False, "note", "float32")])
def test_the_advised_dtype_is_what_the_processor_multiplies(native, state, advice, monkeypatch):
    monkeypatch.setattr("mptune.model.loading.multiplies_bfloat16", lambda device: native)
    check = found("processor")
    assert check.state == state
    assert f"backbone.dtype={advice}" in check.fix


@pytest.mark.parametrize(("granted", "state"), [(2, "ok"), (3, "ok"), (1, "note")])
def test_more_threads_than_may_run_are_a_note(granted, state, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr(doctor, "granted_cores", lambda: granted)
    check = found("threads")
    assert (check.state, "OMP_NUM_THREADS=1" in check.fix) == (state, state == "note")
    assert check.found.startswith(f"2, and {granted} may run")


def test_every_extra_is_looked_for():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"].keys()
    assert set(doctor.EXTRAS) == extras - {"dev", "site", "quickstart"}  # quickstart is the embedded backbone's check


@pytest.mark.parametrize(("value", "state"), [("", "ok"), ("0", "ok"), ("1", "note")])
def test_an_offline_hub_is_a_note(value, state, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert found("hub").state == state
