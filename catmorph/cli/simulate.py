"""``catmorph simulate``: draw a simulated survey."""

from __future__ import annotations

from pathlib import Path

import click

from catmorph.errors import printable


@click.command(epilog="Example: catmorph simulate configs/simulations/clash-sample.toml --out sample")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="New folder to write into.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Replace the seed of the spec.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, metavar="N",
    help="Processes, one a field or a block of images [default: 1].",
)  # fmt: skip
@click.option("--no-progress", is_flag=True, help="Show no progress bars.")
def simulate(spec: Path, out: Path, seed: int | None, workers: int, no_progress: bool) -> None:
    """Simulate mosaics or image files, catalogs and votes.

    SPEC is a TOML file such as those in configs/simulations, or the name of one of these. Of fields, the folder gets
    mosaics/{field}_{band}.fits (or .fits.fz), catalogs/{field}.cat, truth.parquet and labels.csv, and GalSim is
    needed: pip install 'catmorph[simulate]'. Of image files (a SPEC with [images]), it gets {survey}.tar or a
    folder {survey}, catalog.csv, truth.parquet and the label tables. The same SPEC and seed give the same bytes,
    whatever the number of workers.
    """
    from catmorph.recipe import simulation_path
    from catmorph.simulate import ImageSpec, load_spec, simulate_fields, simulate_images

    what = load_spec(simulation_path(spec))
    if seed is not None:
        what = what.model_copy(update={"seed": seed})
    if isinstance(what, ImageSpec):
        drawn = simulate_images(what, out, workers=workers, progress=not no_progress)
        click.echo(printable(f"{drawn.folder}: {len(drawn.catalog)} sources, {len(drawn.truth)} images"))
        return
    done = simulate_fields(what, out, workers=workers, progress=not no_progress)
    fields = done.truth["field"].nunique()
    click.echo(printable(f"{done.folder}: {fields} fields, {len(done.truth)} stamps, {len(done.labels)} labelled"))
