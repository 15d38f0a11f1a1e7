"""Names as pictures show them."""

from llm_sra.untrusted import one_line

LONGEST = 44  # characters; what is longer is cut


def as_label(text: object, longest: int = LONGEST) -> str:
    """A name as matplotlib draws it: no mathematics, one line, not too long.

    Args:
        text: A name, of whoever gave it.
        longest: Characters.
    """
    line = one_line(text)
    line = (line if len(line) <= longest else f"{line[: longest - 1]}…").replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line  # matplotlib's legends leave such names out
