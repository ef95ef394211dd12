"""In what a run differs from an earlier one, for a message."""

import json
from collections.abc import Mapping
from typing import Any

from mptune.config import STAGES

UNSET = "not set"  # how null reads, which nobody can type


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the first field in which two nested configurations differ, with both values; None where they are equal."""
    old, new = _flat(before), _flat(now)
    for field in [*new, *old]:
        if old.get(field) != new.get(field):
            return field, _short(old.get(field)), _short(new.get(field))
    return None


def change_told(field: str, old: str, new: str) -> str:
    """Return how a field has changed, and how it gets its old value again, for a message."""
    if old != UNSET:
        return f"with {field} = {old}, and now it is {new}. Take the old value"
    section, _, name = field.rpartition(".")
    again = f"Say --set {field}=none" if section in STAGES else "Leave it out"
    return f"with {field} {old}, and now it is {new}. {'Leave --shots out' if name == 'shots' else again}"


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        values = {str(number): value for number, value in enumerate(values)}
    if isinstance(values, dict):
        flat: dict[str, Any] = {}
        for key, value in values.items():
            flat |= _flat(value, f"{path}.{key}" if path else key)
        return flat
    return {path: values}


def _short(value: Any) -> str:
    if value is None:
        return UNSET
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
