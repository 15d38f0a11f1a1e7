"""Entries by name, one small module each, found by themselves: a new entry is a new file and nothing else."""

import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Protocol, TypeVar

from llm_sra.errors import unknown


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """Its name in recipes."""

    @property
    def summary(self) -> str:
        """What it is, in a few words that follow its name."""


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry]):
    """Entries by name, in the order of their names.

    Args:
        kind: What an entry is called in messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> Entry:
        """Register an entry.

        Raises:
            ValueError: If its name is taken.
        """
        if entry.name in self._entries:
            raise ValueError(f"there are two entries for {self.kind} {entry.name!r}: give one of them another name")
        self._entries[entry.name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Forget an entry."""
        del self._entries[name]

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def describe(self) -> str:
        """All names with their summaries, in one line."""
        return "; ".join(f"{name}: {self[name].summary}" for name in self)


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, each of which registers its entry.

    Args:
        package: The package's name.
        path: Its `__path__`.
    """
    for module in pkgutil.iter_modules(path):
        import_module(f"{package}.{module.name}")
