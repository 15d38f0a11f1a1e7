"""Tag's rules in words, for models that were not taught them: neutral, and the same for every seat and arm."""

from tasks.tag.world import MOVES

_TEXT = """\
Two chasers hunt one runner on a plane. The field reaches from {low} to {high} in x and in y and has no walls; x grows \
to the right, y grows upwards.
There are {steps} steps. At each, both chasers say one of {moves} at the same time; then all move. left, right, down \
and up push in that direction; stay does not push. What moves goes on by itself and loses a quarter of its speed at \
each step. The fastest that a chaser goes is {chaser}, the runner {runner}; at speed {chaser} the place changes by \
{step} in a step. Rocks are round and solid.
After each step both chasers get {touch:g} for each chaser that touches the runner then, whichever that is. A touch \
does not end the game. A push costs the chaser that makes it {move_cost:g}; stay costs nothing.
You see x and y of your own place and of your speed; then, seen from you, x and y of the other chaser; of the runner, \
and of its speed; and of the rocks. You touch the runner within {reach}.
Answer with one word. Two examples of a reply: left; stay. This is what you see:"""


def rules(*, steps: int, touch: float, move_cost: float, decimals: int) -> str:
    """The rules as a text without a blank line; the numbers are those of the task's options."""
    unit = 10**decimals
    return _TEXT.format(
        low=-unit,
        high=unit,
        steps=steps,
        moves=", ".join(MOVES),
        chaser=unit,
        runner=f"{1.3 * unit:g}",
        step=f"{0.1 * unit:g}",
        touch=touch,
        move_cost=move_cost,
        reach=f"{0.125 * unit:g}",
    )
