"""Plain numbers as people write them, in plain characters: 1,000 and 1.000,50, 1.8e3, 3 million. It knows no answers.

An ambiguous text is no number: `1,00` may be a list, a decimal or a 1,000 that was cut; `1.2.3` is not a number at all.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

LONGEST = 80  # characters of a number
CURRENCY = re.compile(
    r"(?<![A-Za-z])(?:US|AU|CA|NZ|HK|SG|[ACSR])?[$€£¥₹₩₽₱₦₫₪฿¢]"
    r"|(?<![A-Za-z])(?:USD|EUR|GBP|AUD|CAD|INR|Rs\.?|PHP|Php)[ \t]*(?=[-+]?[0-9.])"
)
_RUN = re.compile(r"[0-9.](?:[0-9.,'_]|(?<=[0-9]) (?=[0-9]{3}(?![0-9])))*")
_EXPONENT = re.compile(
    r"[eE]([+-]?[0-9]{1,2})(?![0-9A-Za-z.])"
    r"|[ \t]*[*x][ \t]*10[ \t]*(?:\^|\*\*)[ \t]*[({]?[ \t]*([+-]?[0-9]{1,2})[ \t]*[)}]?(?![0-9.])"
)
_SCALE = re.compile(r"[ \t]*-?(hundred|thousand|million|billion|trillion)(?![A-Za-z])", re.IGNORECASE)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "k": 3, "m": 6, "bn": 9, "b": 9}
_THOUSAND = re.compile(r"([kK])(?![A-Za-z])")
_OF_MONEY = re.compile(r"(k|m|bn|b)(?![A-Za-z])", re.IGNORECASE)

_ENGLISH = re.compile(r"(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})?(?:\.[0-9]*)?")
_GROUPED = re.compile(r"[0-9]{1,3}(?:([ '_])[0-9]{3})(?:\1[0-9]{3})*(?:[.,][0-9]+)?")
_POINTS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?|[0-9]{1,3}\.[0-9]{3},[0-9]{1,2}")
_DECIMAL_COMMA = re.compile(r"[0-9]+,[0-9]{1,2}|0,[0-9]+")


@dataclass(frozen=True)
class Numeral:
    """A number that a text begins with.

    Attributes:
        value: Its value; None for digits that are not a number.
        end: Index at which it ends.
    """

    value: Fraction | None
    end: int


def numeral(text: str, start: int = 0, money: bool = False, decimal_comma: bool = False) -> Numeral | None:
    """The unsigned number at a place.

    Args:
        text: Text in plain characters.
        start: Index at which the number begins.
        money: Whether a currency sign stands before it; then `3M` and `18,50` are numbers.
        decimal_comma: Whether a comma before one or two digits is always a decimal comma (`18,50`).

    Returns:
        The number, with its exponent and its word of scale; None if there is no digit, or a run of more than 80
        characters, which nobody means as a number.
    """
    match = _RUN.match(text, start)
    if match is None or not any("0" <= c <= "9" for c in match[0][: LONGEST + 1]) or len(match[0]) > LONGEST:
        return None
    run = match[0].rstrip(".,'_")
    end = start + len(run)
    value = _value(run, money or decimal_comma)
    if exponent := _EXPONENT.match(text, end):
        power = int(exponent[1] or exponent[2])
        return Numeral(None if value is None else value * Fraction(10) ** power, exponent.end())
    scale = _SCALE.match(text, end) or (_OF_MONEY if money else _THOUSAND).match(text, end)
    if scale:
        return Numeral(None if value is None else value * 10 ** _SCALES[scale[1].lower()], scale.end())
    return Numeral(value, end)


def too_long(text: str, start: int = 0) -> bool:
    """Whether a run of digits begins here that is too long for a number."""
    match = _RUN.match(text, start)
    return match is not None and len(match[0]) > LONGEST


def _value(run: str, decimal_comma: bool) -> Fraction | None:
    if _ENGLISH.fullmatch(run):
        return Fraction(Decimal(run.replace(",", "")))
    if grouped := _GROUPED.fullmatch(run):
        return Fraction(Decimal(run.replace(grouped[1], "").replace(",", ".")))
    if _POINTS.fullmatch(run):
        return Fraction(Decimal(run.replace(".", "").replace(",", ".")))
    if decimal_comma and _DECIMAL_COMMA.fullmatch(run):
        return Fraction(Decimal(run.replace(",", ".")))
    return None
