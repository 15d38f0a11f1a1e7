r"""What a short piece of a reply states: a number, nothing, or something ambiguous.

A piece is the text after `####`, in a box, or after "the answer is"; `answers` finds it. Plain numbers are read here.
Arithmetic (`3 * 6`, `\frac{1}{2}`) is worked out by math-verify. It gets only integers, the four operators and
brackets, at most 80 characters, and its result counts only if it read all of them.
"""

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from tasks.gsm8k.numerals import CURRENCY, LONGEST, Numeral, numeral, too_long

LINE = 300  # most characters of a piece that are read


@dataclass(frozen=True)
class Stated:
    """That a piece states something.

    Attributes:
        value: The number; None if it is ambiguous.
        vague: Whether other words or several numbers come before it, so that it need not be meant as an answer.
    """

    value: Fraction | None
    vague: bool = False


UNCLEAR, VAGUE = Stated(None), Stated(None, vague=True)

_BEFORE = re.compile(r"[ \t]*(?:[+-][ \t]*[$€£¥₹]?|[$€£¥₹][ \t]*[+-]?)?[ \t]*")
_MALFORMED = re.compile(r"[ \t]*[-+$€£¥₹.][-+$€£¥₹. \t]{0,80}[0-9]")
_SIGN = re.compile(r"[ \t]*([+-]?)[ \t]*")
_FRACTION = re.compile(r"[ \t]*/[ \t]*([0-9]{1,20})(?![0-9.,]*[0-9])")
_MIXED = re.compile(r"(?:[ \t]+|[ \t]+and[ \t]+)([0-9]{1,20})[ \t]*/[ \t]*([0-9]{1,20})(?![0-9.,]*[0-9])")
# What makes a number part of something else: it follows the number, or a unit of up to four words after it.
_WORD = r"(?>[A-Za-z](?:[A-Za-z']|[.-](?=[A-Za-z])){0,30}(?:/[A-Za-z]{1,30})?(?:\^?[23](?![0-9.]))?)"
_UNIT = rf"(?:[ \t]*+[%°])?+(?:[ \t]*+/[ \t]*+{_WORD})?+(?:[ \t]*+{_WORD}(?:[ \t]++{_WORD}){{0,3}}?)??"
_VALUE = r"[ \t(\[]*+[-+]?[ \t]*+[$€£¥₹]?[0-9.]*[0-9]"
_RELATED = r"[-+*/^=<>≤≥≠±→⇒&]|\\(?:pm|neq?|leq?|geq?|lt|gt)(?![A-Za-z])"
_GOES_ON = re.compile(rf"{_UNIT}[ \t]*+\)?[ \t]*+(?:{_RELATED})++{_VALUE}")
_WORDED = "x|times|plus|minus|divided by|multiplied by|over|to|or|and|through|out of"
_IN_WORDS = re.compile(rf"{_UNIT}[ \t]*+\b(?:{_WORDED}){_VALUE}", re.IGNORECASE)
_MEASURES = re.compile(
    rf"[ \t]*+(?!(?:per|for|in|at|on|of|by|from|since|as|every|each|with)\b){_WORD}[ \t]++[0-9.]*[0-9]"
)
_AND_PART = re.compile(
    rf"{_UNIT}[ \t]+and[ \t]+(?:a|one|two|three)[ \t-]+(?:half|halves|third|quarter|fourth|fifth)", re.IGNORECASE
)
_LISTED = re.compile(rf"{_UNIT}[ \t]*+[,;][ \t]*+(?:and[ \t]+|or[ \t]+)?[-+]?[0-9.]*[0-9](?![ \t]*[A-Za-z(])")
_PART_OF = re.compile(r"[ \t]*(?:%|percent)[ \t]+of[ \t]+[-+]?[0-9.]", re.IGNORECASE)
_NEXT = re.compile(  # another number, a symbol that stands for one, a command of LaTeX that makes one
    r"[ \t]+[-+]?[ \t]*[0-9]|[:(][0-9]|[xyzn](?![A-Za-z])|[ \t]*\^|[ \t]*[-+*/][ \t]*\(?[A-Za-z](?![A-Za-z])"
    r"|[ \t]*\\(?:[dtc]?frac|times|cdot|ast|div|pm|mp|sqrt|over|binom|pi)(?![A-Za-z])"
)
_TAKEN_BACK = re.compile(
    r"(?:[.,;:!?(-][ \t]*(?:but |oh,? |hmm,? |and )?"
    r"(?:no\b(?=[,.:;! ]{1,9}[a-z]{0,20}[ ,:]{0,9}[-+]?[0-9])|actually|correction|sorry|oops|rather(?! than)|i mean)"
    r"|\b(?:wait|hold on|or rather|(?:make|scratch|strike) that))\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![0-9A-Za-z.,])[-+]?[0-9]|(?<![0-9A-Za-z.])[.](?=[0-9])")
_DENIED = re.compile(
    r"n't\b|\b(?:not|neither|between|either|(?:less|more|fewer) than|at (?:least|most))\b", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.;!?](?:\s|$)")
_SYMBOL = re.compile(r"(?<![A-Za-z])(?!a[ \t]|x[ \t]*[0-9(])[A-Za-z](?![A-Za-z])")
_COMMAND = re.compile(r"\\[A-Za-z]")

_LATEX_FRACTION = re.compile(r"\\[dtc]?frac[ \t]*(?:\{([^{}\\]*)\}|([0-9]))[ \t]*(?:\{([^{}\\]*)\}|([0-9]))")
_WHOLE = re.compile(r"-?[0-9]+")
_NAMED = re.compile(r"[^=0-9]{1,80}=")
_WORDS_BEFORE = re.compile(
    r"(?:(?:it's|it|this|we get|we have|i get|actually|correction|corrected|wait|oops|sorry|is|are|was|be|of|so|then|"
    r"thus|therefore|hence|now|still|again|indeed|that|also|clearly|simply|just|only|about|"
    r"approximately|approx\.?|around|roughly|nearly|exactly|precisely|equal to|equals|a total of|total|the|number)\b"
    r"[ \t,:]*)+",
    re.IGNORECASE,
)
_EDGE = " \t\"'*_=:|>[{<,;~…"
_BRACKETED = re.compile(r"\([ \t]*([-+]?[0-9][0-9.,]*)[ \t]*\)(?![ \t]*[-+*/^(0-9])")
_DATE = re.compile(r"[0-9][ \t]*-[ \t]*[0-9]+[ \t]*-[ \t]*[0-9]|[0-9][ \t]*/[ \t]*[0-9]+[ \t]*/[ \t]*[0-9]")
_BRACES = re.compile(r"\\f?boxed|\\fbox|[{}]")
_DIGIT = re.compile(r"[0-9]")
_LEADING_DOTS = re.compile(r"\A[.…]+[ \t]+")
_IN_LATEX = re.compile(r"(?:,?\\[,;:! ]|\{[,.]\}(?:\\!)?|~)[0-9]")  # the rest of 1{,}800 and 1\,800, after its 1
_TOKEN = re.compile(r"[0-9.,]*[0-9]|[-+*/()]|[ \t]+")


def plain_statement(piece: str) -> Stated | None:
    """A plain number at the beginning of a piece, for strict reading: `18`, `$18`, `-1,000.50 kg`.

    Args:
        piece: A piece in plain characters.
    """
    before = _BEFORE.match(piece)
    assert before is not None  # it matches the empty string
    start = before.end()
    number = numeral(piece, start, money=bool(before[0].strip(" \t+-")))
    if number is None:
        return UNCLEAR if _MALFORMED.match(piece) and not too_long(piece, start) else None
    if number.value is None or _IN_LATEX.match(piece, number.end):
        return UNCLEAR
    if _continues(piece, number.end) or _corrected(piece, number.end):
        return UNCLEAR
    return Stated(-number.value if "-" in before[0] else number.value)


def statement(piece: str, sentence: bool = False) -> Stated | None:
    r"""What a piece states.

    That is a number at its beginning, perhaps with a sign, a currency and a unit; the value after the last `=` of a
    calculation; the result of a calculation or fraction without `=`; or any of these after `name =` or words such as
    `about`.

    Args:
        piece: A piece of one line, without markup.
        sentence: Whether other words may come before the number: then the only number of the first sentence counts.

    Returns:
        What it states; None if there is no digit, or other words come before the number.
    """
    if not has_digit(piece):
        return None
    if len(piece) > LINE:
        piece = piece[:LINE].rpartition(" ")[0]
    money = CURRENCY.search(piece) is not None
    return _read(_without_braces(CURRENCY.sub("", _fractions(piece))), money, sentence)


def has_digit(text: str) -> bool:
    """Whether one of the ten digits stands in it."""
    return _DIGIT.search(text) is not None


def first_sentence(text: str) -> str:
    """A text up to the full stop of its first sentence."""
    return _SENTENCE_END.split(text, maxsplit=1)[0]


def _read(piece: str, money: bool, sentence: bool = False, equation: bool = False, depth: int = 4) -> Stated | None:
    piece = _unwrapped(piece)
    if depth == 0 or not has_digit(piece):
        return None
    sign = _SIGN.match(piece)
    assert sign is not None  # it matches the empty string
    number = numeral(piece, sign.end(), money, decimal_comma=True)
    if number is not None:
        return _number_first(piece, sign[1] == "-", number, money, equation)
    if too_long(piece, sign.end()):
        return None
    if piece[0] in "(-+":
        return _calculation(piece, money, equation)
    if (words := _WORDS_BEFORE.match(piece)) and words.end() < len(piece):
        return _read(piece[words.end() :], money, sentence, equation, depth - 1)
    if named := _NAMED.match(piece):
        return _read(piece[named.end() :], money, sentence, True, depth - 1)
    if sentence and not _COMMAND.search(piece):
        return _only_number(first_sentence(piece), money)
    return None if piece[0].isalpha() else UNCLEAR


def _number_first(piece: str, negative: bool, number: Numeral, money: bool, equation: bool) -> Stated | None:
    value, end = number.value, number.end
    if value is not None and value.denominator == 1 and (mixed := _MIXED.match(piece, end)):
        value = value + Fraction(int(mixed[1]), int(mixed[2])) if int(mixed[2]) else None
        end = mixed.end()
    elif value is not None and (over := _FRACTION.match(piece, end)):
        value = value / int(over[1]) if int(over[1]) else None
        end = over.end()
    if corrected := _corrected(piece, end):
        if "=" in corrected:
            return _read(corrected.rpartition("=")[2], money, equation=True) or UNCLEAR
        return _only_number(corrected, money)
    if _continues(piece, end):
        return _calculation(piece, money, equation)
    return UNCLEAR if value is None else Stated(-value if negative else value)


def _corrected(piece: str, end: int) -> str:
    """The text after a word that takes back the number before it, if that text has numbers."""
    back = _TAKEN_BACK.search(piece, end, end + LINE)
    corrected = piece[back.end() : back.end() + LINE] if back else ""
    return corrected if has_digit(corrected) else ""


def _continues(piece: str, end: int) -> bool:
    """Whether the number that ends here is part of a calculation, a list, a range, a time, a date or another number."""
    rest = piece[end : end + LINE]
    if rest[:1].isnumeric():
        return True  # in another script, or raised
    return any(pattern.match(rest) for pattern in (_NEXT, _GOES_ON, _IN_WORDS, _MEASURES, _AND_PART, _LISTED, _PART_OF))


def _calculation(piece: str, money: bool, equation: bool) -> Stated | None:
    """The stated result of a calculation, after its last `=`; without `=` its actual result.

    Args:
        piece: A piece that begins with a number or a bracket.
        money: Whether it had currency signs.
        equation: Whether it is beside an `=`, so that `20 - 2` is not a range.
    """
    left, equals, right = first_sentence(piece).rpartition("=")
    if equals and _SYMBOL.search(left):
        return UNCLEAR  # 2x + 1 = 37 is no answer
    if equals:
        return _read(right, money, equation=True, depth=2) or UNCLEAR
    piece = piece.strip(" \t.,;:!?")
    if _DATE.search(piece) or ("-" in piece[1:] and not equation):
        return UNCLEAR
    return Stated(_worked_out(piece))


def _only_number(piece: str, money: bool) -> Stated | None:
    """The only number of a sentence."""
    found = [match.start() for match in _NUMBER.finditer(piece)]
    if len(found) != 1 or _DENIED.search(piece[: found[0]]):
        return VAGUE if has_digit(piece) else None
    stated = _read(piece[found[0] :], money, depth=1)
    return Stated(stated.value, vague=True) if stated else None


def _unwrapped(piece: str) -> str:
    piece = _LEADING_DOTS.sub("", piece.strip(" \t").lstrip(_EDGE))
    if piece[:1] == "(" and piece.find(")") in (-1, len(piece.rstrip(" .,;:!?*_\"'")) - 1):
        piece = piece[1:].replace(")", "", 1).lstrip(_EDGE)
    return _BRACKETED.sub(r"\1", piece) if piece[:1] == "(" else piece  # (18) dollars


def _fractions(piece: str) -> str:
    r"""LaTeX's fractions as plain text: `1\frac{1}{2}` as `1 1/2`; others, if they are not nested, as `(a)/(b)`."""

    def plain(match: re.Match[str]) -> str:
        top, bottom = (match[1] or match[2] or "").strip(), (match[3] or match[4] or "").strip()
        if _WHOLE.fullmatch(top) and _WHOLE.fullmatch(bottom):
            return f" {top}/{bottom}"
        return f"(({top})/({bottom}))"

    return _LATEX_FRACTION.sub(plain, piece) if "frac" in piece else piece


def _without_braces(piece: str) -> str:
    return _BRACES.sub("", piece)


@lru_cache(maxsize=4096)
def _worked_out(piece: str) -> Fraction | None:
    """The value of sums, products and quotients, exactly; None for anything else."""
    if len(piece) > LONGEST or "**" in piece or "//" in piece or piece.count("(") > 8:
        return None
    terms: list[str] = []
    at = 0
    while at < len(piece):
        token = _TOKEN.match(piece, at)
        if token is None:
            return None
        at = token.end()
        number = numeral(token[0]) if token[0][-1].isdigit() else None
        if number is not None:
            if number.value is None or (terms and terms[-1][-1] in ")0123456789"):
                return None  # two numbers side by side, or a product without its sign
            terms.append(f"({number.value})" if number.value.denominator > 1 else str(number.value))
        elif terms and (
            terms[-1][-1] in ")0123456789" if token[0] == "(" else terms[-1] in "+-*/" and token[0] in "+-*/"
        ):
            return None
        elif not token[0].isspace():
            terms.append(token[0])
    return _of_math_verify("0+" + "".join(terms))


def _of_math_verify(expression: str) -> Fraction | None:
    import sympy
    from math_verify import ExprExtractionConfig, parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limits are off
    parsed = parse(expression, extraction_config=(ExprExtractionConfig(),), parsing_timeout=None)
    if len(parsed) != 2 or parsed[1] != expression or not isinstance(parsed[0], sympy.Expr):
        return None  # it read a part of it, or nothing
    value = parsed[0].doit()
    return Fraction(int(value.p), int(value.q)) if isinstance(value, sympy.Rational) else None
