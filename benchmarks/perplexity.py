"""Perplexity of a model, and of its adapters, on a fixed text of prose: whether a training broke what it did not teach.

The text is a page of documentation that comes with Python itself, `email/architecture.rst`. Perplexities are of its
first tokens, in one piece.
"""

import email
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model

TEXT = Path(email.__file__).with_name("architecture.rst")
SHA256 = "f2b2ba7497fd02d13abcfc2a98099283a94b09e8b4f2c1c822ecacde3bec3eae"
TOKENS = 1024
BASE = "base"


class NoTextError(SystemExit):
    """The text is missing, or is another one."""


def read_text() -> str:
    """The text.

    Raises:
        NoTextError: If this Python does not have it, or has another one: its numbers could not be compared.
    """
    if not TEXT.is_file() or hashlib.sha256(TEXT.read_bytes()).hexdigest() != SHA256:
        raise NoTextError(f"{TEXT} is missing, or is not the text that perplexities are measured on")
    return TEXT.read_text(encoding="utf-8")


@torch.no_grad()
def perplexity(model: torch.nn.Module, ids: torch.Tensor) -> float:
    """The exponential of the mean negative log-probability of tokens 2, 3, ... given those before them.

    Args:
        model: A causal language model.
        ids: (1, tokens), 2 tokens or more.
    """
    return math.exp(float(model(input_ids=ids, labels=ids).loss))


def of_adapters(
    model: str, adapters: Mapping[str, Path], text: str, tokens: int = TOKENS
) -> Iterator[tuple[str, float]]:
    """The perplexity of the base, and with each adapter on it.

    Args:
        model: Folder or name of the base.
        adapters: Folders by any name.
        text: What is read.
        tokens: Most tokens of it.

    Yields:
        A name, `base` first, and its perplexity.
    """
    base, tokenizer = load_model(model, dtype="float32")
    ids = torch.tensor([tokenizer(text, add_special_tokens=False, truncation=True, max_length=tokens)["input_ids"]])
    bank = AdapterBank(base)
    yield BASE, perplexity(bank.model, ids)
    for number, (name, folder) in enumerate(adapters.items()):
        loaded = f"adapter-{number}"
        bank.load(folder, loaded)
        with bank.using(loaded):
            yield name, perplexity(bank.model, ids)
