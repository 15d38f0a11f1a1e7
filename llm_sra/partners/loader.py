"""Loads what can sit in a seat: the agents of runs, and the partners of rosters, each kind in its own way.

Each base model is loaded once, and every adapter onto its own base. What is played and counted is not known here.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llm_sra.engines import Engine, EngineOptions, make_engine
from llm_sra.errors import NoFileError
from llm_sra.models.adapters import AdapterBank, AdapterError, needs_own_base, read_adapter_config, read_card
from llm_sra.models.chat_template import DAY, TemplateError
from llm_sra.models.damage import not_finite
from llm_sra.models.loading import QUANTIZED, ModelError, load_model, quantization_of
from llm_sra.models.renderer import Renderer
from llm_sra.partners.identity import Facts, describe, digest
from llm_sra.partners.rosters import ASKED, Entry, RosterError
from llm_sra.policies import (
    ChatClient,
    Endpoint,
    EnginePolicy,
    Perturbed,
    Policy,
    Recorded,
    Replayed,
    Scripted,
    UnavailableError,
)
from llm_sra.registry import load_partner
from llm_sra.runs import Run
from llm_sra.runs.trust import may_run_code
from llm_sra.task import Task

# What is raised for a partner whose file, model or server is missing or cannot be used.
UNAVAILABLE = (UnavailableError, NoFileError, ModelError, AdapterError, TemplateError)


@dataclass(frozen=True)
class Team:
    """The agents of one run, ready to be seated.

    Attributes:
        run: Name of the run.
        arm: Its objective.
        heroes: By seat, the name of the adapter in the engine; None: the base model.
        engines: By seat, the name of the engine.
    """

    run: str
    arm: str
    heroes: Mapping[str, str | None]
    engines: Mapping[str, str]


class PolicyLoader:
    """Loads each base model once, and every adapter onto its own base.

    Args:
        task: What is played.
        options: The engine of the runs' agents; models that are partners are played by transformers.
        max_reply_tokens: Token limit of a reply, for endpoints; the task's own if None.
        live: The policy of each seat in training, for `live` partners; `partner` may be given others.
        trust_remote_code: Whether Python that comes with a run's model may run; for a roster's see `read_playable`.
    """

    def __init__(
        self,
        task: Task,
        options: EngineOptions = EngineOptions(),
        max_reply_tokens: int | None = None,
        live: Mapping[str, EnginePolicy] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._trust_remote_code = trust_remote_code
        self.task, self._options, self._live = task, options, live
        self.engines: dict[str, Engine] = {}
        self._max_reply_tokens = max_reply_tokens or task.max_reply_tokens
        self._banks: dict[str, AdapterBank] = {}
        self._facts: dict[str, Facts] = {}
        self._callers: set[str] = set()
        self._own: set[str] = set()  # engines whose base has one adapter that changes it
        self._clients: list[ChatClient] = []

    def __enter__(self) -> "PolicyLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engines, and close the connections to endpoints."""
        for name, engine in self.engines.items():
            if name not in self._callers:
                engine.close()
        for client in self._clients:
            client.close()

    def add_engine(self, name: str, engine: Engine, bank: AdapterBank) -> None:
        """Use an engine of the caller, under this name, for adapters on its base; `close` leaves it open."""
        self.engines[name], self._banks[name] = engine, bank
        self._callers.add(name)

    def team(self, run: Run) -> Team:
        """The agents of a run.

        Raises:
            RunError: If Python would run that comes with its model, and that was not allowed.
        """
        config = {**run.config, "trust_remote_code": may_run_code(run, self._trust_remote_code)}
        engines: dict[str, str] = {}
        seats_of: dict[str, list[str]] = {}
        for seat, hero in run.heroes.items():
            seats_of.setdefault(run.model_of(hero), []).append(seat)
        self._options.check_servers(seats_of)
        for model, seats in seats_of.items():
            engines |= dict.fromkeys(seats, self._engine(model, config, self._options.serving(seats), seats=seats))
        heroes = {seat: self._load(engines[seat], run.adapters / name) for seat, name in run.heroes.items()}
        return Team(run.name, str(run.config["arm"]), heroes, engines)

    def partner(self, entry: Entry, live: Mapping[str, EnginePolicy] | None = None) -> dict[str, Policy]:
        """The policy of a roster's entry for each seat.

        Args:
            entry: Entry of the roster.
            live: The policy of each seat for a `live` partner: the agents that it was trained with.

        Endpoints are not asked here: the first reply shows whether one is available, as its cache may hold all replies.

        Raises:
            UnavailableError, NoFileError, ModelError, AdapterError, TemplateError: If its file or model is missing, or
                cannot be used: one of `UNAVAILABLE`.
            UnknownNameError, ValueError, PolicyError: If the roster names something that does not exist.
        """
        if entry.kind == "live":
            live = live or self._live
            if live is None:
                raise RosterError(
                    f"partner {entry.name!r} has kind `live`, which needs the partner from training; this run has none"
                )
            return {seat: replace(policy, name=entry.name, **entry.options) for seat, policy in live.items()}
        if entry.kind == "adapter":
            return self._adapters(entry)
        if entry.kind == "perturbed":
            how = {key: value for key, value in entry.options.items() if key != "of"}
            inner = self.partner(entry.options["of"], live)
            return {seat: Perturbed(entry.name, policy, **how) for seat, policy in inner.items()}
        return dict.fromkeys(self.task.seats, self._for_any_seat(entry))

    def identity(self, policy: Policy) -> str:
        """A short hash of a policy's content: the same for equal weights, scripts and settings, in whatever folder."""
        return digest(describe(policy, self._on_engine))

    def _on_engine(self, policy: EnginePolicy) -> Facts:
        """An engine's policy: the base's weights and template, the engine, and the adapter's weights."""
        bank = self._banks[policy.engine]
        if policy.adapter is None:
            return self._facts[policy.engine]
        key = f"{policy.engine}\x1f{policy.adapter}"
        if key not in self._facts:
            self._facts[key] = {"weights": bank.digest(policy.adapter), **bank.shape(policy.adapter)}
        return {**self._facts[policy.engine], "adapter": self._facts[key]}

    def _for_any_seat(self, entry: Entry) -> Policy:
        if entry.kind == "scripted":
            try:
                return Scripted(entry.name, load_partner(entry.policy, self.task))
            except SystemExit as error:
                raise UnavailableError(f"the script {entry.policy} ends the program: exit code {error.code}") from error
        if entry.kind == "recorded" and "field" not in entry.options:
            return Replayed(entry.name, entry.policy, type(self.task).__name__, entry.options.get("who"))
        if entry.kind == "recorded":
            return Recorded(entry.name, entry.policy, **entry.options)
        if entry.kind == "endpoint":
            return self._endpoint(entry)
        return EnginePolicy(entry.name, self._engine(entry.policy, entry.options))

    def _endpoint(self, entry: Entry) -> Endpoint:
        options = dict(entry.options)
        max_tokens, temperature = options.pop("max_tokens", self._max_reply_tokens), options.pop("temperature", 1.0)
        thought = {"opens_thought": options.pop("opens_thought", False)}
        client = ChatClient(**options)
        self._clients.append(client)
        return Endpoint(entry.name, entry.policy, client, max_tokens, self.task.stop, temperature, **thought)

    def _adapters(self, entry: Entry) -> dict[str, Policy]:
        policies: dict[str, Policy] = {}
        for seat in self.task.seats:
            folder = Path(entry.policy.replace("{seat}", seat))
            engine = self._base_of(folder, entry.options)
            policies[seat] = EnginePolicy(entry.name, engine, self._load(engine, folder))
        return policies

    def _base_of(self, folder: Path, options: Mapping[str, Any]) -> str:
        """Engine for a saved adapter: one whose base has the weights it was trained on, else one of its own base."""
        config = read_adapter_config(folder)
        base = str(options.get("base") or config.base_model_name_or_path)
        # PEFT cannot wrap one module for whole copies and for single tokens: these adapters do not share a base either.
        if needs_own_base(folder, config) or config.modules_to_save or config.trainable_token_indices:
            name = self._engine(base, options, own=str(folder.resolve()))
            self._own.add(name)
            return name
        trained_on = read_card(folder).get("base_fingerprint")
        for name, bank in self._banks.items():
            if (
                bank.fingerprint == trained_on
                and name not in self._own
                and self.engines[name].renderer.asks_as(options)
            ):
                return name
        return self._engine(base, options)

    def _load(self, engine: str, folder: Path) -> str:
        """Name under which the engine's base has a saved adapter."""
        digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', folder.name)}-{digest}"
        if name not in self._banks[engine].names:
            self._banks[engine].load(folder, name)
        return name

    def _engine(
        self,
        base: str,
        config: Mapping[str, Any],
        options: EngineOptions = EngineOptions(),
        own: str = "",
        seats: Sequence[str] = (),
    ) -> str:
        """Name of the engine for a base model, loaded once for each way of loading it, and for each `own` adapter.

        It must be able to choose in `seats`; in all, if none are named.
        """
        quantized = QUANTIZED if quantization_of(config) else ()
        how = {key: config[key] for key in ("dtype", "model_revision", *quantized, *ASKED) if config.get(key)}
        if how.get("template_date") == DAY:
            del how["template_date"]
        name = f"{base} {json.dumps(how, sort_keys=True)}{own and f' for {own}'}"
        if name not in self.engines:
            generates_here = options.kind == "transformers"
            model, tokenizer = load_model(
                base,
                dtype=config.get("dtype"),
                revision=config.get("model_revision"),
                trust_remote_code=bool(config.get("trust_remote_code")),
                quantization=quantization_of(config),
                device="cuda" if generates_here and torch.cuda.is_available() else "cpu",
            )
            if (key := not_finite(model.named_parameters())) is not None:
                raise ModelError(f"the weights of {base!r} hold NaN or infinity, first in {key}: take other weights")
            bank, renderer = AdapterBank(model), Renderer.of(tokenizer, config)
            for seat in seats or self.task.seats:
                renderer.single_tokens(
                    self.task.choices_of(seat)
                )  # raises before play where it could not choose in play
            if generates_here:
                options = replace(options, batch_size=int(config.get("rollout_batch_size") or options.batch_size))
            self.engines[name], self._banks[name] = make_engine(options, bank, renderer), bank
            self._facts[name] = {
                "base": bank.fingerprint,
                "dtype": str(bank.base.dtype),
                "template": renderer.identity,
                "engine": options.kind,
                "context": self.engines[name].context_length,
            }
        return name
