"""Reading YAML in which every scalar is text: `no` stays the word no, 1e-3 waits for its field's type."""

from pathlib import Path
from typing import Any

import yaml

from mptune.errors import ConfigError


class _Loader(yaml.BaseLoader):
    """YAML without implicit types, and without silently dropped duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        ConfigError: no such file, no YAML, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - BaseLoader makes text only
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read ({getattr(error, 'strerror', None) or error})"]) from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(str(path), [f"is not valid YAML{line}: {error.problem}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [f"is not valid YAML: {error}"]) from None
    if not isinstance(values, dict):
        got = "nothing" if not values else "a list" if isinstance(values, list) else repr(values)
        raise ConfigError(str(path), [f"wants `field: value` lines; got {got}"])
    return values
