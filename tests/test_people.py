"""What people said at the table: kept with their consent alone, read again, and replayed by partners."""

import io
import json
import random
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from partners_support import APPLE, PEAR, roster
from support import Says, Toy, make_run

from llm_sra import evaluate
from llm_sra.episodes import EpisodeRecord
from llm_sra.episodes.people import PeopleFile, chosen_name, read_people
from llm_sra.files import WriteError, read_json_lines
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import RosterError, read_roster
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Replayed, Scripted, UnavailableError
from llm_sra.runs import Run
from llm_sra.task import Episode, Message, Problem, Task
from recipes.cli import main
from tasks.worksheet import Worksheet

pytestmark = pytest.mark.usefixtures("quick")
RNG = random.Random(0)


class Reads:
    """Says these things in turn."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return self._texts.pop(0)


def played(left: Sequence[str], right: Sequence[str], problem: Problem = APPLE, task: Task | None = None) -> Episode:
    match = Match("m", {"left": Scripted("agent", Reads(*left)), "right": Scripted("anna", Reads(*right))})
    [episode] = play(task or Toy(turns=4), [EpisodeSpec(problem, match)], {}, seed=0)
    return episode


def keep(path: Path, *episodes: Episode, name: str = "Anna", task: str = "Toy") -> Path:
    file = PeopleFile(path, task)
    for episode in episodes:
        file.append(episode, {"right": name})
    file.close()
    return path


def replay(path: Path, left: str, problem: Problem = APPLE, turns: int = 4, seat: str = "right") -> list[str]:
    """What the replayed partner says to a partner that always says the same."""
    other = "left" if seat == "right" else "right"
    match = Match("m", {seat: Replayed("old", path, "Toy"), other: Scripted("x", Says(left))})
    [episode] = play(Toy(turns=turns), [EpisodeSpec(problem, match)], {}, seed=0)
    return [turn.reply.text for turn in episode.turns_of(seat)]


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_kept_episode_is_an_episode_with_what_each_person_saw(tmp_path: Path) -> None:
    path = keep(tmp_path / "people.jsonl", played(["hm", "ho"], ["ah", "apple"]))
    [(_, line)] = read_json_lines(path)
    assert line is not None
    record = EpisodeRecord.read(line)
    assert record.policies == {"left": "agent", "right": "Anna"} and record.solved
    assert [turn.text for turn in record.turns] == ["hm", "ah", "ho", "apple"]
    assert set(line) == {
        "problem", "match", "index", "policies", "turns", "rewards", "returns", "solved", "effort", "metrics",
        "task", "people", "seen",
    }  # fmt: skip
    assert (line["task"], line["people"]) == ("Toy", {"right": "Anna"})
    [one] = read_people(path)
    assert [(number, turn.text, view) for number, turn, view in one.turns()] == [
        (0, "ah", (Message("user", "word: apple\nhm"),)),
        (1, "apple", (Message("user", "word: apple\nhm"), Message("assistant", "ah"), Message("user", "ho"))),
    ]
    assert list(one.turns("Bob")) == []


def test_episodes_are_appended_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    for said in ("ah", "oh"):
        keep(path, played(["hm", "hm"], [said, said]))
    assert [turn.text for one in read_people(path) for _, turn, _ in one.turns()] == ["ah", "ah", "oh", "oh"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_changed_or_was_cut_off_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = keep(tmp_path / "people.jsonl", *(played(["hm", "hm"], [said, said]) for said in ("ah", "oh", "uh")))
    first, second, third = path.read_text().splitlines()
    path.write_text(f"{first}\n{second.replace('oh', 'eh')}\n{third[:-9]}")  # a kill cut the last one off
    keep(path, played(["hm", "hm"], ["eh", "eh"]))
    assert [next(one.turns())[1].text for one in read_people(path)] == ["ah", "eh"]
    assert f"{path}: line 2 is cut off, or changed on the disk, and passed over" in caplog.text


def test_a_file_that_holds_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n")
    with pytest.raises(ValueError, match=r"notes\.md, line 1: it is no episode of a person"):
        PeopleFile(tmp_path / "notes.md", "Toy")
    path = keep(tmp_path / "people.jsonl", played(["hm", "hm"], ["ah", "oh"]))
    with pytest.raises(ValueError, match="holds episodes of Toy, expected Worksheet: name another file or task"):
        PeopleFile(path, "Worksheet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"people": 3}, "people is 3: expected an object"),
        ({"people": {"right": 3}}, "people is 3: expected text"),
        ({"seen": []}, "`seen` holds 0 views, but people spoke 2 times"),
        ({"seen": [[{"role": "root", "content": ""}], []]}, "`seen` names the role 'root'"),
        ({"seen": [["a"], []]}, "`seen` holds no messages"),
        ({"turns": 1}, "a line holds no episode"),
    ],
)
def test_a_line_that_holds_something_else_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = keep(tmp_path / "people.jsonl", played(["hm", "hm"], ["ah", "oh"]))
    line = json.loads(path.read_text())
    del line["crc32"]
    path.write_text(json.dumps({**line, **change}))
    with pytest.raises(ValueError, match=f"line 1: {message}"):
        read_people(path)


@pytest.mark.parametrize("place", ["no/people.jsonl", "."])
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    with pytest.raises(WriteError, match="cannot write the episodes of people to"):
        PeopleFile(tmp_path / place, "Toy")


def test_names_are_short_and_can_be_seen() -> None:
    assert chosen_name("  Anna  B. ") == "Anna B."
    for text in ("", "  ", "a" * 41, "a\x1b[2J", "a\u202eb"):
        with pytest.raises(ValueError, match="a name has 1 to 40 visible characters"):
            chosen_name(text)


# -- partners that replay them -----------------------------------------------------------------------------------------


def test_the_same_is_said_in_the_same_situation_or_at_the_same_turn(tmp_path: Path) -> None:
    # The person answered "1" with "one" at the second turn of the first episode, and with "uno" in the second one.
    path = keep(tmp_path / "p", played(["0", "1"], ["zero", "one"]), played(["1", "1"], ["eins", "uno"]))
    assert replay(path, "1") == ["eins", "uno"]  # both as they were
    path = keep(tmp_path / "q", played(["0", "1"], ["zero", "one"]))
    assert replay(path, "other") == ["zero", "one"]  # by turn
    assert replay(path, "other", turns=8) == ["zero", "one", "one", "one"]  # the last one again
    assert replay(path, "other", seat="left") == ["zero", "one"]  # in a seat that nobody had


def test_a_view_that_shows_no_history_is_no_hindrance(tmp_path: Path) -> None:
    path = keep(tmp_path / "p", played(["0", "1"], ["zero", "one"], task=Toy(turns=4, window=1)))
    match = Match("m", {"left": Scripted("x", Says("other")), "right": Replayed("old", path, "Toy")})
    [episode] = play(Toy(turns=4, window=1), [EpisodeSpec(APPLE, match)], {}, seed=0)
    assert [turn.reply.text for turn in episode.turns_of("right")] == ["zero", "one"]


def test_of_several_replies_one_is_drawn_by_the_turns_seed(tmp_path: Path) -> None:
    path = keep(tmp_path / "p", *(played(["0", "0"], [said, said]) for said in ("a", "b", "c")))
    policy = Replayed("old", path, "Toy")
    view = (Message("user", "word: apple"), Message("user", "0"))
    drawn = [policy.reply(view, random.Random(seed)) for seed in range(30)]
    assert set(drawn) == {"a", "b", "c"} and drawn == [policy.reply(view, random.Random(seed)) for seed in range(30)]


def test_what_cannot_be_replayed_is_a_reason(tmp_path: Path) -> None:
    path = keep(tmp_path / "p", played(["0", "1"], ["zero", "one"]))
    with pytest.raises(UnavailableError, match=r"nobody in .* played problem 'pear'; 1 others .* by the same --split"):
        replay(path, "0", PEAR)
    with pytest.raises(UnavailableError, match="holds episodes of Toy, expected Worksheet"):
        Replayed("old", path, "Worksheet")
    with pytest.raises(UnavailableError, match="nothing that 'Bob' said; there are: Anna"):
        Replayed("old", path, "Toy", "Bob")
    with pytest.raises(UnavailableError, match="cannot read"):
        Replayed("old", tmp_path / "none", "Toy")
    (tmp_path / "replies").write_text('{"question": "a", "reply": "b"}\n')
    with pytest.raises(UnavailableError, match=r"line 1: it holds no episode of a person.*needs `field`"):
        Replayed("old", tmp_path / "replies", "Toy")
    (tmp_path / "empty").write_text("")
    with pytest.raises(UnavailableError, match="holds no episode"):
        Replayed("old", tmp_path / "empty", "Toy")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("field: a, who: b", "`field` is of a file of replies, `who` of people's episodes"),
        ("key: q", "`key` goes with `field`"),
        ("who: 3", "`who` must be text"),
    ],
)
def test_a_roster_names_a_file_of_replies_or_of_people(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(RosterError, match=message):
        read_roster(roster(tmp_path, f"name: old, kind: recorded, policy: p, {entry}"))


def test_partners_are_told_apart_by_what_was_said(tmp_path: Path) -> None:
    for file, said in (("p", "a"), ("q", "a"), ("r", "b")):
        keep(tmp_path / file, played(["0", "0"], [said, said]))
    loader = PolicyLoader(Toy())
    one, same, other = (loader.identity(Replayed(file, tmp_path / file, "Toy")) for file in ("p", "q", "r"))
    assert one == same != other


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture
def told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Plays with what is typed; returns the exit code and what is shown."""

    def command(typed: Sequence[str], *flags: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed)))
        code = main(["play", "--run", str(run.path), "--problems", "1", *(flags or ("--partner", "human"))])
        shown = capsys.readouterr()
        return code, " ".join(f"{shown.out} {shown.err}".split())

    return command


def sums() -> list[str]:
    """What a person in the second seat types to solve the first problem of the test split."""
    [problem] = Worksheet().problems("test", 1)
    a, b, c = problem.data["numbers"]
    return [f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}", "pass"]


def test_play_keeps_what_a_person_says_and_an_evaluation_replays_it(run: Run, told: Any, tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    human = ("--partner", "human", "--keep", str(path))
    code, shown = told(["perhaps", "yes", "", "Anna", *sums()], *human)
    assert code == 0 and f"May {path} keep this?" in shown and f"Kept in {path}, as Anna." in shown
    assert shown.count("yes or no>") == 2 and "a name has 1 to 40 visible characters" in shown
    assert "second (Anna)" in shown
    [one] = read_people(path)
    assert (one.task, one.people, one.record.solved) == ("Worksheet", {"second": "Anna"}, True)
    text = roster(tmp_path, "name: person, kind: recorded, policy: people.jsonl, who: Anna")
    records = evaluate([run], text, tmp_path / "eval", problems=1, decodings=["sampled"], disable_tqdm=True)
    met = {record.seat: record.solve_rate for record in records if record.partner == "person"}
    assert set(met) == {"first", "second"} and met["first"] == 1.0


def test_without_consent_there_is_no_file(told: Any, tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    code, shown = told(["no", *sums()], "--partner", "human", "--keep", str(path))
    assert code == 0 and "Nothing is kept." in shown and "second (human)" in shown
    assert not path.exists()
    code, shown = told([], "--partner", "human", "--keep", str(path))
    assert code == 130 and not path.exists()


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_played(told: Any, tmp_path: Path) -> None:
    code, shown = told(["yes", "Anna"], "--partner", "human", "--keep", str(tmp_path / "no" / "people.jsonl"))
    assert code == 2 and "WriteError: cannot write the episodes of people to" in shown and "yes or no>" not in shown


def test_there_is_nothing_to_keep_without_a_person(told: Any, tmp_path: Path) -> None:
    code, shown = told([], "--partner", "lazy", "--keep", str(tmp_path / "people.jsonl"))
    assert code == 2 and "--keep keeps what a person says: add --partner human" in shown
