"""The base models of a training: each with its adapters, its engine and its forward passes.

All seats share one base, or each seat's policies live on that seat's (`seat_models`). An adapter lives on one base, and
so does all that is computed of its rows; nothing but text crosses from one base to another.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePath
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from llm_sra.engines import Engine
from llm_sra.errors import UserError, did_you_mean
from llm_sra.models.adapters import AdapterBank
from llm_sra.trainer.arms import Roles
from llm_sra.trainer.forward import Forward, evaluation_mode
from llm_sra.trainer.reading import Reader

ENGINE = "main"  # name of the engine of the first base


@dataclass(frozen=True)
class Base:
    """A base model under training.

    Attributes:
        bank: The model and its adapters.
        engine: Plays them.
        reader: Gives the hidden states of rows.
        forward: Gives the log-probabilities of rows.
        pad_id: Token that fills rows up.
    """

    bank: AdapterBank
    engine: Engine
    reader: Reader
    forward: Forward
    pad_id: int


class Bases:
    """The base models of a training, by the adapters that live on them.

    Args:
        bases: One or more; no two have an adapter of one name.
    """

    def __init__(self, bases: Sequence[Base]) -> None:
        self._bases = tuple(bases)
        self._of = {name: base for base in bases for name in base.bank.names}

    def __iter__(self) -> Iterator[Base]:
        return iter(self._bases)

    @property
    def first(self) -> Base:
        """The base of the first seat; without `seat_models` there is no other."""
        return self._bases[0]

    @property
    def share_weights(self) -> bool:
        """Whether all engines run on the very weights that are trained."""
        return all(base.engine.shares_weights for base in self)

    def of(self, adapter: str) -> Base:
        """Where an adapter lives."""
        return self._of[adapter]

    def of_model(self, model: torch.nn.Module) -> Base:
        """The base with this model; the first one for a module that wraps its model."""
        return next((base for base in self if base.bank.model is model), self.first)

    def parameters(self, adapter: str) -> list[torch.nn.Parameter]:
        """The trainable parameters of an adapter, in a fixed order."""
        return self.of(adapter).bank.parameters(adapter)

    def train(self) -> None:
        """Put all models into training mode."""
        for base in self:
            base.bank.model.train()

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Put all models into evaluation mode inside the block, and back into their own modes after it."""
        with ExitStack() as stack:
            for base in self:
                stack.enter_context(evaluation_mode(base.bank.model))
            yield


def models_of(roles: Roles, models: Mapping[str, str]) -> dict[str, str]:
    """The base model of each adapter.

    Args:
        roles: The adapters, and the seats that they sit in.
        models: By seat.

    Raises:
        UserError: If an adapter sits in seats of different models.
    """
    found = {}
    for adapter, seats in roles.seats.items():
        if len({models[seat] for seat in seats}) > 1:
            sits = ", ".join(f"{seat} ({models[seat]})" for seat in seats)
            what = (
                "it is the policy of all seats: set sharing to seat"
                if len(seats) == len(models)
                else "each adversary sits in all seats but its hero's: with more than two seats these need one model"
            )
            raise UserError(f"seat_models gives {adapter} two models, by its seats {sits}; {what}")
        found[adapter] = models[seats[0]]
    return found


def engine_names(models: Mapping[str, str]) -> dict[str, str]:
    """The name of each adapter's engine: the first model's is the one that policies have by default."""
    numbers = {model: number for number, model in enumerate(dict.fromkeys(models.values()), start=1)}
    return {a: ENGINE if numbers[model] == 1 else f"{ENGINE}-{numbers[model]}" for a, model in models.items()}


def seat_models(named: Mapping[str, str] | None, default: str | None, seats: Sequence[str]) -> dict[str, str]:
    """The base model of each seat.

    Args:
        named: Models by seat, as in `seat_models`.
        default: The model of seats that are not named there, as in `model_name_or_path`.
        seats: The task's.

    Raises:
        UserError: If a name is no seat, a seat has no model, `default` is no seat's, or two models have one name.
    """
    named = named or {}
    for name in named:
        if name not in seats:
            raise UserError(f"seat_models names {name!r}, which is no seat of the task{did_you_mean(name, seats)}")
    missing = [seat for seat in seats if seat not in named]
    if missing and not default:
        raise UserError(
            f"seat_models has no model for {', '.join(missing)}: name one for each seat, or set model_name_or_path "
            "for those that are not named"
        )
    if named and not missing and default:
        raise UserError(
            f"seat_models names a model for every seat, so model_name_or_path {default!r} would have no effect: leave "
            "one of them out"
        )
    models = {seat: named.get(seat) or str(default) for seat in seats}
    for one, other in combinations(dict.fromkeys(models.values()), 2):
        if PurePath(one).name == PurePath(other).name:
            raise UserError(
                f"seat_models names {one} and {other}, two models of one name, which results could not tell apart: "
                "name one of them for both seats, or give one folder another name"
            )
    return models


def pad_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills rows up, as TRL chooses it."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def prepare_as_first(model: Any, args: Any, pad_id: int) -> None:
    """Do to a further model what TRL and transformers do to the one that they are given."""
    model.config.get_text_config().pad_token_id = model.generation_config.pad_token_id = pad_id
    model.to(args.device)
    if args.disable_dropout:
        disable_dropout_in_model(model)
    add_fused_lm_head(model.get_base_model(), temperature=args.temperature, outputs=("log_probs", "entropy"))
    if args.gradient_checkpointing:
        options = dict(args.gradient_checkpointing_kwargs or {})
        which = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options or None, **which)
