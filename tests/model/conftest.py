"""Fixtures of the tests of the model."""

import pytest

from mptune.model.backbone import Backbone
from support.models import doubled, exact_norms


@pytest.fixture
def exact(any_backbone, monkeypatch) -> Backbone:
    """One backbone of every family in float64, where a difference is a defect and not rounding."""
    exact_norms(monkeypatch)
    return doubled(any_backbone)
