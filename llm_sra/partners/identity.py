"""Identifies policies by their content: equal identities play alike, whatever their file, folder or name.

Weights count by a hash of them, scripts by their source, recordings by what they say. `loader` describes the engine and
the adapter of an engine's policy. Names of runs and rosters are not known here.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from llm_sra.policies import Endpoint, EnginePolicy, Policy, Recorded, Replayed, Scripted, Wrapper

Facts = dict[str, Any]
UNCOUNTED = ("__pycache__", "models", "runs")  # folders of a package whose files do not change how it plays


def digest(value: Any) -> str:
    """A short hash of a value that JSON can hold; of any other, its type alone counts."""
    text = json.dumps(value, sort_keys=True, default=lambda other: _name(type(other)))
    return hashlib.blake2b(text.encode(), digest_size=8).digest().hex()


def describe(policy: Policy, on_engine: Callable[[EnginePolicy], Facts]) -> Facts:
    """Everything that a policy's replies depend on, apart from what it sees and its seeds.

    The keys `luck` and `warmth` are those of earlier versions: episodes in existing stores are found by their hashes.

    Args:
        policy: Decoded as it will play.
        on_engine: Describes what an engine's policy plays on: the base, the adapter, the kind of engine.
    """
    if isinstance(policy, EnginePolicy):
        return {**on_engine(policy), "sampling": _plain(policy.sampling), "luck": policy.fixed_seed}
    if isinstance(policy, Wrapper):
        return {"of": describe(policy.inner, on_engine), **policy.settings}
    if isinstance(policy, Endpoint):
        asked = {"url": policy.client.url, "model": policy.model, "max_tokens": policy.max_tokens, "stop": policy.stop}
        thought = {"opens_thought": True} if policy.opens_thought else {}
        return {**asked, **thought, "warmth": policy.temperature, "sampling": _plain(policy.sampling)}
    if isinstance(policy, Recorded):
        return {"recorded": digest(policy.recorded)}
    if isinstance(policy, Replayed):
        return {"replayed": digest(policy.facts)}
    if isinstance(policy, Scripted):
        return {"script": script(policy.partner)}
    return {"policy": script(policy)}


def script(thing: object) -> Facts:
    """A Python object by its class, the source that the class stands in, and its attributes."""
    return {"class": _name(type(thing)), "source": source_digest(type(thing)), "with": getattr(thing, "__dict__", {})}


def source_digest(cls: type) -> str:
    """A hash of the file that defines a class, and of the other files of its package; empty if there is no file.

    All files of the package count, those of its folders too, such as word lists and prompts, and the modules of the
    packages around it, which may be shared. What cannot change play does not: `*.md`, hidden files, `__pycache__`,
    `models` (weights have their own hashes) and `runs`.
    """
    try:
        file = Path(inspect.getsourcefile(cls) or "")
    except TypeError:
        return ""
    return _of_files(file) if file.is_file() else ""


def _of_file(path: Path) -> str:
    """A hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=8)).hexdigest()


def _of_files(file: Path) -> str:
    folder = file.parent
    packages = list(takewhile(lambda one: (one / "__init__.py").is_file(), file.parents))
    paths = [*_below(folder), *(path for one in packages[1:] for path in one.glob("*.py"))] if packages else [file]
    return digest([(os.path.relpath(path, folder), _of_file(path)) for path in sorted(paths)])


def _below(folder: Path) -> Iterator[Path]:
    """The files of a package and of its folders that can change how it plays."""
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in UNCOUNTED:
            continue
        if path.is_dir():
            yield from _below(path)
        elif path.suffix != ".md":
            yield path


def _plain(sampling: Any) -> list[float]:
    return [sampling.temperature, sampling.top_p, sampling.top_k]


def _name(cls: type) -> str:
    return cls.__qualname__
