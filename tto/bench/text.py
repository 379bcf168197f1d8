"""Text that came from elsewhere (names of files, other people's tables), made safe to print and to open."""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
SHIELD = "'"


def printable(text: str) -> str:
    """The text with every control character (escape sequences begin with one) replaced by "?"."""
    return "".join(character if character.isprintable() else "?" for character in text)


def shield(text: str) -> str:
    """As a cell of a table that no spreadsheet calculates."""
    return SHIELD + text if text.startswith((*FORMULA, SHIELD)) else text


def unshield(cell: str) -> str:
    """What `shield` was given."""
    return cell[len(SHIELD) :] if cell.startswith(tuple(SHIELD + sign for sign in (*FORMULA, SHIELD))) else cell
