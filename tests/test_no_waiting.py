"""Nobody waits for the longest reply: each episode goes on as soon as its own is there, and is still the same."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, says
from fake_vllm import FakeVllm
from partners_support import APPLE, PEAR, endpoint
from support import Says, Talk, Toy, make_bank, make_engine, qwen2_folder

from llm_sra.engines import Completion, EngineError, Request
from llm_sra.engines.server import ServerEngine
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match, Scripted, UnavailableError
from llm_sra.policies.waiting import Waiting
from llm_sra.task import Episode, Message, Reward

LEFT, RIGHT = (EnginePolicy(name, adapter=name) for name in ("left", "right"))
BOTH = Match("both", {"left": LEFT, "right": RIGHT})


class Streams:
    """A streaming engine made of another: a step finishes one reply, in an order of its own.

    Args:
        inner: Generates each reply by itself.
        order: Draws which reply is next; None: the one that was asked for last.
        breaks: Adapters whose requests fail, and with what.
    """

    shares_weights = False

    def __init__(
        self,
        inner: TransformersEngine,
        order: random.Random | None = None,
        breaks: Mapping[str | None, Exception] | None = None,
    ) -> None:
        self.inner, self.order, self.breaks = inner, order, breaks or {}
        self.renderer, self.context_length = inner.renderer, inner.context_length
        self.open: list[tuple[Request, Future[Completion]]] = []
        self.most = 0

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        begun = [(request, Future[Completion]()) for request in requests]
        self.open += begun
        self.most = max(self.most, len(self.open))
        return [future for _, future in begun]

    def step(self) -> bool:
        self.open = [one for one in self.open if not one[1].cancelled()]
        if not self.open:
            return False
        request, future = self.open.pop(self.order.randrange(len(self.open)) if self.order else -1)
        if request.adapter in self.breaks:
            future.set_exception(self.breaks[request.adapter])
        else:
            future.set_result(self.inner.generate([request])[0])
        return True


def specs(match: Match = BOTH, count: int = 3) -> list[EpisodeSpec]:
    return [EpisodeSpec(problem, match, index) for problem in (APPLE, PEAR) for index in range(count)]


def spoken(episodes: Sequence[Episode]) -> list[list[tuple[Any, ...]]]:
    """What was said, and all that came of it."""
    return [
        [(t.seat, t.step, t.view, t.prompt_ids, t.reply.text, t.reply.token_ids) for t in e.turns]
        + [(e.rewards, e.outcome)]
        for e in episodes
    ]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", [random.Random(1), random.Random(2), None])
def test_episodes_are_the_same_in_lock_step_and_in_whichever_order_replies_come(
    together: bool, order: random.Random | None
) -> None:
    engine, task = make_engine(qwen2_folder()), Toy(turns=6, together=together)
    lock_step = play(task, specs(), {"main": engine}, seed=0)
    streaming = Streams(engine, order)
    assert spoken(play(task, specs(), {"main": streaming}, seed=0)) == spoken(lock_step)  # type: ignore[dict-item]
    assert streaming.most == len(specs()) * (2 if together else 1)  # all are on their way at a time


def test_an_episode_ends_while_others_wait_for_their_first_replies() -> None:
    engine, ends = make_engine(qwen2_folder()), []
    play(
        Toy(turns=4),
        specs(),
        {"main": Streams(engine)},  # type: ignore[dict-item]
        seed=0,
        on_ended=lambda ended: ends.append(sorted(ended)),
    )
    # The reply that was asked for last is the first to come: the last episode plays to its end, then the one before it.
    assert ends == [[5], [4], [3], [2], [1], [0]]


class Recorder(Toy):
    """Notes by whom, when and about what it is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: dict[str, list[Any]] = {}
        self.threads: set[int] = set()

    def _note(self, state: Talk, what: Any) -> None:
        self.threads.add(threading.get_ident())
        self.calls.setdefault(state.word, []).append(what)

    def actors(self, state: Talk) -> tuple[str, ...]:
        self._note(state, ("actors", len(state.said)))
        return super().actors(state)

    def view(self, state: Talk, seat: str) -> Any:
        self._note(state, ("view", seat, len(state.said)))
        return super().view(state, seat)

    def step(self, state: Talk, replies: Mapping[str, str], rng: random.Random) -> tuple[Talk, Mapping[str, Reward]]:
        self._note(state, ("step", tuple(replies), rng.random()))
        return super().step(state, replies, rng)


def test_a_task_is_called_by_one_thread_in_the_same_order_for_an_episode_whoever_answers_first() -> None:
    noted = []
    for slow in ("apple", "pear"):
        task = Recorder(turns=6, together=True)

        def reply(body: dict[str, Any], slow: str = slow) -> str:
            first = body["messages"][0]["content"]
            time.sleep(0.05 if slow in first else 0.0)
            return f"heard {len(body['messages'])}"

        with FakeEndpoint(reply) as server:
            match = Match("m", {"left": endpoint(server), "right": endpoint(server, "other")})
            play(task, [EpisodeSpec(APPLE, match), EpisodeSpec(PEAR, match)], {}, seed=0)
        assert task.threads == {threading.get_ident()}
        noted.append(task.calls)
    assert noted[0] == noted[1]
    assert [call[0] for call in noted[0]["apple"]] == ["actors", "view", "view", "step"] * 3 + ["actors"]


def test_a_table_with_a_quick_server_does_not_wait_for_one_with_a_slow_server() -> None:
    ends: list[int] = []
    with FakeEndpoint(seconds=0.25) as slow, FakeEndpoint(lambda body: "ho") as quick:
        matches = [Match(server.url, dict.fromkeys(Toy.seats, endpoint(server))) for server in (slow, quick)]
        play(
            Toy(turns=4),
            [EpisodeSpec(APPLE, match) for match in matches],
            {},
            seed=0,
            on_ended=lambda ended: ends.extend([*ended, len(slow.asked)]),
        )
    assert ends == [1, 1, 0, 4]  # the quick one ended while the slow server was at its first reply


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_an_engine_of_whole_batches_waits_for_servers_so_that_its_batches_do_not_depend_on_their_speed(
    seconds: float,
) -> None:
    batches: list[list[str | None]] = []

    class Notes(TransformersEngine):
        def generate(self, requests: Sequence[Request]) -> list[Completion]:
            batches.append([request.adapter for request in requests])
            return super().generate(requests)

    engine = Notes(make_bank(qwen2_folder()), Renderer(load_model(str(qwen2_folder()))[1]))
    with FakeEndpoint(seconds=seconds) as server:
        mixed = Match("mixed", {"left": endpoint(server), "right": RIGHT})
        play(Toy(turns=4), [EpisodeSpec(APPLE, BOTH), EpisodeSpec(PEAR, mixed)], {"main": engine}, seed=0)
    assert batches == [["left", "right"], ["right", "right"], ["left"], ["right"]]


class FailsOnPears:
    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        if "pear" in messages[-1]["content"]:
            raise LookupError("no pears")
        return "hm"


def test_an_episode_that_waits_for_its_engine_is_played_on_when_all_that_were_ready_are_given_up() -> None:
    picky, other = Scripted("picky", FailsOnPears()), Scripted("other", Says(""))
    given_up = Match("picky", {"left": picky, "right": other})
    played = Match("engine", {"left": LEFT, "right": other})
    asked = [EpisodeSpec(APPLE, given_up), EpisodeSpec(PEAR, given_up), EpisodeSpec(APPLE, played)]
    lost: list[Any] = []
    engines = {"main": make_engine(qwen2_folder())}
    episodes = play(Toy(), asked, engines, seed=0, on_lost=lambda policy, error: lost.append(policy))
    assert lost == [picky]
    assert [episode.match for episode in episodes] == ["engine"]


class TestFailures:
    """One policy's failure is its own; an engine's is everybody's."""

    @pytest.mark.parametrize("order", [random.Random(1), random.Random(2), None])
    def test_a_request_that_fails_loses_its_policy_alone(self, order: random.Random | None) -> None:
        engine = Streams(make_engine(qwen2_folder()), order, {"right": ValueError("rank 64 is too large")})
        alone = Match("alone", {"left": LEFT, "right": LEFT})
        lost: list[tuple[str, str]] = []
        task = Toy(turns=4, together=True)
        episodes = play(
            task,
            [*specs(), *specs(alone)],
            {"main": engine},  # type: ignore[dict-item]
            seed=0,
            on_lost=lambda policy, error: lost.append((policy.name, str(error))),
        )
        assert lost == [("right", "rank 64 is too large")]
        expected = play(task, specs(alone), {"main": make_engine(qwen2_folder())}, seed=0)
        assert spoken(episodes) == spoken(expected)
        assert not [one for one in engine.open if not one[1].cancelled()]

    def test_where_nobody_is_spared_the_error_ends_play_and_all_other_replies_are_given_up(self) -> None:
        engine = Streams(make_engine(qwen2_folder()), random.Random(0), {"right": ValueError("too large")})
        with pytest.raises(ValueError, match="too large"):
            play(Toy(turns=4, together=True), specs(), {"main": engine}, seed=0)  # type: ignore[dict-item]
        assert engine.open and all(future.cancelled() for _, future in engine.open)

    def test_an_engine_that_does_not_answer_ends_play_whoever_is_spared(self) -> None:
        engine = Streams(make_engine(qwen2_folder()), None, {"left": EngineError("no server answered")})
        with pytest.raises(EngineError, match="no server"):
            play(Toy(), specs(), {"main": engine}, seed=0, on_lost=lambda *_: None)  # type: ignore[dict-item]

    def test_a_server_that_breaks_down_loses_its_partner_while_others_are_on_their_way(self) -> None:
        lost = []
        with FakeEndpoint(faults=[says(404)]) as broken, FakeEndpoint(lambda body: "ho", seconds=0.05) as sound:
            tables = [
                Match(name, dict.fromkeys(Toy.seats, endpoint(server, name)))
                for name, server in (("broken", broken), ("sound", sound))
            ]
            episodes = play(
                Toy(turns=4),
                [EpisodeSpec(problem, match) for problem in (APPLE, PEAR) for match in tables],
                {},
                seed=0,
                on_lost=lambda policy, error: lost.append((policy.name, type(error))),
            )
        assert lost == [("broken", UnavailableError)]
        assert [episode.match for episode in episodes] == ["sound", "sound"]
        assert all(turn.reply.text == "ho" for episode in episodes for turn in episode.turns)

    def test_a_script_that_fails_loses_the_turns_that_its_episodes_wait_for(self) -> None:
        class Fails:
            def reply(self, messages: object, rng: object) -> str:
                raise LookupError("no idea")

        engine = Streams(make_engine(qwen2_folder()))
        broken = Match("broken", {"left": LEFT, "right": Scripted("broken", Fails())})
        sound = Match("m", {"left": LEFT, "right": Scripted("p", Says("hm"))})
        lost: list[str] = []
        [episode] = play(
            Toy(turns=4, together=True),
            [EpisodeSpec(APPLE, broken), EpisodeSpec(APPLE, sound)],
            {"main": engine},  # type: ignore[dict-item]
            seed=0,
            on_lost=lambda policy, error: lost.append(policy.name),
        )
        assert (episode.match, lost, len(episode.turns)) == ("m", ["broken"], 4)


class TestWaiting:
    """Who waits for a reply."""

    def test_what_several_wait_for_is_asked_once_and_told_to_all(self) -> None:
        waiting = Waiting()
        (one, first), (two, second) = waiting.add("key"), waiting.add("key")
        assert (first, second) == (True, False)
        waiting.tell("key", "hm")
        assert (one.result(0), two.result(0)) == ("hm", "hm")
        assert waiting.add("key")[1]

    def test_a_reply_is_wanted_until_all_have_cancelled(self) -> None:
        waiting = Waiting()
        (one, _), (two, _) = waiting.add("key"), waiting.add("key")
        one.cancel()
        assert not waiting.over("key")
        two.cancel()
        assert waiting.over("key") and waiting.add("key")[1]

    def test_the_reason_why_there_is_none_reaches_those_who_still_wait(self) -> None:
        waiting = Waiting()
        (one, _), (two, _) = waiting.add("key"), waiting.add("key")
        one.cancel()
        waiting.tell("key", UnavailableError("gone"))
        assert one.cancelled() and isinstance(two.exception(0), UnavailableError)

    def test_a_client_sends_no_question_whose_reply_nobody_wants_any_more(self) -> None:
        with FakeEndpoint(seconds=0.1) as server:
            policy = endpoint(server, concurrency=1)
            futures = policy.submit([question(i) for i in range(5)])
            for future in futures[1:]:
                future.cancel()
            assert futures[0].result(5) == "hm"
            assert policy.replies([question(9)]) == ["hm"]  # the one thread has come to it past the cancelled ones
            assert len(server.asked) == 2
            assert policy.replies([question(1)]) == ["hm"]  # and what was cancelled can be asked again
            assert len(server.asked) == 3


def question(number: int) -> tuple[tuple[Message, ...], random.Random]:
    return (Message("user", f"question {number}"),), random.Random(number)


def test_episodes_of_a_server_engine_are_those_of_transformers_and_an_unknown_adapter_is_one_policys_fault() -> None:
    fake = FakeVllm(qwen2_folder())
    try:
        bank = make_bank(qwen2_folder())
        engine = ServerEngine(bank, Renderer(load_model(str(qwen2_folder()))[1]), [fake.url], timeout=3.0)
        task = Toy(turns=4)
        here = play(task, specs(), {"main": make_engine(qwen2_folder())}, seed=0)
        there = play(task, specs(), {"main": engine}, seed=0)
        assert spoken(there) == spoken(here)
        unknown = Match("unknown", {"left": LEFT, "right": EnginePolicy("stranger", adapter="stranger")})
        lost: list[str] = []
        [*rest] = play(
            task,
            [*specs(unknown), *specs()],
            {"main": engine},
            seed=0,
            on_lost=lambda policy, error: lost.append(str(error)),
        )
        assert spoken(rest) == spoken(here) and lost == ["no adapter 'stranger'; there are: left, right"]
        engine.close()
    finally:
        fake.stop()
