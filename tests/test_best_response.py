"""`llm-sra best-response`: a training for each partner, kept partner by partner, and what it earns."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from llm_sra.evaluation.best_responses import LIVE, read_best_responses
from llm_sra.evaluation.results import read_results
from llm_sra.runs import Run
from recipes.cli import main
from recipes.comparing import responding
from recipes.comparing.cells import ComparisonError
from recipes.comparing.responding import default_recipe
from recipes.comparing.training import TrainingError, Trainings

WORDS = "name: works, kind: scripted, policy: last_action", "name: rests, kind: scripted, policy: first_action"
FIELDS = ["--max_steps", "1", "--num_generations", "4"]


def write(folder: Path, *partners: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text("partners: [" + ", ".join(f"{{{partner}}}" for partner in partners) + "]")
    return path


class Here(Trainings):
    """Trains in this process, and fails for the partner of whom `fails` is a part."""

    trained: ClassVar[list[str]] = []
    fails = "nobody"

    def run(self) -> None:
        for cell in self._cells:
            if self.fails in cell.name:
                continue
            self.trained.append(cell.name.rpartition("-")[0])
            if cell in self._waiting:
                assert main(cell.command(self._out)) == 0
        if any(self.fails in cell.name for cell in self._cells):
            raise TrainingError("1 of 2 trainings failed")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    monkeypatch.setattr(responding, "Trainings", Here)
    monkeypatch.setattr(Here, "trained", [])
    return Here


def respond(roster: Path, out: Path, *further: str) -> int:
    asked = ["best-response", "--roster", str(roster), "--config", "effort/srpo", "--out", str(out)]
    return main([*asked, "--problems", "1", "--decoding", "greedy", *FIELDS, *further])


def plain(path: Path) -> Any:
    return json.loads(path.read_text())


def test_each_partner_gets_a_best_response_and_evaluations_divide_by_it(
    tmp_path: Path, here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    roster, out = write(tmp_path, *WORDS, "name: own, kind: live"), tmp_path / "out"
    assert respond(roster, out) == 0
    assert here.trained == ["works", "rests"]
    made = read_best_responses(tmp_path / "mine.best.json")
    assert made == read_best_responses(out / "best_responses.json")
    assert list(made.partners) == ["works", "rests"] and made.unused == {"own": LIVE}
    assert (made.task, made.split, made.seed, made.problems) == ("effort", "test", 0, 1)
    # Two problems of four episodes; the other fields are the recipe's.
    assert dict(made.partners["works"].budget) == {
        "steps": 1, "episodes": 8, "seed": 1, "model": "effort/player", "learning_rate": 0.0004, "entropy_coef": 0.2,
    }  # fmt: skip
    # The effort game: the team earns 1 if somebody works, working costs 0.3. Who meets one that works earns 1 by
    # resting and 0.7 by working.
    assert {one.own_return for one in made.partners["works"].earned} <= {1.0, 0.7}
    assert all(one.returns == (one.own_return,) for one in made.partners["works"].earned) and len(made.ids) == 1
    assert [(one.seat, one.decoding, one.n) for one in made.partners["works"].earned] == [
        ("first", "greedy", 1), ("second", "greedy", 1),
    ]  # fmt: skip
    [folder] = out.glob("works-*/adapters")
    config = Run.open(folder.parent).config
    assert (config["arm"], config["risk"], config["partners_per_step"]) == ("fcp", "expectation", None)
    shown = capsys.readouterr().out
    assert "own: none" in shown and "What best responses earn, greedy" in shown
    # Evaluated like any other run, the best response earns the same, for problems and seeds are the same.
    asked = ["eval", "--run", str(folder.parent), "--roster", str(roster), "--problems", "1", "--decoding", "greedy"]
    assert main([*asked, "--out", str(tmp_path / "eval")]) == 0
    found = read_results(tmp_path / "eval")
    assert found.best is not None and set(found.best.partners) == {"works", "rests"}
    for one in made.partners["works"].earned:
        assert found.returns[found.runs[0], one.seat, "works", "greedy"].mean() == one.own_return
    table = (tmp_path / "eval" / "table.md").read_text()
    assert "Return as a share of a best response's, greedy" in table


def test_what_is_done_is_kept_and_a_changed_partner_is_made_anew(tmp_path: Path, here: type[Here]) -> None:
    script = tmp_path / "own.py"
    script.write_text("class Own:\n    def reply(self, messages, rng):\n        return 'work'\n")
    roster = write(tmp_path, WORDS[0], "name: own, kind: scripted, policy: './own.py:Own'")
    out, trusted = tmp_path / "out", "--trust_scripts"
    assert respond(roster, out) == 2 and here.trained == []  # not without the flag
    here.fails = "own"
    assert respond(roster, out, trusted) == 2
    assert list(read_best_responses(out / "best_responses.json").partners) == ["works"]
    assert not (tmp_path / "mine.best.json").exists()
    here.fails = "nobody"
    assert respond(roster, out, trusted) == 0
    assert here.trained == ["works", "own"]
    first = plain(tmp_path / "mine.best.json")
    assert respond(roster, out, trusted) == 0
    assert here.trained == ["works", "own"] and plain(tmp_path / "mine.best.json") == first
    script.write_text("class Own:\n    def reply(self, messages, rng):\n        return 'rest'\n")
    assert respond(roster, out, trusted) == 0
    assert here.trained == ["works", "own", "own"]
    second = plain(tmp_path / "mine.best.json")
    assert second["partners"]["works"] == first["partners"]["works"]
    assert second["partners"]["own"]["entry"] != first["partners"]["own"]["entry"]
    # Trainings that are there play again with other problems; they are not trained again.
    assert respond(roster, out, trusted, "--problems", "2") == 0
    assert read_best_responses(out / "best_responses.json").problems == 2


def test_another_budget_is_refused_where_runs_are_there_and_replaced_with_again(
    tmp_path: Path, here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    roster, out = write(tmp_path, WORDS[0]), tmp_path / "out"
    assert respond(roster, out) == 0
    assert respond(roster, out, "--learning_rate", "0.1") == 2
    assert "was trained with other settings (learning_rate 0.0004, now 0.1)" in capsys.readouterr().err
    assert respond(roster, out, "--learning_rate", "0.1", "--again") == 0
    assert read_best_responses(out / "best_responses.json").partners["works"].budget["learning_rate"] == 0.1
    shutil.rmtree(next(out.glob("works-*/adapters")).parent)
    assert respond(roster, out, "--learning_rate", "0.1") == 0  # the file is enough
    assert here.trained == ["works", "works"]


@pytest.mark.parametrize(
    ("partners", "further", "message"),
    [
        (WORDS[:1], ["--arm", "ippo"], "--arm is set for each training"),
        (WORDS[:1], ["--partners", "x"], "--partners is set"),
        (WORDS[:1], ["--max_stps", "3"], "did you mean 'max_steps'"),
        (WORDS[:1], ["--jobs", "0"], "--jobs and --problems must be 1 or more"),
        (["name: own, kind: live"], [], "has a best response: it is each run's own partner"),
        (["name: x, kind: scripted, policy: lazzy"], [], "unknown scripted partner 'lazzy'"),
        (["name: x, kind: adapter, policy: ./nowhere"], [], "partner 'x' cannot be read"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_nothing_is_trained(
    partners: list[str], further: list[str], message: str, tmp_path: Path, here: type[Here],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert respond(write(tmp_path, *partners), tmp_path / "out", *further) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert here.trained == []


def test_the_recipe_is_that_of_the_rosters_task_where_none_is_named() -> None:
    assert default_recipe("worksheet_test") == "worksheet/best_response"
    assert default_recipe("a/kitchen_dev.yaml") == "kitchen/ippo"
    assert default_recipe("effort_test") == "effort/srpo"
    with pytest.raises(ComparisonError, match="name one with --config"):
        default_recipe("mine.yaml")


def test_what_belongs_to_the_recipes_own_arm_is_left_out() -> None:
    recipe = {"arm": "srpo", "tau": 3, "tau_schedule": "linear", "adversary_entropy_coef": 0, "algorithm": "ppo"}
    recipe |= {"risk_alpha": 0.1, "partners": "x", "dev_roster": "y", "eval_strategy": "steps", "learning_rate": 0.1}
    assert responding.without_arm(recipe) == {"algorithm": "ppo", "learning_rate": 0.1}
    assert responding.without_arm({"algorithm": "adalign", "seed": 1}) == {"seed": 1}


def test_a_shipped_rosters_name_leaves_what_ships_as_it_is(
    tmp_path: Path, here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_sra.registry import find_roster

    asked = ["best-response", "--roster", "effort_dev", "--out", str(tmp_path / "out"), "--problems", "1", *FIELDS]
    assert main([*asked, "--decoding", "greedy"]) == 0
    assert not find_roster("effort_dev").with_name("effort_dev.best.json").exists()
    assert "--best_responses" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["task"] == "effort"
