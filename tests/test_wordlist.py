"""Word lists: which words count, how replies are read, what a seat sees and is paid, how scripted partners play."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SPLITS, play_replies

from llm_sra.partners.rosters import read_roster
from llm_sra.registry import find_roster
from llm_sra.task import Outcome, Problem, Reward
from tasks.wordlist import WordList
from tasks.wordlist.listing import MAX_ENTRY_CHARS, PASS, Listing, look, read, write
from tasks.wordlist.words import ONE, categories, category

ANIMALS = Problem("animals/x", {"category": "animals", "examples": ["bear", "goat", "owl", "crab", "hen"]})
RNG = random.Random(0)


def play(replies: Sequence[str], task: WordList | None = None) -> tuple[Outcome, dict[str, list[Reward]]]:
    """Play a list of animals with these replies; the outcome and what each seat got at each step."""
    return play_replies(task or WordList(), ANIMALS, replies, RNG)


def say(partner: str, *replies: str, seat: str = "first", task: WordList | None = None, seed: int = 0) -> str:
    """What a scripted partner says about a list of animals after these replies."""
    task = task or WordList()
    state = task.start(ANIMALS, RNG)
    for reply in replies:
        state = state.add(reply)
    messages = [message.as_dict() for message in task.view(state, seat)]
    return task.partners[partner]().reply(messages, random.Random(seed))


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", categories())
def test_every_category_has_a_hundred_words_or_more_each_of_which_it_finds(name: str) -> None:
    kind = category(name)
    assert len(kind.words) >= 100 and name in ONE
    assert [kind.find(word) for word in kind.words] == list(kind.words)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("fox", "fox"),
        ("Fox.", "fox"),
        ("**FOX**", "fox"),
        ("a fox", "fox"),
        ("The foxes", "fox"),
        ("ponies", "pony"),
        ("wolves", "wolf"),
        ("mice", "mouse"),
        ("guinea-pig", "guinea pig"),
        ("Guinea  pigs!", "guinea pig"),
        ("house cat", "cat"),
    ],
)
def test_capitals_punctuation_articles_plurals_and_hyphens_do_not_matter(text: str, word: str) -> None:
    assert category("animals").find(text) == word


@pytest.mark.parametrize("text", ["", "a", "the", "fox cow", "fox, cow", "foxx", "I say fox", "banana", "s", "pass"])
def test_what_is_not_one_word_of_the_category_is_none(text: str) -> None:
    assert category("animals").find(text) is None


@pytest.mark.parametrize("name", categories())
def test_no_word_is_read_as_pass(name: str) -> None:
    kind = category(name)
    assert all(read(form, kind) == word for form, word in kind.forms.items())


# -- replies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", ["pass", "Pass", "pass.", " **Pass** ", "I pass.", '"pass"', "\npass\nfox"])
def test_a_pass_however_it_is_written_costs_nothing(reply: str) -> None:
    _, rewards = play([reply, "pass", "pass", "pass"])
    assert rewards["first"][0].cost == 0


@pytest.mark.parametrize("reply", ["", "\n", "fox", "Fox.", "foxx", "banana", "passing", "I pass on this", "x" * 300])
def test_every_other_reply_costs_its_writer_alone(reply: str) -> None:
    _, rewards = play([reply, "pass", "pass", "pass"])
    assert [reward.cost for reward in rewards["first"]] == [0.15, 0, 0, 0]
    assert [reward.cost for reward in rewards["second"]] == [0, 0, 0, 0]


@given(st.text(max_size=80))
def test_whatever_is_said_stands_as_one_entry_and_is_seen_as_it_stands(reply: str) -> None:
    entry = read(reply, category("animals"))
    assert entry and len(entry) <= MAX_ENTRY_CHARS + 2 and "," not in entry and len(entry.splitlines()) == 1
    listing = Listing("animals", 2, (entry,))
    sight = look([{"role": "user", "content": write(listing, first=True)}])
    assert sight.entries == listing.entries == (() if entry == PASS else (entry,))


# -- rules -----------------------------------------------------------------------------------------------------------


def test_two_different_words_complete_the_list_and_pay_both_after_the_last_turn() -> None:
    outcome, rewards = play(["fox", "cow", "pass", "pass"])
    assert outcome.solved
    assert [reward.team for reward in rewards["first"]] == [0, 0, 0, 1]
    assert sum(reward.total for reward in rewards["first"]) == pytest.approx(0.85)
    assert sum(reward.total for reward in rewards["second"]) == pytest.approx(0.85)


@pytest.mark.parametrize("replies", [["fox", "pass", "cow", "pass"], ["pass", "fox", "pass", "cow"]])
def test_each_seat_can_complete_it_alone(replies: list[str]) -> None:
    outcome, rewards = play(replies)
    assert outcome.solved
    assert sorted(sum(reward.total for reward in each) for each in rewards.values()) == pytest.approx([0.7, 1.0])


@pytest.mark.parametrize(
    "replies",
    [
        ["pass"] * 4,
        ["fox", "pass", "pass", "pass"],
        ["fox", "Foxes", "the fox", "FOX"],  # one word, however often
        ["fox", "banana", "cows cows", "foxx"],
    ],
)
def test_fewer_different_words_pay_nobody(replies: list[str]) -> None:
    outcome, rewards = play(replies)
    assert not outcome.solved
    assert all(reward.team == 0 for each in rewards.values() for reward in each)


def test_wrong_words_do_no_harm() -> None:
    assert play(["foxx", "fox", "banana", "cow"])[0].solved


def test_outcome_counts_entries_by_seat() -> None:
    outcome, _ = play(["fox", "fox", "banana", "cow"])
    assert outcome.effort == {"first": 2, "second": 2}
    assert outcome.metrics == {
        "new/first": 1,
        "repeated/first": 0,
        "wrong/first": 1,
        "contribution/first": 0.5,
        "new/second": 1,
        "repeated/second": 1,
        "wrong/second": 0,
        "contribution/second": 0.5,
    }


def test_words_beyond_the_wanted_ones_contribute_nothing() -> None:
    outcome, _ = play(["fox", "cow", "hen", "owl"])
    assert (outcome.metrics["contribution/first"], outcome.metrics["contribution/second"]) == (0.5, 0.5)


# -- views -----------------------------------------------------------------------------------------------------------


def test_a_view_only_grows_and_shows_own_replies_as_they_came() -> None:
    task = WordList(explain=False)
    state = task.start(ANIMALS, RNG)
    assert [(m.role, m.content) for m in task.view(state, "first")] == [("user", "Name an animal. The list is empty.")]
    state = state.add("The Foxes.").add("cow")
    assert [(m.role, m.content) for m in task.view(state, "first")] == [
        ("user", "Name an animal. The list is empty."),
        ("assistant", "The Foxes."),
        ("user", "On the list already: fox, cow."),
    ]
    state = state.add("pass")
    assert [(m.role, m.content) for m in task.view(state, "second")] == [
        ("user", "Name an animal. On the list already: fox."),
        ("assistant", "cow"),
        ("user", "On the list already: fox, cow."),
    ]


def test_rules_and_examples_come_first_the_same_for_both_seats() -> None:
    task = WordList()
    first, second = (task.view(task.start(ANIMALS, RNG), seat) for seat in task.seats[:1] * 2)
    assert first == second
    assert first[0].role == "system"
    for part in ("2 different words", "4 turns", "0.15", "pass"):
        assert part in first[0].content
    replies = [message.content for message in first[1:-1] if message.role == "assistant"]
    assert sorted(replies) == sorted(["goat", "hen", "pass", "pass"])


def test_every_example_is_a_right_reply_to_its_list_and_they_differ_between_problems() -> None:
    task = WordList()
    words = set()
    for problem in task.problems("train", 50):
        view = task.view(task.start(problem, RNG), "first")[1:-1]
        for asked, answered in zip(view[::2], view[1::2], strict=True):
            entries = look([asked.as_dict()]).entries
            kind = category(problem.data["category"])
            assert answered.content == PASS or kind.find(answered.content) not in (None, *entries)
            words.add(answered.content)
    assert len(words) > 50


def test_no_category_is_in_two_splits_and_a_seed_shuffles_alone() -> None:
    task = WordList()
    names = [{problem.data["category"] for problem in task.problems(split)} for split in SPLITS]
    assert sum(map(len, names)) == len(set().union(*names)) == len(categories())
    one, other = ([problem.id for problem in task.problems("train", seed=seed)] for seed in (0, 1))
    assert one != other and sorted(one) == sorted(other)
    assert task.problems("train", 3, 0) == task.problems("train", seed=0)[:3]


# -- partners --------------------------------------------------------------------------------------------------------


def test_the_diligent_one_completes_the_list_alone_and_then_passes() -> None:
    assert category("animals").find(say("diligent")) and category("animals").find(say("diligent", "fox", "pass"))
    assert say("diligent", "fox", "cow") == PASS
    assert say("diligent", "fox", "cow", task=WordList(wanted=3, turns=6)) != PASS


def test_the_late_one_writes_at_its_own_last_turn_alone() -> None:
    assert say("late") == PASS and say("late", "fox", seat="second") == PASS
    assert category("animals").find(say("late", "pass", "pass"))
    assert category("animals").find(say("late", "pass", "pass", "pass", seat="second"))
    assert say("late", "pass", "pass", task=WordList(turns=6)) == PASS


def test_what_the_saboteur_and_the_one_off_topic_write_counts_for_nothing() -> None:
    for seed in range(200):
        for partner in ("saboteur", "off_topic"):
            reply = say(partner, seed=seed)
            assert category("animals").find(reply) is None and read(reply, category("animals")) != PASS, reply


def test_the_sloppy_one_errs_three_times_in_ten() -> None:
    wrong = sum(category("animals").find(say("sloppy", seed=seed)) is None for seed in range(400))
    assert 0.2 < wrong / 400 < 0.4


def test_the_others_do_as_they_are_called() -> None:
    assert say("lazy") == PASS
    assert say("repeater") == PASS and say("repeater", "foxx", "pass") == "foxx"
    assert say("starter") != PASS and say("starter", "pass", "pass") == PASS
    assert {say("half", seed=seed) == PASS for seed in range(20)} == {True, False}


def test_partners_refuse_what_is_no_word_list() -> None:
    with pytest.raises(ValueError, match="the partners of wordlist play word lists only"):
        look([{"role": "user", "content": "Q: 3+2+5"}])


def test_development_and_test_rosters_share_no_partner() -> None:
    dev, test = ({entry.policy for entry in read_roster(find_roster(f"wordlist_{split}"))} for split in ("dev", "test"))
    assert not dev & test and dev | test == set(WordList().partners)


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wanted": 0}, "`wanted` must be from 1 to 50, got 0"),
        ({"wanted": 3}, "use `turns` >= 6"),
        ({"wanted": True}, "`wanted` must be a whole number"),
        ({"turns": "4"}, "`turns` must be a whole number"),
        ({"cost": -1}, "`cost` must be finite and 0 or more"),
        ({"cost": "0"}, "`cost` must be a number"),
        ({"explain": 1}, "`explain` must be true or false"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        WordList(**options)  # type: ignore[arg-type]
