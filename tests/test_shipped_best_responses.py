"""Best responses that ship beside test rosters: found, whole, of the partners that the rosters name now, and exact."""

import random
from itertools import product
from pathlib import Path

import pytest
import yaml

from benchmarks import best_responses as page
from benchmarks.best_responses import can_be_earned, of_effort, of_worksheet, shipped
from eval.proximity import Known
from llm_sra.evaluation.best_responses import find_best_responses, usable
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import find_roster, load_task
from tasks.worksheet import Worksheet
from tasks.worksheet.partners import PARTNERS
from tasks.worksheet.sheet import PASS, Sheet

MODELS = {"effort_test": "effort/player"}  # of the rosters that ship with best responses, who learned them
ROSTERS = tuple(MODELS)
DECODINGS = ("greedy", "sampled")


@pytest.mark.parametrize("name", ROSTERS)
def test_a_roster_finds_a_best_response_to_each_of_its_partners_as_they_are_now(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_best_responses(name, None)
    assert found is not None and not found.unused
    entries, task = read_roster(name), load_task(found.task, dict(found.task_args))
    kept = usable(found, task, found.task, found.task_args, entries)
    assert kept.unused == {} and list(kept.partners) == [entry.name for entry in entries]
    assert not caplog.messages


def test_these_and_no_others_ship() -> None:
    assert tuple(shipped()) == ROSTERS


@pytest.mark.parametrize("name", ROSTERS)
def test_each_has_its_budget_and_what_it_earns_in_each_seat_and_decoding(name: str) -> None:
    found = shipped()[name]
    seats = load_task(found.task, dict(found.task_args)).seats
    # What `llm-sra eval` plays by default, so that both play the same problems.
    assert (found.problems, found.split, found.seed, len(found.ids)) == (64, "test", 0, 64)
    for made in found.partners.values():
        assert set(made.budget) == {"steps", "episodes", "seed", "model", "learning_rate", "entropy_coef"}
        assert made.budget["model"] == MODELS[name]
        assert made.budget["steps"] > 0 and made.budget["episodes"] >= 128 * made.budget["steps"]
        played = [(one.seat, one.decoding) for one in made.earned]
        assert sorted(played) == sorted(product(seats, DECODINGS))
        for one in made.earned:
            assert one.n == len(one.returns) == 64
            assert sum(one.returns) / 64 == pytest.approx(one.own_return, abs=1e-6)


def test_a_changed_partner_and_a_changed_name_are_stale_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = yaml.safe_load(find_roster("effort_test").read_text(encoding="utf-8"))["partners"]
    items[0]["policy"], items[1]["name"] = "random", "later"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"partners": items}), encoding="utf-8")
    kept = usable(shipped()["effort_test"], load_task("effort", {}), "effort", {}, read_roster(path))
    assert not kept.partners and kept.unused["later"] == "none was trained"
    assert "changed since it was trained" in kept.unused["first-action"]
    assert [message.split(":")[0] for message in caplog.messages] == ["best responses to first-action are not used"]


def test_those_of_other_options_are_stale(caplog: pytest.LogCaptureFixture) -> None:
    entries = read_roster("effort_test")
    options = {"game": "spoil"}
    kept = usable(shipped()["effort_test"], load_task("effort", options), "effort", options, entries)
    assert not kept.partners and "made for task effort with options {}" in caplog.text


@pytest.mark.parametrize("name", ROSTERS)
def test_no_partner_is_hopeless(name: str) -> None:
    found = shipped()[name]
    seats = load_task(found.task, dict(found.task_args)).seats
    for decoding in DECODINGS:
        assert not Known.of(found, list(found.partners), seats, decoding).hopeless.any()


@pytest.mark.parametrize("name", ROSTERS)
def test_none_earns_more_than_theory_allows(name: str) -> None:
    # Played 64 times: only with a partner that draws lots can chance add something.
    found = shipped()[name]
    for partner, made in found.partners.items():
        for one in made.earned:
            bounds = can_be_earned(found.task, partner, one.seat)
            assert bounds is not None and 0 < bounds[0] <= bounds[1] <= 1
            assert one.own_return <= bounds[1] + (0.05 if partner == "sloppy" else 1e-9)


def test_the_effort_games_best_responses_are_the_best_possible() -> None:
    for partner, made in shipped()["effort_test"].partners.items():
        assert {round(one.own_return, 9) for one in made.earned} == {of_effort(partner, "first")}


def test_the_effort_games_best_returns_are_rest_beside_a_worker_and_work_beside_one_who_rests() -> None:
    assert [of_effort(partner, seat) for partner in page.ACTIONS for seat in ("first", "second")] == [0.7, 0.7, 1, 1]


def test_the_page_has_the_table_as_it_is() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert f"{page.BEGIN}\n{page.table()}\n{page.END}" in text


@pytest.mark.parametrize(
    ("partner", "first", "second"),
    [
        ("diligent", 1, 1),
        ("lazy", 0.8, 0.8),  # two lines at 0.1 each
        ("saboteur", 0.8, 0.8),
        ("late", 0.9, 0.9),  # its one line and one's own
        # In the first seat, whose partner has the last word, one rests at first: with no line missing 1; before the
        # partner's last turn 0.9 (write) if one is missing, 0.6 if two; before its second 0.7 0.97 + 0.3 0.87 = 0.94.
        ("sloppy", 0.94, 0.9757),
    ],
)
def test_the_worksheets_best_returns(partner: str, first: float, second: float) -> None:
    assert of_worksheet(partner, "first") == pytest.approx(first)
    assert of_worksheet(partner, "second") == pytest.approx(second)


@pytest.mark.parametrize("partner", [name for name, chances in page.LINES.items() if {*chances} <= {0, 1}])
@pytest.mark.parametrize("seat", ["first", "second"])
def test_no_way_to_write_right_lines_earns_more_in_a_real_game(partner: str, seat: str) -> None:
    # Right lines or passes at three turns: eight ways to play against a partner that draws no lots.
    best = max(returned(partner, seat, writes) for writes in product((False, True), repeat=3))
    assert best == pytest.approx(of_worksheet(partner, seat))


def returned(partner: str, seat: str, writes: tuple[bool, ...]) -> float:
    """The return of an agent that writes the next right line at the turns that are said, else passes."""
    task, script, rng = Worksheet(), PARTNERS[partner](), random.Random(0)
    sheet, earned, mine = Sheet((3, 2, 5)), 0.0, iter(writes)
    while actors := task.actors(sheet):
        if actors == (seat,):
            reply = sheet.next_line if next(mine) else PASS
        else:
            reply = script.reply([message.as_dict() for message in task.view(sheet, actors[0])], rng)
        sheet, rewards = task.step(sheet, {actors[0]: reply}, rng)
        earned += rewards[seat].total
    return earned
