"""Hanabi's embedded model: its lessons, the command that makes it, and what the shipped one can do."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import lora, tensors
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.hanabi
from llm_sra.engines import EngineOptions, make_engine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.task import Message
from tasks.hanabi import Hanabi, pretrain
from tasks.hanabi.cards import Card, Known, Setup
from tasks.hanabi.lessons import BEGINNER, Habit, game, games, likelihood
from tasks.hanabi.rules import Held, Move, State
from tasks.starting_model import IGNORED, encode, llama

SHIPPED = Path(tasks.hanabi.__file__).parent / "models" / "player"
NOTHING = Known(("red", "green", "blue"), (1, 2, 3))


def dealt() -> State:
    """Red 1 is the next of its colour, as are green 2 and blue 1; the mover knows one card, the next player another."""
    setup = Setup(4, 3, 3, 3)
    one = Known(NOTHING.colours, (1,))
    nobody = (Held(Card("red", 3), NOTHING),) * 3
    mover = (Held(Card("red", 1), one), Held(Card("blue", 1), Known(("blue",), (1,))), Held(Card("red", 3), NOTHING))
    following = (Held(Card("green", 2), Known(("green",), (2, 3))), Held(Card("blue", 1), one), nobody[0])
    return State(setup, (Card("red", 1),) * 6, (mover, following, nobody, nobody), (0, 1, 0), (), 4, 3, None)


def count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


# -- lessons ---------------------------------------------------------------------------------------------------------


def test_the_likelihood_that_a_card_fits_counts_what_it_can_still_be() -> None:
    state = dealt()
    assert likelihood(state, NOTHING) == 3 / 9  # red 1, green 2, blue 1
    assert likelihood(state, Known(NOTHING.colours, (1,))) == 2 / 3
    assert likelihood(state, Known(("green",), (1, 3))) == 0


@pytest.mark.parametrize(
    ("move", "weight"),
    [
        (Move("play", 2), 9.0),  # proven to fit
        (Move("play", 1), 9 * (2 / 3) ** 2),
        (Move("play", 3), 9 * (1 / 3) ** 2),
        (Move("discard", 1), 3 / 3),
        (Move("hint", 1, 2), 0.1 + 2 * (1 - 1 / 2)),  # green 2 was known to be green 2 or 3
        (Move("hint", 1, "blue"), 0.1 + 2 * (1 - 2 / 3)),  # blue 1 was known to be a 1
        (Move("hint", 1, 1), 0.1),  # tells nothing new
        (Move("hint", 2, "red"), 0.1),  # red 3 does not fit
    ],
)
def test_a_habit_weighs_moves_by_what_they_are_good_for(move: Move, weight: float) -> None:
    habit = Habit(play=9, discard=3, tell=2, hint=0.1)
    assert habit.weight(dealt(), move) == pytest.approx(weight, abs=1e-12)


def test_a_lesson_is_a_view_and_a_move_from_its_list() -> None:
    task = Hanabi(explain=False)
    problem = task.problems("train", 1)[0]
    lessons = game(task, problem, BEGINNER, random.Random(0))
    assert len(lessons) >= 8
    messages = [lesson.messages for lesson in lessons]
    for view, reply in messages:
        assert reply.content in view.content.partition("Your moves:\n")[2].split("\n")
    assert len({reply.content.split()[0] for _, reply in messages}) == 3


def test_what_is_taught_is_the_habit_also_where_a_seat_moves_at_random() -> None:
    task = Hanabi(explain=False)
    only_hints = Habit(play=0, discard=1e-9, tell=0, hint=1)
    taught, made = [], []
    for number, problem in enumerate(task.problems("train", 10)):
        lessons = [lesson.messages for lesson in game(task, problem, only_hints, random.Random(number))]
        taught += [reply.content.split()[0] for view, reply in lessons if "Tokens: 0 of 8" not in view.content]
        made += [view.content for view, _ in lessons]
    assert set(taught) == {"hint"}
    assert any("1: play" in view for view in made)  # a random seat did


# -- making it -------------------------------------------------------------------------------------------------------


def test_the_command_makes_the_model_from_nothing(tmp_path: Path) -> None:
    pretrain.main(["--out", str(tmp_path), "--steps", "2"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "player")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.num_parameters() < 500_000
    assert model.config.hidden_size // model.config.num_attention_heads == 32
    assert all(tensor.isfinite().all() for tensor in tensors(model).values())
    text = "Player 2: red 1 (any 2/3), hint you rank 2"
    made, again = AutoTokenizer.from_pretrained(tmp_path / "player"), pretrain.tokenizer()
    assert made(text)["input_ids"] == again(text)["input_ids"]


def test_every_phrase_of_the_game_is_one_token() -> None:
    tokenizer = pretrain.tokenizer()
    for phrase in [*pretrain.phrases(Hanabi().setup), "play 3", "hint 3 rank 2", "red 0", " (red/blue any)", " any 1"]:
        assert count(tokenizer, phrase) == 1, phrase


def test_the_saved_tokenizer_reads_what_others_say_by_phrases(tmp_path: Path) -> None:
    pretrain.main(["--out", str(tmp_path), "--steps", "1"])
    _, tokenizer = load_model(str(tmp_path / "player"))
    view = Message("user", "Stacks, up to 3: red 1, green 0, blue 2\nYour moves:\nhint 1 rank 2")
    rendered = Renderer(tokenizer).render([view])
    assert tokenizer.convert_ids_to_tokens(rendered[3:-5])[-1] == "hintĠ1ĠrankĠ2"
    made = pretrain.tokenizer().apply_chat_template([view.as_dict()], add_generation_prompt=True)["input_ids"]
    assert list(rendered) == made


def test_a_view_is_short() -> None:
    task, tokenizer = Hanabi(explain=False), pretrain.tokenizer()
    lessons = game(task, task.problems("dev", 1)[0], BEGINNER, random.Random(0))
    assert max(count(tokenizer, lesson.messages[0].content) for lesson in lessons) < 140


@pytest.mark.parametrize(
    "text", ["", "Grüße, 日本 \U0001f600", "\x00\t\r\n\n  x ", "play 12 hint 9 red", "Play 1.play 1"]
)
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(encoded) == text


def test_lessons_carry_all_chances_of_the_habit_and_the_loss_is_lowest_at_them() -> None:
    task, tokenizer = Hanabi(explain=False), pretrain.tokenizer()
    lessons = game(task, task.problems("train", 1)[0], BEGINNER, random.Random(0))
    for lesson in lessons:
        assert list(lesson.chances) == lesson.messages[0].content.partition("Your moves:\n")[2].split("\n")
        assert sum(lesson.chances.values()) == pytest.approx(1)

    class Says(torch.nn.Module):
        """Has the habit's chances for each first token, less so with a tilt, and always ends after it."""

        def __init__(self, tilt: float) -> None:
            super().__init__()
            wanted = chances.clone()
            wanted[:, tokenizer("play 1", add_special_tokens=False)["input_ids"][0]] += tilt
            self.logits = torch.full((*ids.shape, len(tokenizer)), -30.0)
            self.logits[..., tokenizer.eos_token_id] = 30.0
            for row, label in enumerate(labels):
                before = int((label != IGNORED).nonzero()[0]) - 1
                self.logits[row, before] = (wanted[row] + 1e-9).log()

        def get_decoder(self) -> Any:
            return lambda **_: SimpleNamespace(last_hidden_state=self.logits)

        def get_output_embeddings(self) -> Any:
            return torch.nn.Identity()

    (ids, _, labels), chances = batch = pretrain.batch_of(tokenizer, lessons)
    exact = pretrain.habit_loss(Says(0.0), batch).item()
    entropy = torch.special.entr(chances).sum(dim=1).mean().item()
    assert exact == pytest.approx(entropy / 2, abs=1e-4)  # a reply is two tokens, the second of which is certain
    assert pretrain.habit_loss(Says(0.3), batch).item() > exact + 0.01


def test_the_model_learns_its_move_and_where_it_ends() -> None:
    tokenizer = pretrain.tokenizer()
    _, _, labels = encode(tokenizer, [(Message("user", "Your moves:\nplay 1"), Message("assistant", "play 1"))])
    assert tokenizer.convert_ids_to_tokens(labels[labels != IGNORED]) == ["playĠ1", "<|im_end|>"]


# -- the shipped one -------------------------------------------------------------------------------------------------


def test_the_shipped_model_is_a_plain_folder_of_at_most_three_megabytes() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 3_000_000
    model = AutoModelForCausalLM.from_pretrained(SHIPPED)
    tokenizer = pretrain.tokenizer()
    made = llama(tokenizer, pretrain.HIDDEN, pretrain.LAYERS)
    assert {n: t.shape for n, t in tensors(model).items()} == {n: t.shape for n, t in tensors(made).items()}
    assert AutoTokenizer.from_pretrained(SHIPPED).get_vocab() == tokenizer.get_vocab()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_shipped_model_moves_legally_and_scores_a_little() -> None:
    """Bounds around the figures of models/README.md, with room for the chance of 48 games."""
    task = Hanabi(explain=False)
    base, tokenizer = load_model(str(SHIPPED))
    engine = make_engine(EngineOptions(), AdapterBank.create(base, ["unused"], lora(), seed=0), Renderer(tokenizer))
    player = EnginePolicy("player", "here", None)
    match = Match("together", dict.fromkeys(task.seats, player))
    specs = [EpisodeSpec(problem, match) for problem in task.problems("dev", 48)]
    episodes = list(play(task, specs, {"here": engine}, seed=0, max_reply_tokens=3))
    moves = sum(len(episode.turns) for episode in episodes)
    illegal = sum(episode.outcome.metrics[f"illegal/{seat}"] for episode in episodes for seat in task.seats)
    assert illegal / moves < 0.01
    assert 2.0 < sum(episode.outcome.metrics["score"] for episode in episodes) / 48 < 3.0


@torch.no_grad()
def test_the_shipped_model_tells_cards_that_fit_from_those_that_cannot() -> None:
    task, tokenizer = Hanabi(explain=False), pretrain.tokenizer()
    lessons = games(task, task.problems("dev", 10), BEGINNER, 10, random.Random(0))
    (ids, mask, labels), habit = pretrain.batch_of(tokenizer, lessons)
    before = (labels != IGNORED).int().argmax(dim=1) - 1
    logits = AutoModelForCausalLM.from_pretrained(SHIPPED)(input_ids=ids, attention_mask=mask).logits
    chances = logits[torch.arange(len(lessons)), before].softmax(dim=-1)
    # Half the distance of two distributions is the chance of another move than the habit's: 0.09 as measured.
    assert (0.5 * (chances - habit).abs().sum(dim=1)).mean() < 0.13
    cannot, likely = [], []
    for place in range(1, task.setup.hand + 1):
        token = tokenizer(f"play {place}", add_special_tokens=False)["input_ids"][0]
        listed = torch.tensor([f"play {place}" in lesson.chances for lesson in lessons])
        cannot.append(chances[listed & (habit[:, token] == 0), token])
        likely.append(chances[listed & (habit[:, token] > 0.2), token])
    assert torch.cat(cannot).mean() < 0.03  # 0.016 of 78
    assert torch.cat(likely).mean() > 0.25  # 0.31 of 64; the habit has 0.32
