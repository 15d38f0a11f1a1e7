"""The engines `vllm` and `server` on a real vLLM: one engine in this process's company and one server for all tests."""

import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from support import RANK, ROOT, Toy, make_bank, make_run, scramble
from training_support import flat, make_trainer

from llm_sra import export
from llm_sra.engines.base import Completion, Request
from llm_sra.engines.server import ServerEngine
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.engines.vllm import VllmEngine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import ChatClient, Endpoint, EnginePolicy, Match, UnavailableError
from llm_sra.task import Message, Sampling, stop_at
from llm_sra.trainer import build_arm
from tasks.worksheet import Worksheet

pytestmark = pytest.mark.vllm
TOLERANCE = 1e-4  # nats, in float32
MODEL = ROOT / "tasks" / "worksheet" / "models" / "pupil"
EXPORTED = "exported-first"
ADAPTERS = build_arm("srpo", Worksheet.seats, "seat", 1.0, Sampling()).adapters
Remote = VllmEngine | ServerEngine


def new_bank() -> AdapterBank:
    return make_bank(MODEL, ADAPTERS)


def renderer() -> Renderer:
    return Renderer(load_model(str(MODEL))[1])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported adapter, which the server is given when it starts."""
    run = make_run(tmp_path_factory.mktemp("runs") / "study" / "run", base=MODEL, seed=7)
    return export(run, "first", tmp_path_factory.mktemp("exported") / "first")


@pytest.fixture(scope="module")
def server_process(exported: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    from recipes.commands.serve import RUNTIME_UPDATES, server_command

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = {"model_name_or_path": MODEL, "task": "worksheet", "arm": "srpo", "lora_r": RANK, "bf16": "false"}
    command = server_command(None, [p for k, v in flags.items() for p in (f"--{k}", str(v))], "127.0.0.1", port)
    command += ["--lora-modules", f"{EXPORTED}={exported}"]
    environment = {**os.environ, RUNTIME_UPDATES: "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    process = subprocess.Popen(command, env=environment)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def in_process(server_process) -> Iterator[VllmEngine]:  # asked for first, so that both start at the same time
    engine = VllmEngine(new_bank(), renderer())
    engine.sync()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def server(server_process, in_process) -> Iterator[ServerEngine]:
    process, url = server_process
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                break
        except httpx.TransportError:
            time.sleep(1)
    engine = ServerEngine(new_bank(), renderer(), [url])
    yield engine
    engine.close()


@pytest.fixture(params=["vllm", "server"])
def engine(request, in_process, server) -> Remote:
    chosen = {"vllm": in_process, "server": server}[request.param]
    for number, name in enumerate(ADAPTERS):
        scramble(chosen.bank, name, seed=number)
    return chosen


def fresh(bank: AdapterBank) -> None:
    """Adapters that change nothing yet, as at the start of a training."""
    for number, name in enumerate(ADAPTERS):
        scramble(bank, name, seed=number)
        state = bank.state(name)
        bank.set_state(name, {k: torch.zeros_like(v) if "lora_B" in k else v.clone() for k, v in state.items()})


def requests(renderer: Renderer, count: int = 4, temperature: float = 1.0, words: int = 3) -> list[Request]:
    prompts = [renderer.render([Message("user", f"{text} " * words)]) for text in ("apple pear plum", "1+2=3")]
    return [
        Request(prompt, adapter, Sampling(temperature), 8, (), seed)
        for seed in range(count)
        for prompt in prompts
        for adapter in (*ADAPTERS, None)
    ]


@torch.no_grad()
def trainer_logprobs(bank: AdapterBank, request: Request, done: Completion) -> torch.Tensor:
    bank.model.eval()
    with bank.using(request.adapter):
        logits = bank.base(torch.tensor([[*request.prompt_ids, *done.token_ids]])).logits
    logits = logits[0, len(request.prompt_ids) - 1 : -1] / (request.sampling.temperature or 1.0)
    if request.choices:
        others = torch.ones(logits.shape[-1], dtype=torch.bool)
        others[list(request.choices)] = False
        logits = logits.masked_fill(others, -torch.inf)
    return logits.log_softmax(-1)[torch.arange(len(done.token_ids)), torch.tensor(done.token_ids)]


def furthest(bank: AdapterBank, asked: list[Request], done: list[Completion]) -> float:
    pairs = zip(asked, done, strict=True)
    return max((trainer_logprobs(bank, r, d) - torch.tensor(d.logprobs)).abs().max().item() for r, d in pairs)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0, 0.0])
def test_logprobs_are_those_of_the_trainer_for_base_heroes_and_adversaries(engine, temperature):
    asked = requests(engine.renderer, temperature=temperature)
    assert furthest(engine.bank, asked, engine.generate(asked)) < TOLERANCE


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_choices_are_drawn_from_alone_with_the_probabilities_that_they_have_among_themselves(engine, temperature):
    choices = engine.renderer.single_tokens(("1", "7", "+"))
    asked = [replace(r, choices=choices, max_tokens=1) for r in requests(engine.renderer, temperature=temperature)]
    done = engine.generate(asked)
    assert {d.token_ids[0] for d in done} <= set(choices) and all(len(d.token_ids) == 1 for d in done)
    assert furthest(engine.bank, asked, done) < TOLERANCE


def test_greedy_replies_are_those_of_transformers(engine):
    asked = requests(engine.renderer, count=1, temperature=0.0)
    here = TransformersEngine(engine.bank, engine.renderer)
    for a, b in zip(engine.generate(asked), here.generate(asked), strict=True):
        assert (a.token_ids, a.text, a.finish) == (b.token_ids, b.text, b.finish)


def test_adapters_differ_from_each_other_and_from_the_base(engine):
    asked = requests(engine.renderer, count=1, temperature=0.0)[: len(ADAPTERS) + 1]
    assert len({reply.logprobs for reply in engine.generate(asked)}) == len(asked)


def test_after_a_small_change_neither_adapter_nor_prefix_is_stale(engine):
    asked = [r for r in requests(engine.renderer, words=30) if r.adapter == ADAPTERS[0]]
    assert len(asked[0].prompt_ids) > 64  # several cached blocks
    engine.generate(asked)
    before = engine.generate(asked)  # from the cache
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in engine.bank.parameters(ADAPTERS[0]):
            parameter += torch.randn(parameter.shape, generator=generator) * 0.02  # as one step of an optimizer
    engine.bank.touch(ADAPTERS[0])
    after = engine.generate(asked)
    assert furthest(engine.bank, asked, before) > 20 * TOLERANCE  # the change can be seen
    assert furthest(engine.bank, asked, after) < TOLERANCE


def test_the_same_seed_gives_the_same_reply(engine):
    asked = requests(engine.renderer)
    first, again = engine.generate(asked), engine.generate(asked[::-1])[::-1]
    same = sum(a.token_ids == b.token_ids for a, b in zip(first, again, strict=True))
    assert same >= 0.9 * len(asked)  # another batch brings other float errors
    other = engine.generate([Request(r.prompt_ids, r.adapter, r.sampling, 8, (), r.seed + 1000) for r in asked])
    assert sum(a.token_ids == b.token_ids for a, b in zip(first, other, strict=True)) < 0.5 * len(asked)


def test_a_reply_ends_at_the_stop_string_and_at_the_limit(engine):
    free = requests(engine.renderer, temperature=0.0, count=1)
    texts = [done.text for done in engine.generate(free)]
    index, text = next((i, t) for i, t in enumerate(texts) if len(t) > 3)
    asked = Request(free[index].prompt_ids, free[index].adapter, Sampling(0.0), 8, (text[2],), 0)
    [cut] = engine.generate([asked])
    assert cut.finish == "stop" and cut.text == text[: text.find(text[2])]
    [short] = engine.generate([Request(asked.prompt_ids, asked.adapter, Sampling(0.0), 1, (), 0)])
    assert short.finish == "length" and len(short.token_ids) == 1


def test_a_reply_that_begins_with_white_stop_strings_goes_on_until_it_has_said_something(engine):
    stop, choices = ("\n", " "), engine.renderer.single_tokens(("\n", " ", "7"))
    free = requests(engine.renderer, count=24, temperature=2.0)
    asked = [replace(request, stop=stop, choices=choices, max_tokens=12) for request in free]
    done = engine.generate(asked)
    for reply in done:
        whole, but_last = (engine.renderer.decode(reply.token_ids[:end]) for end in (None, -1))
        assert reply.text == whole[: stop_at(whole, stop)] and stop_at(but_last, stop) is None
        ended = reply.text != whole or reply.token_ids[-1] in engine._ends
        assert reply.finish == ("stop" if ended else "length") and (ended or len(reply.token_ids) == 12)
    begun = [i for i, reply in enumerate(done) if reply.text[:1] in stop and reply.text.strip()]
    print("replies that went on:", len(begun), "of", len(asked))
    assert len(begun) > 2
    assert furthest(engine.bank, [asked[i] for i in begun], [done[i] for i in begun]) < TOLERANCE


def test_all_seats_of_all_matches_are_played_in_one_batch(engine):
    task = Toy()
    seats = {"left": EnginePolicy("a", adapter=ADAPTERS[0]), "right": EnginePolicy("b", adapter=ADAPTERS[3])}
    other = {"left": EnginePolicy("c", adapter=ADAPTERS[2]), "right": EnginePolicy("base")}
    matches = [Match("one", seats), Match("two", other)]
    specs = [EpisodeSpec(p, match, i) for p in task.problems("train") for match in matches for i in range(3)]
    episodes = play(task, specs, {"main": engine}, seed=0)
    for episode in episodes:
        for turn in episode.turns:
            policy = {m.name: m for m in matches}[episode.match].seats[turn.seat]
            asked = Request(turn.prompt_ids, policy.adapter, Sampling(), 6, (), 0)
            expected = trainer_logprobs(engine.bank, asked, Completion(turn.reply.token_ids, (), "", "stop"))
            assert (expected - torch.tensor(turn.reply.logprobs)).abs().max() < TOLERANCE


OPTIONS = {
    "arm": "srpo",
    "tau": 10.0,
    "problems_per_step": 8,
    "num_generations": 8,
    "max_steps": 5,
    "num_iterations": 2,
}
OPTIONS |= {"learning_rate": 4e-3, "adversary_learning_rate": 6e-3, "entropy_coef": 0.01}


def right_lines(bank: AdapterBank) -> dict[str, float]:
    """Mean log-probability of the right first line by each adapter: a number that no draw has a part in."""
    sums = dict.fromkeys(ADAPTERS, 0.0)
    problems = Worksheet().problems("dev", 32, seed=0)
    words = renderer()
    for problem in problems:
        a, b, _ = problem.data["numbers"]
        prompt = words.render([Message("user", f"Q: {'+'.join(map(str, problem.data['numbers']))}")])
        right = Completion((*words.encode_text(f"{a}+{b}={a + b}"), words.tokenizer.eos_token_id), (), "", "stop")
        for name in ADAPTERS:
            asked = Request(prompt, name, Sampling(), 12, (), 0)
            sums[name] += trainer_logprobs(bank, asked, right).sum().item() / len(problems)
    return sums


def trained(folder: Path, engine: Remote | TransformersEngine) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """How much more likely the right line is after a training of fresh adapters, and where their weights went."""
    fresh(engine.bank)
    trainer = make_trainer(folder, Worksheet(), engine=engine, **OPTIONS)
    lines, start = right_lines(engine.bank), {name: flat(engine.bank.state(name)).clone() for name in ADAPTERS}
    trainer.train()
    likelier = {name: value - lines[name] for name, value in right_lines(engine.bank).items()}
    return likelier, {name: flat(engine.bank.state(name)) - start[name] for name in ADAPTERS}


@pytest.mark.parametrize("engine", ["vllm", pytest.param("server", marks=pytest.mark.slow)], indirect=True)
def test_training_goes_where_it_goes_on_transformers(engine, tmp_path):
    theirs, their_way = trained(tmp_path / "remote", engine)
    ours, our_way = trained(tmp_path / "here", TransformersEngine(engine.bank, engine.renderer))
    cosines = {name: torch.cosine_similarity(their_way[name], our_way[name], dim=0).item() for name in ADAPTERS}
    print("right lines likelier by, with the engine:", theirs, "with transformers:", ours, "cosines:", cosines)
    for adversary in ADAPTERS[2:]:  # their way is the clearest in so few steps: away from the right lines
        assert ours[adversary] < -0.4, ours
        assert theirs[adversary] < -0.4, theirs
    # Most of a step is the randomness of the draw; between ways that have nothing in common the cosine is 0.00 +- 0.01.
    assert min(cosines.values()) > 0.03, cosines


def test_what_differs_between_engine_and_trainer_is_logged(engine, tmp_path):
    trainer = make_trainer(tmp_path / "run", Worksheet(), engine=engine, **{**OPTIONS, "max_steps": 1})
    trainer.train()
    [line] = [line for line in trainer.state.log_history if "solve_rate" in line]
    for name in ADAPTERS:
        assert line[f"policy/{name}/engine_logprob_difference"] < TOLERANCE
        assert line[f"policy/{name}/importance_ratio"] == pytest.approx(1.0, abs=1e-3)
    assert line["time/sync"] > 0


def test_folders_of_older_versions_are_gone(engine):
    engine.sync()
    scramble(engine.bank, ADAPTERS[1], seed=77)
    engine.sync()
    folders = sorted(
        path.name for path in Path(engine._versions._folder).iterdir() if not path.name.startswith("base@")
    )
    assert len(folders) == len(ADAPTERS)


def test_an_endpoint_partner_plays_on_the_servers_chat_completions(server_process, server, tmp_path):
    url = f"{server_process[1]}/v1"
    model = httpx.get(f"{url}/models", timeout=30).json()["data"][0]["id"]

    def said(sampling: Sampling, seed: int, **options: Any) -> tuple[list[list[str]], int]:
        task, client = Worksheet(), ChatClient(url, **options)
        hosted = Endpoint("hosted", model, client, max_tokens=8, stop=task.stop).decoded(sampling)
        specs = [EpisodeSpec(p, Match("m", dict.fromkeys(task.seats, hosted))) for p in task.problems("test", 4)]
        episodes = play(task, specs, {}, seed=seed)
        client.close()
        return [[turn.reply.text for turn in episode.turns] for episode in episodes], client.spent

    greedy, spent = said(Sampling(0.0), 0, cache=tmp_path / "cache.jsonl")
    assert spent > 0 and said(Sampling(0.0), 0, cache=tmp_path / "cache.jsonl") == (greedy, 0)
    here = TransformersEngine(new_bank(), renderer())  # the same model, asked by tokens
    task, policy = Worksheet(), EnginePolicy("base", sampling=Sampling(0.0))
    specs = [EpisodeSpec(p, Match("m", dict.fromkeys(task.seats, policy))) for p in task.problems("test", 4)]
    expected = play(task, specs, {"main": here}, seed=0, max_reply_tokens=8)
    assert greedy == [[turn.reply.text for turn in episode.turns] for episode in expected]
    assert said(Sampling(1.0), 0) == said(Sampling(1.0), 0) != said(Sampling(1.0), 1)
    unknown = Endpoint("hosted", "no-such-model", ChatClient(url))
    with pytest.raises(UnavailableError, match=r"404 from .*no-such-model"):
        unknown.reply([Message("user", "Q: 3+2+5")], random.Random(0))


@torch.no_grad()
def test_an_export_that_the_server_was_started_with_says_what_the_trainer_says(server_process, server, exported):
    url = server_process[1]
    assert EXPORTED in [model["id"] for model in httpx.get(f"{url}/v1/models", timeout=30).json()["data"]]
    base, _ = load_model(str(MODEL), dtype="float32")
    plain = PeftModel.from_pretrained(base, exported).eval()
    bank = AdapterBank(load_model(str(MODEL), dtype="float32")[0])
    bank.load(exported, "first")
    to_export, to_base = [], []
    for request in requests(renderer(), count=2)[:: len(ADAPTERS) + 1]:
        body = {
            "model": EXPORTED, "prompt": list(request.prompt_ids), "max_tokens": 8, "temperature": 1.0,
            "seed": request.seed, "logprobs": 1, "return_token_ids": True,
        }  # fmt: skip
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        assert answer.is_success, answer.text
        choice = answer.json()["choices"][0]
        done = Completion(tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"]), "", "length")
        said = torch.tensor(done.logprobs)
        trained = trainer_logprobs(bank, replace(request, adapter="first"), done)
        ids = torch.tensor([[*request.prompt_ids, *done.token_ids]])
        loaded = plain(ids).logits[0, len(request.prompt_ids) - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(loaded[torch.arange(len(said)), torch.tensor(done.token_ids)], trained)
        to_export.append((trained - said).abs().max().item())
        to_base.append((trainer_logprobs(bank, replace(request, adapter=None), done) - said).abs().max().item())
    print("furthest from the trainer:", max(to_export), "from the bare base:", max(to_base))
    assert max(to_export) < TOLERANCE < 20 * TOLERANCE < max(to_base)
