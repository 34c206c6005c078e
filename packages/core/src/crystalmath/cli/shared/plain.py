"""What a job wrote, as a terminal may have it: the text, and nothing that steers."""

from __future__ import annotations

import re

from crystalmath.cli.shared.output import printable

# Sequences as ECMA-48 has them: of strings (titles, clipboards, links) the content goes, too.
_STRING = r"[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
_CONTROL = r"\[[0-?]*[ -/]*[@-~]"
_SEQUENCE = re.compile(rf"\x1b(?:{_STRING}|{_CONTROL}|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]")
#: The beginning of one, at the end of what came so far.
_BEGUN = re.compile(
    r"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\x9c]{0,4096}\x1b?|[ -/]*)|\x9b[0-?]*[ -/]*|\r)\Z"
)


class Plain:
    """Takes the control sequences out of a text that comes in parts.

    Colours, titles, movements of the cursor and the like are left out; a carriage return, with
    which progress bars write over their line, ends the line. What else cannot be printed
    is shown as a replacement character.
    """

    def __init__(self) -> None:
        self._begun = ""

    def __call__(self, text: str) -> str:
        """Return the next part; what may be the beginning of a sequence waits for the next one."""
        text, self._begun = self._begun + text, ""
        if begun := _BEGUN.search(text):
            text, self._begun = text[: begun.start()], begun.group()
        text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        return printable(text)
