"""The worksheet's rules in words and two worked examples, for models that were not taught them.

Neutral, and the same for every seat and arm.
"""

from llm_sra.task import Message
from tasks.worksheet.sheet import CROSS_OUT, PASS, Sheet

_RULES = """\
Two writers add up the numbers of one problem on one sheet, a line at a time, {turns} lines in all. The first line \
adds the first two numbers; each later line adds the next number to the last sum. Both get 1 point if at the end all \
lines up to the total stand there in this order{last}. A line costs its writer {cost:g} points; pass costs nothing. \
{spoilt}Answer with the next line, written like 4+3=7, or with pass{or_cross_out}."""
_LAST = ", and the last line that is a sum gives the total"

_SPOILT = f"{CROSS_OUT} crosses out the sheet: it costs its writer {{price:g}} points, and nobody gets the point. "


def told(*, turns: int, cost: float, last_word: bool, spoil_price: float | None = None) -> tuple[Message, ...]:
    """Rules as system text; then two sheets, each with a right reply: its next line, and `pass`."""
    spoilt = "" if spoil_price is None else _SPOILT.format(price=spoil_price)
    or_cross_out = "" if spoil_price is None else f" or {CROSS_OUT}"
    text = _RULES.format(
        turns=turns, cost=cost, last=_LAST if last_word else "", spoilt=spoilt, or_cross_out=or_cross_out
    )
    sheet, done = Sheet((6, 1, 4)), Sheet((2, 7, 3), ("2+7=9",))
    return (
        Message("system", text),
        Message("user", sheet.text),
        Message("assistant", sheet.next_line),
        Message("user", done.text),
        Message("assistant", PASS),
    )
