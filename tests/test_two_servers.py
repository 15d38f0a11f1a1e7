"""Two models, each with a server of its own, in one training and in one evaluation: real HTTP on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_support import roster
from fake_vllm import FakeVllm
from support import llama_folder, qwen2_folder
from training_support import train_tiny, vectors

from llm_sra import evaluate
from llm_sra.engines import EngineOptions
from llm_sra.engines.base import EngineError
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
