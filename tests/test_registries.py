"""Risk measures, baselines and estimators are found by themselves: a new one is written in one place."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_support import make_trainer, roll, steps_of, train_tiny

from llm_sra.errors import UnknownNameError
from llm_sra.objectives import group_advantages
from llm_sra.objectives.baselines import BASELINES, baseline
from llm_sra.objectives.registry import Registry
from llm_sra.objectives.risk import RISKS, Risk, RiskMeasure, RiskOption, risk_measure
from llm_sra.trainer.estimators import ESTIMATORS, EstimatorInputs, algorithms, estimator, find_estimator, levels
from llm_sra.trainer.parse import ConfigError

KINDS = """partners:
  - {name: own, kind: live, seeds: 2}
  - {name: mute, kind: perturbed, of: {kind: live}, how: say, text: "no"}
"""


@pytest.fixture
def first_partner() -> Iterator[None]:
    """A toy risk measure: only the first partner counts."""

    @risk_measure("first_partner", "the first", RiskOption("alpha", "risk_alpha", lambda a: a < 0.9, "be below 0.9"))
    def first_partner(returns: torch.Tensor, alpha: float) -> Risk:
        weights = torch.zeros_like(returns)
        weights[0] = 1
        return Risk(returns[0] + alpha, weights)

    yield
    RISKS.remove("first_partner")


@pytest.fixture
def solved_episode() -> Iterator[None]:
    """A toy estimator: every turn gets 7 times its episode's return."""

    @estimator("toy", "episode", "seven times the return", takes=("whiten_advantages",), default=True)
    def toy(inputs: EstimatorInputs) -> None:
        for played in inputs.episodes:
            played.set_turn_advantages(torch.full((len(played.rewards),), 7 * float(played.total)))

    yield
    ESTIMATORS.remove("toy/episode")


@pytest.fixture
def smallest() -> Iterator[None]:
    """A toy baseline: the smallest return of the group."""

    @baseline("smallest", "the smallest return")
    def smallest(returns: torch.Tensor) -> torch.Tensor:
        return returns - returns.min(dim=1, keepdim=True).values

    yield
    BASELINES.remove("smallest")


def test_every_entry_of_this_version_is_found() -> None:
    assert list(RISKS) == ["cvar", "entropic", "expectation", "rank", "worst_case"]
    assert list(BASELINES) == ["leave_one_out", "mean"]
    assert list(ESTIMATORS) == ["adalign/turn", "grpo/episode", "grpo/turn", "ppo/token", "ppo/turn"]
    assert algorithms() == ("adalign", "grpo", "ppo") and levels("adalign") == ("turn",)
    assert (levels("grpo"), levels("ppo")) == (("episode", "turn"), ("token", "turn"))
    assert [find_estimator("grpo", None).name, find_estimator("ppo", "turn").name] == ["grpo/episode", "ppo/turn"]


def test_a_name_that_is_taken_and_one_that_does_not_exist_are_refused() -> None:
    registry: Registry[RiskMeasure] = Registry("risk")
    registry.add(RISKS["cvar"])
    with pytest.raises(ValueError, match="two entries for risk 'cvar'"):
        registry.add(RISKS["cvar"])
    with pytest.raises(UnknownNameError, match="unknown risk 'cvra'; did you mean 'cvar'"):
        registry["cvra"]


@pytest.mark.usefixtures("first_partner")
def test_a_training_uses_a_risk_measure_that_was_only_just_written(tmp_path: Path) -> None:
    (tmp_path / "kinds.yaml").write_text(KINDS)
    options = {"partners": tmp_path / "kinds.yaml", "num_generations": 6, "risk": "first_partner", "max_steps": 1}
    run = train_tiny(tmp_path / "run", **options, risk_alpha=0.5)
    (line,) = steps_of(run)
    for hero in ("left", "right"):
        weights = {name: line[f"risk/{hero}/{name}/weight"] for name in ("own-1", "own-2", "mute")}
        assert weights == {"own-1": 1.0, "own-2": 0.0, "mute": 0.0}
        returns = [line[f"risk/{hero}/{name}/return"] for name in weights]
        bounds = sorted((returns[0], sum(returns) / 3))  # it sees returns that are shrunk towards their mean
        assert bounds[0] - 1e-6 <= line[f"risk/{hero}/value"] - 0.5 <= bounds[1] + 1e-6
    with pytest.raises(ConfigError, match=r"risk_alpha must be below 0\.9, got 0\.95"):
        train_tiny(tmp_path / "other", **options, risk_alpha=0.95)


@pytest.mark.usefixtures("solved_episode")
def test_a_training_uses_an_estimator_that_was_only_just_written(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, arm="ippo", algorithm="toy", whiten_advantages=True)
    rollout = roll(trainer)
    assert len({episode.total("left") for episode in rollout.episodes}) > 1
    for sample in rollout.samples:
        said = torch.tensor(sample.row.turns) >= 0
        expected = 7 * rollout.episodes[sample.row.episode].total(sample.row.seat)
        assert sample.advantages[said].tolist() == pytest.approx([expected] * int(said.sum()))
    assert len(steps_of(train_tiny(tmp_path / "run", arm="ippo", algorithm="toy", max_steps=1))) == 1
    with pytest.raises(ConfigError, match="advantage_baseline is an option of adalign/turn, grpo/episode, grpo/turn"):
        make_trainer(tmp_path / "other", algorithm="toy", advantage_baseline="leave_one_out")


@pytest.mark.usefixtures("smallest")
def test_advantages_use_a_baseline_that_was_only_just_written(tmp_path: Path) -> None:
    returns = torch.tensor([[1.0, 0.25, 0.5]])
    assert group_advantages(returns, baseline="smallest").tolist() == [[0.75, 0.0, 0.25]]
    make_trainer(tmp_path, advantage_baseline="smallest")
    with pytest.raises(ConfigError, match="advantage_baseline must be one of leave_one_out, mean, smallest, got 'x'"):
        make_trainer(tmp_path, advantage_baseline="x")


def test_a_package_finds_a_module_that_is_put_into_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toys"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from llm_sra.objectives.registry import import_modules\nfound = []\nimport_modules(__name__, __path__)\n"
    )
    (package / "ball.py").write_text("import toys\ntoys.found.append('ball')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import toys

    assert toys.found == ["ball"]
