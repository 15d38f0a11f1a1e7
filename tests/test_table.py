"""`llm-sra table`: what its pages show and take, by plain HTTP; and what they do not take."""

import html
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from partners_support import APPLE, PEAR, roster
from report_support import Tags
from support import Says, Toy, make_run
from table_support import Visitor, served

from llm_sra.episodes.people import PeopleFile, read_people
from llm_sra.policies import Scripted
from llm_sra.registry import task_class
from llm_sra.task import Episode
from recipes.cli import main
from recipes.commands.table import _known, _openings, _told
from recipes.table.game import Game
from recipes.table.server import ESCAPED, ROOM

EXTRAS = {"tag": "mpe2", "openspiel": "pyspiel"}
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[2J"


def with_agent(text: str = "hm", **task: Any) -> Game:
    """A person in the left seat, a script in the right one."""
    return Game(Toy(**task), [APPLE, PEAR], {"right": Scripted("agent", Says(text))})


# -- the game ----------------------------------------------------------------------------------------------------------


def test_a_person_plays_with_an_agent_and_sees_the_scores_by_seat() -> None:
    game = with_agent()
    with served(game) as (_, people, playing):
        left = people["left"]
        page = left.until("asked")
        assert "You are left" in page.text and "Problem 1 of 2" in page.text and "word: apple" in page.text
        assert "Say the word." in page.text and "For example: <code>hm</code>" in page.text
        assert 'id="scores"' not in page.text and "&lt;div" not in page.text
        left.say("ah")
        assert "Earlier in this problem (2)" in left.until("asked").text  # the word, own reply, and what follows them
        left.say("apple")
        page = left.until("ended")
        assert [cell.strip() for cell in re.findall(r"<td[^>]*>([^<]*)</td>", page.text)] == [
            "1",
            "yes",
            "+0.50",
            "+0.50",
        ]
        assert "right (agent)" in page.text
        left.go_on()
        left.say("a\r\nb")
        left.say("c")
        page = left.until("over")
        assert re.findall(r'<t[dh] class="number">([+-]\S+?)<', page.text)[-2:] == ["+0.00", "+0.00"]
        playing.join(10)
        assert not playing.is_alive()
        texts = [[turn.reply.text for turn in episode.turns_of("left")] for episode in game.scene("left").played]
        assert texts == [["ah", "apple"], ["a\nb", "c"]]


def test_two_people_take_turns_and_each_sees_only_their_own_page() -> None:
    with served(Game(Toy(turns=2), [APPLE, PEAR])) as (server, people, _):
        left, right = people["left"], people["right"]
        assert left.path != right.path and len(left.path) > 30
        left.until("asked")
        assert right.ask().phase == "waiting" and 'http-equiv="refresh"' in right.ask().text
        left.say("the secret")
        assert left.ask().phase == "waiting" and "the secret" in left.ask().text
        assert "You are right" in right.until("asked").text
        right.say("apple")
        left.go_on()
        assert left.ask().phase == "waiting" and right.until("ended")  # the other one still reads
        right.go_on()
        assert "Problem 2 of 2" in left.until("asked").text
        assert server.server_address[0] == "127.0.0.1"


def test_people_who_speak_at_once_are_asked_at_once() -> None:
    with served(Game(Toy(turns=4, together=True), [APPLE])) as (_, people, _):
        left, right = people["left"], people["right"]
        assert left.until("asked") and right.until("asked")
        right.say("from right")
        assert "from right" not in left.until("asked").text
        left.say("from left")
        assert "from right" in left.until("asked").text and "from left" in right.until("asked").text


def test_an_answer_counts_once_and_to_the_question_that_it_names() -> None:
    game = with_agent()
    with served(game) as (_, people, _):
        left = people["left"]
        number = left.until("asked").number
        for text in ("one", "two", "three"):  # a double click, and a page from before
            assert left.post({"do": "say", "number": number, "text": text}).status == 303
            left.until("asked")
        left.post({"do": "say", "number": left.until("asked").number, "text": "  "})
        assert left.until("asked").number == "2"
        left.say("four")
        left.until("ended")
        left.post({"do": "next", "number": 2})
        assert left.until("ended")
        assert [turn.reply.text for turn in game.scene("left").played[0].turns_of("left")] == ["one", "four"]


def test_choices_are_buttons_and_nothing_else_is_taken() -> None:
    class Chooses(Toy):
        choices = ("rest", "work")

    with served(Game(Chooses(turns=2), [APPLE], {"right": Scripted("agent", Says("hm"))})) as (_, people, _):
        left = people["left"]
        page = left.until("asked")
        assert re.findall(r'<button name="text" value="(\w+)"', page.text) == ["rest", "work"]
        assert "<textarea" not in page.text
        left.say("sleep")
        assert left.until("asked").number == page.number
        left.say("work")
        assert left.until("over")


# -- consent -----------------------------------------------------------------------------------------------------------


def answered(tmp_path: Path, left: Mapping[str, str], right: Mapping[str, str]) -> Path:
    """The file after one episode of two people who gave these answers."""
    path = tmp_path / "people.jsonl"
    file = PeopleFile(path, "Toy")
    with served(Game(Toy(turns=2), [APPLE], keep=file.append)) as (_, people, playing):
        assert "FILE would hold all." in people["left"].until("consent").text
        people["left"].post(left)
        assert people["left"].ask().phase == "waiting"
        people["right"].post(right)
        people["left"].say("hm")
        people["right"].say("apple")
        people["left"].until("over")
        playing.join(10)
    return path


def test_what_is_said_is_kept_if_all_agree(tmp_path: Path) -> None:
    path = answered(tmp_path, {"do": "agree", "name": "Anna"}, {"do": "agree", "name": "Bob"})
    [one] = read_people(path)
    assert one.people == {"left": "Anna", "right": "Bob"} == one.record.policies
    assert [turn.text for _, turn, _ in one.turns()] == ["hm", "apple"]


def test_nothing_is_kept_if_one_does_not_agree(tmp_path: Path) -> None:
    assert not answered(tmp_path, {"do": "agree", "name": "Anna"}, {"do": "refuse"}).exists()


def test_a_name_that_cannot_be_shown_is_asked_for_again(tmp_path: Path) -> None:
    kept: list[Episode] = []
    with served(
        Game(Toy(), [APPLE], {"right": Scripted("a", Says("hm"))}, keep=lambda e, _: kept.append(e))
    ) as served_:
        left = served_[1]["left"]
        left.until("consent")
        answer = left.post({"do": "agree", "name": "a\u202eb"})
        assert answer.status == 400 and "a name has 1 to 40 visible characters, got 'a\\u202eb'" in answer.text
        assert left.ask().phase == "consent"


# -- what is not taken -------------------------------------------------------------------------------------------------


@pytest.fixture
def left() -> Any:
    with served(with_agent(HOSTILE)) as (_, people, _):
        people["left"].until("asked")
        yield people["left"]


def test_the_page_runs_nothing_loads_nothing_and_is_not_stored(left: Visitor) -> None:
    headers = left.ask().headers
    policy = headers["Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'nonce-[\w-]{22}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        policy,
    )
    assert policy != left.ask().headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin" and headers["X-Frame-Options"] == "DENY"
    page = Tags(left.ask().text)
    assert not {"script", "img", "iframe", "link", "object"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_hostile_text_is_text(left: Visitor) -> None:
    left.say(HOSTILE)
    left.say(HOSTILE)
    text = left.until("ended").text
    page = Tags(text)
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    assert page.text.count(shown) == 4 and html.escape("<script>") in text
    assert not {"script", "img"} & {tag for tag, _ in page.tags}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "[::1]:{port}", ""])
def test_another_name_of_this_machine_is_refused(left: Visitor, host: str) -> None:
    named = host.format(port=left.host.partition(":")[2])
    assert left.ask(Host=named).status == 421
    assert left.post({"do": "say", "number": 1, "text": "x"}, Host=named).status == 421
    assert left.ask(Host=f"localhost:{left.host.partition(':')[2]}").status == 200


@pytest.mark.parametrize("path", ["/", "/x/", "/favicon.ico", "/../{own}", "{own}x", "/%2e%2e{own}", "//", "/%C3%A9"])
def test_without_the_secret_there_is_no_page(left: Visitor, path: str) -> None:
    answer = left.ask(path=path.format(own=left.path))
    assert answer.status == 404 and left.path not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/json"}, 415),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "9" * 30}, 411),
        ({"Content_Length": str(ESCAPED * 200 + ROOM + 1)}, 413),
    ],
)
def test_replies_of_other_pages_and_other_kinds_are_refused(
    left: Visitor, headers: dict[str, str], status: int
) -> None:
    number = left.until("asked").number
    assert left.post({"do": "say", "number": number, "text": "x"}, **headers).status == status
    assert left.until("asked").number == number


@pytest.mark.parametrize(
    "form", [{"do": "say", "number": "x", "text": "x"}, {"do": "leave"}, {}, {str(i): "x" for i in range(20)}]
)
def test_a_form_that_is_not_the_pages_is_refused(left: Visitor, form: dict[str, str]) -> None:
    assert left.post(form).status == 400
    assert left.until("asked")


def test_other_methods_are_refused_and_a_request_that_stalls_hinders_nobody(left: Visitor) -> None:
    assert left.ask("PUT", None, "x").status == 501
    host, _, port = left.host.partition(":")
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(b"GET / HTTP/1.1\r\n")
        assert left.ask().status == 200


# -- the command -------------------------------------------------------------------------------------------------------


def opened(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[Thread, dict[str, Visitor]]:
    """The command in a thread, and the people of the addresses that it prints."""
    command = Thread(target=main, args=[["table", *flags]], daemon=True)
    command.start()
    shown, end = "", time.monotonic() + 60
    while "Ctrl-C" not in shown and command.is_alive() and time.monotonic() < end:
        shown += capsys.readouterr().out
        time.sleep(0.05)
    found = re.findall(r"^(\w+) opens (http://127\.0\.0\.1:\d+/\S+)$", shown, re.MULTILINE)
    return command, {seat: Visitor(address) for seat, address in found}


def test_a_person_plays_with_a_runs_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, kept = make_run(tmp_path / "run"), tmp_path / "people.jsonl"
    command, people = opened(capsys, "--run", str(run.path), "--problems", "1", "--keep", str(kept))
    [(seat, person)] = people.items()
    assert seat == "second"
    assert html.escape(str(kept)) in person.until("consent").text and not kept.exists()
    person.post({"do": "agree", "name": "Anna"})
    for _ in range(3):
        assert "Two writers add up the numbers" in person.until("asked").text
        person.say("pass")
    person.until("over")
    command.join(20)
    assert not command.is_alive()
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 of 1 solved; returns: first -0.30, second +0.00" in shown
    [one] = read_people(kept)
    assert one.people == {"second": "Anna"} and one.record.policies["first"] == "first"


def test_two_people_play_a_task_or_one_with_a_scripted_partner(capsys: pytest.CaptureFixture[str]) -> None:
    _, people = opened(capsys, "--task", "hanabi", "--problems", "1")
    assert list(people) == ["first", "second", "third", "fourth"]
    assert "A game of Hanabi with 3 colours" in people["first"].until("asked").text
    _, people = opened(capsys, "--task", "effort", "--partner", "last_action", "--seat", "second")
    assert list(people) == ["first"] and 'value="work"' in people["first"].until("asked").text


def test_a_rosters_partner_of_any_kind_has_a_seat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = roster(tmp_path, "name: mute, kind: perturbed, how: say, text: pass, of: {kind: scripted, policy: diligent}")
    _, people = opened(capsys, "--task", "worksheet", "--roster", str(path), "--partner", "mute", "--problems", "1")
    assert "pass" in people["second"].until("asked").text.partition("Your reply")[0]


@pytest.mark.parametrize("name", ["worksheet", "wordlist", "kitchen", "hanabi", "effort", "tag", "openspiel"])
def test_the_rules_are_those_that_a_model_is_told_before_the_problem(name: str) -> None:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    cls = task_class(name)
    plain, whole = (cls(**_known(cls, {"explain": explain})) for explain in (False, True))
    [problem] = plain.problems("test", 1)
    told = _told(plain, whole, problem, plain.seats, None)
    openings = _openings(plain, problem)
    assert set(told.rules) == set(plain.seats) and told.about
    for seat, rules in told.rules.items():
        assert len(rules[0].content) > 100
        assert openings[seat][-1].content not in rules[-1].content


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "name what is played: either --run RUN, or --task TASK"),
        (("--run", "x", "--task", "y"), "name what is played"),
        (("--run", "x", "--partner", "lazy"), "--partner goes with --task"),
        (("--task", "worksheet", "--greedy"), "--greedy goes with --run"),
        (("--task", "worksheet", "--roster", "worksheet_test"), "--roster has the partner: name one by --partner"),
        (("--task", "worksheet", "--trust_scripts"), "--trust_scripts is for the scripts of a --roster"),
        (("--task", "worksheet", "--trust_remote_code"), "--trust_remote_code is for the model of a --run"),
        (("--task", "worksheet", "--roster", "worksheet_test", "--partner", "lasy"), "did you mean 'lazy'"),
        (("--task", "worksheet", "--seat", "first"), "--seat is the seat of an agent or partner"),
        (("--task", "worksheet", "--partner", "lazy", "--seat", "third"), "unknown seat 'third'"),
        (("--task", "worksheet", "--partner", "lasy"), "did you mean 'lazy'"),
        (("--task", "worksheet", "--problems", "0"), "--problems must be 1 or more"),
        (("--task", "worksheet", "--port", "70000"), "--port must be 0 to 65535"),
        (
            ("--task", "worksheet", "--keep", "/no/such/folder/x"),
            "cannot write the episodes of people to /no/such/folder",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["table", "--task", "worksheet", "--port", str(port)]) == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use; name another --port" in capsys.readouterr().err
