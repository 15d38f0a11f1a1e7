from collections.abc import Sequence

import pytest
import torch
from support import ROOT, Says, Toy, lora, make_engine, qwen2_folder

from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match, Scripted
from llm_sra.registry import load_task
from llm_sra.task import Episode, Outcome, Problem, Reply, Task, Turn
from llm_sra.trainer.rows import Row, collate, rows_of

PUPIL = ROOT / "tasks" / "worksheet" / "models" / "pupil"


def turn(prompt: Sequence[int], reply: Sequence[int], seat: str = "left", finish: str = "stop") -> Turn:
    """A turn; each token's log-probability is minus a tenth of its id."""
    said = Reply("", tuple(reply), tuple(-0.1 * token for token in reply), finish)
    return Turn(seat, f"{seat}-policy", 0, (), tuple(prompt), said)


def episode_of(*turns: Turn) -> Episode:
    return Episode(Problem("p", None), "match", 0, {}, turns, {}, Outcome(False))


def test_a_view_that_grows_by_appending_is_one_row_for_the_episode() -> None:
    # Prompt 1 2; says 10 11 (11 ends the turn); the partner's 20 21 comes between; says 12 11.
    rows = rows_of(episode_of(turn([1, 2], [10, 11]), turn([1, 2, 10, 11, 20, 21], [12, 11])), position=3, seat="left")
    assert rows == [
        Row(
            episode=3,
            seat="left",
            prompt_ids=(1, 2),
            completion_ids=[10, 11, 20, 21, 12, 11],
            own=[1, 1, 0, 0, 1, 1],
            turns=[0, 0, -1, -1, 1, 1],
            logprobs=pytest.approx([-1.0, -1.1, 0.0, 0.0, -1.2, -1.1]),
        )
    ]


def test_a_view_that_does_not_begin_with_what_was_before_starts_a_row_for_each_turn() -> None:
    rows = rows_of(episode_of(turn([1, 2], [10, 11]), turn([1, 2, 20], [12, 11])), position=0, seat="left")
    assert [(row.prompt_ids, row.completion_ids, row.own) for row in rows] == [
        ((1, 2), [10, 11], [1, 1]),
        ((1, 2, 20), [12, 11], [1, 1]),
    ]


def test_a_reply_that_was_kept_in_other_tokens_starts_a_new_row() -> None:
    # Sampled as 10 11 12, but the next prompt shows it as 10 13: trained is what was sampled, after what was shown.
    rows = rows_of(episode_of(turn([1], [10, 11, 12]), turn([1, 10, 13, 20], [14])), position=0, seat="left")
    assert [(row.prompt_ids, row.completion_ids) for row in rows] == [((1,), [10, 11, 12]), ((1, 10, 13, 20), [14])]


def test_an_end_of_turn_that_the_template_wrote_after_a_cut_reply_is_not_trained() -> None:
    # The reply 10 was cut at its limit, so that the end of turn, 11, is the template's.
    rows = rows_of(episode_of(turn([1], [10], finish="length"), turn([1, 10, 11, 20], [12, 11])), 0, "left")
    assert [(row.completion_ids, row.own) for row in rows] == [([10, 11, 20, 12, 11], [1, 0, 0, 1, 1])]


def test_rows_hold_the_turns_of_their_seat_only() -> None:
    both = episode_of(turn([1], [10]), turn([1, 30], [20], seat="right"), turn([1, 10, 20], [12]))
    assert [row.completion_ids for row in rows_of(both, 0, "left")] == [[10, 20, 12]]
    assert [row.completion_ids for row in rows_of(both, 0, "right")] == [[20]]


def test_a_seat_that_said_no_token_has_no_row() -> None:
    assert rows_of(episode_of(turn([1], [], finish="context"), turn([], [])), 0, "left") == []


def test_a_turn_without_tokens_does_not_end_a_row() -> None:
    silent = episode_of(turn([1], [10]), turn([1, 10, 20], [], finish="context"), turn([1, 10, 20, 21], [12]))
    assert [(row.completion_ids, row.turns) for row in rows_of(silent, 0, "left")] == [
        ([10, 20, 21, 12], [0, -1, -1, 2])
    ]


def test_replies_that_were_cut_can_be_left_out_of_the_loss() -> None:
    cut = episode_of(turn([1], [10, 11], finish="length"), turn([1, 10, 11, 20], [12, 13]))
    (row,) = rows_of(cut, 0, "left", mask_truncated=True)
    assert (row.own, row.turns, row.own_tokens) == ([0, 0, 0, 1, 1], [0, 0, -1, 1, 1], 2)


def test_collating_pads_prompts_on_the_left_and_completions_on_the_right() -> None:
    short, long = Row(0, "left", (5,)), Row(1, "left", (6, 7))
    short.extend([10, 11, 12], own=1, turn=0, logprobs=[-1.0, -2.0, -3.0])
    long.extend([13], own=1, turn=0, logprobs=[-4.0])
    long.extend([20], own=0, turn=-1, logprobs=[0.0])

    batch = collate([short, long], pad_id=99, device=torch.device("cpu"))

    assert {key: value.tolist() for key, value in batch.items()} == {
        "prompt_ids": [[99, 5], [6, 7]],
        "prompt_mask": [[0, 1], [1, 1]],
        "completion_ids": [[10, 11, 12], [13, 20, 99]],
        "completion_mask": [[1, 1, 1], [1, 1, 0]],
        "tool_mask": [[1, 1, 1], [1, 0, 0]],
        "sampling_per_token_logps": [[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]],
    }


def test_collated_completions_are_never_of_one_column() -> None:
    row = Row(0, "left", (5,), [10], [1], [0], [-1.0])
    for rows, mask in (([row], [[1, 0]]), ([row, Row(0, "", (0,))], [[1, 0], [0, 0]])):
        batch = collate(rows, pad_id=99, device=torch.device("cpu"))
        assert batch["completion_mask"].tolist() == batch["tool_mask"].tolist() == mask


def played(task: Task, engine: TransformersEngine, partner: str | None = None, count: int = 4) -> list[Episode]:
    """Episodes of the engine's first two adapters; a partner that always says the same may take the second seat."""
    seats = {seat: EnginePolicy(name, adapter=name) for seat, name in zip(task.seats, engine.bank.names, strict=True)}
    if partner is not None:
        seats[task.seats[1]] = Scripted("says", Says(partner))
    specs = [EpisodeSpec(problem, Match("match", seats)) for problem in task.problems("train", count)]
    return play(task, specs, {"main": engine}, seed=0)


def check_rows(episode: Episode, seat: str, rows: Sequence[Row]) -> None:
    """What is trained is what the seat sampled, all of it, each reply after the prompt that it was sampled from."""
    replies = {number: turn for number, turn in enumerate(episode.turns_of(seat)) if turn.reply.token_ids}
    seen = {}
    for row in rows:
        for number in sorted(set(row.turns) - {-1}):
            at = [i for i, of_turn in enumerate(row.turns) if of_turn == number]
            assert at == list(range(at[0], at[-1] + 1))
            assert (*row.prompt_ids, *row.completion_ids[: at[0]]) == replies[number].prompt_ids
            assert tuple(row.completion_ids[i] for i in at) == replies[number].reply.token_ids
            assert tuple(row.logprobs[i] for i in at) == replies[number].reply.logprobs
            seen[number] = all(row.own[i] for i in at)
        assert row.own == [int(of_turn >= 0) for of_turn in row.turns]
    assert seen == dict.fromkeys(replies, True)


@pytest.fixture(scope="module")
def pupil_engine() -> TransformersEngine:
    model, tokenizer = load_model(str(PUPIL))
    return TransformersEngine(AdapterBank.create(model, ("first", "second"), lora(), seed=0), Renderer(tokenizer))


@pytest.fixture(scope="module")
def random_engine() -> TransformersEngine:
    return make_engine(qwen2_folder())


def test_a_worksheet_is_one_row_for_each_seat_and_episode(pupil_engine: TransformersEngine) -> None:
    task = load_task("worksheet")
    end = pupil_engine.renderer.tokenizer.eos_token_id
    whole = 0
    for episode in played(task, pupil_engine, count=8):
        for seat in task.seats:
            rows = rows_of(episode, 0, seat)
            check_rows(episode, seat, rows)
            turns = episode.turns_of(seat)
            if all(turn.reply.token_ids[-1] == end for turn in turns):  # none was cut by the stop string
                whole += 1
                (row,) = rows
                # The last token of each of the three replies ends its turn, and is trained.
                ends = [i for i in range(len(row.own)) if row.own[i] and row.completion_ids[i] == end]
                assert len(ends) == 3
                assert row.own[-1] == 1
                # What came between is the partner's line, masked.
                between = [i for i, own in enumerate(row.own) if not own]
                said = pupil_engine.renderer.decode([row.completion_ids[i] for i in between])
                partner = [turn.reply.text for turn in episode.turns if turn.seat != seat]
                for line in partner[int(seat == "second") : 3 if seat == "second" else 2]:
                    assert line in said
    assert whole >= 8


def test_a_view_of_the_partners_last_words_only_is_one_row_for_each_turn(random_engine: TransformersEngine) -> None:
    for episode in played(Toy(turns=6, window=1), random_engine):
        rows = rows_of(episode, 0, "left")
        check_rows(episode, "left", rows)
        assert [row.turns for row in rows] == [[0] * len(rows[0].own), [1] * len(rows[1].own), [2] * len(rows[2].own)]


def test_a_row_ends_where_a_round_drops_out_of_the_view(random_engine: TransformersEngine) -> None:
    # Both speak at once and see the last round: in the second round that is all there was, in the third it is not.
    for episode in played(Toy(turns=6, together=True, window=2), random_engine):
        rows = rows_of(episode, 0, "left")
        check_rows(episode, "left", rows)
        assert [sorted(set(row.turns)) for row in rows] == [[-1, 0, 1], [2]]


def test_replies_cut_at_the_token_limit_go_on_in_their_row(random_engine: TransformersEngine) -> None:
    task = Toy(turns=4, reply_tokens=3)
    cut = 0
    for episode in played(task, random_engine):
        replies = [turn.reply for turn in episode.turns_of("left")]
        rows = rows_of(episode, 0, "left")
        check_rows(episode, "left", rows)
        if replies[0].finish == "length" and random_engine.renderer.decode(replies[0].token_ids) == replies[0].text:
            cut += 1
            (row,) = rows
            assert row.own[:4] == [1, 1, 1, 0]  # the template's end of turn follows
    assert cut > 0


def test_a_reply_cut_at_a_stop_string_is_trained_whole_and_the_next_starts_a_new_row(
    random_engine: TransformersEngine,
) -> None:
    task = Toy(turns=4, stop=tuple("abcdefghijklmnopqrstuvwxyz0123456789"))
    stopped = 0
    for episode in played(task, random_engine):
        rows = rows_of(episode, 0, "left")
        check_rows(episode, "left", rows)
        first = episode.turns_of("left")[0].reply
        if first.finish == "stop" and random_engine.renderer.decode(first.token_ids) != first.text:
            stopped += 1
            assert len(rows) == 2
            assert rows[0].completion_ids == list(first.token_ids)
    assert stopped > 0


def test_a_reply_of_which_the_state_keeps_a_part_starts_a_new_row(random_engine: TransformersEngine) -> None:
    task = Toy(turns=4, reply_chars=2)
    for episode in played(task, random_engine):
        rows = rows_of(episode, 0, "left")
        check_rows(episode, "left", rows)
        assert len(rows) == 2


def test_a_partner_of_text_has_no_rows_and_its_text_is_masked(random_engine: TransformersEngine) -> None:
    words = random_engine.renderer.encode_text("apple pear plum")
    for episode in played(Toy(turns=4), random_engine, partner="apple pear plum"):
        assert rows_of(episode, 0, "right") == []
        (row,) = rows_of(episode, 0, "left")
        at = next(i for i in range(len(row.own)) if tuple(row.completion_ids[i : i + len(words)]) == words)
        assert row.own[at : at + len(words)] == [0] * len(words)
