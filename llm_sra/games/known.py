"""Text-book games, payoffs in units of the reward.

Sources: effort, SRPO (arXiv 2602.21515); the others, Osborne, *An Introduction to Game Theory* (2004), chapters 2 and
4, and for inspection Avenhaus, von Stengel and Zamir, *Inspection Games* (2002). What their equilibria are, by hand,
is in the tests.
"""

from llm_sra.games.game import MatrixGame, two_player

REST, WORK = 0, 1  # of the effort game


def effort(benefit: float = 1.0, cost: float = 0.3) -> MatrixGame:
    """Both get the benefit if anyone works; whoever works pays the cost. One that only benefits free-rides."""
    first = [[0.0, benefit], [benefit - cost, benefit - cost]]
    second = [[0.0, benefit - cost], [benefit, benefit - cost]]
    return two_player("effort", first, second, (("rest", "work"), ("rest", "work")))


def spoil(benefit: float = 1.0, cost: float = 0.3, price: float = 0.5) -> MatrixGame:
    """The effort game in which a player may also spoil: then nobody gets the benefit, and the spoiler pays a price.

    Args:
        benefit: Both get it if anyone works and nobody spoils.
        cost: What working costs.
        price: What spoiling costs: above `cost`, no player who wants to earn anything spoils.
    """
    worker = benefit - cost
    first = [[0.0, 0.0, benefit], [-price, -price, -price], [worker, -cost, worker]]
    names = ("rest", "spoil", "work")
    return two_player("spoil", first, [list(column) for column in zip(*first, strict=True)], (names, names))


def stag_hunt() -> MatrixGame:
    """Catching the stag takes both hunters; a hare is safe."""
    names = ("hare", "stag")
    return two_player("stag hunt", [[3, 3], [0, 4]], [[3, 0], [3, 4]], (names, names))


def matching_pennies() -> MatrixGame:
    """The first player wins if both show the same side, the second if they differ."""
    names = ("heads", "tails")
    return two_player("matching pennies", [[1, -1], [-1, 1]], [[-1, 1], [1, -1]], (names, names))


def inspection(wage: float = 3.0, work: float = 1.0, inspect: float = 0.5, output: float = 4.0) -> MatrixGame:
    """A worker shirks or works; an employer trusts or inspects, and pays no wage to a worker found shirking.

    Args:
        wage: Paid by the employer.
        work: What working costs the worker; below the wage.
        inspect: What inspecting costs the employer; below the wage.
        output: What the employer gains if the worker works.
    """
    first = [[wage, 0], [wage - work, wage - work]]
    second = [[-wage, -inspect], [output - wage, output - wage - inspect]]
    return two_player("inspection", first, second, (("shirk", "work"), ("trust", "inspect")))


def pure_coordination(actions: int = 2) -> MatrixGame:
    """Both get 1 if they choose the same action, else 0."""
    names = tuple(str(action) for action in range(actions))
    same = [[float(row == column) for column in range(actions)] for row in range(actions)]
    return two_player("pure coordination", same, same, (names, names))


def chicken() -> MatrixGame:
    """A player that swerves alone loses a little; if neither swerves, both lose more."""
    names = ("straight", "swerve")
    return two_player("chicken", [[-10, 1], [-1, 0]], [[-10, -1], [1, 0]], (names, names))


def battle_of_the_sexes() -> MatrixGame:
    """Both want to meet, but each prefers another place."""
    names = ("ballet", "boxing")
    return two_player("battle of the sexes", [[2, 0], [0, 1]], [[1, 0], [0, 2]], (names, names))


def prisoners_dilemma() -> MatrixGame:
    """Defection is better whatever the other does, but mutual cooperation is better for both than mutual defection."""
    names = ("defect", "cooperate")
    return two_player("prisoner's dilemma", [[1, 3], [0, 2]], [[1, 0], [3, 2]], (names, names))


def rock_paper_scissors() -> MatrixGame:
    """The winner gets 1 from the loser."""
    names = ("rock", "paper", "scissors")
    first = [[0, -1, 1], [1, 0, -1], [-1, 1, 0]]
    return two_player("rock paper scissors", first, [[-number for number in row] for row in first], (names, names))


KNOWN = {
    game.name: game
    for game in (
        effort(), spoil(), stag_hunt(), matching_pennies(), inspection(), pure_coordination(), chicken(),
        battle_of_the_sexes(), prisoners_dilemma(), rock_paper_scissors(),
    )
}  # fmt: skip

# Games in which the team succeeds in other cells than those that pay both together most: (A, B), 1 where it does.
SUCCESS = {
    "effort": [[0, 1], [1, 1]],  # anyone works; that both do costs more and earns no more
    "spoil": [[0, 0, 1], [0, 0, 0], [1, 0, 1]],  # and nobody spoils
}
