"""The one reading of answers, for references, rewards and metrics alike: `#### number`.

It does not know what the right answer is, and does no arithmetic: `#### 6*7` is no answer.
"""

import re
from decimal import Decimal

# Written so that no text takes more than linear time: what stands before the number is told apart afterwards.
_MARK = re.compile(r"(?<!#)####([ \t$+-]*)([0-9.][0-9.,]*)")
_BEFORE = re.compile(r"[+-]?\$?|\$[+-]")
_NUMBER = re.compile(r"(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:\.[0-9]+)?")


def final_answer(text: str) -> Decimal | None:
    """The number of the last `#### number` in a text; None if there is none.

    Between the hashes, which are four, and the number may stand blanks, a sign and a dollar sign. Commas must part
    thousands; a comma or point after the number is not part of it. What else follows (a unit) is left aside.

    Args:
        text: Untrusted; of any length.

    Returns:
        The exact decimal value, so that `42`, `42.0` and `$42.` are equal.
    """
    for match in reversed(list(_MARK.finditer(text))):
        before = "".join(match[1].split())
        digits = match[2].rstrip(".,")
        if digits and _BEFORE.fullmatch(before) and _NUMBER.fullmatch(digits):
            return Decimal(before.replace("$", "") + digits.replace(",", ""))
    return None
