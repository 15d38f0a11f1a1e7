"""The benchmarks of waiting and of one GPU: what they count, what they print, and that they run end to end."""

import json
from pathlib import Path

import pytest
from support import qwen2_tokenizer

from benchmarks import gpu, waiting
from benchmarks.measure import Result
from llm_sra.engines import Request
from llm_sra.engines.streaming import Streaming
from llm_sra.models.renderer import Renderer
from llm_sra.task import Sampling

RENDERER = Renderer(qwen2_tokenizer())
SMALL = ["--engine", "transformers", "--episodes", "16", "--tokens", "4", "--micro_batch", "8", "--steps", "2"]


def engine(lengths: list[int], slots: int, monkeypatch: pytest.MonkeyPatch) -> waiting.Slots:
    """An engine whose replies are as long as their seeds say, by place."""
    monkeypatch.setattr(waiting, "drawn", lambda lengths, seed: lengths[seed])
    return waiting.Slots(RENDERER, lengths, slots)


def requests(count: int) -> list[Request]:
    return [Request((1,), None, Sampling(), 9, (), seed) for seed in range(count)]


def test_a_place_is_taken_by_the_next_reply_as_soon_as_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = engine([3, 1, 2], 2, monkeypatch)
    assert isinstance(slots, Streaming)
    futures = slots.submit(requests(3))
    # Replies of 3 and 1 tokens begin. After 1 step the second has ended, the third begins; both end after 2 more.
    assert slots.step() and [future.done() for future in futures] == [False, True, False]
    assert slots.step() and all(future.done() for future in futures)
    assert (slots.steps, slots.tokens, slots.step()) == (3, 6, False)
    assert [len(future.result().token_ids) for future in futures] == [3, 1, 2]


def test_a_whole_batch_lasts_as_long_as_its_longest_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = engine([5, 1], 2, monkeypatch)
    assert [len(done.token_ids) for done in slots.generate(requests(2))] == [5, 1]
    assert (slots.steps, slots.tokens) == (5, 6)  # 6 of 10 places were taken


def test_both_ways_play_the_same_replies_and_waiting_shows_in_the_share_of_places() -> None:
    shares = waiting.simulated([1, 9], 8, 4, 8, RENDERER)
    before, now = shares["lock-step"], shares["as they come"]
    # In lock-step each of the 4 turns lasts 9 steps, as one of 8 replies is long in all likelihood.
    assert before.steps == 36 and now.steps < before.steps
    assert before.busy * before.steps == pytest.approx(now.busy * now.steps)  # the same tokens
    assert now.busy == now.most  # nothing but the longest episode is waited for
    even = waiting.simulated([5], 8, 4, 8, RENDERER)
    assert {share.busy for share in even.values()} == {1.0}


def test_lengths_are_those_of_the_recorded_solutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "solutions.jsonl"
    lines = [{"question": "?", "6b": {"solution": "3+4 = 7\n"}, "175b": {"solution": "eggs " * 20}}]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    assert waiting.recorded(path, limit=8) == [6, 8]  # 3, +, 4, =, 7 and the line's end; 20 words, cut
    waiting.main(["--lengths", str(path), "--episodes", "4", "--turns", "2", "--places", "4"])
    assert "| 4 |" in capsys.readouterr().out
    waiting.main(["--lengths", str(tmp_path / "none")])
    assert capsys.readouterr().out.startswith("left out, there is no ")


def test_steps_are_held_against_the_targets_of_their_shape() -> None:
    run = Result(
        [30.0, 50.0, 40.0], generated=786_432, peak=1000, parts={"generate": 60.0, "score": 9.0, "train": 51.0}
    )
    said = gpu.describe_steps({"0.5B": [run], "tiny": [run]})
    # 60 s of three steps are 20 s each: 786,432 / 20 = 39,321.6 tokens a second.
    assert "| 0.5B | 40.0 | 20.0 | 3.0 | 17.0 | 39,322 | 1,000 |" in said
    assert "0.5B: seconds a step (physics allows 16): 40.00 (at most 45.00: met)" in said
    assert "0.5B: generated tokens a second: 39321.60 (at least 35000.00: met)" in said
    assert "3B:" not in said and said.count("- tiny") == 0


def test_launches_are_compared_by_trained_token() -> None:
    def counted(launches: float, trained: int) -> list[Result]:
        return [
            Result([1.0], trained=trained, numbers={"train": 9e9, "train, no views": launches, "score, no views": 50})
        ]

    def timed(seconds: float, trained: int) -> list[Result]:
        return [Result([seconds], trained=trained)]

    said = gpu.describe_launches(
        {"ours": counted(250, 100), "TRL": counted(150, 50)}, {"ours": timed(3.0, 100), "TRL": timed(1.0, 50)}
    )
    # (250 + 50) / 100 = 3 over (150 + 50) / 50 = 4; 3 / 100 s over 1 / 50 s.
    assert "launches, over TRL's: 0.75 (at most 1.30: met)" in said
    assert "on this machine: 1.50 (at most 1.30: MISSED)" in said


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in ((["--shapes", "7B"], "unknown shapes 7B"), (["--episodes", "8"], "a multiple of 16, got 8")):
        with pytest.raises(SystemExit):
            gpu.main(flags)
        assert message in capsys.readouterr().err


@pytest.mark.slow  # seven processes, each of which imports TRL
def test_the_program_for_a_gpu_runs_end_to_end_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--tiny_problems", "2", "--tiny_tokens", "4", "--tiny_micro_batch", "8"]
    gpu.main(["--shapes", "tiny", *SMALL, "--rounds", "1", *tiny])
    said = capsys.readouterr().out
    assert "\n| tiny | " in said and "rollouts overlapped with training: left out" in said
    assert "peak memory over TRL's and three more adapters'" in said
    assert "operations a trained token that a GPU launches, over TRL's: " in said
