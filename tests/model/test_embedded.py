"""The embedded backbone: where it is kept, what happens when its wheel is not right, and what it is once built."""

import errno
import os
import sys
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mptune.commands.doctor import examine
from mptune.errors import BackboneError, MissingExtraError
from mptune.model import embedded
from mptune.model.embedded import build_embedded, cache_folder
from mptune.model.encoding import encode_inputs, encode_targets, pad_batch
from mptune.model.loading import load_backbone
from mptune.model.scoring import generate, label_scores
from support.models import choosing

FOLDER = "embedded-0.2.0"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, in a folder that does not exist yet."""
    monkeypatch.setenv("MPTUNE_CACHE", str(tmp_path / "some" / "cache"))
    return tmp_path / "some" / "cache"


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """The three files of the wheel, small and with the right checksums; writing them copies nothing real."""
    files = {}
    for name in embedded.SHA256:
        files[name] = tmp_path / name
        files[name].write_text(name)
        monkeypatch.setitem(embedded.SHA256, name, sha256(name.encode()).hexdigest())
    monkeypatch.setattr(embedded, "_wheel_files", lambda: files)
    monkeypatch.setattr(embedded, "_write", lambda _, folder: (folder / "config.json").write_text("{}"))
    return files


# -- where it is kept -------------------------------------------------------------------------------------------------


def test_the_cache_is_where_the_package_is_told(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/else")
    monkeypatch.setenv("MPTUNE_CACHE", "/kept/here")
    assert cache_folder() == Path("/kept/here")


def test_the_cache_is_a_folder_of_its_own_in_the_users_cache(monkeypatch):
    monkeypatch.delenv("MPTUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/users/cache")
    assert cache_folder() == Path("/users/cache/mptune")


@pytest.mark.parametrize("empty", [False, True], ids=["unset", "set to nothing"])
def test_the_cache_is_in_the_home_folder_where_nothing_is_said(monkeypatch, empty):
    for name in ("MPTUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
        if empty:
            monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/mptune")


@pytest.mark.parametrize(
    ("name", "folder"), [("MPTUNE_CACHE", "/home/somebody/here"), ("XDG_CACHE_HOME", "/home/somebody/here/mptune")]
)
def test_a_tilde_in_the_cache_is_the_home_folder(monkeypatch, name, folder):
    monkeypatch.delenv("MPTUNE_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv(name, "~/here")
    assert cache_folder() == Path(folder)


# -- building it once -------------------------------------------------------------------------------------------------


def test_the_first_call_builds_and_the_second_only_looks(cache, wheel, monkeypatch):
    assert build_embedded() == cache / FOLDER
    monkeypatch.setattr(embedded, "_wheel_files", lambda: pytest.fail("the wheel was opened again"))
    assert build_embedded() == cache / FOLDER
    assert seen_in(cache) == [FOLDER]


def seen_in(cache):
    """What stands in the cache beside its lock."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_an_error_on_the_way_leaves_no_half_folder(cache, wheel, monkeypatch):
    def half(_, folder):
        (folder / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    write = embedded._write
    monkeypatch.setattr(embedded, "_write", half)
    with pytest.raises(BackboneError) as error:
        build_embedded()
    assert str(error.value) == (
        f"the embedded backbone cannot be built in {cache}: No space left on device. It takes 310 MB; make room, or "
        "set MPTUNE_CACHE to another folder."
    )
    assert seen_in(cache) == []
    monkeypatch.setattr(embedded, "_write", write)
    assert (build_embedded() / "config.json").is_file()


def test_the_folder_appears_only_when_it_is_complete(cache, wheel, monkeypatch):
    seen = []

    def watching(_, folder):
        (folder / "config.json").write_text("{}")
        seen.append((cache / FOLDER).exists())

    monkeypatch.setattr(embedded, "_write", watching)
    build_embedded()
    assert seen == [False]


def test_of_two_processes_at_once_the_second_takes_the_firsts_folder(cache, wheel, monkeypatch):
    locked, builds = embedded.FileLock, []

    class Overtaken(locked):
        def acquire(self, *given, **options):
            if not builds:  # while this one waits, another builds
                builds.append(1)
                embedded._build(wheel, cache / FOLDER)
            return super().acquire(*given, **options)

    monkeypatch.setattr(embedded, "FileLock", Overtaken)
    write = embedded._write
    monkeypatch.setattr(embedded, "_write", lambda *given: builds.append(2) or write(*given))
    assert build_embedded() == cache / FOLDER
    assert builds == [1, 2]


def test_what_a_killed_build_left_is_removed(cache, wheel):
    left = cache / f".{FOLDER}-abc123"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    build_embedded()
    assert seen_in(cache) == [FOLDER]


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no record", "record damaged"])
def test_a_damaged_folder_is_found_and_built_again(cache, wheel, damage):
    folder = build_embedded()
    config, record = folder / "config.json", folder / embedded.STAMP
    {
        "cut": lambda: config.write_text(""),
        "changed": lambda: config.write_text("[]"),
        "gone": config.unlink,
        "no record": record.unlink,
        "record damaged": lambda: record.write_text("5"),
    }[damage]()
    assert not embedded.is_whole(folder)
    assert build_embedded() == folder
    assert config.read_text() == "{}"
    assert embedded.is_whole(folder)
    assert seen_in(cache) == [FOLDER]


def test_a_change_that_keeps_size_and_time_is_found_by_its_checksum(cache, wheel):
    config = build_embedded() / "config.json"
    time = config.stat().st_mtime_ns
    config.write_text("[]")
    os.utime(config, ns=(time, time))
    assert embedded.is_whole(config.parent)
    assert not embedded.is_whole(config.parent, thorough=True)


def test_a_copied_folder_is_whole_though_its_times_are_others(cache, wheel):
    folder = build_embedded()
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    assert embedded.is_whole(folder)


def test_without_a_home_folder_the_variable_is_named(monkeypatch):
    for name in ("MPTUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(BackboneError) as error:
        cache_folder()
    assert str(error.value) == ("there is no home folder to keep a cache in. Set MPTUNE_CACHE to a folder of yours.")
    assert [c.state for c in examine() if c.name in ("embedded backbone", "cache folder")] == ["fail", "fail"]


# -- a wheel that is not right ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "tokenizer.json"])
def test_a_file_with_another_checksum_is_refused_before_anything_is_written(cache, wheel, name):
    wheel[name].write_text("other")
    got, wanted = sha256(b"other").hexdigest()[:12], sha256(name.encode()).hexdigest()[:12]
    with pytest.raises(BackboneError) as error:
        build_embedded()
    assert str(error.value) == (
        f"traceforge-title-model 0.2.0: {name} has the checksum {got}..., expected {wanted}.... "
        "Reinstall it: pip install --force-reinstall 'traceforge-title-model==0.2.0'"
    )
    assert not cache.exists()


def test_a_file_that_is_gone_is_named(cache, wheel):
    wheel["decoder.onnx"].unlink()
    with pytest.raises(BackboneError) as error:
        build_embedded()
    assert str(error.value) == (
        "traceforge-title-model 0.2.0 lacks decoder.onnx. "
        "Reinstall it: pip install --force-reinstall 'traceforge-title-model==0.2.0'"
    )


def no_wheel(name):
    raise PackageNotFoundError(name)


@pytest.mark.parametrize("missing", ["wheel", "onnx"])
def test_missing_libraries_are_said_with_the_command_that_installs_them(cache, monkeypatch, missing):
    if missing == "wheel":
        monkeypatch.setattr(embedded, "distribution", no_wheel)
    else:
        monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError) as error:
        build_embedded()
    assert str(error.value) == (
        "the embedded backbone (a FLAN-T5-small derivative) needs more libraries. "
        "Install them: pip install 'mptune[quickstart]'"
    )


def test_missing_libraries_reach_whoever_loads_the_backbone(cache, monkeypatch):
    monkeypatch.setattr(embedded, "distribution", no_wheel)
    with pytest.raises(MissingExtraError, match=r"pip install 'mptune\[quickstart\]'"):
        load_backbone()


def test_another_version_of_the_wheel_is_refused(cache, monkeypatch):
    monkeypatch.setattr(embedded, "distribution", lambda _: SimpleNamespace(version="0.1.0"))
    with pytest.raises(BackboneError) as error:
        build_embedded()
    assert str(error.value) == (
        "the embedded backbone needs traceforge-title-model==0.2.0; 0.1.0 is installed. "
        "pip install 'traceforge-title-model==0.2.0'"
    )


# -- the real one -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The embedded backbone, built anew from its wheel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            return load_backbone()
        except MissingExtraError as error:
            pytest.skip(str(error))


@pytest.mark.embedded
def test_the_embedded_backbone_has_all_its_parameters_and_an_output_layer_of_its_own(built):
    assert sum(p.numel() for p in built.model.parameters()) == 76_961_152
    head, table = built.model.lm_head.weight, built.model.get_input_embeddings().weight
    assert head.shape == table.shape == (32_128, 512)
    assert head.data_ptr() != table.data_ptr()
    assert not torch.allclose(head, table, atol=0.1)


@pytest.mark.embedded
def test_the_embedded_backbones_logits_are_its_output_layer_on_the_decoder_unscaled(built):
    batch = pad_batch(built, [0], encode_inputs(built, ["Is it warm in summer?"], 64, 0, 8), [[5, 6, 1]])
    out = built(torch.zeros(1, 0, built.width, device=built.device), batch, hidden_layers=(-1,))
    torch.testing.assert_close(out.logits, out.hidden[1] @ built.model.lm_head.weight.T, atol=1e-3, rtol=1e-4)


@pytest.mark.embedded
def test_the_embedded_backbone_tells_good_from_bad_without_a_prompt(built):
    texts = [
        "Is this review positive or negative? Every picture from this camera is wonderful, I love it.",
        "Is this review positive or negative? The soup was cold, the waiter rude, the worst evening of the year.",
    ]
    words = encode_targets(built, ["negative", "positive"], max_tokens=8)
    batch = pad_batch(built, [0, 0], encode_inputs(built, texts, 64, 0, 8), [words[0]] * 2)
    bare = torch.zeros(1, 0, built.width, device=built.device)
    assert label_scores(built, bare, choosing(batch, [words] * 2)).argmax(-1).tolist() == [1, 0]
    assert generate(built, bare, batch, 8) == ["positive", "negative"]
