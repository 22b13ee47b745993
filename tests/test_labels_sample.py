"""Drawing stamps to label, and the pictures and manifest that people vote on."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from astropy.visualization import PercentileInterval
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catmorph.errors import UsageError
from catmorph.labels.cells import number_cell, text_cell
from catmorph.labels.sample import SampleRow, check_edges, draw_sample, read_sample, write_sample
from catmorph.labels.subjects import MANIFEST, file_names, picture
from catmorph.recipe import load_recipe
from catmorph.workspace import RunFolder

BLUE = (70, 90, 170)


@pytest.fixture(scope="module")
def cut(pristine_survey, tmp_path_factory):
    """The tiny survey with stamps; read only, but for files outside its run folder."""
    survey = pristine_survey.copy(tmp_path_factory.mktemp("labels") / "tiny")
    for name in ("ingest", "cutouts"):
        assert survey(name, "-r", "tiny.toml").status == 0
    return survey


def draw(survey, output, *arguments):
    done = survey("labels", "sample", "-r", "tiny.toml", "-o", output, *arguments)
    assert done.status == 0, done.err
    return done


# --- sample -----------------------------------------------------------------------------------------------


def test_a_sample_is_of_stamps_that_are_there(cut, tmp_path):
    done = draw(cut, tmp_path / "all.csv", "--per-view", 50, "--json")
    found, table = json.loads(done.out), pd.read_csv(tmp_path / "all.csv", dtype={"id": str})
    assert list(table.columns) == ["stamp", "field", "id", "view", "magnitude", "ra", "dec"]
    # Field beta has no F435W mosaic, and half of alpha is not covered there.
    assert 0 < found["available"]["F435W"] < 5
    assert found["available"]["F160W"] == 9
    assert table["view"].value_counts().to_dict() == found["available"]
    assert found["lacking"] == [f"{view}: only {count} of 50 stamps" for view, count in found["available"].items()]
    assert list(table["view"].unique()) == ["F435W", "F814W", "F160W"]
    first = table.iloc[0]
    assert first["stamp"] == f"{first['field']}_f435w_{first['id']}"
    assert table["ra"].between(9, 151).all()


def test_the_draw_depends_on_the_seed_and_not_on_chunks(cut, tmp_path):
    draw(cut, tmp_path / "a.csv", "--per-view", 3)
    draw(cut, tmp_path / "b.csv", "--per-view", 3, "--seed", 1)
    assert (tmp_path / "a.csv").read_bytes() != (tmp_path / "b.csv").read_bytes()
    small = cut.copy(tmp_path / "small")
    overrides = ["--set", "run.chunk_rows=2"]
    for name in ("ingest", "cutouts"):
        assert small(name, "-r", "tiny.toml", *overrides).status == 0
    draw(small, tmp_path / "c.csv", "--per-view", 3, *overrides)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    # A larger draw begins with the smaller one: the first rows of a view are a random sample themselves.
    draw(cut, tmp_path / "d.csv", "--per-view", 4, "--band", "F160W")
    larger, smaller = (pd.read_csv(tmp_path / name).query("view == 'F160W'")["stamp"].tolist()
                       for name in ("d.csv", "a.csv"))  # fmt: skip
    assert (larger[:3], len(larger)) == (smaller, 4)


def test_every_stamp_is_drawn_about_as_often(cut):
    run = RunFolder(cut.run, load_recipe(cut.recipe))
    drawn = [row.stamp for seed in range(120) for row in draw_sample(run, per_view=3, seed=seed, views=["F160W"]).rows]
    counts = pd.Series(drawn).value_counts()
    # 120 draws of 3 out of 9: 40 each, with a standard deviation of 5.2.
    assert len(counts) == 9
    assert counts.between(40 - 4 * 5.2, 40 + 4 * 5.2).all()


def test_magnitude_bins_give_equal_shares_and_say_what_is_lacking(cut, tmp_path):
    draw(cut, tmp_path / "all.csv", "--per-view", 50, "--band", "F160W")
    magnitudes = np.sort(pd.read_csv(tmp_path / "all.csv")["magnitude"].to_numpy())
    edges = [magnitudes[0], (magnitudes[3] + magnitudes[4]) / 2, magnitudes[7]]
    text = ",".join(f"{edge:.6f}" for edge in edges)
    done = draw(cut, tmp_path / "bins.csv", "--per-view", 5, "--band", "F160W", "--by-magnitude", text)
    found = pd.read_csv(tmp_path / "bins.csv")["magnitude"]
    # Four sources in each bin, the brightest and the last edge among them; five shared by two are 3 and 2.
    assert ((found < edges[1]).sum(), (found >= edges[1]).sum(), (found > edges[2]).sum()) == (3, 2, 0)
    assert "1 stamps have no magnitude in a bin and could not be drawn" in done.err
    done = draw(cut, tmp_path / "bins.csv", "--per-view", 9, "--band", "F160W", "--by-magnitude", text)
    low, middle, high = (f"{edge:g}" for edge in edges)
    assert f"warning: F160W, magnitude {low} to {middle}: only 4 of 5 stamps" in done.err
    assert f"F160W, magnitude {middle} to {high}: only" not in done.err
    done = cut("labels", "sample", "-r", "tiny.toml", "--by-magnitude", "1,2", "-o", tmp_path / "no.csv")
    assert (done.status, (tmp_path / "no.csv").exists()) == (2, False)
    assert "there is no stamp to draw: " in done.err


@pytest.mark.parametrize(("edges", "message"), [
    ([20], "magnitude edges 20 do not ascend"), ([20, 20], "do not ascend"), ([22, 20], "do not ascend"),
    ([20, float("nan")], "do not ascend"), ([1, 2, 3, 4], "3 magnitude bins cannot share 2 stamps"),
])  # fmt: skip
def test_edges_must_ascend(edges, message):
    with pytest.raises(UsageError, match=message):
        check_edges(edges, 2)


def test_errors_of_sample(cut, survey, tmp_path):
    common = ("-r", "tiny.toml", "-o", tmp_path / "s.csv")
    assert "the survey table is not read in yet; run `catmorph ingest`" in survey("labels", "sample", *common).err
    assert "--by-magnitude 'a,b' is no list of numbers" in cut("labels", "sample", *common, "--by-magnitude", "a,b").err
    unknown = cut("labels", "sample", *common, "--band", "F161W")
    assert "unknown band or view 'F161W'; did you mean 'F160W'?" in unknown.err
    wrong = cut("labels", "sample", *common, "--set", "labels.stamp={cluster}_{id}")
    assert "labels.stamp: pattern '{cluster}_{id}' uses {cluster}, valid: field, id, view" in wrong.err
    assert "labels.stretches" in cut("labels", "sample", *common, "--set", "labels.stretches=[101]").err
    done = cut("labels", "sample", *common, "--set", "labels.stamp={field}_{id}")
    assert done.status == 2
    assert "labels.stamp = '{field}_{id}' gives " in done.err
    assert not (tmp_path / "s.csv").exists()


def test_stamps_of_other_sources_are_refused(cut, tmp_path):
    other = cut.copy(tmp_path / "other")
    catalog = other.folder / "catalogs" / "alpha.cat"
    lines = catalog.read_text().splitlines()
    rows = [number for number, line in enumerate(lines) if line.split()[:1] == ["1"]]
    assert len(rows) >= 1
    for number in rows:
        lines[number] = lines[number].replace("1", "9", 1)
    catalog.write_text("\n".join(lines) + "\n")
    assert other("ingest", "-r", "tiny.toml").status == 0
    done = other("labels", "sample", "-r", "tiny.toml")
    assert done.status == 1
    assert "holds other sources than its chunk has now; run `catmorph cutouts`" in done.err


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1,
                                  max_size=8).filter(lambda text: text == text.strip(" ")),
                          st.floats(allow_infinity=False)), min_size=1))  # fmt: skip
def test_a_sample_is_read_back(tmp_path_factory, cells):
    path = tmp_path_factory.getbasetemp() / "sample.csv"
    rows = [SampleRow(text, text[::-1].strip(" ") or "x", text, "F1", number, number, -1.0) for text, number in cells]
    write_sample(path, rows)
    assert repr(read_sample(path)) == repr([
        SampleRow(row.stamp, row.field, row.id, row.view, float(number_cell(row.magnitude) or "nan"),
                  float(number_cell(row.ra) or "nan"), row.dec, number) for number, row in enumerate(rows, start=1)
    ])  # fmt: skip
    assert all(float(number_cell(number)) == number for _, number in cells if number == number)


# --- subjects ---------------------------------------------------------------------------------------------


def test_subjects_are_made_once_and_the_same(cut, tmp_path):
    draw(cut, tmp_path / "s.csv", "--per-view", 2)
    command = ["labels", "subjects", "-r", "tiny.toml", tmp_path / "s.csv", "--out"]
    done = cut(*command, tmp_path / "one")
    assert (done.status, done.out) == (0, f"{tmp_path}/one/{MANIFEST}\n")
    assert done.lines[-1] == "6 pictures made, 0 kept"
    manifest = list(csv.DictReader((tmp_path / "one" / MANIFEST).read_text().splitlines()))
    assert list(manifest[0]) == ["filename", "#stamp", "#field", "#id", "#view", "#magnitude", "#ra", "#dec"]
    assert [row["#stamp"] for row in manifest] == pd.read_csv(tmp_path / "s.csv")["stamp"].tolist()
    assert {row["filename"] for row in manifest} | {MANIFEST} == {one.name for one in (tmp_path / "one").iterdir()}
    # An interrupted and damaged folder is completed, and nothing else is touched.
    names = [row["filename"] for row in manifest]
    content = {name: (tmp_path / "one" / name).read_bytes() for name in [*names, MANIFEST]}
    (tmp_path / "one" / names[0]).unlink()
    (tmp_path / "one" / names[1]).write_bytes(content[names[1]][:500])
    (tmp_path / "one" / MANIFEST).unlink()
    (tmp_path / "one" / ".partial-x.png").write_bytes(b"left over")
    kept = (tmp_path / "one" / names[2]).stat().st_mtime_ns
    done = cut(*command, tmp_path / "one", "--json")
    assert json.loads(done.out) == {"manifest": f"{tmp_path}/one/{MANIFEST}", "made": 2, "kept": 4}
    assert {one.name: one.read_bytes() for one in (tmp_path / "one").iterdir()} == content
    assert (tmp_path / "one" / names[2]).stat().st_mtime_ns == kept
    with Image.open(tmp_path / "one" / names[0]) as image:
        assert (image.size, image.mode, image.info) == ((808, 400), "RGB", {})


def test_errors_of_subjects(cut, tmp_path):
    draw(cut, tmp_path / "s.csv", "--per-view", 2)
    lines = (tmp_path / "s.csv").read_text().splitlines()

    def subjects(*rows):
        (tmp_path / "t.csv").write_text("\n".join([lines[0], *rows]) + "\n")
        done = cut("labels", "subjects", "-r", "tiny.toml", tmp_path / "t.csv", "--out", tmp_path / "out")
        assert (done.status, (tmp_path / "out").exists(), len(done.lines)) == (2, False, 1)
        return done.err

    assert "the sample has no rows" in subjects()
    where, name = tmp_path / "t.csv", lines[1].split(",")[0]
    assert f"{where}: the sample has no rows" in subjects().replace("error: ", "")
    assert f"{where}: 2 rows of the sample share their stamps: {name} (row 2), {name} (row 3)\n" in subjects(
        lines[2], lines[1], lines[1])
    missing = subjects(lines[1], "x_1,no,1,F160W,,,")
    assert f"{where}: 1 stamps of the sample are not in the run folder, or blocked: x_1 (row 2); draw it" in missing
    views = subjects("x_1,alpha,1,F999W,,,")
    assert f"{where}: 1 rows of the sample have views that the recipe has not (F999W): x_1 (row 1); valid: F4" in views
    first = lines[2].split(",")[0]
    other = subjects(lines[1], lines[2].replace(first, "mine"))
    assert f"{where}: 1 stamps are not called as labels.stamp says, the first {first!r}: mine (row 2); draw" in other
    assert not (tmp_path / "out").exists()
    (tmp_path / "t.csv").write_text("stamp,field,view\n")
    done = cut("labels", "subjects", "-r", "tiny.toml", tmp_path / "t.csv", "--out", tmp_path / "out")
    assert "t.csv: has no column 'id'" in done.err


def test_a_picture_shows_the_stretch_north_up_and_invalid_pixels():
    stamp = np.arange(400, dtype=np.float32).reshape(1, 20, 20)
    stamp[0, :2, :5] = np.nan
    with Image.open(io.BytesIO(picture(stamp, (95.0, 99.5), 100))) as image:
        pixels = np.array(image)
    assert pixels.shape == (100, 208, 3)
    assert (pixels[:, 100:108] == 255).all()
    left, right = pixels[::5, :100:5], pixels[::5, 108::5]
    # Row 0 of the stamp is at the bottom; what is invalid is blue in both panels.
    for panel in (left, right):
        assert (panel[-2:, :5] == BLUE).all()
        assert ((panel == BLUE).all(axis=2)).sum() == 10
    valid = stamp[np.isfinite(stamp)]
    for panel, stretch in ((left, 95.0), (right, 99.5)):
        low, high = PercentileInterval(stretch).get_limits(valid)
        grey = panel[::-1, :, 0].astype(float)
        assert abs(np.mean(grey[5:][stamp[0, 5:] > high] == 255) - 1) == 0
        middle = (stamp[0] > low) & (stamp[0] < high)
        np.testing.assert_allclose(grey[middle], 255 * (stamp[0][middle] - low) / (high - low), atol=0.51)
    # 95%: 2.5% at either end.
    assert np.isclose(low, np.percentile(valid, 0.25))
    assert (pixels[::5, :100] == pixels[4::5, :100]).all(), "enlarged without interpolation"


def test_pictures_of_several_bands_and_of_odd_stamps():
    stamp = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    with Image.open(io.BytesIO(picture(stamp, (95.0, 99.5), 16))) as image:
        assert image.size == (2 * 16 + 8, 3 * 16 + 2 * 8)
    for odd in (np.zeros((1, 8, 8), np.float32), np.full((1, 8, 8), np.nan, np.float32)):
        with Image.open(io.BytesIO(picture(odd, (95.0,), 4))) as image:
            assert image.size == (8, 8)


@given(st.lists(st.text(min_size=1, max_size=150), min_size=1, max_size=8, unique=True))
def test_file_names_are_harmless_whatever_a_stamp_is_called(names):
    found = file_names([*names, "../../etc/passwd", "a/b", ".hidden", "A1", "a1", "x" * 300, "x" * 301])
    assert len({name.casefold() for name in found}) == len(found)
    for name in found:
        assert not set(name) & set('/\\:*?"<>| ')
        assert name.isascii()
        assert name.isprintable()
        assert not name.startswith(".")
        assert len(name) <= 140
        assert name.endswith(".png")


def test_numbers_and_texts_of_cells():
    assert [number_cell(value) for value in (3.0, 0.1, float("nan"), 1e20, -2.5)] == ["3", "0.1", "", "1e+20", "-2.5"]
    texts = {"a": "a", "=1": "'=1", "'=1": "''=1", "-3_f1_2": "-3_f1_2", "a,b": '"a,b"', "x#y": '"x#y"'}
    assert {text: text_cell(text) for text in texts} == texts
