"""The one error a user sees: it names the field, the value and what is allowed."""

import unicodedata

LONGEST = 300  # characters of a value that are told


class BadInput(ValueError):
    """Input that cannot be used. The command line prints it as one line and exits with code 2."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        told = printable(str(value))
        told = told if len(told) <= LONGEST else f"{told[:LONGEST]}... ({len(told)} characters)"
        super().__init__(f"{printable(field)} = {told}: {printable(allowed)}")


def printable(text: str) -> str:
    """``text`` on one line, without control characters: what others wrote moves no cursor and paints no terminal."""
    if text.isprintable():
        return text
    spaced = (" " if sign in "\t\n\r" else sign for sign in text)
    return "".join(sign for sign in spaced if unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
