"""Windows of FITS images of every kind, and one-line errors for what is no image."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from mosaic_files import tan_wcs, write_mosaic

from catmorph.errors import MosaicError
from catmorph.stamps.mosaics import ImageFiles
from catmorph.stamps.pixels import Image, Mosaic

SHAPE = (90, 110)
WCS_CARDS = tan_wcs(150.0, 2.0, shape=SHAPE).to_header()
WINDOW = (slice(7, 61), slice(13, 99))
COMPRESSIONS = ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1")


def values(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


def holed(pixels: np.ndarray, fill: float = np.nan) -> np.ndarray:
    pixels = pixels.copy()
    pixels[10:14, 20:31] = fill
    return pixels


def read(path: Path, hdu: int | str | None = None, **settings: object) -> np.ndarray:
    mosaic = Mosaic(ImageFiles(str(path), hdu, **settings))
    try:
        assert mosaic.shape == SHAPE
        window = mosaic.window(*WINDOW)
    finally:
        mosaic.close()
    assert window.dtype == np.float32
    assert window.dtype.isnative
    return window


def compressed(path: Path, pixels: np.ndarray, method: str, **settings: object) -> Path:
    header = WCS_CARDS.copy()
    header.update(settings.pop("cards", {}))
    fits.CompImageHDU(pixels, header, compression_type=method, **settings).writeto(path, overwrite=True)
    return path


def fails(path: Path, message: str, hdu: int | str | None = None, **settings: object) -> None:
    """Check that the mosaic at `path` ends in one line: its path and `message`."""
    with pytest.raises(MosaicError) as caught:
        Mosaic(ImageFiles(str(path), hdu, **settings))
    where = settings.get("weight") or settings.get("flag") or path
    assert str(caught.value) == f"{where}: {message}"


@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "i4", "u1"])
def test_plain_pixels(tmp_path, kind):
    pixels = values().astype(kind)
    path = write_mosaic(tmp_path / "a.fits", pixels, tan_wcs(150.0, 2.0, shape=SHAPE))
    np.testing.assert_array_equal(read(path), pixels[WINDOW].astype(np.float32))


def test_nan_and_infinity_are_nan(tmp_path):
    pixels = holed(values())
    pixels[20, 40], pixels[21, 41] = np.inf, -np.inf
    window = read(write_mosaic(tmp_path / "a.fits", pixels, tan_wcs(150.0, 2.0, shape=SHAPE)))
    assert np.isnan(window).sum() == 46
    np.testing.assert_array_equal(np.isnan(window), ~np.isfinite(pixels[WINDOW]))


def test_double_precision_beyond_single_is_invalid(tmp_path):
    pixels = values().astype(float)
    pixels[30, 30] = 1e300
    window = read(write_mosaic(tmp_path / "a.fits", pixels, tan_wcs(150.0, 2.0, shape=SHAPE)))
    assert np.argwhere(np.isnan(window)).tolist() == [[23, 17]]


def scaled_file(path: Path, raw: np.ndarray, **cards: object) -> Path:
    """Write raw integers with scaling keywords that astropy does not apply."""
    unit = fits.PrimaryHDU(raw, WCS_CARDS)
    unit.writeto(path, overwrite=True)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as file:
        file[0].header.update(cards)
    return path


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz"])
def test_scaled_integers_and_blanks(tmp_path, name):
    raw = holed(np.random.default_rng(0).integers(-3000, 3000, SHAPE).astype(">i2"), -32768)
    path = scaled_file(tmp_path / name, raw, BSCALE=0.25, BZERO=100.0, BLANK=-32768)
    expected = raw[WINDOW].astype(np.float32) * 0.25 + 100
    expected[raw[WINDOW] == -32768] = np.nan
    assert np.isnan(expected).sum() == 44
    np.testing.assert_allclose(read(path), expected, rtol=1e-7)


def test_blank_with_scaling_is_of_the_stored_integers(tmp_path):
    raw = np.full(SHAPE, 5, dtype=">i4")
    raw[30, 40] = 7
    window = read(scaled_file(tmp_path / "a.fits", raw, BSCALE=7.0, BZERO=-28.0, BLANK=7))
    assert np.argwhere(np.isnan(window)).tolist() == [[23, 27]]
    assert set(window[np.isfinite(window)]) == {7.0}


@pytest.mark.parametrize("kind", ["u2", "u4"])
def test_unsigned_integers(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, SHAPE, dtype=kind)
    path = write_mosaic(tmp_path / "a.fits", pixels, tan_wcs(150.0, 2.0, shape=SHAPE))
    np.testing.assert_array_equal(read(path), pixels[WINDOW].astype(np.float32))


def test_scaled_floats(tmp_path):
    pixels = values()
    path = scaled_file(tmp_path / "a.fits", pixels.astype(">f4"), BSCALE=2.0, BZERO=-3.0)
    np.testing.assert_allclose(read(path), pixels[WINDOW] * 2 - 3, rtol=1e-6)


@pytest.mark.parametrize("name", ["a.fits.gz", "a.fits"])
def test_gzip_is_told_from_the_bytes_not_the_name(tmp_path, name):
    plain = write_mosaic(tmp_path / "plain.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(read(path), values()[WINDOW])


def test_a_plain_file_under_a_gzip_name(tmp_path):
    path = write_mosaic(tmp_path / "plain.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    os.rename(path, tmp_path / "a.fits.gz")
    np.testing.assert_array_equal(read(tmp_path / "a.fits.gz"), values()[WINDOW])


@pytest.mark.parametrize("method", COMPRESSIONS)
def test_tile_compressed_floats(tmp_path, method):
    pixels = holed(values())
    path = compressed(tmp_path / "a.fits.fz", pixels, method, quantize_level=16.0)
    window = read(path)
    np.testing.assert_array_equal(np.isnan(window), np.isnan(pixels[WINDOW]))
    np.testing.assert_allclose(window, pixels[WINDOW], atol=20 / 16)
    with fits.open(path) as file:
        np.testing.assert_array_equal(window, file[1].data[WINDOW])


def test_losslessly_compressed_floats(tmp_path):
    pixels = holed(values())
    path = compressed(tmp_path / "a.fits.fz", pixels, "GZIP_2", quantize_level=0)
    np.testing.assert_array_equal(read(path), pixels[WINDOW])


@pytest.mark.parametrize("method", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["i2", "i4", "u2"])
def test_tile_compressed_integers(tmp_path, method, kind):
    pixels = np.random.default_rng(0).integers(0, 30000, SHAPE).astype(kind)
    path = compressed(tmp_path / "a.fits.fz", pixels, method)
    np.testing.assert_array_equal(read(path), pixels[WINDOW].astype(np.float32))


@pytest.mark.parametrize("method", COMPRESSIONS)
def test_tile_compressed_integers_with_blanks(tmp_path, method):
    pixels = holed(np.random.default_rng(0).integers(0, 3000, SHAPE).astype("i2"), -999)
    path = compressed(tmp_path / "a.fits.fz", pixels, method, cards={"BLANK": -999})
    expected = pixels[WINDOW].astype(np.float32)
    expected[expected == -999] = np.nan
    np.testing.assert_array_equal(read(path), expected)


def test_gzipped_tile_compressed(tmp_path):
    plain = compressed(tmp_path / "a.fits.fz", values(), "GZIP_2", quantize_level=0)
    for name in ("b.fits.gz", "b.fits"):
        (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
        np.testing.assert_array_equal(read(tmp_path / name), values()[WINDOW])


@pytest.mark.parametrize("tiled", [False, True])
def test_degenerate_axes(tmp_path, tiled):
    header = WCS_CARDS.copy()
    pixels = values()[None, None]
    if tiled:
        unit = fits.CompImageHDU(pixels, header, compression_type="GZIP_2", quantize_level=0,
                                 tile_shape=(1, 1, 10, SHAPE[1]))
    else:
        unit = fits.PrimaryHDU(pixels, header)
    unit.header.update({"WCSAXES": 4, "CTYPE3": "FREQ", "CTYPE4": "STOKES", "CRVAL3": 1.4e9, "CRPIX3": 1.0,
                        "CDELT3": 1e6, "CUNIT3": "Hz", "CRVAL4": 1.0, "CRPIX4": 1.0, "CDELT4": 1.0})
    unit.writeto(tmp_path / "cube.fits")
    np.testing.assert_array_equal(read(tmp_path / "cube.fits"), values()[WINDOW])


def test_extensions_by_name_number_and_default(tmp_path):
    planes = [values(seed) for seed in range(3)]
    units = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])]),
             *(fits.ImageHDU(planes[i], WCS_CARDS, name=name) for i, name in enumerate(("SCI", "ERR", "WHT")))]
    path = tmp_path / "many.fits"
    fits.HDUList(units).writeto(path)
    for hdu, plane in ((None, 0), (2, 0), ("SCI", 0), ("sci", 0), ("ERR", 1), (4, 2), (-1, 2)):
        np.testing.assert_array_equal(read(path, hdu), planes[plane][WINDOW])
    fails(path, "has no HDU 'SCY'; did you mean 'SCI'?", "SCY")
    fails(path, "has no HDU 9; valid: PRIMARY, 1, SCI, ERR, WHT", 9)
    fails(path, "HDU 1 is no two-dimensional image", 1)
    fails(path, "HDU 0 is no two-dimensional image", 0)


def test_weight_and_flag_maps(tmp_path):
    weight, flags = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.int32)
    weight[20, 20:24] = 0, -1, np.nan, np.inf
    flags[30, 20:24] = 1, 2, 4, 6
    path = write_mosaic(tmp_path / "sci.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    weights = str(write_mosaic(tmp_path / "wht.fits", weight))
    flag = str(write_mosaic(tmp_path / "flag.fits", flags))
    invalid = np.isnan(read(path, weight=weights, flag=flag))
    assert np.argwhere(invalid).tolist() == [[13, 7 + i] for i in range(4)] + [[23, 7 + i] for i in range(4)]
    assert np.isnan(read(path, flag=flag, flag_bits=4)).sum() == 2
    assert np.isnan(read(path, flag=flag, flag_bits=8)).sum() == 0


@pytest.mark.parametrize("kind", ["u1", "i2", "i8", "f4"])
def test_flag_maps_of_any_type(tmp_path, kind):
    flags = np.zeros(SHAPE, kind)
    flags[20, 20], flags[20, 21] = 64, 65
    if kind == "i8":
        flags[20, 22] = (1 << 60) + 1  # more digits than a float holds
    if kind == "f4":
        flags[20, 22], flags[20, 23] = np.nan, np.inf
    path = write_mosaic(tmp_path / "sci.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    flag = str(write_mosaic(tmp_path / "flag.fits", flags))
    assert np.isnan(read(path, flag=flag, flag_bits=1)).sum() == (2 if kind == "i8" else 1)
    assert np.isnan(read(path, flag=flag)).sum() == (3 if kind == "i8" else 2)
    assert np.isnan(read(path, flag=flag, flag_bits=1 << 40)).sum() == 0


@pytest.mark.parametrize(("kind", "bit"), [("i2", 15), ("i4", 31), ("i8", 63)])
def test_the_sign_of_a_flag_map_is_its_highest_bit(tmp_path, kind, bit):
    flags = np.zeros(SHAPE, kind)
    flags[20, 20], flags[20, 21] = np.iinfo(kind).min, 1
    path = write_mosaic(tmp_path / "sci.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    flag = str(write_mosaic(tmp_path / "flag.fits", flags))
    assert np.isnan(read(path, flag=flag, flag_bits=1 << bit)).sum() == 1
    assert np.isnan(read(path, flag=flag, flag_bits=(1 << bit) + 1)).sum() == 2
    assert np.isnan(read(path, flag=flag, flag_bits=1 << (bit - 1))).sum() == 0


def test_tile_compressed_flag_map(tmp_path):
    flags = np.zeros(SHAPE, np.int32)
    flags[30, 20:24] = 1, 2, 4, 6
    path = write_mosaic(tmp_path / "sci.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    flag = str(compressed(tmp_path / "flag.fits.fz", flags, "RICE_1"))
    assert np.isnan(read(path, flag=flag, flag_bits=2)).sum() == 2


def test_maps_in_other_hdus_of_the_same_file(tmp_path):
    weight = np.ones(SHAPE, np.float32)
    weight[20, 20] = 0
    path = tmp_path / "both.fits"
    fits.HDUList([fits.PrimaryHDU(values(), WCS_CARDS), fits.ImageHDU(weight, name="WHT")]).writeto(path)
    assert np.isnan(read(path, weight=str(path), weight_hdu="WHT")).sum() == 1


@pytest.mark.parametrize("kind", ["f4", "f8", "i2"])
def test_blank_values(tmp_path, kind):
    pixels = values().astype(kind)
    pixels[20, 20:23] = 0, -99, 0
    path = write_mosaic(tmp_path / "a.fits", pixels, tan_wcs(150.0, 2.0, shape=SHAPE))
    assert np.isnan(read(path, blank=(0.0, -99.0))).sum() == 3


def test_a_blank_value_with_decimals_and_one_beyond_single_precision(tmp_path):
    pixels = values()
    pixels[20, 20] = -99.99
    path = write_mosaic(tmp_path / "a.fits", pixels, tan_wcs(150.0, 2.0, shape=SHAPE))
    assert np.isnan(read(path, blank=(-99.99, 1e300))).sum() == 1


def truncated(path: Path, share: float, source: Path) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_truncated_plain(tmp_path, share):
    """Another tool called such a run completed, and the source was missing from its output."""
    whole = write_mosaic(tmp_path / "whole.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    path = truncated(tmp_path / "a.fits", share, whole)
    needed = 2880 + 4 * SHAPE[0] * SHAPE[1]
    fails(path, f"is truncated: {path.stat().st_size} of at least {needed} bytes; download it again")


def test_missing_padding_is_no_fault(tmp_path):
    whole = write_mosaic(tmp_path / "whole.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    path = tmp_path / "a.fits"
    path.write_bytes(whole.read_bytes()[: 2880 + 4 * SHAPE[0] * SHAPE[1]])
    np.testing.assert_array_equal(read(path), values()[WINDOW])


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_truncated_tile_compressed(tmp_path, share):
    whole = compressed(tmp_path / "whole.fits", values(), "GZIP_2", quantize_level=0)
    path = truncated(tmp_path / "a.fits.fz", share, whole)
    message = rf"{re.escape(str(path))}: is truncated: \d+ of at least \d+ bytes; download it again$"
    with pytest.raises(MosaicError, match=message):
        Mosaic(ImageFiles(str(path)))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_gzip(tmp_path, share):
    whole = tmp_path / "whole.fits.gz"
    plain = write_mosaic(tmp_path / "whole.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    whole.write_bytes(gzip.compress(plain.read_bytes()))
    path = truncated(tmp_path / "a.fits.gz", share, whole)
    with pytest.raises(MosaicError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_damaged_tiles(tmp_path):
    for method in COMPRESSIONS:
        for name in ("a.fits", "a[1].fits"):  # through fitsio and through astropy
            path = compressed(tmp_path / name, np.random.default_rng(1).integers(0, 9999, SHAPE).astype("i2"), method)
            data = bytearray(path.read_bytes())
            data[-12000:-3000] = np.random.default_rng(0).bytes(9000)
            path.write_bytes(data)
            mosaic = Mosaic(ImageFiles(str(path)))
            try:
                if method in ("GZIP_1", "GZIP_2"):  # the others hold no checksum
                    with pytest.raises(MosaicError, match=r"^.*: pixels cannot be read: [^\n]*$"):
                        mosaic.window(slice(0, 90), slice(0, 110))
            finally:
                mosaic.close()


def test_what_is_not_fits(tmp_path):
    path = tmp_path / "a.fits"
    fails(path, "cannot be opened: No such file or directory")
    path.write_bytes(b"")
    fails(path, "is empty")
    path.write_text("\n <!DOCTYPE html><html><body>404 Not Found</body></html>")
    fails(path, "is a web page saved under a FITS name; download it again")
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    fails(path, "is not FITS; download it again")
    path.write_bytes(b"SIMPLE  = " + b"garbage" * 1000)
    with pytest.raises(MosaicError, match=r"a\.fits: cannot be read as FITS: [^\n]+$"):
        Image(str(path))
    path.write_bytes(gzip.compress(b"<html>"))
    with pytest.raises(MosaicError, match=r"a\.fits: cannot be read as FITS: [^\n]+$"):
        Image(str(path))
    path.unlink()
    path.mkdir()
    fails(path, "cannot be opened: Is a directory")


def test_a_file_without_permission(tmp_path):
    path = write_mosaic(tmp_path / "a.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    fails(path, "cannot be opened: Permission denied")


NO_WCS = ("has no celestial world coordinate system (CTYPE1/2 such as RA---TAN, DEC--TAN); "
          "choose another HDU with mosaics.hdu")


def test_no_world_coordinates(tmp_path):
    fails(write_mosaic(tmp_path / "a.fits", values()), NO_WCS)
    spectrum = {"CTYPE1": "LAMBDA", "CTYPE2": "ANGLE"}
    fails(write_mosaic(tmp_path / "b.fits", values(), **spectrum), NO_WCS)


def test_world_coordinates_that_cannot_be_used(tmp_path):
    wcs = tan_wcs(150.0, 2.0, shape=SHAPE)
    start = "has a world coordinate system that cannot be read: "
    cases = {
        "pc": ({"PC1_1": 1.0, "PC1_2": 1.0, "PC2_1": 1.0, "PC2_2": 1.0}, "has a singular CD or PC matrix"),
        "cdelt": ({"CDELT2": 0.0}, start),
        "mixed": ({"CTYPE2": "GLAT-TAN"}, start),
        "unknown": ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, ""),
        "sip": ({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2}, start),
        "ecliptic": ({"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"},
                     "has ELON/ELAT as celestial coordinates; known are RA/DEC and GLON/GLAT"),
        "mars": ({"CTYPE1": "MALN-TAN", "CTYPE2": "MALT-TAN"}, ""),
    }
    for name, (cards, message) in cases.items():
        path = write_mosaic(tmp_path / f"{name}.fits", values(), wcs, **cards)
        with pytest.raises(MosaicError) as caught:
            Mosaic(ImageFiles(str(path)))
        assert str(caught.value).startswith(f"{path}: {message}")
        assert "\n" not in str(caught.value)


def test_celestial_axes_that_are_not_the_image_axes(tmp_path):
    cards = {"WCSAXES": 3, "CTYPE1": "FREQ", "CTYPE2": "RA---TAN", "CTYPE3": "DEC--TAN", "CRVAL1": 1e9,
             "CDELT1": 1e6, "CRPIX1": 1.0, "CRVAL2": 150.0, "CDELT2": -1e-4, "CRPIX2": 1.0, "CRVAL3": 2.0,
             "CDELT3": 1e-4, "CRPIX3": 1.0}
    path = write_mosaic(tmp_path / "a.fits", values()[None], **cards)
    fails(path, "has its celestial coordinates on other axes than the first two")


def test_no_image_at_all(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])])]).writeto(path)
    fails(path, "has no two-dimensional image")
    fails(write_mosaic(tmp_path / "line.fits", np.zeros(30)), "has no two-dimensional image")
    fails(write_mosaic(tmp_path / "cube.fits", np.zeros((3, 20, 20))), "has no two-dimensional image")


def test_a_map_of_another_shape_or_none(tmp_path):
    path = write_mosaic(tmp_path / "sci.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    weight = str(write_mosaic(tmp_path / "wht.fits", np.ones((90, 109))))
    fails(path, "has shape (90, 109), its mosaic (90, 110)", weight=weight)
    fails(path, "cannot be opened: No such file or directory", flag=str(tmp_path / "none.fits"))


NAMES = ["a[1].fits", "a(b).fits", "a+1.fits", "a.fits+1", "a b.fits", "!a.fits", "-", "a#1.fits", "a*.fits",
         "ä.fits", "~a.fits", "mem:a.fits", "a;b.fits", "a.fits[0:3,0:3]", "x" * 240 + ".fits"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_cfitsio_gives_a_meaning(tmp_path, name, monkeypatch):
    folder = tmp_path / "f[x] (1)+2"
    folder.mkdir()
    pixels = values()
    plain = write_mosaic(tmp_path / "plain.fits", pixels, tan_wcs(150.0, 2.0, shape=SHAPE))
    tiled = compressed(tmp_path / "tiled.fits", pixels, "GZIP_2", quantize_level=0)
    for source in (plain, tiled):
        for target in (tmp_path, folder):
            (target / name).write_bytes(source.read_bytes())
            np.testing.assert_array_equal(read(target / name), pixels[WINDOW])
        monkeypatch.chdir(tmp_path)
        np.testing.assert_array_equal(read(Path(name)), pixels[WINDOW])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_files_are_closed(tmp_path):
    wcs = tan_wcs(150.0, 2.0, shape=SHAPE)
    plain = str(write_mosaic(tmp_path / "plain.fits", values(), wcs))
    tiled = str(compressed(tmp_path / "tiled.fits", values(), "RICE_1"))
    zipped = str(write_mosaic(tmp_path / "zipped.fits.gz", values(), wcs))
    bare = str(write_mosaic(tmp_path / "bare.fits", values()))
    before = open_files()
    kept = []
    for _ in range(20):
        for files in (ImageFiles(plain, weight=tiled), ImageFiles(tiled, flag=plain), ImageFiles(zipped)):
            mosaic = Mosaic(files)
            mosaic.window(*WINDOW)
            mosaic.close()
            kept.append(mosaic)  # closed although not yet forgotten
        for files in (ImageFiles(bare), ImageFiles(plain, hdu=5), ImageFiles(plain, weight=bare + "x")):
            with pytest.raises(MosaicError):
                Mosaic(files)
    assert open_files() == before
    with pytest.raises(MosaicError, match="pixels cannot be read: the image is closed"):
        kept[0].window(*WINDOW)


def test_windows_are_copies(tmp_path):
    path = write_mosaic(tmp_path / "a.fits", values(), tan_wcs(150.0, 2.0, shape=SHAPE))
    mosaic = Mosaic(ImageFiles(str(path)))
    try:
        mosaic.window(*WINDOW)[:] = 0
        np.testing.assert_array_equal(mosaic.window(*WINDOW), values()[WINDOW])
    finally:
        mosaic.close()
