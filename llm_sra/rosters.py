"""Rosters: named lists of partners for evaluation, and how each kind of partner takes its seat.

    partners:
      - {name: lazy, kind: scripted, policy: lazy}                # of the task, path/to/file.py:Class or module:Class
      - {name: other-run, kind: adapter, policy: ./agents/{seat}} # an adapter of any base; {seat}: one per seat
      - {name: stranger, kind: model, policy: ../models/other}    # a Hugging Face model, own tokenizer and template

Paths are relative to the roster.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llm_sra.loading import unknown

KINDS = {"scripted": (), "adapter": ("base",), "model": ("dtype", "trust_remote_code")}
SELF_PLAY = "self-play"


class RosterError(ValueError):
    """A roster cannot be used; says which entry and what was expected."""


@dataclass(frozen=True)
class Entry:
    """One partner.

    Attributes:
        name: Of the partner, in results.
        kind: `scripted`, `adapter` or `model`.
        policy: Name, path or `path:Class`.
        options: What else the kind takes.
    """

    name: str
    kind: str
    policy: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_roster(path: str | Path) -> list[Entry]:
    """The entries of a roster.

    Raises:
        RosterError: If the file is missing, malformed, or names a partner twice.
    """
    path = Path(path)
    if not path.is_file():
        raise RosterError(f"no roster {path} (looked for {path.absolute()})")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RosterError(f"{path} is not YAML: {error}") from error
    if not isinstance(loaded, dict) or set(loaded) != {"partners"} or not isinstance(loaded["partners"], list):
        raise RosterError(f"{path} must hold one key, `partners`, with a list of `{{name, kind, policy}}`")
    entries = [_entry(item, path) for item in loaded["partners"]]
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RosterError(f"{path} names more than once: {', '.join(twice)}")
    return entries


def _entry(item: Any, path: Path) -> Entry:
    if not isinstance(item, dict) or not {"name", "kind", "policy"} <= set(item):
        raise RosterError(f"{path}: each partner needs name, kind and policy, got {item!r}")
    kind = str(item["kind"])
    if kind not in KINDS:
        raise RosterError(f"{path}, partner {item['name']!r}: {unknown('kind', kind, KINDS)}")
    if item["name"] == SELF_PLAY:
        raise RosterError(f"{path}: the name {SELF_PLAY!r} is kept for a run's own partner")
    options = {key: value for key, value in item.items() if key not in ("name", "kind", "policy")}
    allowed = KINDS[kind]
    for key in options:
        if key not in allowed:
            raise RosterError(
                f"{path}, partner {item['name']!r}: {unknown('key', key, ('name', 'kind', 'policy', *allowed))}"
            )
    policy = str(item["policy"])
    if kind == "model":
        policy = _model(path.parent, policy)
    elif kind == "adapter" or ".py:" in policy:
        policy = str((path.parent / policy).resolve())
    if "base" in options:
        options["base"] = _model(path.parent, str(options["base"]))
    return Entry(str(item["name"]), kind, policy, options)


def _model(folder: Path, value: str) -> str:
    """The path of a model's folder, or its name on the hub as it is."""
    is_path = value.startswith(("./", "../")) or (folder / value).is_dir()
    return str((folder / value).resolve()) if is_path else value
