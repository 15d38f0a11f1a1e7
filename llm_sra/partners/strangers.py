"""A roster made of what others trained or serve: every adapter below a folder, or a list of endpoints.

It only looks at names and at each adapter's configuration; nothing is loaded.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_sra.models.adapter_files import WEIGHTS, AdapterError, read_adapter_config
from llm_sra.partners.rosters import Entry, RosterError, as_entries
from llm_sra.runs import Run, RunError
from llm_sra.untrusted import UntrustedError, one_line, read_yaml, shown

CONFIG = "adapter_config.json"
DEEPEST = 8  # folders in each other
MOST = 10_000  # folders that are looked at


def strangers(place: str | Path, seats: Sequence[str]) -> list[Entry]:
    """The partners below a folder, or of a list of endpoints.

    A folder of one adapter is a partner for any seat. A folder that has a folder of an adapter for each seat, by the
    seat's name, is one partner, and so is a run folder with its agents at the end of training. What else lies in these,
    such as adversaries and checkpoints, is left out. Partners are sorted by name, which is the folder's path below
    `place`.

    Args:
        place: A folder; or a YAML file with a list of endpoints, each as an entry of a roster, where `kind` may be left
            out.
        seats: The task's.

    Raises:
        RosterError: If it is neither, there are none in it, or one cannot be used; names it.
    """
    path = Path(place)
    if path.is_dir():
        return _of_folder(path, seats)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return _endpoints(path)
    raise RosterError(
        f"{one_line(place)} is neither a folder of adapters nor a YAML list of endpoints (looked for {path.absolute()})"
    )


def _of_folder(folder: Path, seats: Sequence[str]) -> list[Entry]:
    found = sorted(_found(folder, folder, seats, [0]), key=lambda entry: entry.name)
    if not found:
        raise RosterError(
            f"{folder} holds no adapter: expected folders with {CONFIG} and {WEIGHTS}, or in each of them one folder "
            f"for each seat ({', '.join(seats)})"
        )
    for entry in found:
        for seat in seats if "{seat}" in entry.policy else seats[:1]:
            try:
                read_adapter_config(Path(entry.policy.replace("{seat}", seat)))
            except AdapterError as error:
                raise RosterError(f"{error}. Nothing was played") from error
    items = [{"name": entry.name, "kind": entry.kind, "policy": entry.policy} for entry in found]
    return as_entries(items, folder / "strangers")


def _found(root: Path, folder: Path, seats: Sequence[str], looked_at: list[int]) -> Iterator[Entry]:
    """The partners in a folder and below it."""
    looked_at[0] += 1
    depth = len(folder.relative_to(root).parts)
    if looked_at[0] > MOST or depth > DEEPEST:
        what = f"more than {MOST:,} folders" if looked_at[0] > MOST else f"folders more than {DEEPEST} deep"
        raise RosterError(f"{root} holds {what}: name the folder of the adapters")
    name = folder.relative_to(root).as_posix() if depth else root.resolve().name
    here = _partner(folder, seats)
    if here is not None:
        if "{" in str(folder) or "}" in str(folder):
            raise RosterError(f"{folder} has a brace in its path, which stands for a seat in rosters: rename it")
        yield Entry(name, "adapter", here)
        return
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        yield from _found(root, below, seats, looked_at)


def _partner(folder: Path, seats: Sequence[str]) -> str | None:
    """The policy of the partner that a folder is; None if it is none itself."""
    resolved = folder.resolve()
    if (folder / CONFIG).is_file():
        return str(resolved)
    if (folder / "config.yaml").is_file() and (folder / "adapters").is_dir():
        try:
            heroes = Run.open(folder).heroes
        except RunError as error:
            raise RosterError(str(error)) from error
        return _of_a_run(resolved / "adapters", heroes, seats)
    has = [seat for seat in seats if (folder / seat / CONFIG).is_file()]
    if has and len(has) < len(seats):
        lacks = [seat for seat in seats if seat not in has]
        raise RosterError(
            f"{folder} has an adapter for {', '.join(has)} and none for {', '.join(lacks)}: expected one for each seat"
        )
    return f"{resolved}/{{seat}}" if has else None


def _of_a_run(adapters: Path, heroes: Any, seats: Sequence[str]) -> str:
    """Its agents: one for each seat, or one for all."""
    if all(heroes.get(seat) == seat for seat in seats):
        return f"{adapters}/{{seat}}"
    names = {heroes.get(seat) for seat in seats}
    if len(names) == 1 and None not in names:
        return str(adapters / str(names.pop()))
    raise RosterError(
        f"{adapters.parent} is a run with agents for the seats {one_line(', '.join(heroes))}: expected "
        f"{', '.join(seats)}"
    )


def _endpoints(path: Path) -> list[Entry]:
    try:
        loaded = read_yaml(path)
    except UntrustedError as error:
        raise RosterError(f"{path} cannot be read: {error}") from error
    items = loaded.get("partners") if isinstance(loaded, dict) and set(loaded) == {"partners"} else loaded
    if not isinstance(items, list) or not items:
        raise RosterError(
            f"{path} must hold a list of endpoints, each `{{name, policy, base_url}}`, got {shown(loaded)}"
        )
    named = [{"kind": "endpoint", **item} if isinstance(item, dict) else item for item in items]
    entries = as_entries(named, path)
    if other := [entry.name for entry in entries if entry.kind != "endpoint"]:
        raise RosterError(
            f"{path} holds partners of other kinds than endpoint ({one_line(', '.join(other))}): name it as a roster"
        )
    return sorted(entries, key=lambda entry: entry.name)
