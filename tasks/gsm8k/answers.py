"""Reads answers, in the same way for references, rewards and metrics.

It does not know what the right answer is. What is not a plain number (a fraction, LaTeX) is read by math-verify, from a
short piece of text without powers: nobody's reply can make it compute for long.
"""

import logging
import re
from collections import deque
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

# Written so that no text takes more than linear time: what precedes the number is checked afterwards.
_MARK = re.compile(r"(?<!#)####([ \t$+-]*)([0-9.][0-9.,]*)")
_BEFORE = re.compile(r"[+-]?\$?|\$[+-]")
_NUMBER = re.compile(r"(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:\.[0-9]+)?")
_PLAIN = re.compile(r"[^0-9A-Za-z.,/\\{}()*+-]*([+-]?\$?[+-]?)[ \t]*([0-9.][0-9.,]*)(?![0-9/^*])")

_HASHES = re.compile(r"(?<!#)####(?!#)(.*)")
_BOLD = re.compile(r"\*\*([^*]*)\*\*")
_BOXED = re.compile(r"\\boxed\{")
_NAMED = re.compile(r"(?:^A:|\banswer(?: is|:))(.*)", re.IGNORECASE | re.MULTILINE)
_LAST = re.compile(r"(?<![0-9A-Za-z.,])[+-]?\$?[0-9][0-9.,]*(?:/[0-9]+)?")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
COMMANDS = frozenset(("boxed", "dfrac", "frac", "left", "mathrm", "right", "text", "tfrac"))
LONGEST = 80  # characters of an answer
TAIL = 4000  # characters at a reply's end in which it is looked for


def final_answer(text: str, strict: bool = False) -> Fraction | None:
    r"""The answer that a text ends with; None if there is none.

    It is what follows the last `####`; without one the last `\boxed{...}`; then the last `A:` that begins a line,
    `answer is` or `answer:`; then the last number. `42`, `42.0`, `$42`, `42.` and `1,000` with its comma or without are
    plain numbers, and a unit after one is left aside (`42 %`); anything else (`1/2`, `\frac{1}{2}`) is read by
    math-verify.

    Args:
        text: Untrusted; of any length.
        strict: Take `#### number` with a plain number alone. Between the hashes, which are four, and the number may
            stand blanks, a sign and a dollar sign; commas must part thousands; a comma or point after the number is
            not part of it, and what else follows (a unit) is left aside.

    Returns:
        The exact value.
    """
    if strict:
        return _marked(text)
    text = text[-TAIL:]
    if found := _last(_HASHES, text):
        return _value(found[1])
    if found := _last(_BOXED, text):
        return _value(text[found.start() :])
    if found := _last(_NAMED, text):
        return _value(found[1])
    if "\\" in text and len(text) <= LONGEST:
        return _parsed(text.strip())
    found = _last(_LAST, text)
    return _value(found[0]) if found else None


def _marked(text: str) -> Fraction | None:
    for match in reversed(list(_MARK.finditer(text))):
        value = _plain("".join(match[1].split()), match[2])
        if value is not None:
            return value
    return None


def _plain(before: str, number: str) -> Fraction | None:
    digits = number.rstrip(".,")
    if 0 < len(digits) <= LONGEST and _BEFORE.fullmatch(before) and _NUMBER.fullmatch(digits):
        return Fraction(Decimal(before.replace("$", "") + digits.replace(",", "")))
    return None


def _value(piece: str) -> Fraction | None:
    """The value of a short piece of text that holds an answer."""
    piece = _BOLD.sub(r"\1", piece.strip().splitlines()[0]).strip(" _:=`") if piece.strip() else ""
    if (match := _PLAIN.match(piece)) and not piece[match.end() :].lstrip().startswith("/"):
        value = _plain("".join(match[1].split()), match[2])
        if value is not None:
            return value
    return _parsed(piece[:LONGEST])


@lru_cache(maxsize=4096)
def _parsed(piece: str) -> Fraction | None:
    """What math-verify makes of it."""
    powers = any(sign in piece for sign in ("^", "**", "!"))
    if powers or not any(c.isdigit() for c in piece) or not COMMANDS.issuperset(_COMMAND.findall(piece)):
        return None
    import sympy
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own timeouts are off
    readings = (LatexExtractionConfig(), ExprExtractionConfig())
    for value in parse(piece, extraction_config=readings, parsing_timeout=None)[:1]:
        if isinstance(value, sympy.Expr) and value.is_number:
            exact = sympy.nsimplify(value.doit(), rational=True)
            if isinstance(exact, sympy.Rational):
                return Fraction(int(exact.p), int(exact.q))
    return None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
