"""Stamps of real mosaics: awkward FITS files, measured positions, a Hubble field in nine bands.

The files are found through the environment variable CATMORPH_REAL_DATA.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter, map_coordinates

from catmorph.errors import MosaicError
from catmorph.quality import describe
from catmorph.recipe import StampSection, load_recipe
from catmorph.sources.ingest import ingest
from catmorph.stamps.block import BlockPlan, cut_block
from catmorph.stamps.build import cut_chunk, cut_tasks
from catmorph.stamps.mosaics import ImageFiles
from catmorph.stamps.pixels import Image, Mosaic
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.store import open_shard
from catmorph.workspace import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")

WITH_WCS = {
    "m13_rice.fits": 1, "m13_gzip.fits": 1, "pole.fits": 0, "scale.fits": 0, "sipsample.fits": 0, "tpv.fits.gz": 0,
}
WITHOUT_WCS = {"blank.fits": 0, "compressed_with_nan.fits": 1, "ticketdm26260.fits.fz": 1, "o4sp040b0_raw.fits": 1}


def truth(path: Path, hdu: int) -> tuple[np.ndarray, WCS]:
    """Return an image as float64 and its WCS, as astropy reads them."""
    with fits.open(path) as file:
        return np.array(file[hdu].data, dtype=float), WCS(file[hdu].header)


def reference_stamp(data: np.ndarray, wcs: WCS, sky: SkyCoord, side: float, pixels: int, north: bool) -> np.ndarray:
    """Sample an image slowly: the full WCS at every stamp pixel, bilinear; only for stamps that enlarge."""
    steps = (np.arange(pixels) - (pixels - 1) / 2) * side / pixels
    across, up = np.meshgrid(steps, steps)
    if north:
        frame = sky.skyoffset_frame()
        points = SkyCoord(-across.ravel() * u.arcsec, up.ravel() * u.arcsec, frame=frame).icrs
        x, y = wcs.world_to_pixel(points)
    else:
        x0, y0 = wcs.world_to_pixel(sky)
        x0, y0 = float(x0), float(y0)
        ends = [wcs.pixel_to_world(x0 + dx, y0 + dy) for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        scale = [ends[0].separation(ends[1]).arcsec / 2, ends[2].separation(ends[3]).arcsec / 2]
        x, y = x0 + across.ravel() / scale[0], y0 + up.ravel() / scale[1]
    return map_coordinates(data, [y, x], order=1, cval=np.nan).reshape(pixels, pixels)


@pytest.mark.parametrize("orientation", ["mosaic", "north"])
@pytest.mark.parametrize("name", WITH_WCS)
def test_odd_files_give_the_stamps_of_a_slow_reference(real_data, name, orientation):
    path = real_data / "odd_fits" / name
    data, wcs = truth(path, WITH_WCS[name])
    height, width = data.shape
    rng = np.random.default_rng(3)
    x, y = rng.uniform(8, width - 9, 12), rng.uniform(8, height - 9, 12)
    sky = wcs.pixel_to_world(x, y).icrs
    scale = float(np.sqrt(np.abs(np.linalg.det(wcs.pixel_scale_matrix)))) * 3600
    side, pixels = 8 * scale, 16
    rows = {"id": np.arange(12).astype(str), "ra": sky.ra.deg, "dec": sky.dec.deg, "size_arcsec": np.ones(12)}
    stamp = StampSection(side=f"{side!r} arcsec", pixels=pixels, orientation=orientation, max_bad_fraction=1.0)
    content, failures = cut_block(BlockPlan(((ImageFiles(str(path)),),), None, StampSettings.of(stamp)), rows)
    assert failures == []
    np.testing.assert_allclose(content.centre[:, 0], np.stack([x, y], axis=-1), atol=1e-5)
    compared = 0
    for source in range(12):
        if content.rows[source] < 0:
            assert describe(int(content.flags[source])) in ("FLAT", "NO_DATA|SOME_BAD_PIXELS")
            continue
        expected = reference_stamp(data, wcs, sky[source], side, pixels, orientation == "north")
        actual = content.stamps[content.rows[source], 0]
        both = np.isfinite(expected)
        # Where the reference has no invalid pixel under it, the stamp has a value, and the same.
        assert np.isfinite(actual[both]).all()
        # The stamp's grid is straight over its 8 pixels, the reference's follows the distortion: 5e-4 pixels.
        np.testing.assert_allclose(actual[both], expected[both], atol=2e-3 * np.ptp(expected[both]), rtol=1e-5)
        compared += int(both.sum())
    assert compared > 1000


@pytest.mark.parametrize("name", [*WITH_WCS, *WITHOUT_WCS])
def test_odd_files_are_read_as_astropy_reads_them(real_data, name):
    path = real_data / "odd_fits" / name
    hdu = {**WITH_WCS, **WITHOUT_WCS}[name]
    expected, _ = truth(path, hdu)
    image = Image(str(path))
    try:
        assert image.shape == expected.shape
        rows, columns = slice(0, image.shape[0]), slice(0, image.shape[1])
        np.testing.assert_allclose(image.window(rows, columns), expected, rtol=1e-6, equal_nan=True)
    finally:
        image.close()


@pytest.mark.parametrize("name", WITHOUT_WCS)
def test_odd_files_without_coordinates_are_one_line(real_data, name):
    path = real_data / "odd_fits" / name
    with pytest.raises(MosaicError) as caught:
        Mosaic(ImageFiles(str(path)))
    assert str(caught.value) == (
        f"{path}: has no celestial world coordinate system (CTYPE1/2 such as RA---TAN, DEC--TAN); "
        "choose another HDU with mosaics.hdu"
    )


def test_the_empty_extensions_of_a_raw_file_are_one_line(real_data):
    path = real_data / "odd_fits" / "o4sp040b0_raw.fits"
    with pytest.raises(MosaicError) as caught:
        Mosaic(ImageFiles(str(path), hdu="ERR"))
    assert str(caught.value) == f"{path}: HDU 'ERR' is no two-dimensional image"
    with pytest.raises(MosaicError) as caught:
        Mosaic(ImageFiles(str(path), hdu="SKY"))
    assert str(caught.value).startswith(f"{path}: has no HDU 'SKY'; ")


def run_of(folder: Path, recipe: dict[str, object]) -> tuple[RunFolder, pd.DataFrame]:
    """Ingest and cut a survey; return the run and its sources, in the order of the chunks."""
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe))
    run = RunFolder(folder / "run", load_recipe(path))
    run.prepare()
    ingest(run)
    for task in cut_tasks(run, run.recipe.all_views):
        cut_chunk(task)
    frames = [run.read_sources(chunk).to_pandas() for chunk in run.chunks()]
    return run, pd.concat(frames, ignore_index=True)


def test_viking_centres_are_where_they_were_measured(real_data, tmp_path):
    folder = real_data / "viking"
    run, sources = run_of(tmp_path, {
        "name": "viking", "scheme": "clash",
        "catalog": {"files": str(folder / "profound.tab"), "field": {"value": "viking"}, "id": "uniqueID",
                    "ra": {"column": "RAcen", "unit": "deg"}, "dec": {"column": "Deccen", "unit": "deg"},
                    "size": {"column": "R90", "unit": "arcsec"}, "magnitude": "mag", "keep": ["xcen", "ycen"]},
        "bands": {"names": ["Z"]}, "mosaics": {"pattern": str(folder / "viking_{band|lower}.fits")},
        "stamp": {"side": "4 radii", "pixels": 48, "min_side_pixels": 1.0},
    })
    assert len(sources) == 97
    centre, flags = [], []
    for task in cut_tasks(run, ["Z"]):
        with open_shard(task.shard) as shard:
            centre.append(shard.centre[:, 0])
            flags += [describe(int(value)) for value in shard.flags]
    measured = np.stack([sources["xcen"], sources["ycen"]], axis=-1) - 0.5
    np.testing.assert_allclose(np.concatenate(centre), measured, atol=0.05)
    # Five have no R90: they have a place, and the reason why they have no stamp.
    unsized = sources["size_arcsec"].isna()
    assert unsized.sum() == 5
    assert {flag for flag, missing in zip(flags, unsized, strict=True) if missing} == {"BAD_SIZE"}
    assert {flag for flag, missing in zip(flags, unsized, strict=True) if not missing} == {"", "EDGE"}


XDF_BANDS = ("F435W", "F606W", "F775W", "F814W", "F850LP", "F105W", "F125W", "F140W", "F160W")


@pytest.fixture(scope="module")
def xdf(real_data, tmp_path_factory) -> tuple[RunFolder, pd.DataFrame]:
    folder = real_data / "xdf"
    return run_of(tmp_path_factory.mktemp("xdf"), {
        "name": "xdf", "scheme": "clash",
        "catalog": {"files": str(folder / "xdf_catalog.fits"), "field": {"value": "xdf"}, "id": "ID", "ra": "RA",
                    "dec": "DEC", "size": {"column": "A_IMAGE_03", "unit": "pixels"}, "pixel_scale": 0.03,
                    "magnitude": "MAG_F775W"},
        "bands": {"names": list(XDF_BANDS)},
        "mosaics": {"pattern": str(folder / "xdf_{band|lower}_sci.fits")},
        "stamp": {"side": "5 radii", "pixels": 80},
    })


def test_xdf_loses_nothing(xdf):
    run, sources = xdf
    assert len(sources) == 203
    for view in XDF_BANDS:
        ids, flags, stamps = [], [], 0
        for task in cut_tasks(run, [view]):
            with open_shard(task.shard) as shard:
                ids += shard.ids
                flags += [describe(int(value)) for value in shard.flags]
                stamps += len(shard.read(slice(None)))
        assert ids == list(sources["id"])
        assert stamps == 203
        assert set(flags) == {"", "EDGE"}


def peak_offsets(run: RunFolder, sources: pd.DataFrame, view: str) -> dict[str, tuple[float, float]]:
    """Return id -> offset (x, y) of the peak from the stamp's centre in native pixels, of the ten brightest.

    Brightest by the catalog's F775W magnitude; the peak is the maximum of the stamp smoothed by a Gaussian of
    sigma 1 native pixel (about the PSF's width), refined by a parabola in x and y.
    """
    brightest = set(sources["id"][np.argsort(sources["magnitude"])[:10]])
    result = {}
    (task,) = cut_tasks(run, [view])
    with open_shard(task.shard) as shard:
        for source, identifier in enumerate(shard.ids):
            if identifier not in brightest:
                continue
            stamp = shard.read(shard.rows[source : source + 1])[0, 0]
            native = 5 * float(sources["size_arcsec"][source]) / float(shard.pixel_scale[source, 0]) / 80
            smooth = gaussian_filter(np.nan_to_num(stamp).astype(float), 1 / native)
            row, column = np.unravel_index(smooth.argmax(), smooth.shape)
            x = column + vertex(smooth[row, column - 1 : column + 2]) - 39.5
            y = row + vertex(smooth[row - 1 : row + 2, column]) - 39.5
            result[identifier] = x * native, y * native
    assert len(result) == 10
    return result


def vertex(values: np.ndarray) -> float:
    before, at, after = values
    return float(0.5 * (before - after) / (before - 2 * at + after))


def test_xdf_nine_of_the_ten_brightest_peak_at_the_centre(xdf):
    """In F850LP, the reddest of the optical bands, where knots of young stars weigh least.

    Nine of ten peak within 2 native pixels. Source 32888 is two knots, and the catalog's position, a centre of
    mass between them, lies 2.3 pixels from the brighter one.
    """
    offsets = {name: np.hypot(*offset) for name, offset in peak_offsets(*xdf, "F850LP").items()}
    assert {name for name, distance in offsets.items() if distance > 2} == {"32888"}
    assert offsets["32888"] < 2.5


def test_xdf_peaks_in_the_band_of_the_catalog(xdf):
    """In F775W, 32378 too has its brighter knot off the centre of mass of two: by 6.7 pixels.

    Up to 0.7 pixels of every offset are the reconstructed WCS of the field: the centroids of 53 bright sources
    lie (-0.57, -0.44) pixels from the catalog's positions.
    """
    offsets = {name: np.hypot(*offset) for name, offset in peak_offsets(*xdf, "F775W").items()}
    assert {name for name, distance in offsets.items() if distance > 2} == {"32378", "32888"}
    assert offsets["32378"] == pytest.approx(6.7, abs=0.2)
