"""The options of an evaluation: what `llm_sra.evaluate` takes beside runs, roster and folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from llm_sra.engines import ENGINES, EngineOptions
from llm_sra.errors import unknown
from llm_sra.evaluation.matches import DECODINGS

CHUNK = 1024  # most episodes that are played at a time: full batches for an engine


class EvaluationKeywords(TypedDict, total=False):
    """The same as keywords of `llm_sra.evaluate`; see `EvaluationOptions`."""

    problems: int
    split: str
    seed: int
    task_args: Mapping[str, Any] | None
    decodings: Sequence[str]
    cross_play: bool
    contributions: bool
    divergence: bool
    engine: EngineOptions | str
    chunk: int
    disable_tqdm: bool | None
    trust_remote_code: bool
    trust_task: bool
    trust_scripts: bool
    best_responses: str | Path | None


@dataclass(frozen=True)
class EvaluationOptions:
    """What is played, who meets whom, and how it is run.

    Attributes:
        problems: How many.
        split: `dev` or `test`.
        seed: Chooses the problems and every reply's chance.
        task_args: Options of the task that replace the runs' own: how agents do in conditions that they were not
            trained in. Runs trained with different options can be compared if these overrides make them equal.
        decodings: `greedy`, `sampled` or both.
        cross_play: Whether each run's agents also play with those of every other run.
        contributions: Whether each run's team also plays with others in some of its seats: `teams` in `results.json`,
            from which follows what each agent contributes.
        divergence: Whether to measure, in sampled play, how far each partner is from the agent's training partner:
            `divergence/SEAT` among a record's metrics, in nats an episode, where the partner draws tokens from the same
            base. Needs the transformers engine.
        engine: Plays the runs' agents and all adapters on their base; other models are played by transformers.
        chunk: Most episodes at a time, which is also the most that a kill can lose. The first chunks are small; later
            ones grow if that is quick or raises the speed. The results do not depend on it.
        disable_tqdm: Whether to show no progress; None: a bar in a terminal, elsewhere a line a minute.
        trust_remote_code: Whether Python may run that comes with a run's model, or with a model for which the roster
            says so.
        trust_task: Whether the runs' task may run, though it does not ship and the runs were trained by somebody else.
        trust_scripts: Whether the roster's scripted partners may run that do not ship.
        best_responses: File of what best responses to the roster's partners earn; None: the one beside the roster, if
            there is one (`ROSTER.best.json`).

    Raises:
        ValueError: If a decoding, the engine or the chunk cannot be used.
    """

    problems: int = 64
    split: str = "test"
    seed: int = 0
    task_args: Mapping[str, Any] | None = None
    decodings: Sequence[str] = tuple(DECODINGS)
    cross_play: bool = False
    contributions: bool = False
    divergence: bool = False
    engine: EngineOptions | str = "transformers"
    chunk: int = CHUNK
    disable_tqdm: bool | None = None
    trust_remote_code: bool = False
    trust_task: bool = False
    trust_scripts: bool = False
    best_responses: str | Path | None = None

    def __post_init__(self) -> None:
        kind = self.engine_options.kind
        if kind not in ENGINES:
            raise unknown("engine", kind, ENGINES)
        if self.divergence and kind != "transformers":
            raise ValueError(
                f"divergence needs the model in this process: expected engine transformers, got engine {kind}"
            )
        for decoding in self.decodings:
            if decoding not in DECODINGS:
                raise unknown("decoding", decoding, DECODINGS)
        if self.chunk < 1:
            raise ValueError(f"a chunk has 1 episode or more, got {self.chunk}")

    @property
    def engine_options(self) -> EngineOptions:
        """The engine with its options, also where its name alone was given."""
        return EngineOptions(kind=self.engine) if isinstance(self.engine, str) else self.engine

    @classmethod
    def of(cls, keywords: EvaluationKeywords) -> "EvaluationOptions":
        """From keywords.

        Raises:
            UnknownNameError: If one does not exist.
            ValueError: If a value cannot be used.
        """
        known = [field.name for field in fields(cls)]
        for name in keywords:
            if name not in known:
                raise unknown("option of evaluate", name, known)
        return cls(**keywords)
