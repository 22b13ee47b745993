"""Cells to numbers, text, positions and sizes."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import FK4, FK5, Galactic, SkyCoord
from astropy.table import Column, MaskedColumn
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from catmorph.errors import CatalogError
from catmorph.sources.columns import (
    Reasons,
    angle,
    inexact,
    masked,
    numbers,
    radius_arcsec,
    texts,
    to_icrs,
)


def degrees(values, unit=None, null=(), key="ra"):
    """Return the degrees and the reasons of a coordinate column."""
    reasons = Reasons(len(values))
    return angle(Column(values), unit, null, key=key, reasons=reasons), reasons.texts.tolist()


@pytest.mark.parametrize("kind", ["f4", "f8", ">f4", ">f8", "i2", ">i8", "u1", "U8", "S8", "O"])
def test_sentinels_are_missing_in_every_type(kind):
    values = np.array(["3", "99", "42"]).astype("f8").astype("i8").astype(kind)
    if kind == "O":
        values = np.array(["3", "99", "42"], dtype=object)
    result, wrong = numbers(values, (-99, 99.0))
    np.testing.assert_array_equal(result, [3, np.nan, 42])
    assert not wrong.any()
    assert masked(values, (99,)).mask.tolist() == [False, True, False]


def test_a_sentinel_counts_in_the_columns_own_precision():
    assert np.isnan(numbers(np.array([-99.9, 1], dtype="f4"), (-99.9,))[0]).tolist() == [True, False]
    assert np.isnan(numbers(np.array(["-99.90", "1"]), (-99.9,))[0]).tolist() == [True, False]


def test_missing_cells_of_every_sort():
    values = MaskedColumn([1.0, 2.0, np.inf, np.nan], mask=[True, False, False, False])
    np.testing.assert_array_equal(numbers(values)[0], [np.nan, 2, np.nan, np.nan])
    result, wrong = numbers(np.array(["", "NA", "null", "--", "n/a", " 7 ", "-inf", None], dtype=object))
    np.testing.assert_array_equal(result, [np.nan] * 5 + [7, np.nan, np.nan])
    assert not wrong.any()


def test_text_sentinels_end_at_the_door():
    cells = np.array(["18.5", "INDEF", "x"], dtype=object)
    result, wrong = numbers(cells, ("INDEF",))
    assert wrong.tolist() == [False, False, True]
    assert result[0] == 18.5
    assert texts(cells, ("INDEF",)).tolist() == ["18.5", None, "x"]


@pytest.mark.parametrize("text", ["1_000", "0x10", "1,5", "12h", "1 2", "½", "٣", "True", "1e", "."])
def test_what_is_no_number(text):
    result, wrong = numbers(np.array(["1", text], dtype=object))
    assert wrong.tolist() == [False, True]
    assert np.isnan(result[1])


@pytest.mark.parametrize(("text", "value"), [("1.5D3", 1500), ("+2", 2), (".5", 0.5), ("1.", 1), ("-1E-3", -1e-3)])
def test_what_is_a_number(text, value):
    assert numbers(np.array([text, "x"], dtype=object))[0][0] == value


@given(hnp.arrays("f8", st.integers(0, 20), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_written_as_text_come_back(values):
    np.testing.assert_array_equal(numbers(np.array([repr(v) for v in values.tolist()], dtype=object))[0], values)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)))
def test_text_is_stripped_and_otherwise_kept(cells):
    expected = [cell.strip() or None for cell in cells]
    assert texts(np.array(cells, dtype=object)).tolist() == expected
    assert texts(np.array([*cells, None], dtype=object)).tolist() == [*expected, None]


def test_text_of_numbers_bytes_and_bad_bytes():
    assert texts(np.array([12.0, 12.5, np.nan, -0.5])).tolist() == ["12", "12.5", None, "-0.5"]
    assert texts(np.array([2**63 - 1, -1])).tolist() == ["9223372036854775807", "-1"]
    assert texts(np.array([2**64 - 1], dtype="u8")).tolist() == ["18446744073709551615"]
    assert texts(np.array([b"0003 ", b"\xc3\xa9", b"\xff"])).tolist() == ["0003", "é", "\ufffd"]
    assert texts(np.array(["a\ud800"], dtype=object)).tolist() == ["a?"]
    assert texts(MaskedColumn([1, 2], mask=[True, False])).tolist() == [None, "2"]
    assert inexact(np.array([2.0**53, 5.0])).tolist() == [True, False]


@pytest.mark.parametrize(("unit", "factor"), [("deg", 1), ("rad", 180 / np.pi), ("hourangle", 15), ("arcmin", 1 / 60),
                                              ("arcsec", 1 / 3600), (None, 1)])
def test_position_units(unit, factor):
    result, reasons = degrees([0.5, 1.25], unit)
    np.testing.assert_allclose(result, np.array([0.5, 1.25]) * factor, rtol=1e-15)
    assert reasons == [None, None]


def test_the_unit_of_the_file_counts_unless_the_recipe_says_otherwise():
    reasons = Reasons(1)
    hours = Column([2.0], unit="hourangle")
    assert angle(hours, None, (), key="ra", reasons=reasons)[0] == pytest.approx(30, abs=1e-12)
    assert angle(hours, "deg", (), key="ra", reasons=reasons)[0] == 2


@pytest.mark.parametrize("unit", ["mag", "degrees_of_freedom", "kg", ""])
def test_a_wrong_unit_is_refused(unit):
    if unit:
        with pytest.raises(CatalogError, match=f"catalog.ra has unit '{unit}', which is not an angle; set catalog.ra."):
            degrees([1.0], unit)
        with pytest.raises(CatalogError, match=r"catalog\.size has unit"):
            radius_arcsec(Column([1.0]), unit, (), None, Reasons(1))
    else:
        assert degrees([1.0], unit)[0] == 1


@pytest.mark.parametrize(("text", "key"), [
    ("10:30:00", "ra"), ("10 30 00.5", "ra"), ("10h30m00.123s", "ra"), ("23:59:59.999", "ra"),
    ("187d42m20s", "ra"), ("-00:30:00", "dec"), ("-00 00 00.1", "dec"), ("+89d59m59.9s", "dec"), ("-12:30", "dec"),
    ("10h30m", "ra"), ("05d30'10\"", "dec"),
])
def test_sexagesimal_agrees_with_astropy(text, key):
    hours = key == "ra" and "d" not in text
    value, reasons = degrees([text], "sexagesimal", key=key)
    expected = SkyCoord(text, "0d", unit=(u.hourangle if hours else u.deg, u.deg)).ra.deg
    assert reasons == [None]
    assert (value[0] - expected + 1e-9) % 360 < 2e-9


def test_bad_sexagesimal_cells():
    value, reasons = degrees(["", "north", "10:61:00", "--", "-99"], "sexagesimal", (-99,))
    assert np.isnan(value).all()
    assert reasons == ["ra is missing", "ra is not sexagesimal: 'north'", "ra is not sexagesimal: '10:61:00'",
                       "ra is not sexagesimal: '--'", "ra is missing"]


def test_bad_cells_say_what_they_hold():
    value, reasons = degrees(["1.5", "x" * 60, "", "02h51m33s"])
    assert value[0] == 1.5
    assert reasons == [None, f"ra is not a number: '{'x' * 37}...'", "ra is missing",
                       "ra is not a number: '02h51m33s' (sexagesimal? set catalog.ra.unit)"]


@pytest.mark.parametrize(
    ("name", "frame"), [("galactic", Galactic()), ("fk5", FK5()), ("fk4", FK4()), ("icrs", "icrs")]
)
def test_frames_agree_with_skycoord(name, frame):
    longitude = np.array([0.0, 45.0, 266.4, 359.999, 192.85, 10.0])
    latitude = np.array([0.0, -90.0, -28.9, 12.0, 27.1, 90.0])
    ra, dec = to_icrs(longitude, latitude, name, Reasons(6))
    expected = SkyCoord(longitude * u.deg, latitude * u.deg, frame=frame).icrs
    separation = SkyCoord(ra * u.deg, dec * u.deg).separation(expected).arcsec
    assert separation.max() < 1e-9
    assert ((ra >= 0) & (ra < 360)).all()


def test_positions_out_of_range():
    reasons = Reasons(7)
    longitude, latitude = np.array([-180.0, 360, 361, -181, 10, 10, -1e-20]), np.array([0.0, 0, 0, 0, 90.1, -90, 0])
    ra, dec = to_icrs(longitude, latitude, "icrs", reasons)
    assert ra.tolist()[:2] == [180, 0]
    assert ra[6] == 0
    assert np.isnan(dec[2:5]).all()
    assert reasons.texts.tolist() == [None, None, "ra 361 deg is outside -180..360", "ra -181 deg is outside -180..360",
                                      "dec 90.1 deg is outside -90..90", None, None]


def test_the_first_reason_stays():
    reasons = Reasons(3)
    reasons.add(np.array([True, False, False]), "first")
    reasons.add(np.array([True, True, False]), lambda row: f"second {row}")
    assert reasons.texts.tolist() == ["first", "second 1", None]
    assert reasons.bad.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [("arcsec", None, 2), ("arcmin", None, 120), ("pixels", 0.065, 0.13), ("deg", None, 7200), (None, None, 2)],
)
def test_size_units(unit, scale, expected):
    size = radius_arcsec(Column([2.0, 0.0, -1.0, np.nan]), unit, (), scale, Reasons(4))
    np.testing.assert_allclose(size, [expected, np.nan, np.nan, np.nan], rtol=1e-15)


def test_sizes_in_pixels_need_the_pixel_scale():
    assert radius_arcsec(Column([2.0], unit="pix"), None, (), 0.5, Reasons(1)) == 1
    with pytest.raises(CatalogError, match=r"sizes are in pixels; give catalog.pixel_scale \(arcsec a pixel\)"):
        radius_arcsec(Column([2.0], unit="pix"), None, (), None, Reasons(1))
