"""What errors are made of."""

from __future__ import annotations

import errno

import pytest

from catmorph.cli import _unexpected
from catmorph.errors import listed


def test_the_first_five_are_listed():
    assert listed([]) == ""
    assert listed("abcde") == "a, b, c, d, e"
    assert listed(range(6)) == "0, 1, 2, 3, 4 ..."
    assert listed(iter("abcdefg")) == "a, b, c, d, e ..."
    assert listed("abcde", 5) == "a, b, c, d, e"
    assert listed("abcde", 9) == "a, b, c, d, e ..."


@pytest.mark.parametrize(("number", "hint"), [
    (errno.EACCES, "change its permissions or choose another place, run again"),
    (errno.EROFS, "change its permissions or choose another place, run again"),
    (errno.ENOTDIR, "move away what is there, run again"),
    (errno.EIO, "run the same command again to go on"),
])
def test_what_the_system_refuses_has_a_way_out(number, hint):
    assert _unexpected(OSError(number, "refused", "a.json")) == f"a.json: refused; {hint}"
