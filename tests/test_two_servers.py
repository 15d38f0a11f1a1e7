"""Two models, each with a server of its own, in one training and in one evaluation: real HTTP on this machine."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_support import roster
from fake_vllm import FakeVllm
from support import llama_folder, qwen2_folder
from training_support import train_tiny, vectors
from transformers import TrainerCallback

from llm_sra import evaluate
from llm_sra.engines import EngineOptions
from llm_sra.engines.base import EngineError
from llm_sra.playing import ContextError
from llm_sra.runs import Run

# Whose adapters live on the model of a seat: its agent, and the adversary that sits in it.
OF_SEAT = {"left": {"left", "adversary-of-right"}, "right": {"right", "adversary-of-left"}}


@pytest.fixture
def servers() -> Iterator[dict[str, FakeVllm]]:
    """A Qwen2 for the left seat, a Llama with another tokenizer and template for the right one."""
    both = {"left": FakeVllm(qwen2_folder()), "right": FakeVllm(llama_folder())}
    yield both
    for server in both.values():
        server.stop()


def of_models() -> dict[str, str]:
    return {"left": str(qwen2_folder()), "right": str(llama_folder())}


def trained(out: Path, **flags: Any) -> Run:
    """Two steps of SRPO on both models."""
    return train_tiny(out, arm="srpo", tau=1.0, model_name_or_path=None, seat_models=of_models(), **flags)


def addresses(servers: dict[str, FakeVllm]) -> str:
    return ",".join(f"{seat}={server.url}" for seat, server in servers.items())


def played(server: FakeVllm) -> set[str]:
    """The adapters that a server was asked for, without the hashes of their weights."""
    return {body["model"].partition("@")[0] for body in server.completions()} - {"base"}


def test_each_model_is_asked_at_its_own_server_and_trains_as_without_servers(
    servers: dict[str, FakeVllm], tmp_path: Path
) -> None:
    trained(tmp_path / "here")
    trained(tmp_path / "there", engine="server", vllm_server_base_url=addresses(servers))
    here, there = vectors(tmp_path / "here" / "adapters"), vectors(tmp_path / "there" / "adapters")
    assert here.keys() == there.keys() == OF_SEAT["left"] | OF_SEAT["right"]
    for name in here:
        torch.testing.assert_close(here[name], there[name], rtol=0, atol=2e-3)
    for seat, server in servers.items():
        assert played(server) == OF_SEAT[seat] and not server.loaded  # unloaded at the end


class AfterStep(TrainerCallback):
    """Does something when the first step is done."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            self._act()


def test_one_of_two_servers_dies_and_comes_back_and_nothing_is_lost(
    servers: dict[str, FakeVllm], tmp_path: Path
) -> None:
    def die() -> None:
        servers["right"].stop()
        threading.Timer(0.5, servers["right"].start_again).start()

    trained(tmp_path / "here")
    flags = {"engine": "server", "vllm_server_base_url": addresses(servers), "vllm_server_timeout": 60}
    trained(tmp_path / "there", callbacks=[AfterStep(die)], **flags)
    here, there = vectors(tmp_path / "here" / "adapters"), vectors(tmp_path / "there" / "adapters")
    for name in here:
        torch.testing.assert_close(here[name], there[name], rtol=0, atol=2e-3)
    assert not any(server.loaded for server in servers.values())


def test_one_of_two_servers_dies_for_good_and_the_training_goes_on_later(
    servers: dict[str, FakeVllm], tmp_path: Path
) -> None:
    flags: dict[str, Any] = {"engine": "server", "vllm_server_base_url": addresses(servers)}
    flags |= {"save_strategy": "steps", "save_steps": 1}
    said = rf"no server answered .*{servers['right'].url}, for .*llama'.*--seat SEAT.*--resume_from_checkpoint true"
    with pytest.raises(EngineError, match=said):
        trained(tmp_path / "there", callbacks=[AfterStep(servers["right"].stop)], vllm_server_timeout=5, **flags)
    servers["right"].start_again()
    trained(tmp_path / "there", resume_from_checkpoint=True, **flags)
    trained(tmp_path / "here")
    here, there = vectors(tmp_path / "here" / "adapters"), vectors(tmp_path / "there" / "adapters")
    for name in here:
        torch.testing.assert_close(here[name], there[name], rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "now"),
    [({"root": "another/model"}, "now serves another/model with 256"), ({"length": 200}, "qwen2 with 200")],
    ids=["model", "context"],
)
def test_a_server_that_comes_back_as_another_one_is_refused(
    servers: dict[str, FakeVllm], tmp_path: Path, change: dict[str, Any], now: str
) -> None:
    def come_back() -> None:
        servers["left"].stop()
        vars(servers["left"]).update(change)
        servers["left"].start_again()

    flags = {"engine": "server", "vllm_server_base_url": addresses(servers), "save_strategy": "steps", "save_steps": 1}
    said = f"started again as another server: it served .*qwen2 with a context of 256 tokens, and .*{now}.*resume"
    with pytest.raises(EngineError, match=said):
        trained(tmp_path / "run", callbacks=[AfterStep(come_back)], **flags)
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-1").is_dir()


def test_a_server_with_a_shorter_context_than_is_asked_for_is_refused(
    servers: dict[str, FakeVllm], tmp_path: Path
) -> None:
    servers["right"].length = 100
    flags = {"engine": "server", "vllm_server_base_url": addresses(servers)}
    said = r"the model of seat right: .* serves .*llama' with a context of 100 tokens.* asks for 128: start it with"
    with pytest.raises(EngineError, match=said):
        trained(tmp_path / "run", vllm_max_model_length=128, **flags)
    assert not (tmp_path / "run").exists()
    trained(tmp_path / "run", vllm_max_model_length=100, **flags)


def test_a_server_with_too_short_a_context_for_the_task_is_named_by_its_seat(
    servers: dict[str, FakeVllm], tmp_path: Path
) -> None:
    servers["right"].length = 18
    flags = {"engine": "server", "vllm_server_base_url": addresses(servers)}
    with pytest.raises(ContextError, match=r"seat 'right' sees \d+ tokens.* holds 18\..*--max-model-len"):
        trained(tmp_path / "run", **flags)
    servers["right"].length = 8
    with pytest.raises(EngineError, match=r"the model of seat right: .*context of 8 tokens has no room for a prompt"):
        trained(tmp_path / "run", **flags)
    assert not (tmp_path / "run").exists()


def test_one_evaluation_plays_both_models_at_their_servers(servers: dict[str, FakeVllm], tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    path = roster(tmp_path, "name: live, kind: live")
    options = EngineOptions.of({"engine": "server", "vllm_server_base_url": addresses(servers)})
    here, there = (
        evaluate([run.path], path, tmp_path / name, problems=2, decodings=["greedy"], engine=engine)
        for name, engine in (("here", "transformers"), ("there", options))
    )
    assert [(one.partner, one.seat) for one in there] == [(one.partner, one.seat) for one in here]
    for mine, theirs in zip(here, there, strict=True):
        assert (mine.solve_rate, mine.own_return) == pytest.approx((theirs.solve_rate, theirs.own_return))
    for seat, server in servers.items():
        assert {name.partition("-")[0] for name in played(server)} == {seat} and not server.loaded


def test_addresses_that_do_not_fit_the_models_are_refused(servers: dict[str, FakeVllm], tmp_path: Path) -> None:
    swapped = {"left": servers["right"], "right": servers["left"]}
    for i, said in enumerate((addresses(swapped), servers["right"].url)):
        with pytest.raises(EngineError, match="other log-probabilities"):
            trained(tmp_path / str(i), engine="server", vllm_server_base_url=said)
    left = servers["left"].url
    for said, message in (
        (f"left={left}", "no server is given for .*llama, the model of seat right"),
        (f"lefft={left},right={left}", "'lefft', which is no seat of the task; did you mean 'left'"),
        (f"left={left},right=127.0.0.1:8000", "must begin with http:// or https://, got '127.0.0.1:8000'"),
    ):
        with pytest.raises(EngineError, match=message):
            trained(tmp_path / "one", engine="server", vllm_server_base_url=said)
    assert not any(played(server) for server in servers.values()) and not (tmp_path / "one").exists()


def test_an_evaluation_names_the_model_without_a_server(servers: dict[str, FakeVllm], tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    options = EngineOptions.of({"engine": "server", "vllm_server_base_url": f"right={servers['right'].url}"})
    with pytest.raises(EngineError, match=r"no server is given for .*qwen2, the model of seat left"):
        evaluate([run.path], roster(tmp_path, "name: live, kind: live"), tmp_path / "eval", engine=options)
