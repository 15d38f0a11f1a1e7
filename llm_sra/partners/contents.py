"""What an entry of a roster says and what its files hold, as one hash, without loading a model.

`identity` hashes what is loaded; this tells beforehand whether a partner is still the one of which something is known.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_sra.models.adapter_files import WEIGHTS
from llm_sra.partners.identity import digest, script, source_digest
from llm_sra.partners.rosters import Entry
from llm_sra.registry import find_model, load_partner
from llm_sra.task import Task

WHOLE = 256 << 20  # bytes of a file up to which all of it is read
HEAD = 1 << 20  # bytes that are read of a larger one
OF_A_MODEL = ("*.safetensors", "config.json", "generation_config.json", "tokenizer*", "chat_template*", "*.jinja")
# How often an endpoint is asked and what is kept of it, not what it says.
ASKING = ("key_env", "requests_per_minute", "concurrency", "timeout", "retries", "token_budget", "cache")


def entry_digest(entry: Entry, task: Task) -> str | None:
    """A hash of a partner's kind and options, the content of its files and the task's source.

    Its name and place do not count.

    Of a file above 256 MiB its size and its first MiB count. A model that is no folder counts by its name, an endpoint
    by its address and model.

    Args:
        entry: Of a roster that may be played: a scripted partner is made, which runs its file.
        task: Names the seats, and its own scripted partners.

    Returns:
        None for a live partner, perturbed or not: it is another one for each run.

    Raises:
        OSError: If a file cannot be read.
        UnknownNameError, ValueError: If a scripted partner cannot be made.
    """
    if entry.innermost.kind == "live":
        return None
    return digest({"task": source_digest(type(task)), **_facts(entry, task)})


def adapter_folders(entry: Entry, seats: Sequence[str]) -> list[Path]:
    """The folders of an adapter's entry, one for each seat, or one for all."""
    return list(dict.fromkeys(Path(entry.policy.replace("{seat}", seat)) for seat in seats))


def model_files(folder: Path) -> list[Path]:
    """The files of a model's folder on which its replies depend."""
    return sorted({path for pattern in OF_A_MODEL for path in folder.glob(pattern) if path.is_file()})


def _facts(entry: Entry, task: Task) -> dict[str, Any]:
    options = dict(entry.options)
    if entry.kind == "perturbed":
        return {"kind": entry.kind, **options, "of": _facts(options["of"], task)}
    said: Any = entry.policy
    if entry.kind == "scripted":
        said = script(load_partner(entry.policy, task))
    elif entry.kind == "recorded":
        said = _file(Path(entry.policy))
    elif entry.kind == "model":
        said = _model(entry.policy)
    elif entry.kind == "adapter":
        folders = adapter_folders(entry, task.seats)
        said = [[_file(folder / name) for name in ("adapter_config.json", WEIGHTS)] for folder in folders]
        options |= {"base": _model(options["base"])} if "base" in options else {}
    elif entry.kind == "endpoint":
        options = {key: value for key, value in options.items() if key not in ASKING}
    return {"kind": entry.kind, "policy": said, **options}


def _model(name: str) -> Any:
    folder = Path(find_model(name))
    return [(path.name, _file(path)) for path in model_files(folder)] if folder.is_dir() else name


def _file(path: Path) -> list[Any]:
    """A file's size and a hash of its content."""
    size = path.stat().st_size
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256") if size <= WHOLE else hashlib.sha256(file.read(HEAD))
    return [size, content.hexdigest()]
