"""A scripted partner of your own, and an evaluation with a roster that names it.

    python examples/own_partner.py runs/quickstart/srpo

`examples/own_roster.yaml` names the classes below as `own_partner.py:Echo`; paths in a roster are relative to it.
"""

import random
import sys
from pathlib import Path

import llm_sra


class Echo:
    """Writes the line that its partner wrote last: it looks busy, and never helps.

    A partner is any class with this `reply`. It is made once, without arguments, and asked at every turn of every
    episode, so it keeps no memory: all that it may know is what its seat sees, and chance comes from `rng` alone.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """What to say next.

        Args:
            messages: The chat as this seat sees it, its own replies as `assistant`.
            rng: Seeded for this turn.
        """
        last = messages[-1]["content"].split("\n")[-1]  # on the worksheet a line of the partner, or the problem
        return "pass" if last.startswith("Q: ") else last


class Moody:
    """Half of the time as `Echo`, else `pass`."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """What to say next; see `Echo.reply`."""
        return Echo().reply(messages, rng) if rng.random() < 0.5 else "pass"


def main() -> None:
    """Play a run's agents with the roster's partners, and print how often each pair solves the sheet."""
    run = sys.argv[1]
    roster = Path(__file__).parent / "own_roster.yaml"
    out = Path(run) / "own_partner"
    for record in llm_sra.evaluate([run], roster, out, problems=32, trust_scripts=True):  # the file is ours
        if record.decoding == "sampled":
            print(f"{record.seat:6} with {record.partner:9}  solved {record.solve_rate:.2f}")


if __name__ == "__main__":
    main()
