"""The engine `server` against a server that speaks vLLM's HTTP: what it asks for, and what it does about failures."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_vllm import FakeVllm, cut_off, hang, hang_up, no_choices, status
from support import llama_folder, make_bank, qwen2_folder, scramble
from training_support import train_tiny, vectors

from llm_sra.engines import Completion, EngineError, EngineOptions, Request
from llm_sra.engines.choose import share_of
from llm_sra.engines.server import ServerEngine
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.adapters import AdapterBank, AdapterError
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.task import Message, Sampling


@pytest.fixture
def server():
    fake = FakeVllm(qwen2_folder())
    yield fake
    fake.stop()


def renderer() -> Renderer:
    return Renderer(load_model(str(qwen2_folder()))[1])


def engine_for(*servers: FakeVllm, bank: AdapterBank | None = None, **options: Any) -> ServerEngine:
    bank = bank or make_bank(qwen2_folder())
    return ServerEngine(bank, renderer(), [server.url for server in servers], **{"timeout": 3.0, **options})


def requests(engine: ServerEngine | TransformersEngine, count: int = 3) -> list[Request]:
    prompts = [engine.renderer.render([Message("user", text)]) for text in ("apple pear plum", "1+2=3")]
    return [
        Request(prompt, adapter, Sampling(1.0), 6, (), seed)
        for seed in range(count)
        for prompt in prompts
        for adapter in ("left", "right", None)
    ]


def same(a: list[Completion], b: list[Completion]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(x.token_ids == y.token_ids and x.logprobs == pytest.approx(y.logprobs, abs=1e-4) for x, y in pairs)


def test_a_server_gives_what_transformers_gives(server):
    engine = engine_for(server)
    here = TransformersEngine(engine.bank, engine.renderer)
    assert same(engine.generate(requests(engine)), here.generate(requests(here)))
    assert engine.context_length == here.context_length


def test_the_base_and_two_adapters_say_different_things(server):
    engine = engine_for(server)
    done = engine.generate(requests(engine, count=1))
    assert len({reply.logprobs for reply in done[:3]}) == 3


def test_a_changed_adapter_has_a_new_name_and_the_old_one_is_unloaded(server):
    engine = engine_for(server)
    engine.sync()
    before = set(server.loaded)
    scramble(engine.bank, "left", seed=9)
    engine.sync()
    after = set(server.loaded)
    assert len(before - after) == len(after - before) == 1
    assert {name.split("@")[0] for name in before - after} == {"left"}


def test_a_changed_adapter_is_never_played_stale_even_without_sync(server):
    engine = engine_for(server)
    engine.generate(requests(engine))
    scramble(engine.bank, "left", seed=9)
    here = TransformersEngine(engine.bank, engine.renderer)
    assert same(engine.generate(requests(engine)), here.generate(requests(here)))


def test_an_unchanged_adapter_does_not_travel_again(server):
    engine = engine_for(server)
    engine.sync()
    engine.bank.touch("left", "right")  # an update by nothing
    engine.sync()
    assert sum(path == "/v1/load_lora_adapter" for path, _ in server.asked) == 2


def test_close_unloads_and_removes_the_folders(server):
    engine = engine_for(server)
    engine.sync()
    folders = [Path(body["lora_path"]) for path, body in server.asked if path == "/v1/load_lora_adapter"]
    assert all(folder.is_dir() for folder in folders)
    engine.close()
    assert not server.loaded
    assert not any(folder.is_dir() for folder in folders)


def test_requests_are_spread_over_servers(server):
    other = FakeVllm(qwen2_folder())
    try:
        engine = engine_for(server, other)
        server.asked.clear()
        other.asked.clear()
        engine.generate(requests(engine, count=4))
        assert len(server.completions()) == len(other.completions()) == 12
    finally:
        other.stop()


@pytest.mark.parametrize(
    "fault", [status(429), status(500), status(503), cut_off, hang_up], ids=["429", "500", "503", "cut off", "hang up"]
)
def test_a_failure_is_asked_again_and_nothing_is_lost_or_doubled(server, fault):
    engine = engine_for(server)
    here = TransformersEngine(engine.bank, engine.renderer).generate(requests(engine))
    server.faults = [fault] * 5
    assert same(engine.generate(requests(engine)), here)


def test_a_server_that_hangs_is_asked_again(server):
    engine = engine_for(server, timeout=1.0)
    server.faults = [hang(1.5)]
    assert len(engine.generate(requests(engine)[:2])) == 2


def test_an_answer_of_another_kind_is_an_error_at_once(server):
    engine = engine_for(server)
    server.faults = [no_choices]
    with pytest.raises(EngineError, match="without token ids"):
        engine.generate(requests(engine)[:1])


def test_a_refused_request_is_an_error_at_once(server):
    engine = engine_for(server)
    server.faults = [status(400)]
    with pytest.raises(EngineError, match=r"400 from .*/v1/completions"):
        engine.generate(requests(engine)[:1])


def test_a_server_that_dies_and_comes_back_in_the_middle_loses_nothing(server):
    engine = engine_for(server, timeout=20.0)
    wanted = requests(engine, count=12)
    here = TransformersEngine(engine.bank, engine.renderer).generate(wanted)

    def die_and_come_back() -> None:
        while len(server.completions()) < 20:
            time.sleep(0.005)
        server.stop()
        time.sleep(0.5)
        server.start_again()

    killer = threading.Thread(target=die_and_come_back)
    killer.start()
    done = engine.generate(wanted)
    killer.join()
    assert same(done, here)
    assert {name.split("@")[0] for name in server.loaded} == {"left", "right", "base"}  # loaded anew


def test_while_one_server_is_dead_the_other_answers(server):
    other = FakeVllm(qwen2_folder())
    engine = engine_for(server, other)
    engine.sync()
    engine.generate([request for request in requests(engine) if request.adapter is None])
    other.stop()
    here = TransformersEngine(engine.bank, engine.renderer).generate(requests(engine))
    assert same(engine.generate(requests(engine)), here)


def test_a_dead_server_is_given_up_after_the_timeout(server):
    engine = engine_for(server, timeout=0.5)
    engine.sync()
    port = server.port
    server.stop()
    try:
        with pytest.raises(EngineError, match=rf"no server answered for \d+ s .*{port}.*llm-sra serve"):
            engine.generate(requests(engine))
    finally:
        server.start_again()


def test_no_server_at_all_is_a_clear_error():
    with pytest.raises(EngineError, match="no server answered"):
        ServerEngine(make_bank(qwen2_folder()), renderer(), ["http://127.0.0.1:9"], timeout=0.3)


def test_a_server_of_another_model_is_refused():
    fake = FakeVllm(llama_folder())
    try:
        with pytest.raises(EngineError, match="other log-probabilities"):
            engine_for(fake)
    finally:
        fake.stop()


@pytest.mark.parametrize(
    "answer",
    [(404, {"detail": "Not Found"}), (200, {"data": []}), (200, []), (200, {"data": [{"id": "gpt"}]})],
    ids=["404", "nothing", "a list", "no length"],
)
def test_an_address_of_something_else_is_refused(server, answer):
    server.models = lambda: answer  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="does not list a model as vLLM's server does"):
        engine_for(server)


def test_a_server_with_raw_logprobs_is_refused():
    fake = FakeVllm(qwen2_folder(), temperature_first=False)
    try:
        with pytest.raises(EngineError, match="processed_logprobs"):
            engine_for(fake)
    finally:
        fake.stop()


def test_a_server_without_runtime_updates_is_named(server):
    server.updates = False
    with pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        engine_for(server).sync()


def test_an_adapter_that_the_server_cannot_use_is_an_error_at_once(server):
    bank = make_bank(qwen2_folder())
    engine = engine_for(server, bank=bank)
    engine.sync()
    server.bank.load = lambda *args: server.bank._check("rank 64 is too large")  # type: ignore[method-assign]
    scramble(bank, "left", seed=3)
    start = time.monotonic()
    with pytest.raises(AdapterError, match="cannot use adapter left@"):
        engine.sync()
    assert time.monotonic() - start < 2


def test_the_key_comes_from_the_environment(monkeypatch):
    fake = FakeVllm(qwen2_folder(), key="secret")
    try:
        with pytest.raises(EngineError, match="VLLM_API_KEY"):
            engine_for(fake)
        monkeypatch.setenv("VLLM_API_KEY", "secret")
        engine = engine_for(fake)
        assert len(engine.generate(requests(engine)[:2])) == 2
    finally:
        fake.stop()


def test_each_process_has_its_share_of_the_servers():
    assert share_of(("a", "b", "c"), rank=1, processes=2) == ("b",)
    assert share_of(("a", "b", "c"), rank=0, processes=2) == ("a", "c")
    assert share_of(("a",), rank=1, processes=2) == ("a",)
    assert share_of(("a", "b"), rank=3, processes=4) == ("b",)
    assert share_of((), rank=1, processes=2) == ()


def test_several_servers_are_separated_by_commas():
    assert EngineOptions.of({"vllm_server_base_url": "http://a:1, http://b:2"}).servers == ("http://a:1", "http://b:2")
    assert EngineOptions.of({}).servers == ("http://127.0.0.1:8000",)


def test_training_through_a_server_is_training_on_transformers(server, tmp_path):
    options = {"arm": "srpo", "tau": 1.0, "max_steps": 3, "num_iterations": 2}
    train_tiny(tmp_path / "here", **options)
    train_tiny(tmp_path / "there", engine="server", vllm_server_base_url=server.url, **options)
    here, there = vectors(tmp_path / "here" / "adapters"), vectors(tmp_path / "there" / "adapters")
    assert here.keys() == there.keys()
    for name in here:
        torch.testing.assert_close(here[name], there[name], rtol=0, atol=2e-3)
    assert not server.loaded


def test_a_server_that_dies_for_good_leaves_the_last_checkpoint(server, tmp_path):
    seen: list[int] = []

    def die(handler: Any) -> None:
        seen.append(1)
        status(500)(handler)

    from transformers import TrainerCallback

    class Break(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            server.faults = [die] * 10_000

    with pytest.raises(EngineError, match="resume_from_checkpoint"):
        train_tiny(
            tmp_path / "run",
            callbacks=[Break()],
            engine="server",
            vllm_server_base_url=server.url,
            vllm_server_timeout=5,
            save_strategy="steps",
            save_steps=1,
        )
    assert seen
    server.faults.clear()
    run = train_tiny(
        tmp_path / "run",
        engine="server",
        vllm_server_base_url=server.url,
        save_strategy="steps",
        save_steps=1,
        resume_from_checkpoint=True,
    )
    assert (run.path / "checkpoints" / "checkpoint-2").is_dir()
