"""The game `spoil` and the worksheet that can be crossed out, over τ: what is solved with strangers, and theory."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import spoil, spoil_text
from benchmarks.spoil import Trained
from benchmarks.spoil_text import Played
from eval import plots
from llm_sra.games import RiskProfile, equilibria
from llm_sra.games.known import KNOWN
from tasks.effort import model
from tasks.starting_model import ROLES, byte_level_tokenizer

GIVING_UP = np.exp([0, -2.5, -1.5]) / np.exp([0, -2.5, -1.5]).sum()  # beside sure sabotage: (0, -0.5, -0.3) / ε


def test_no_arm_has_the_colour_of_a_way_to_play() -> None:
    assert set(plots.COLOURS).isdisjoint({*spoil.COLOURS, plots.EQUAL, plots.UNEQUAL})
    assert spoil_text.COLOURS == spoil.COLOURS and len(spoil.COLOURS) == len(spoil.CURVES)
    for picture, known in (("spoil.png", spoil.COLOURS), ("spoil-text.png", spoil.COLOURS)):
        drawn = colours_of(spoil.TASKS / picture)
        assert drawn >= set(known) and drawn.isdisjoint(plots.COLOURS[:6])  # text is black
    drawn = colours_of(spoil.ROOT / "benchmarks" / "games.png")
    assert drawn >= {plots.EQUAL, plots.UNEQUAL} and drawn.isdisjoint(plots.COLOURS[:6])


def colours_of(picture: Path) -> set[str]:
    """The colours of more than 100 pixels, as `#RRGGBB`."""
    pixels = (imread(picture)[..., :3] * 255).round().astype(int).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {"#{:02X}{:02X}{:02X}".format(*colour) for colour in found[counts > 100]}


def test_payoffs_are_those_of_effort_with_a_third_word() -> None:
    # rest, work, spoil
    first = np.array([[0, 1, 0], [0.7, 0.7, -0.3], [-0.5, -0.5, -0.5]])
    game = KNOWN["spoil"]
    order = [game.actions[0].index(word) for word in ("rest", "work", "spoil")]
    assert np.allclose(game.first[np.ix_(order, order)], first, atol=1e-15)
    assert game.symmetric


@pytest.mark.parametrize(
    ("tau", "work"), [(0, (0.891, 0.276)), (1, (0.652, 0.652)), (3, (0.709, 0.709)), (10, (0.379, 0.379))]
)
def test_stable_equilibria(tau: float, work: tuple[float, float]) -> None:
    found = {tuple(sorted((round(float(x[2]), 3) for x in each.policies), reverse=True)) for each in spoil.exact(tau)}
    assert found == {work}
    assert len(equilibria(KNOWN["spoil"], RiskProfile.same(tau, 0.2))) == (3 if tau == 0 else 1)


def test_without_a_tether_heroes_respond_to_sure_sabotage() -> None:
    (only,) = spoil.exact(math.inf)
    assert np.allclose(only.policies, [GIVING_UP, GIVING_UP])
    assert np.allclose(only.adversaries, [[0, 1, 0], [0, 1, 0]])
    almost = equilibria(KNOWN["spoil"], RiskProfile.same(1000, 0.2), spoil.STARTS)
    assert np.allclose([each.policies for each in almost], only.policies, atol=1e-6)


def test_solved_with_strangers() -> None:
    policy = np.array([0.2, 0.1, 0.7])
    assert spoil.solved(policy, policy) == pytest.approx(0.9**2 - 0.2**2)
    resting, working, spoiling = spoil.STRANGERS
    assert spoil.with_stranger([policy], resting) == pytest.approx(0.7)
    assert spoil.with_stranger([policy], working) == pytest.approx(0.9)
    assert spoil.with_stranger([policy, np.array([1.0, 0, 0])], spoiling) == pytest.approx(0.75 * (0.9 + 1) / 2)


def test_the_table_tells_how_far_off_the_trained_agents_are() -> None:
    policies = tuple(GIVING_UP + off for off in ([0.06, 0, -0.06], [0, 0, 0]))
    found = [Trained(math.inf, (policies[0], policies[1])), Trained(math.inf, (GIVING_UP, GIVING_UP))]
    row = spoil.table(found).splitlines()[-1]
    assert row.startswith("| no tether | 2 | 0.17 (0.17) | 0.17 (0.14) |")
    assert row.endswith("| 0.060 | 1 of 2 |")


def test_the_picture_is_small(tmp_path: Path) -> None:
    found = [Trained(tau, (GIVING_UP, GIVING_UP)) for tau in (0.0, 3.0, math.inf)]
    picture = spoil.draw(found, tmp_path / "spoil.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 100_000


def test_the_word_that_came_later_moved_no_token_of_the_model() -> None:
    tokenizer = model.tokenizer()
    assert tokenizer.convert_tokens_to_ids("spoil") == len(tokenizer) - 1
    assert tokenizer.encode("spoil") == [len(tokenizer) - 1]
    before = byte_level_tokenizer(["rest", "work", *ROLES])
    after = byte_level_tokenizer(["rest", "work", *ROLES], later=["spoil"])
    assert after.get_vocab().items() > before.get_vocab().items()
    assert len(after) == len(before) + 4  # sp, spo, spoi, spoil
    assert min(index for word, index in tokenizer.get_vocab().items() if word.startswith("sp") and word in "spoil") == (
        model.BEFORE
    )


# -- in text ---------------------------------------------------------------------------------------------------------


def pair(seed: int, tau: float, lazy: tuple[float, float], diligent: float = 1.0) -> Played:
    return Played(seed, tau, (1.8, 0.1), 0.9, {"lazy": lazy, "diligent": (diligent, diligent)}, "lazy")


def test_the_lazier_seat_is_the_one_that_solves_less_beside_the_partner_that_rests() -> None:
    played = pair(1, 0, (0.8, 0.1), 0.9)
    assert played.curves() == pytest.approx(
        {"with lazy": 0.45, "with diligent": 0.9, "with lazy, the lazier seat": 0.1}
    )
    assert played.strangers == pytest.approx((0.45 + 0.9) / 2)


def test_the_table_pairs_seeds_with_those_of_ippo() -> None:
    found = [pair(1, 0, (0.8, 0.0)), pair(2, 0, (0.4, 0.0)), pair(2, 10, (0.6, 0.6)), pair(1, 10, (0.8, 0.8))]
    found += [pair(3, math.inf, (0.0, 0.0))]  # no IPPO of its seed
    ippo, srpo, free = spoil_text.table(found).splitlines()[2:]
    assert ippo == "| ippo | 2 | 1.80 | 0.10 | 0.90 | 0.30 | 1.00 | 0.00 | 0.65 | - | 0.70, 0.60 |"
    assert (
        srpo
        == "| srpo, τ 10 | 2 | 1.80 | 0.10 | 0.90 | 0.70 | 1.00 | 0.70 | 0.85 | +0.20 [+0.20, +0.20] | 0.80, 0.90 |"
    )
    assert free == "| no tether | 1 | 1.80 | 0.10 | 0.90 | 0.00 | 1.00 | 0.00 | 0.50 | - | 0.50 |"


def test_the_picture_of_the_worksheet_is_small(tmp_path: Path) -> None:
    found = [pair(1, tau, (0.8, 0.1)) for tau in (0.0, 3.0, math.inf)]
    picture = spoil_text.draw(found, tmp_path / "spoil-text.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 100_000
