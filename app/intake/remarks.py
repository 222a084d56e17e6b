"""What is said of a row that is not as it should be. No sentence quotes a value."""

from typing import Final

from app.intake.table import Notice


def short(count: int, width: int) -> Notice:
    words = f"The row has {count} of {width} cells; the missing ones are taken as empty."
    return Notice("row_short", words)


def other_separator(words: str) -> Notice:
    return Notice(
        "separator_differs", f"The row is separated by {words}, other than its file; it was read so."
    )


def inside(column: str) -> Notice:
    words = f"The value of column '{column}' has a quotation mark inside that is not doubled."
    return Notice("quote_inside", words, column)


def behind(column: str) -> Notice:
    words = f"Text follows the closing quotation mark of the value of column '{column}'."
    return Notice("quote_misplaced", words, column)


def guessed(column: str, encoding: str) -> Notice:
    words = f"The value of column '{column}' has letters that were read as {encoding}, which is a guess."
    return Notice("letters_guessed", words, column)


def header_again(line: int) -> Notice:
    words = f"Line {line} is a header again; from there on the columns are read by it."
    return Notice("header_repeated", words)


NAMES_MISSING: Final = Notice(
    "names_missing",
    "The row lacks the column names that the other rows of this report repeat.",
)
