"""`llm-sra strangers`: candidates with hidden preferences, best responses to them, and who is chosen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from llm_sra.evaluation.best_responses import read_best_responses
from llm_sra.partners.rosters import read_roster
from llm_sra.runs import Run
from recipes.cli import main
from recipes.comparing import generating, responding
from recipes.comparing.cells import ComparisonError
from recipes.comparing.generating import Asked, Candidate, candidates_of, choose
from recipes.comparing.responding import Wanted
from recipes.comparing.training import Trainings

LITTLE = ["--max_steps", "1", "--num_generations", "4", "--problems", "1", "--decoding", "greedy"]
NAMES = ["less-effort-1", "more-effort-1", "less-illegal-1", "more-illegal-1"]


class Here(Trainings):
    """Trains in this process."""

    trained: ClassVar[list[str]] = []

    def run(self) -> None:
        for cell in self._waiting:
            self.trained.append(cell.name)
            assert main(cell.command(self._out)) == 0


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    for module in (generating, responding):
        monkeypatch.setattr(module, "Trainings", Here)
    monkeypatch.setattr(Here, "trained", [])
    return Here


def generate(out: Path, *further: str) -> int:
    return main(
        ["strangers", "--task", "effort", "--metrics", "effort", "illegal", "--out", str(out), *LITTLE, *further]
    )


def asked(**other: Any) -> Asked:
    return Asked(**{"metrics": (), "weights": (-1.0, 1.0), "k": 2, "wanted": Wanted("", Path(), {}), **other})


def test_candidates_get_a_preference_each_and_best_responses_and_some_are_chosen(
    tmp_path: Path, here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    assert generate(out, "--k", "2", "--seed", "3") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 candidates" in shown and "8 trainings" in shown and "count as" in shown
    assert here.trained[:4] == NAMES and [name.rpartition("-")[0] for name in here.trained[4:]] == [
        "less-effort-1", "more-effort-1", "less-illegal-1", "more-illegal-1",
    ]  # fmt: skip
    configs = [Run.open(out / "candidates" / name).config for name in NAMES]
    assert [config["preferences"] for config in configs] == [
        {"effort": -1.0}, {"effort": 1.0}, {"illegal": -1.0}, {"illegal": 1.0},
    ]  # fmt: skip
    assert {(config["arm"], config["seed"]) for config in configs} == {("ippo", 3)}
    for name in here.trained[4:]:  # a best response has no preference
        config = Run.open(out / "best_responses" / name).config
        assert (config["preferences"], config["arm"]) == (None, "fcp")
    record = json.loads((out / "strangers.json").read_text())
    chosen = [one["name"] for one in record["candidates"] if one["chosen"]]
    assert len(chosen) == 2 and 1 <= record["different"] <= 2
    assert set(record["candidates"][0]["does"]) == {
        f"greedy/{seat}/{metric}" for seat in ("first", "second") for metric in ("effort", "words", "illegal")
    }
    # The same command, here with another number to choose, trains nothing again and chooses the same.
    first_roster, trained = (out / "strangers.yaml").read_text(), list(here.trained)
    assert generate(out, "--k", "3", "--seed", "3") == 0
    assert here.trained == trained and len(read_roster(out / "strangers.yaml")) == 3
    assert generate(out, "--k", "2", "--seed", "3") == 0
    assert (out / "strangers.yaml").read_text() == first_roster
    # The roster can be moved with its folder, and has the best responses beside it.
    moved = out.rename(tmp_path / "moved")
    entries = read_roster(moved / "strangers.yaml")
    assert [entry.name for entry in entries] == chosen
    assert all(Path(entry.policy.replace("{seat}", "first"), "adapter_config.json").is_file() for entry in entries)
    text = (moved / "strangers.yaml").read_text()
    assert f"In training it earned 1 {chosen[0].split('-')[0]} for each unit of its" in text
    best = read_best_responses(moved / "strangers.best.json")
    assert list(best.partners) == chosen and best.unused == {}
    [first] = [one for one in record["candidates"] if one["name"] == chosen[0]]
    assert first["earned"] == {f"greedy/{one.seat}": one.own_return for one in best.partners[chosen[0]].earned}
    # An evaluation takes both.
    run = moved / "candidates" / NAMES[0]
    evaluated = ["eval", "--run", str(run), "--roster", str(moved / "strangers.yaml"), "--problems", "1"]
    assert main([*evaluated, "--decoding", "greedy", "--out", str(tmp_path / "eval")]) == 0
    assert "Return as a share of a best response's" in (tmp_path / "eval" / "table.md").read_text()


def test_what_was_trained_with_other_weights_or_settings_stays_or_is_refused(
    tmp_path: Path, here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    only = ["--metrics", "effort", "--k", "1"]
    assert generate(tmp_path, *only, "--weights", "1") == 0
    assert generate(tmp_path, *only, "--weights", "2") == 0
    assert [name for name in here.trained if name.count("-") == 2] == ["more-effort-1", "more-effort-2"]
    assert [entry.name for entry in read_roster(tmp_path / "strangers.yaml")] == ["more-effort-2"]
    assert generate(tmp_path, *only, "--weights", "2", "--learning_rate", "0.1") == 2
    assert "was trained with other settings (learning_rate" in capsys.readouterr().err
    assert generate(tmp_path, *only, "--weights", "2", "--learning_rate", "0.1", "--again") == 0
    assert Run.open(tmp_path / "candidates" / "more-effort-2").config["learning_rate"] == 0.1


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--metrics", "efort"], "unknown metric of a seat 'efort'; did you mean 'effort'?"),
        (["--k", "5"], "--k must be from 1 to 4, the number of candidates"),
        (["--k", "0"], "--k must be from 1 to 4"),
        (["--weights", "0"], "--weights must be finite and not 0, got 0.0"),
        (["--preferences", "{}"], "--preferences is set for each training"),
        (["--arm", "srpo"], "--arm is set for each training"),
        (["--max_stps", "3"], "did you mean 'max_steps'"),
        (["--jobs", "0"], "--jobs and --problems must be 1 or more"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_nothing_is_trained(
    further: list[str], message: str, tmp_path: Path, here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tmp_path / "out", "--k", "2", *further) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert here.trained == []


def test_a_task_or_a_recipe_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["strangers", "--out", "x"])
    assert "one of the arguments --task --config is required" in capsys.readouterr().err
    assert main(["strangers", "--task", "nowhere", "--out", "x"]) == 2
    assert "name one with --config" in capsys.readouterr().err


def test_there_is_a_candidate_for_each_metric_and_weight() -> None:
    names = [one.name for one in candidates_of(asked(weights=(-0.25, 2.0)), ("effort", "accuracy/0"))]
    assert names == ["less-effort-0.25", "more-effort-2", "less-accuracy_0-0.25", "more-accuracy_0-2"]
    assert len(candidates_of(asked(metrics=("effort", "effort")), ("effort", "words"))) == 2


def test_those_are_chosen_whose_best_responses_differ_and_the_hopeless_are_left_out() -> None:
    def one(name: str, effort: float, **other: Any) -> Candidate:
        return Candidate(name, "effort", 1.0, {"greedy/first": 1.0}, {"greedy/first/effort": effort}, **other)

    # Alike by exp(-d²): a and b by exp(-0.01), a and c by exp(-1), b and c by exp(-0.81).
    made = [one("a", 0.0), one("b", 0.1), one("c", 1.0), one("d", 0.5, hopeless=True), Candidate("e", "effort", 2.0)]
    found = choose(made, 2, seed=0)
    assert [known.name for known in found.chosen] == ["a", "c"]
    assert [known.name for known in found.candidates] == ["a", "b", "c", "d", "e"]
    # Two with similarity s have eigenvalues 1 + s and 1 - s: with s = exp(-1) the shares are 0.684 and 0.316.
    assert found.different == pytest.approx(1.866, abs=0.001)
    assert choose([replace(known, chosen=True) for known in made], 3, seed=0).chosen == tuple(
        replace(known, chosen=True) for known in made[:3]
    )
    with pytest.raises(ComparisonError, match="next to nothing can be earned with d, e, which leaves 3 candidates"):
        choose(made, 4, seed=0)


def test_a_roster_says_what_each_partner_preferred(tmp_path: Path) -> None:
    from llm_sra.partners.rosters import Entry

    entry = Entry("less-words-0.5", "adapter", str(tmp_path / "candidates" / "less-words-0.5" / "adapters" / "{seat}"))
    one = Candidate(entry.name, "words", -0.5, {"greedy/first": 0.7})
    generating._write_roster(tmp_path / "r.yaml", [one], {entry.name: entry})
    text = (tmp_path / "r.yaml").read_text()
    assert "  # In training it earned 0.5 less for each unit of its words.\n" in text
    assert "  # A best response to it earns 0.70 (greedy/first).\n" in text
    assert yaml.safe_load(text) == {
        "partners": [
            {
                "name": entry.name,
                "kind": "adapter",
                "policy": "./candidates/less-words-0.5/adapters/{seat}",
                "group": "generated",
            }
        ]
    }
    assert read_roster(tmp_path / "r.yaml") == [replace(entry, group="generated")]
