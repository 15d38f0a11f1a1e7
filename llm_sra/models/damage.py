"""What is wrong with files that cannot be read, and what to do: not fetched by Git LFS, cut off, not finite."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError

POINTER = b"version https://git-lfs.github.com/spec/"  # how a file begins that Git LFS has not fetched yet


def why_unreadable(folder: Path, error: Exception) -> str:
    """What a user is told of files in a folder that could not be read.

    Args:
        folder: Folder of a model or an adapter; need not exist.
        error: What reading raised.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and _begins(path, POINTER):
            return f"{path.name} is a pointer of Git LFS and not the file itself: run `git lfs pull` in its repository"
    said = str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
    if isinstance(error, SafetensorError):
        return f"{said}. The weights are cut off or damaged: copy or download them again"
    if isinstance(error, json.JSONDecodeError):
        return f"{said}. A file is no JSON: copy or download it again"
    return said


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity."""
    for name, tensor in tensors:
        if tensor.is_floating_point():
            wide = tensor.float() if tensor.element_size() == 1 else tensor
            if not torch.isfinite(wide).all():
                return name
    return None


def _begins(path: Path, head: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(head)) == head
