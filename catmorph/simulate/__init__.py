"""Sky simulator: fields of galaxies and stars with known morphology, for samples, tests and benchmarks.

A spec (TOML) describes bands, fields, population, artefacts, dirt of the catalog and the voters;
:func:`simulate_fields` turns it into mosaics, catalogs, a truth table and simulated votes.
GalSim is imported by :mod:`catmorph.simulate.shapes` alone, when the first field is drawn.
"""

from __future__ import annotations

from catmorph.simulate.run import simulate_fields
from catmorph.simulate.spec import SimulationSpec, load_spec, tiny_spec

__all__ = ["SimulationSpec", "load_spec", "simulate_fields", "tiny_spec"]
