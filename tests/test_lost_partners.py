"""One partner never ends an evaluation: whatever is wrong with it, it is missing with the reason, and all others play.

All of the broken partners stand in one roster, so that none of them ends the others' evaluation either.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from broken_partners import BROKEN, first, spoilt_adapter
from evaluation_support import SHORT, roster, scripted
from fake_endpoint import FakeEndpoint, hang
from partners_support import APPLE
from support import Toy, make_bank, make_engine, make_run, qwen2_folder

from llm_sra import evaluate
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.errors import NumberError
from llm_sra.evaluation.results import read_summary
from llm_sra.models.adapters import AdapterError
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.runs import Run
from recipes.commands import eval as eval_command
from recipes.terminal import run_command

GREEDY: dict[str, Any] = {"problems": 2, "decodings": ["greedy"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", **SHORT)


@dataclass(frozen=True)
class Ended:
    """How an evaluation with every broken partner ended."""

    code: int
    out: Path
    warnings: Sequence[str]


@pytest.fixture(scope="module")
def ended(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("broken")
    broken = [f"name: {name}, {make(folder / name)}" for name, (make, _) in BROKEN.items()]
    gone = hang(0.0)
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("llm_sra").addHandler(handler)
    with FakeEndpoint(lambda body: "pass", faults=[None, *[gone] * 99]) as server:  # type: ignore[list-item]
        hosted = f"kind: endpoint, policy: m, base_url: '{server.url}', retries: 0, concurrency: 1"
        deaf = "kind: perturbed, how: drop, probability: 0.5, of: {kind: scripted, policy: '%s'}"
        raising = re.search(r"'(.*raising/bad.py:Bad)'", " ".join(broken))
        assert raising is not None
        extra = [f"name: server-gone, {hosted}", f"name: perturbed-raising, {deaf % raising[1]}"]
        path = roster(folder, *broken, *extra, *scripted("lazy", "diligent"))
        flags = ["--run", str(run.path), "--roster", str(path), "--out", str(folder / "out")]
        code = run_command(eval_command.main, [*flags, "--problems", "2", "--decoding", "greedy", "--trust_scripts"])
    logging.getLogger("llm_sra").removeHandler(handler)
    yield Ended(code, folder / "out", warnings)


REASONS = {name: reason for name, (_, reason) in BROKEN.items()} | {
    "server-gone": "broke off",
    "perturbed-raising": "gone",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_broken_partner_is_missing_with_its_reason_in_the_results_and_in_a_warning(ended: Ended, name: str) -> None:
    missing = read_summary(ended.out).missing
    assert re.search(REASONS[name], missing[name])
    [warning] = [line for line in ended.warnings if line.startswith(f"partner {name!r} is missing")]
    assert warning == f"partner {name!r} is missing, the others are played: {missing[name]}"


def test_everyone_else_is_played_as_without_them_and_the_exit_code_is_zero(
    ended: Ended, run: Run, tmp_path: Path
) -> None:
    assert ended.code == 0
    alone = evaluate([run], roster(tmp_path, *scripted("lazy", "diligent")), tmp_path / "out", **GREEDY)
    summary = read_summary(ended.out)
    assert summary.missing.keys() == REASONS.keys()
    assert summary.records == tuple(alone) and len(alone) == 6
    assert "server-gone" in (ended.out / "table.md").read_text()


def test_an_agent_of_a_run_that_holds_nan_is_an_error_that_names_its_folder(tmp_path: Path) -> None:
    spoilt = make_run(tmp_path / "study" / "spoilt", **SHORT)
    spoilt_adapter(float("nan"), "lora_A")(tmp_path / "saved")
    (tmp_path / "saved" / "agent" / "adapter_model.safetensors").replace(
        spoilt.adapters / "second" / "adapter_model.safetensors"
    )
    with pytest.raises(AdapterError, match=r"study/spoilt/adapters/second hold NaN or infinity, first in .*lora_A"):
        evaluate([spoilt], roster(tmp_path, *scripted("lazy")), tmp_path / "out", **GREEDY)


def test_whoever_makes_an_engine_fail_in_a_shared_batch_is_found_and_the_others_play_on() -> None:
    class Fails(TransformersEngine):
        def generate(self, requests: Any) -> Any:
            if any(request.adapter == "right" for request in requests):
                raise RuntimeError("out of memory")
            return super().generate(requests)

    engine = Fails(make_bank(qwen2_folder()), Renderer(load_model(str(qwen2_folder()))[1]))
    left, right = (EnginePolicy(name, adapter=name) for name in ("left", "right"))
    specs = [
        EpisodeSpec(APPLE, Match("both", {"left": left, "right": right})),
        EpisodeSpec(APPLE, Match("left", {"left": left, "right": left})),
    ]
    lost: list[tuple[str, str]] = []
    [episode] = play(
        Toy(turns=2, together=True),
        specs,
        {"main": engine},
        seed=0,
        on_lost=lambda policy, error: lost.append((policy.name, str(error))),
    )
    assert episode.match == "left" and lost == [("right", "out of memory")]
    with pytest.raises(RuntimeError, match="out of memory"):
        play(Toy(turns=2, together=True), specs, {"main": engine}, seed=0)


def test_weights_that_become_nan_in_play_are_named_where_nobody_is_spared() -> None:
    engine = make_engine(qwen2_folder())
    first(float("nan"))(engine.bank.base)
    match = Match("m", {"left": EnginePolicy("agent", adapter="left"), "right": EnginePolicy("agent", adapter="right")})
    with pytest.raises(NumberError, match=r"'agent'.*problem 'apple'.*adapter 'left' or its base model hold NaN"):
        play(Toy(), [EpisodeSpec(APPLE, match)], {"main": engine}, seed=0)
