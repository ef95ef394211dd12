"""Keys: drawn, told once, kept as hashes."""

import json
import stat

import pytest

from mptune.errors import ConfigError, UsageError
from mptune.serving import keys as keys_module
from mptune.serving.keys import ApiKey, Gate, add_key, hashed, read_keys


def test_a_key_is_told_once_and_its_file_holds_a_hash(cli, tmp_path):
    file = tmp_path / "keys.json"
    code, out, err = cli("keys", file, "--add", "shop", "--tasks", "mood,pair", "--per-minute", "60")
    key = out.strip()
    assert (code, key[:4], len(key)) == (0, "mpt_", 47)
    assert "its key is shown this once" in err
    assert key not in file.read_text()
    assert hashed(key) in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (found,) = read_keys(file)
    assert (found.tasks, found.per_minute, found.admin) == (("mood", "pair"), 60, False)
    assert Gate((found,)).key(key) == found
    assert cli("keys", file, "--add", "boss", "--admin")[0] == 0
    assert cli("keys", file)[1].splitlines() == [
        "key\ttasks\ta minute\tadmin",
        "shop\tmood, pair\t60\tno",
        "boss\tall\tany\tyes",
    ]
    assert cli("keys", file, "--remove", "shop")[0] == 0
    assert [each.name for each in read_keys(file)] == ["boss"]


@pytest.mark.parametrize(("options", "said"), [
    (["--add", "shop"], "has a key called 'shop' already; take another name, or --remove it first"),
    (["--remove", "nobody"], "has no key called 'nobody'; it has shop"),
    (["--add", "a b"], "name"),
    (["--add", "x", "--remove", "y"], "--add and --remove are two commands; got both"),
    (["--tasks", "mood"], "--tasks, --per-minute and --admin are of a key that is made: --add NAME"),
    (["--add", "x", "--tasks", " , "], "--tasks wants one name or more"),
])  # fmt: skip
def test_a_slip_is_told(cli, tmp_path, options, said):
    file = tmp_path / "keys.json"
    add_key(file, "shop", (), None, admin=False)
    before = file.read_bytes()
    code, _, err = cli("keys", file, *options)
    assert code == 2
    assert said in err
    assert file.read_bytes() == before


@pytest.mark.parametrize(("text", "said"), [
    ("no json", "wants JSON as `mptune keys` writes it"), ('{"keys": []}', "holds no key; `mptune keys` makes one"),
    ('{"keys": [{"name": "a", "sha256": "short"}]}', "sha256"), ('{"kies": []}', "Did you mean 'keys'"),
    (json.dumps({"keys": [{"name": "a", "sha256": digit * 64} for digit in "01"]}), "two keys are called a"),
])  # fmt: skip
def test_a_file_that_is_none_of_keys_is_refused(tmp_path, text, said):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_keys(tmp_path / "keys.json")
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        read_keys(tmp_path / "nowhere.json")


def test_a_minute_slides(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(keys_module.time, "monotonic", lambda: now[0])
    key = ApiKey(name="slow", sha256=hashed("k"), per_minute=2)
    gate = Gate((key,))
    assert [gate.wait(key), gate.wait(key)] == [0, 0]
    now[0] = 20.0
    assert gate.wait(key) == pytest.approx(40)
    now[0] = 60.0
    assert gate.wait(key) == 0


def test_no_text_is_a_key_where_none_was_given():
    gate = Gate((ApiKey(name="odd", sha256=hashed("")),))
    assert gate.key("") is None
    assert gate.key(None) is None
