"""What holds of every embedded model that a task's `pretrain` makes as its only one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT, tensors
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.hanabi import pretrain as hanabi
from tasks.kitchen import pretrain as kitchen
from tasks.tag import pretrain as tag


@dataclass(frozen=True)
class Shipped:
    """An embedded model.

    Attributes:
        task: Whose it is.
        name: Of its folder.
        main: The command that makes it.
        pretrain: Makes it, given a number of steps and a seed.
        parameters: How many it has at most.
    """

    task: str
    name: str
    main: Callable[[Sequence[str]], None]
    pretrain: Callable[[int, int], Any]
    parameters: int

    @property
    def folder(self) -> Path:
        return ROOT / "tasks" / self.task / "models" / self.name


MODELS = (
    Shipped("kitchen", "apprentice", kitchen.main, kitchen.pretrain, 400_000),
    Shipped("tag", "chaser", tag.main, tag.pretrain, 500_000),
    Shipped("hanabi", "player", hanabi.main, hanabi.pretrain, 499_999),
)
each_model = pytest.mark.parametrize("shipped", MODELS, ids=lambda shipped: shipped.name)


@each_model
def test_the_command_makes_the_model_from_nothing(shipped: Shipped, tmp_path: Path) -> None:
    shipped.main(["--out", str(tmp_path), "--steps", "2"])
    folders = tmp_path / shipped.name, shipped.folder
    made, kept = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    assert {n: t.shape for n, t in tensors(made).items()} == {n: t.shape for n, t in tensors(kept).items()}
    new, old = (AutoTokenizer.from_pretrained(folder).get_vocab() for folder in folders)
    assert new == old
    assert all(tensor.isfinite().all() for tensor in tensors(made).values())


@each_model
def test_the_same_seed_makes_the_same_model_and_another_seed_another(shipped: Shipped) -> None:
    made = [tensors(shipped.pretrain(2, seed)[0]) for seed in (0, 0, 1)]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(made[0]["model.embed_tokens.weight"], made[2]["model.embed_tokens.weight"])


@each_model
def test_the_shipped_model_is_a_plain_folder_of_at_most_three_megabytes(shipped: Shipped) -> None:
    assert sum(file.stat().st_size for file in shipped.folder.iterdir()) <= 3_000_000
    model = AutoModelForCausalLM.from_pretrained(shipped.folder)
    assert model.num_parameters() <= shipped.parameters
    assert model.config.hidden_size // model.config.num_attention_heads >= 32
