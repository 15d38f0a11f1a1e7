"""The kitchen's rules in words, for models that were not taught them: neutral, and the same for every seat and arm."""

from tasks.kitchen.grid import MOVES, PLACES, POT, SIZE

_TEXT = """\
Two players carry onions to a pot on a grid of {size} x {size} cells. A cell is written x,y: x is 0 at the left and \
{last} at the right, y is 0 at the top and {last} at the bottom. up is y - 1, down is y + 1, left is x - 1, right is \
x + 1.
There are {steps} steps. At each, both players say one of {moves} at the same time.
Onions lie at {places}. A player with an empty hand takes the onion of the cell on which it stands; a hand holds one. \
An onion that was taken is there again with probability {onion_returns:g} at each step.
The pot at {pot} is solid: walking into it with an onion in the hand delivers the onion. Walls, the pot and the other \
player block a move.
Both players get {pickup:g} for each onion that is taken and {delivery:g} for each that is delivered, whoever did it. \
A move costs the player that makes it {move_cost:g}; staying costs nothing. Walking into the other player costs \
{collision_cost:g} more.
Answer with one word. Two examples of a reply: left; stay. This is what you see:"""


def rules(
    *, steps: int, pickup: float, delivery: float, move_cost: float, collision_cost: float, onion_returns: float
) -> str:
    """The rules as a text without a blank line; the numbers are those of the task's options."""
    return _TEXT.format(
        size=SIZE,
        last=SIZE - 1,
        moves=", ".join(MOVES),
        places=" and ".join(f"{x},{y}" for x, y in PLACES),
        pot=f"{POT[0]},{POT[1]}",
        steps=steps,
        pickup=pickup,
        delivery=delivery,
        move_cost=move_cost,
        collision_cost=collision_cost,
        onion_returns=onion_returns,
    )
