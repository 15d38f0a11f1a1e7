"""The list of a checkpoint's files with their sizes and hashes; it is written last and says whether one is whole."""

import hashlib
import json
from pathlib import Path

import torch
from transformers import TrainerState

from llm_sra.files import parse_line, sync_tree, write_whole, writing
from llm_sra.untrusted import UntrustedError, is_number, parse_json, read_text, shown

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
OBJECTIVE = "objective.pt"  # the state of the objective
_LARGEST_STATE = 1 << 28  # bytes
MARK = "manifest"  # in the objective's state: the checkpoint was saved with a manifest


def write_manifest(folder: Path, resumable: bool) -> None:
    """List the files of a finished checkpoint, and wait until all of it is on the disk.

    Args:
        folder: The checkpoint.
        resumable: Whether it holds all that a resumption needs.

    Raises:
        WriteError: If the disk does not take it.
    """
    with writing("the list of a checkpoint's files", folder / MANIFEST):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
        listed = {str(p.relative_to(folder)): {"size": p.stat().st_size, "sha256": _sha256(p)} for p in files}
        sync_tree(folder)
        write_whole(folder / MANIFEST, json.dumps({"resumable": resumable, "files": listed}, indent=1) + "\n")
        sync_tree(folder)


def has_manifest(checkpoint: Path) -> bool:
    """Whether the checkpoint's files can be checked."""
    return (checkpoint / MANIFEST).is_file()


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if it can be resumed from.

    One that was saved before there were manifests has its files, none of them empty; more cannot be said of it.
    """
    if not checkpoint.is_dir():
        return "there is no such folder"
    if not has_manifest(checkpoint):
        return _damage_without_manifest(checkpoint)
    manifest = parse_line((checkpoint / MANIFEST).read_bytes())
    files = manifest.get("files") if manifest else None
    if not manifest or not isinstance(files, dict) or STATE not in files:
        return f"{MANIFEST} cannot be read"
    for name, facts in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if not isinstance(facts, dict) or path.stat().st_size != facts.get("size"):
            size = facts.get("size") if isinstance(facts, dict) else None
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
        if _sha256(path) != facts.get("sha256"):
            return f"{name} is not what was saved: its SHA-256 differs from the one in {MANIFEST}"
    if not manifest.get("resumable"):
        return "it was saved with save_only_model, so the optimizer's state is missing"
    return _state_damage(checkpoint / STATE)


def _state_damage(path: Path) -> str | None:
    """What is wrong with the values of a trainer's state, which has the right hash but may be a stranger's."""
    try:
        state = parse_json(read_text(path, _LARGEST_STATE))
    except UntrustedError as error:
        return f"{STATE} cannot be read: {error}"
    if not isinstance(state, dict):
        return f"{STATE} cannot be read: expected an object"
    known = vars(TrainerState())
    for name, value in state.items():
        if name not in known:
            return f"{STATE} holds {shown(name)}, which is no part of a training's state"
        if not _fits(name, value):
            return f"{STATE} holds {shown(value)} as {name}"
    return None


def _fits(name: str, value: object) -> bool:
    """Whether a value can be that of a field of a trainer's state."""
    if name in ("global_step", "max_steps", "train_batch_size", "num_input_tokens_seen", "best_global_step"):
        return value is None or (type(value) is int and -1 <= value < 1 << 53)
    if name.startswith("is_"):
        return isinstance(value, bool)
    if name == "log_history":
        return isinstance(value, list) and all(isinstance(line, dict) for line in value)
    if name in ("stateful_callbacks", "trial_params"):
        return value is None or isinstance(value, dict)
    if name in ("best_model_checkpoint", "trial_name"):
        return value is None or isinstance(value, str)
    return value is None or is_number(value)


def _damage_without_manifest(checkpoint: Path) -> str | None:
    if not (checkpoint / STATE).is_file():
        return f"{STATE} is missing"
    if wrong := _state_damage(checkpoint / STATE):
        return wrong
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and not path.stat().st_size:
            return f"{path.relative_to(checkpoint)} is empty"
    if (checkpoint / OBJECTIVE).is_file():
        try:
            marked = torch.load(checkpoint / OBJECTIVE, weights_only=True).get(MARK, False)
        except Exception:  # whatever torch makes of damaged bytes
            return f"{OBJECTIVE} cannot be read"
        if marked:
            return f"{MANIFEST} is missing"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
