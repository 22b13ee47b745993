"""Simulator: surveys with known morphology, for samples, tests and benchmarks.

A spec (TOML) describes bands, sources, faults and voters. Fields and mosaics (:func:`simulate_fields`) become
mosaics, catalogs, a truth table and votes; a spec with a table ``[images]`` (:func:`simulate_images`) becomes image
files of single sources instead. GalSim is imported by :mod:`catmorph.simulate.shapes` alone, when the first field is
drawn.
"""

from __future__ import annotations

from catmorph.simulate.images.run import simulate_images
from catmorph.simulate.images.spec import ImageSpec
from catmorph.simulate.loading import load_spec, parse_spec, tiny_spec
from catmorph.simulate.run import simulate_fields
from catmorph.simulate.spec import SimulationSpec

__all__ = [
    "ImageSpec", "SimulationSpec", "load_spec", "parse_spec", "simulate_fields", "simulate_images", "tiny_spec",
]  # fmt: skip
