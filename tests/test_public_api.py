"""The public names: few, sorted, importable, documented, and free until they are used."""

import inspect
import subprocess
import sys

import pytest

import mptune


def test_public_names_are_sorted_and_at_most_two_dozen():
    assert mptune.__all__ == sorted(mptune.__all__)
    assert len(mptune.__all__) <= 24


@pytest.mark.parametrize("name", mptune.__all__)
def test_every_public_name_exists_and_is_documented(name):
    assert inspect.getdoc(getattr(mptune, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        mptune.distil  # noqa: B018


def test_importing_the_package_imports_no_torch():
    code = "import sys, mptune, mptune.cli; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]


def test_the_version_is_that_of_the_distribution_and_of_the_newest_changelog_entry():
    from importlib.metadata import version
    from pathlib import Path

    assert mptune.__version__ == version("mptune")
    changelog = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{mptune.__version__}]" in changelog
