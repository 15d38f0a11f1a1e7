r"""A reply in plain characters: one minus sign, one blank, no markup. It knows nothing of numbers or answers.

Every pass takes linear time, whatever the text.
"""

import re

_MINUS = "\u2010\u2011\u2012\u2013\u2212\u2796\ufe58\ufe63\uff0d"  # hyphens, en dash, minus signs; small, full width
_BLANKS = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_NOTHING = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_FULL_WIDTH = {0xFF00 + offset: chr(0x20 + offset) for offset in (*range(3, 6), *range(8, 16), *range(16, 30))}
_CHARACTERS = str.maketrans(
    _FULL_WIDTH
    | dict.fromkeys(map(ord, _MINUS), "-")
    | dict.fromkeys(map(ord, _BLANKS), " ")
    | dict.fromkeys(map(ord, _NOTHING))
    | {0xFFE0: "\u00a2", 0xFFE1: "\u00a3", 0xFFE5: "\u00a5", 0xFFE6: "\u20a9"}  # currencies of full width
    | {0x066B: ".", 0x066C: ","}  # Arabic separators
    | {ord(sign): "'" for sign in "\u2018\u2019\u02bc\u00b4"}
    | {ord(sign): '"' for sign in "\u201c\u201d\u201e\u00ab\u00bb"}
    | {ord(sign): "*" for sign in "\u00d7\u00b7\u22c5\u2217\u2715"}
    | {ord(sign): "/" for sign in "\u00f7\u2044\u2215"}
    | {ord(sign): "=" for sign in "\u2248\u2245\u2250"}
    | {
        ord(sign): f" {top}/{bottom}"
        for sign, top, bottom in zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "112131234151357", "233445555668888", strict=True)
    }
)  # fmt: skip
_EM_DASH = re.compile(
    r"(?<=\S)\u2014|\u2014(?![0-9$.])"
)  # a dash; after a blank and before a number it is a minus sign

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # the data set's annotations: 3*6 = <<3*6=18>>18
_STRUCK = re.compile(r"~~[^~\n]*~~")
_ANSWER_TAG = re.compile(r"<answer>", re.IGNORECASE)
_TAG = re.compile(r"<\|[^|<>\n]{0,40}\|>|</?[A-Za-z][^<>\n]{0,40}>")
_BOLD = re.compile(r"(?<![0-9)])(?:\*\*|__)|(?:\*\*|__)(?![0-9(])")  # 2**3 is a power
_SEPARATOR = re.compile(r"\{,\}(?:\\!)?|,\\!")  # 1{,}000 and 1,\!000
_SPACE = re.compile(r"\\[,;: ]|\\q?quad\b|(?<=[0-9A-Za-z])~(?=[0-9A-Za-z\\])")
_OPERATOR = re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])")
_EQUALS = re.compile(
    r"\\(?:approx|simeq|equiv|implies|Rightarrow|rightarrow|to|therefore)(?![A-Za-z])|(?<![=-])[=-]++>|[→⇒∴]"
)
_FONT = re.compile(
    r"\\(?:textrm|textbf|textit|text|mathrm|mathbf|mathit|mathsf|bm|mbox|hbox|operatorname|displaystyle|bf|rm|left|right"
    r"|big|Big|bigl|bigr)(?![A-Za-z])\*?"
)
_DEGREE = re.compile(r"\^[ ]?(?:\{[ ]?\\circ[ ]?\}|\\circ)|\\degree(?![A-Za-z])")
_DELIMITER = re.compile(r"\\[()\[\]!]|`")
_ESCAPED = re.compile(r"\\([$%#&_])")


def plain_characters(text: str) -> str:
    """One minus sign, one kind of blank, ASCII's quotes, operators and full-width signs as ASCII's; ½ as 1/2.

    Digits of other scripts stay as they are, and are not read as numbers.
    """
    text = (text if text.isascii() else text.translate(_CHARACTERS)).replace("!=", "\u2260")
    return _EM_DASH.sub(", ", text).replace("\u2014", "-")


def without_markup(text: str) -> str:
    r"""Plain characters without Markdown's emphasis, tags, struck-out text, and LaTeX's spaces, fonts and delimiters.

    Braces, `\boxed`, fractions and headings stay, because they have a meaning. An `<answer>` becomes `Answer:` on a new
    line.
    """
    text = _CALCULATOR.sub("", plain_characters(text))
    if "~~" in text:
        text = _STRUCK.sub("", text)
    if "<" in text:
        text = _TAG.sub("", _ANSWER_TAG.sub("\nAnswer: ", text))
    if "\\" in text:
        text = _SPACE.sub(" ", _SEPARATOR.sub(",", text))
        text = _DEGREE.sub("°", _FONT.sub("", _OPERATOR.sub("*", text))).replace("\\div", "/")
        text = _ESCAPED.sub(r"\1", _DELIMITER.sub("", text))
    return _BOLD.sub("", _EQUALS.sub("=", text.replace("{,}", ",").replace("`", "")))
