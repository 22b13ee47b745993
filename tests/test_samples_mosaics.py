"""The samples whose networks see several bands at once: star clusters and the members of a cluster of galaxies."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner

from catmorph.cli import cli
from catmorph.schemes import load_scheme

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_data"


def run(name: str, folder: Path, *more: str) -> None:
    arguments = ["run", str(ROOT / "configs" / "samples" / f"{name}.toml"), "-w", str(folder), "-q", *more]
    done = CliRunner().invoke(cli, arguments, prog_name="catmorph")
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def clusters(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phangs")
    run("phangs", folder)
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("perseus")
    run("perseus", folder)
    return folder


def truth_of(name: str) -> pd.DataFrame:
    truth = pd.read_parquet(SAMPLES / name / "truth.parquet")
    return truth[truth["listed"]].drop_duplicates(["field", "id"]).set_index(["field", "id"])


def test_star_clusters_are_what_was_drawn(clusters):
    catalog = pd.read_csv(clusters / "release" / "star-clusters.csv").set_index(["galaxy", "ID"])
    scheme, drawn = load_scheme("phangs"), truth_of("phangs")["class"]
    assert set(catalog.index) == set(drawn.index)
    probabilities = catalog[[f"P_{name}" for name in scheme.class_names]]
    assert (probabilities.sum(axis=1) - 1).abs().max() < 3e-4  # four decimals
    found = [scheme.classes[number].code for number in probabilities.to_numpy().argmax(axis=1)]
    right = pd.Series(found, catalog.index) == drawn.loc[catalog.index]
    # Always saying "no cluster" is right for 0.36 of them.
    assert right.mean() > 0.9
    # The field without the near ultraviolet is classified with zeros in its place.
    assert right.loc["ngc2"].mean() > 0.85


def test_a_missing_band_warns(clusters):
    summary = (clusters / "release" / "summary.md").read_text()
    assert "MISSING_BAND 53" in summary.replace("\\", "")


def test_stamps_as_multi_extension_fits(clusters, tmp_path):
    done = CliRunner().invoke(cli, ["cutouts", "-r", str(ROOT / "configs" / "samples" / "phangs.toml"), "-w",
                                    str(clusters), "-q", "--format", "mef"], prog_name="catmorph")
    assert done.exit_code == 0, done.output
    catalog = pd.read_csv(clusters / "release" / "star-clusters.csv")
    files = sorted(clusters.rglob("*.fits"))
    assert len(files) == len(catalog) == 131
    row = catalog[(catalog["galaxy"] == "ngc1") & (catalog["ID"] == 7)].iloc[0]
    (path,) = [path for path in files if path.parent.name == "ngc1" and path.stem == "7"]
    with fits.open(path) as stamp:
        bands = [hdu.name for hdu in stamp if hdu.data is not None]
        assert bands == ["F275W", "F336W", "F438W", "F555W", "F814W"]
        for band in bands:
            x, y = WCS(stamp[band].header).world_to_pixel_values(row["RA"], row["DEC"])
            # The catalog has six decimals of a degree: 0.05 of these pixels.
            assert abs(x - 24.5) < 0.06
            assert abs(y - 24.5) < 0.06


def test_cluster_members_are_what_was_drawn(members):
    catalog = pd.read_csv(members / "release" / "cluster-members.csv").set_index("ID")
    visual = truth_of("perseus").loc["perseus"].loc[catalog.index, "class"]
    known = visual[visual.isin(list("012356"))]
    right = (catalog.loc[known.index, "P_member"] > 0.5) == known.isin(["3", "5"])
    assert len(known) > 60
    # Always saying "background" is right for 0.6 of them.
    assert right.mean() > 0.88


def test_stars_are_cut_with_their_reason(members):
    catalog = pd.read_csv(members / "release" / "cluster-members.csv").set_index("ID")
    drawn = truth_of("perseus").loc["perseus"]
    flagged = drawn.index[drawn["kind"] == "flagged_star"]
    assert len(flagged) > 0
    assert not set(flagged) & set(catalog.index)
    rejected = pd.read_parquet(next(members.rglob("rejected.parquet")))
    assert set(flagged.astype(str)) <= set(rejected["id"])


def test_the_summary_tells_the_regions_of_colour(members):
    text = (members / "release" / "summary.md").read_text()
    for region in ("red\\_sequence", "green\\_valley", "blue\\_cloud"):
        assert f"## Group {region}" in text
    assert list((members / "release").rglob("colour*magnitude*.png"))
