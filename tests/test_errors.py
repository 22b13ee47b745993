"""What errors are made of."""

from __future__ import annotations

from catmorph.errors import listed


def test_the_first_five_are_listed():
    assert listed([]) == ""
    assert listed("abcde") == "a, b, c, d, e"
    assert listed(range(6)) == "0, 1, 2, 3, 4 ..."
    assert listed(iter("abcdefg")) == "a, b, c, d, e ..."
    assert listed("abcde", 5) == "a, b, c, d, e"
    assert listed("abcde", 9) == "a, b, c, d, e ..."
