"""The files of a simulation: mosaics, catalogs, truth and labels. Same input, same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS

from catmorph.simulate.sky import Mosaic
from catmorph.simulate.spec import FieldSpec, Files, SimulationSpec

TILE_ROWS = 32  # single rows cost 40% more: each tile has its own scale, zero and table row
NOTES = {
    "ID": "Object identifier",
    "RA": "Right ascension in decimal degrees (J2000) [deg]",
    "DEC": "Declination in decimal degrees (J2000) [deg]",
    "PETRO_RADIUS": "Petrosian radius in pixels of the mosaics [pixel]",
    "Z_SPEC": "Spectroscopic redshift",
    "FLAG": "1: a neighbour within the Petrosian radius, 2: near an edge, 3: both",
}


def mosaic_name(field: str, band: str, files: Files) -> str:
    """Return the file name of a mosaic, for example ``a611_f160w.fits.fz``."""
    return f"{field}_{band.lower()}.fits" + (".fz" if files.compression == "rice" else "")


def write_mosaic(path: Path, mosaic: Mosaic, wcs: WCS, field: FieldSpec, spec: SimulationSpec) -> None:
    """Write a mosaic as float32: plain, or RICE tiles with a fixed dither so that the bytes repeat."""
    header = _header(mosaic, wcs, field, spec)
    if spec.files.compression == "none":
        fits.PrimaryHDU(mosaic.pixels, header).writeto(path)
        return
    method = 1 if spec.files.blank == "nan" else 2  # SUBTRACTIVE_DITHER_2 keeps exact zeros
    tiles = fits.CompImageHDU(
        mosaic.pixels,
        header,
        compression_type="RICE_1",
        tile_shape=(min(TILE_ROWS, field.side_pixels), field.side_pixels),
        quantize_level=spec.files.quantize_level,
        quantize_method=method,
        dither_seed=1,
    )
    fits.HDUList([fits.PrimaryHDU(), tiles]).writeto(path)


def _header(mosaic: Mosaic, wcs: WCS, field: FieldSpec, spec: SimulationSpec) -> fits.Header:
    header = wcs.to_header()
    header["OBJECT"] = (field.name, "simulated field")
    header["FILTER"] = mosaic.band.name
    header["BUNIT"] = "ELECTRONS/S"
    header["EXPTIME"] = (spec.exposure_s, "exposure time in s")
    header["ABZP"] = (spec.zero_point, "AB magnitude of 1 electron/s")
    header["PSFFWHM"] = (mosaic.band.fwhm_arcsec, "PSF full width at half maximum, arcsec")
    header["SKYSIGMA"] = (mosaic.sigma, "noise of a sky pixel")
    header["ORIGIN"] = ("catmorph simulate", "this is no observation")
    return header


def write_catalog(path: Path, catalog: pd.DataFrame) -> None:
    """Write a catalog as an ASCII table with a SExtractor header (``# 1 ID  ...``), one row a source."""
    formats = {"ID": "{:6d}", "RA": "{:13.7f}", "DEC": "{:13.7f}", "PETRO_RADIUS": "{:9.3f}", "FLAG": "{:3d}",
               "Z_SPEC": "{:9.5f}"}
    lines = [
        f"#{number:4d} {name:16s} {NOTES.get(name, 'AB magnitude, total [mag]')}"
        for number, name in enumerate(catalog.columns, start=1)
    ]
    for row in catalog.itertuples(index=False):
        cells = zip(catalog.columns, row, strict=True)
        lines.append(" ".join(formats.get(name, "{:9.3f}").format(value) for name, value in cells))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_truth(path: Path, truth: pd.DataFrame) -> None:
    """Write the truth table as Parquet."""
    truth.to_parquet(path, index=False, compression="zstd")


def write_labels(path: Path, labels: pd.DataFrame) -> None:
    """Write the labels as CSV, vote fractions with nine decimals."""
    rounded = labels.copy()
    fractions = [name for name in labels.columns[1:] if name != "votes" and labels[name].dtype.kind == "f"]
    for name in fractions:
        rounded[name] = [np.format_float_positional(v, precision=9, trim="-") for v in labels[name]]
    rounded.to_csv(path, index=False, lineterminator="\n")
