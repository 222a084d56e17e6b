"""Writes docs/messages.md anew."""

from tests.messages.page import PAGE, page

PAGE.write_text(page())
