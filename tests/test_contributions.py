"""What each agent contributes: numbers by hand, and teams that are really played."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support import PUPIL, make_run

from eval.contributions import contribution_grids, contributions
from llm_sra.evaluation.records import Record, TeamRecord
from llm_sra.evaluation.results import Results, read_results
from llm_sra.registry import load_task
from llm_sra.task import Task
from recipes.commands import eval as eval_command

TEAMS = {  # of each problem: both solve the first one, the first seat alone solves the second
    ("", ()): (1, 1),
    ("idle", ("first",)): (0, 0),
    ("idle", ("second",)): (1, 1),
    ("idle", ("first", "second")): (0, 0),
    ("base", ("first",)): (1, 0),
    ("base", ("second",)): (1, 1),
    ("base", ("first", "second")): (1, 0),
    ("itself", ("first",)): (1, 1),
    ("itself", ("second",)): (0, 1),
}


def results(teams: Mapping[tuple[str, tuple[str, ...]], tuple[float, ...]]) -> Results:
    own = [Record("runs/a", "ippo", s, "self-play", "sampled", 2, 1.0, (0.3, 1.0), 1.0, 1.0, 1.0, 1.0)
           for s in ("first", "second")]  # fmt: skip
    records = [
        TeamRecord("runs/a", "ippo", "sampled", seats, by, 2, sum(rewards) / 2, rewards)
        for (by, seats), rewards in teams.items()
    ]
    return Results(tuple(own), {}, {}, {}, teams=tuple(records))


def test_what_is_lost_without_an_agent_and_its_shapley_value_by_hand() -> None:
    first, second = contributions(results(TEAMS))
    assert {by: each.value for by, each in first.lost.items()} == {"idle": 1, "base": 0.5, "itself": 0}
    assert {by: each.value for by, each in second.lost.items()} == {"idle": 0, "base": 0, "itself": 0.5}
    # All of it is the first seat's: alone it earns 1 on both problems, the second alone 0, and both 1.
    assert (first.shapley["idle"].value, second.shapley["idle"].value) == (1, 0)
    # The base model solves the first problem by itself, so there is only the second to share out.
    assert (first.shapley["base"].value, second.shapley["base"].value) == (0.5, 0)
    assert (first.lost["base"].low, first.lost["base"].high) == (0, 1)  # one of two problems


def test_agents_that_need_each_other_share_what_they_earn_together() -> None:
    teams = {key: rewards for key, rewards in TEAMS.items() if key[0] in ("", "idle")}
    found = contributions(results(teams | {("idle", ("second",)): (0, 0)}))
    assert [each.shapley["idle"].value for each in found] == [0.5, 0.5]
    assert [each.lost["idle"].value for each in found] == [1, 1]  # so that what is lost does not add up


def test_the_table_says_who_took_the_seat() -> None:
    lost, shapley = contribution_grids(results(TEAMS))
    assert lost.header == ("agent", "an idle partner", "the base model", "itself, another seed")
    assert lost.sections[0][0][:2] == ("a (ippo), first", "+1.00 (no spread)")
    assert shapley.header == ("agent", "an idle partner", "the base model")
    assert shapley.sections[0][1][1] == "+0.00 (no spread)"
    assert contribution_grids(results({})) == []


def test_teams_are_played_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs" / "a", base=PUPIL, max_completion_length=8)
    out = tmp_path / "out"
    eval_command.main(["--run", str(run.path), "--contributions", "--problems", "3", "--out", str(out)])
    assert "What a team loses when an agent is replaced by ..., greedy" in capsys.readouterr().out
    read = read_results(out)
    assert len(read.teams) == 2 * (
        1 + 3 + 3 + 2
    )  # decodings; the team, idle and base in some seats, each beside itself
    for decoding in read.decodings:
        teams = {(team.by, team.replaced): team for team in read.teams if team.decoding == decoding}
        assert teams["", ()].reward == read.record(read.runs[0], "first", "self-play", decoding).team_reward
        assert teams["idle", ("first", "second")].rewards == (0, 0, 0)  # nobody works
        if decoding == "greedy":
            assert teams["itself", ("first",)].rewards == teams["", ()].rewards  # it draws nothing


@pytest.mark.parametrize("name", ["worksheet", "gsm8k", "kitchen", "effort", "hanabi", "tag"])
def test_the_idle_partner_of_a_task_is_one_of_its_partners(name: str) -> None:
    task: Task = load_task(name)
    assert task.idle in task.partners
