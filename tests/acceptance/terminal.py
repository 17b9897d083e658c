"""A terminal that tests look at and type into."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
from codecs import getincrementaldecoder
from contextlib import suppress
from typing import Self


class Terminal:
    """A pseudo-terminal of so many columns; `text`: all that was written to it."""

    def __init__(self, columns: int) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.name = os.ttyname(self._theirs)
        self._data = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # how Linux says that nobody has the other end open any more
            while data := os.read(self._ours, 65536):
                self._data += data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._theirs)
        self._reader.join(60)
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    @property
    def text(self) -> str:
        """Without the beginning of a letter whose end has not come yet."""
        return getincrementaldecoder("utf-8")().decode(self._data).replace("\r\n", "\n")
