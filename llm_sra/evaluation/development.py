"""Plays agents in training with the development roster; what a training logs as `eval_...` comes from here."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from llm_sra.engines import Engine
from llm_sra.episodes import EpisodeRecord
from llm_sra.evaluation.matches import cells, seated
from llm_sra.evaluation.play_missing import play_specs
from llm_sra.evaluation.records import cell_record
from llm_sra.evaluation.settings import Setting
from llm_sra.partners.loader import PolicyLoader, Team
from llm_sra.partners.rosters import SELF_PLAY, read_roster
from llm_sra.playing import EpisodeSpec
from llm_sra.policies import Match
from llm_sra.protocol.rules import Rules
from llm_sra.task import Problem, Task

ENGINE = "training"  # name of the engine that plays the agents


class DevEvaluation:
    """Plays adapters in training with the development roster, sampled, on the dev split.

    Args:
        task: The rules.
        heroes: Adapter of each seat.
        engine: Plays the heroes.
        roster: YAML file; its models are loaded once, apart from the one in training.
        problems: How many.
        seed: Seed of the run.
        max_reply_tokens: Token limit of a reply; the task's own if None.
    """

    def __init__(
        self,
        task: Task,
        heroes: Mapping[str, str],
        engine: Engine,
        roster: str | Path,
        problems: int,
        seed: int,
        max_reply_tokens: int | None = None,
    ) -> None:
        loader = PolicyLoader(task)
        team = Team("training", "", heroes, ENGINE)
        partners = {entry.name: loader.partner(entry, seated(team)) for entry in read_roster(roster)}
        self._cells = cells(task, team, partners, ["sampled"])
        self._setting = Setting(
            task,
            {**loader.engines, ENGINE: engine},
            Rules(task).problems("dev", problems, seed),
            split="dev",
            seed=seed,
            max_reply_tokens=max_reply_tokens,
        )

    def __call__(self) -> dict[str, float]:
        """Play and count.

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
        play_specs(self._setting, specs, played.update)
        for cell in self._cells:
            record = cell_record(cell, [played[_key(cell.match, problem)] for problem in problems])
            share = record.metrics[headline] if headline else record.solve_rate
            if cell.partner == SELF_PLAY:
                numbers["self_play"] = share
                numbers[f"effort/{cell.seat}"] = record.effort_own
            else:
                numbers[f"{cell.partner}/{cell.seat}"] = share
                with_partners.append(share)
        if with_partners:
            numbers |= {"mean_partner": fmean(with_partners), "worst_partner": min(with_partners)}
        return numbers


def _key(match: Match, problem: Problem) -> str:
    return f"{match.name}\x1f{problem.id}"
