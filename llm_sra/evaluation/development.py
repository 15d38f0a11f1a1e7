"""Plays agents in training with the development roster; what a training logs as `eval_...` comes from here."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from llm_sra.engines import Engine
from llm_sra.episodes import EpisodeRecord
from llm_sra.evaluation.matches import cells, seated
from llm_sra.evaluation.plan import reason_of
from llm_sra.evaluation.play_missing import play_specs
from llm_sra.evaluation.records import cell_record
from llm_sra.evaluation.settings import Setting
from llm_sra.partners.loader import PolicyLoader, Team
from llm_sra.partners.rosters import SELF_PLAY, read_roster
from llm_sra.playing import EpisodeSpec
from llm_sra.policies import EnginePolicy, Match, Policy
from llm_sra.protocol.rules import Rules
from llm_sra.task import Problem, Task
from llm_sra.untrusted import one_line

logger = logging.getLogger(__name__)


class DevEvaluation:
    """Plays adapters in training with the development roster, sampled, on the dev split.

    Args:
        task: The rules.
        team: The agents.
        engines: Play them, by name.
        roster: YAML file; its models are loaded once, apart from the one in training.
        problems: How many.
        seed: Seed of the run.
        max_reply_tokens: Token limit of a reply; the task's own if None.
    """

    def __init__(
        self,
        task: Task,
        team: Team,
        engines: Mapping[str, Engine],
        roster: str | Path,
        problems: int,
        seed: int,
        max_reply_tokens: int | None = None,
    ) -> None:
        loader = PolicyLoader(task)
        partners = {entry.name: loader.partner(entry, seated(team)) for entry in read_roster(roster)}
        self._cells, self._partners, self._own = cells(task, team, partners, ["sampled"]), partners, team.engines
        self._setting = Setting(
            task,
            {**loader.engines, **engines},
            Rules(task).problems("dev", problems, seed),
            split="dev",
            seed=seed,
            max_reply_tokens=max_reply_tokens,
        )

    def __call__(self) -> dict[str, float]:
        """Play and count.

        A partner that fails is told of in a warning and has no numbers this time; it is asked again the next time.
        `mean_partner` and `worst_partner` are then nan, which is never the best: without the partner they would not
        compare with those of other steps.

        Returns:
            Solve rates, or the task's headline if it has one: `self_play`, `<partner>/<seat>`, `mean_partner` and
            `worst_partner` (over seats and partners); and `effort/<seat>` in self-play.
        """
        numbers: dict[str, float] = {}
        with_partners = []
        problems, headline = self._setting.problems, self._setting.task.headline
        matches = [cell.match for cell in self._cells]
        specs = {_key(match, problem): EpisodeSpec(problem, match) for match in matches for problem in problems}
        played: dict[str, EpisodeRecord] = {}
        lost: set[str] = set()

        def on_lost(policy: Policy, error: Exception) -> None:
            names = [name for name, seats in self._partners.items() if policy in seats.values()]
            if not names or (isinstance(policy, EnginePolicy) and policy.engine in self._own.values()):
                raise error  # an agent's own
            for name in sorted(set(names) - lost):
                logger.warning(
                    "the development roster's partner %s failed, and the training goes on without it this time: %s. "
                    "This step is not compared with others by mean_partner or worst_partner",
                    one_line(name), reason_of(error),
                )  # fmt: skip
            lost.update(names)

        play_specs(self._setting, specs, played.update, on_lost=on_lost)
        for cell in self._cells:
            if cell.partner in lost:
                continue
            record = cell_record(cell, [played[_key(cell.match, problem)] for problem in problems])
            share = record.metrics[headline] if headline else record.solve_rate
            if cell.partner == SELF_PLAY:
                numbers["self_play"] = share
                numbers[f"effort/{cell.seat}"] = record.effort_own
            else:
                numbers[f"{cell.partner}/{cell.seat}"] = share
                with_partners.append(share)
        if lost:
            numbers |= {"mean_partner": math.nan, "worst_partner": math.nan}
        elif with_partners:
            numbers |= {"mean_partner": fmean(with_partners), "worst_partner": min(with_partners)}
        return numbers


def _key(match: Match, problem: Problem) -> str:
    return f"{match.name}\x1f{problem.id}"
