"""What the partners of a roster take, said before any of them is loaded: weights on the disk, tokens of endpoints."""

from collections.abc import Sequence
from pathlib import Path

from llm_sra.models.adapter_files import WEIGHTS
from llm_sra.partners.contents import adapter_folders
from llm_sra.partners.rosters import Entry
from llm_sra.registry import find_model, model_name
from llm_sra.untrusted import one_line, read_json

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def cost_lines(entries: Sequence[Entry], seats: Sequence[str]) -> list[str]:
    """A line for each partner that takes memory or tokens; none for scripts, recordings and live partners.

    Args:
        entries: Of a roster.
        seats: The task's.
    """
    lines = [(entry.name, _cost(entry.innermost, seats)) for entry in entries]
    return [one_line(f"{name}: {cost}") for name, cost in lines if cost]


def weight_bytes(model: str) -> int | None:
    """Bytes of a model's safetensors on this disk; None if it is not here.

    Args:
        model: A folder, a shipped model, or a name on the hub, which is looked for in the hub's cache alone.
    """
    folder = _folder(model)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    return sum(path.stat().st_size for path in files) if files else None


def in_units(size: int) -> str:
    """Bytes in the largest unit of which there is one or more: `3.1 MiB`."""
    unit = min(max(size.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{size} {UNITS[0]}" if unit == 0 else f"{size / 1024**unit:.1f} {UNITS[unit]}"


def _cost(entry: Entry, seats: Sequence[str]) -> str:
    if entry.kind == "model":
        return f"model {model_name(entry.policy)}, {_weights(entry.policy)}"
    if entry.kind == "adapter":
        files = [folder / WEIGHTS for folder in adapter_folders(entry, seats)]
        there = [path.stat().st_size for path in files if path.is_file()]
        own = f"{in_units(sum(there))} of weights on the disk" if there else "its weights are not there"
        base = str(entry.options.get("base") or _base_of(files[0].parent))
        return f"adapter, {own}; its base {model_name(base)}, {_weights(base)}, is loaded once for all that have it"
    if entry.kind == "endpoint":
        budget = entry.options.get("token_budget")
        tokens = f"at most {budget:,} tokens (token_budget)" if budget else "no limit of tokens (token_budget sets one)"
        return f"endpoint, no weights here; {tokens}"
    return ""


def _weights(model: str) -> str:
    size = weight_bytes(model)
    if size is None:
        return "whose weights are not on this disk, so their size is not known"
    return f"{in_units(size)} of weights on the disk"


def _base_of(adapter: Path) -> str:
    """The base that an adapter's configuration names."""
    try:
        written = read_json(adapter / "adapter_config.json")
        return str(written["base_model_name_or_path"])[:200]
    except (OSError, ValueError, KeyError, TypeError):
        return "(unknown)"


def _folder(model: str) -> Path | None:
    """Where a model is; None if it is not on this disk."""
    place = Path(find_model(model))
    if place.is_dir() or model.startswith((".", "/")):
        return place if place.is_dir() else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
