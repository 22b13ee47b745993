"""``catmorph simulate``: draw a simulated survey."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(epilog="Example: catmorph simulate configs/simulations/clash-sample.toml --out sample")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="New folder to write into.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Replace the seed of the spec.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, metavar="N", help="Processes, one a field [default: 1]."
)
@click.option("--no-progress", is_flag=True, help="Show no progress bars.")
def simulate(spec: Path, out: Path, seed: int | None, workers: int, no_progress: bool) -> None:
    """Simulate clusters, mosaics, catalogs and votes.

    SPEC is a TOML file such as those in configs/simulations. The folder gets mosaics/{field}_{band}.fits
    (or .fits.fz), catalogs/{field}.cat, truth.parquet and labels.csv. The same SPEC and seed give the same
    bytes, whatever the number of workers. Needs GalSim: pip install 'catmorph[simulate]'.
    """
    from catmorph.simulate import load_spec, simulate_fields

    what = load_spec(spec)
    if seed is not None:
        what = what.model_copy(update={"seed": seed})
    done = simulate_fields(what, out, workers=workers, progress=not no_progress)
    fields = done.truth["field"].nunique()
    click.echo(f"{done.folder}: {fields} fields, {len(done.truth)} stamps, {len(done.labels)} labelled")
