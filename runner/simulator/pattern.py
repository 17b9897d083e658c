"""Text that fits a regular expression, as JSON Schemas use them.

Strategy: one pass of recursive descent turns the expression into a tree of closures, each drawing one piece; a piece
under a quantifier is drawn again each time. Look-around and back-references draw nothing: a best effort, which
`schema.value_of` checks and draws again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from random import Random
from string import ascii_letters, digits, punctuation

Piece = Callable[[Random], str]

REPEATS = 64  #: no quantifier draws more, so that `a{1000000}` stays cheap
_WORD = ascii_letters + digits + "_"
_PRINTABLE = ascii_letters + digits + punctuation + " "
_CLASSES = {
    "d": digits,
    "w": _WORD,
    "s": " ",
    "D": ascii_letters,
    "W": "-.,:;",
    "S": _WORD,
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "f": "\f",
    "v": "\v",
    "0": "\0",
}
_PROPERTIES = {"L": ascii_letters, "Lu": ascii_letters[26:], "Ll": ascii_letters[:26], "N": digits, "Nd": digits}
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d+)(,?)(\d*)\})[?+]?")
_GROUP = re.compile(r"\?(?:(<?[=!])|:|P?<[^>]*>)")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})")
_PROPERTY = re.compile(r"p\{(?:[^}=]*=)?([^}]*)\}")


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Piece:
    """A function that draws texts which `pattern` matches."""
    return _Parser(pattern).alternation()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def alternation(self) -> Piece:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return lambda rng: rng.choice(branches)(rng)

    def _sequence(self) -> Piece:
        pieces: list[Piece] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            pieces.append(self._quantified(self._atom()))
        return lambda rng: "".join(piece(rng) for piece in pieces)

    def _quantified(self, piece: Piece) -> Piece:
        found = self._match(_QUANTIFIER)
        if not found:
            return piece
        least, most = _bounds(*found.groups())
        return lambda rng: "".join(piece(rng) for _ in range(rng.randint(least, most)))

    def _atom(self) -> Piece:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return _one_of(self._class())
        if char == "\\":
            return _one_of(self._escape())
        if char == ".":
            return _one_of(ascii_letters)
        return _one_of("" if char in "^$" else char)

    def _group(self) -> Piece:
        prefix = self._match(_GROUP)
        inner = self.alternation()
        self._take(")")
        return _one_of("") if prefix and prefix[1] else inner

    def _class(self) -> str:
        negated = self._take("^")
        chars = ""
        while self.at < len(self.text) and not self._take("]"):
            chars += self._member()
        return "".join(char for char in _PRINTABLE if char not in chars) if negated else chars

    def _member(self) -> str:
        first = self._single()
        ranged = self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("", "]")
        if len(first) != 1 or not ranged:
            return first
        self.at += 1
        last = self._single()[:1] or first
        # A range over an alphabet (CJK, say) needs no more than its first hundred characters.
        return "".join(map(chr, range(ord(first), min(ord(last), ord(first) + 99) + 1)))

    def _single(self) -> str:
        char = self._next()
        return self._escape(within=True) if char == "\\" else char

    def _escape(self, *, within: bool = False) -> str:
        if found := self._match(_HEX):
            return chr(int(found[1] or found[2], 16))
        if found := self._match(_PROPERTY):
            return _PROPERTIES.get(found[1], ascii_letters)
        char = self._next()
        if char in "bB" or (char.isdigit() and char != "0"):
            return "\b" if within and char == "b" else ""
        return _CLASSES.get(char, char)

    def _next(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        return char

    def _take(self, char: str) -> bool:
        taken = self.text[self.at : self.at + 1] == char
        self.at += taken
        return taken

    def _match(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found


def _bounds(sign: str | None, least: str | None, comma: str | None, most: str | None) -> tuple[int, int]:
    if sign:
        return {"*": (0, 3), "+": (1, 4), "?": (0, 1)}[sign]
    low = min(int(least or 0), REPEATS)
    if not comma:
        return low, low
    return low, max(low, min(int(most) if most else low + 3, low + 12, REPEATS))


def _one_of(chars: str) -> Piece:
    return (lambda rng: rng.choice(chars)) if chars else (lambda _: "")
