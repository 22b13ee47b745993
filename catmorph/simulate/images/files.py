"""The files of simulated images: JPEG, PNG and FITS, in a folder or a tar file. Same input, same bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from PIL import Image

from catmorph.simulate.images.render import ZERO_POINT
from catmorph.simulate.images.spec import ImageFiles, ImageSpec, SurveySpec

ENDINGS = {"jpeg": ".jpg", "png": ".png", "fits": ".fits"}


def stretch(planes: np.ndarray, gains: np.ndarray, images: ImageFiles) -> np.ndarray:
    """Turn planes (3, y, x), y upwards, into 8-bit colours (y, x, 3), y downwards.

    The asinh stretch of the mean of the bands, which keeps colours (Lupton et al. 2004, equation 2): linear below
    the surface brightness `knee`, white at `white`. Where a colour exceeds white, all three are scaled down.
    """
    knee, white = (10 ** (-0.4 * (level - ZERO_POINT)) for level in (images.knee, images.white))
    light = planes * gains[:, None, None]
    mean = light.mean(axis=0)
    # asinh(x) / x is 1 in the limit of no light.
    share = np.where(np.abs(mean) > 1e-6 * knee, mean, 1e-6 * knee)
    colours = light * (np.arcsinh(share / knee) / share / np.arcsinh(white / knee))
    colours /= np.maximum(colours.max(axis=0), 1.0)
    levels = images.black + (1.0 - images.black) * colours
    return np.rint(255 * levels.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)[::-1]


def image_bytes(planes: np.ndarray, spec: ImageSpec, survey: SurveySpec, pixel_arcsec: float, grey: bool) -> bytes:
    """Encode planes (plane, y, x) as the spec says; `grey` keeps one plane."""
    file = io.BytesIO()
    if spec.images.format == "fits":
        fits.PrimaryHDU(planes[:1] if grey else planes, _header(spec, survey, pixel_arcsec)).writeto(file)
        return file.getvalue()
    gains = np.array([spec.band(name).gain for name in spec.planes])
    image = Image.fromarray(stretch(planes, gains, spec.images))
    image = image.convert("L") if grey else image
    if spec.images.format == "jpeg":
        image.save(file, "JPEG", quality=spec.images.quality, optimize=True)
    else:
        image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _header(spec: ImageSpec, survey: SurveySpec, pixel_arcsec: float) -> fits.Header:
    header = fits.Header()
    header["SURVEY"] = (survey.name, "simulated survey")
    header["PLANES"] = (",".join(spec.planes), "bands, in the order of the planes")
    header["BUNIT"] = ("nmgy/arcsec2", "AB magnitude 22.5 a square arcsec")
    header["PIXSCALE"] = (pixel_arcsec, "side of a pixel, arcsec")
    header["PSFFWHM"] = (survey.fwhm_arcsec, "PSF full width at half maximum, arcsec")
    header["ORIGIN"] = ("catmorph simulate", "this is no observation")
    return header


def pack(folder: Path) -> Path:
    """Put the files of `folder` into a tar file beside it, by name and without times or owners; remove the folder."""
    target = folder.with_suffix(".tar")
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            member = tarfile.TarInfo(path.name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)
            path.unlink()
    folder.rmdir()
    return target


def write_table(path: Path, table: pd.DataFrame, decimals: dict[str, int]) -> None:
    """Write a CSV table, numbers with `decimals` (6 where not given)."""
    path.parent.mkdir(exist_ok=True)
    text = table.copy()
    for name in [str(one) for one in table if table[one].dtype.kind == "f"]:
        text[name] = [f"{value:.{decimals.get(name, 6)}f}" for value in table[name]]
    text.to_csv(path, index=False, lineterminator="\n")
