"""`catmorph run` and its stages on a tiny simulated survey: results, reruns, interruptions, exit status."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner
from tiny_survey import start

from catmorph.cli import cli

BANDS = ("F435W", "F814W", "F160W")


def rows_of(survey):
    return list(csv.reader(io.StringIO((survey.run / "release" / "Tiny.csv").read_text())))


def counts(survey):
    return json.loads((survey.run / "release" / "summary.json").read_text())["account"]


def products(survey):
    """Every product but the release: path -> time of change, to tell what was made again."""
    found = [*(survey.run / "stamps").rglob("*.h5"), *(survey.run / "logits").rglob("*.parquet")]
    return {path.relative_to(survey.run).as_posix(): path.stat().st_mtime_ns for path in found}


# --- results ----------------------------------------------------------------------------------------------


def hidden(survey):
    """Ids of the sources of field alpha that are in the half that the F435W mosaic does not cover."""
    truth = pq.read_table(survey.folder / "truth.parquet").to_pandas()
    return sorted(map(str, truth.query("field == 'alpha' and band == 'F435W' and x > 99.5")["id"]))


def test_run_writes_the_release(first_run):
    survey, done = first_run
    assert done.status == 0, done.err
    assert done.out.splitlines() == [str(survey.run / "release" / "Tiny.csv")]
    assert done.lines[0] == "ingest: 13 rows read, 2 rejected, 11 sources; 1 made, 0 up to date"
    stamps = 23 - len(hidden(survey))
    assert re.fullmatch(
        rf"cutouts: 33 \(source, view\)s, {stamps} stamps; 6 made, 0 up to date; "
        r"flags: (\d+ EDGE, )?\d+ NO_DATA, 5 NO_MOSAIC, 5 OFF_IMAGE, \d+ SOME_BAD_PIXELS",
        done.lines[1],
    )
    assert done.lines[2] == f"classify: {stamps} classified, {33 - stamps} blocked; 6 made, 0 up to date"
    assert "13 rows read = 2 rejected + 2 omitted + 9 released" in done.lines
    assert "warning" not in done.err


def test_the_csv_has_a_row_a_source_and_blanks_where_not_observed(finished_survey):
    header, *rows = rows_of(finished_survey)
    classes = ["spheroid", "disk", "irregular", "point_source", "unclassifiable"]
    assert header == ["field", "id", "ra", "dec", *(f"{band}_{name}" for band in BANDS for name in classes)]
    assert [row[:2] for row in rows] == [
        *(["alpha", f"{i}"] for i in range(1, 6)), *(["beta", f"{i}"] for i in range(1, 5))
    ]
    assert all(re.fullmatch(r"-?\d+\.\d{6}", cell) for row in rows for cell in row[2:4])
    for row in rows:
        filled = [[cell for cell in row[start : start + 5] if cell] for start in (4, 9, 14)]
        assert [len(cells) for cells in filled[1:]] == [5, 5]
        assert len(filled[0]) == (0 if row[0] == "beta" or row[1] in hidden(finished_survey) else 5)
        for cells in filled:
            assert not cells or sum(map(float, cells)) == pytest.approx(1, abs=0.003)


def test_the_account_is_complete(finished_survey):
    account = counts(finished_survey)
    assert account["read"] == account["rejected"] + account["omitted"] + account["released"] == 13
    rejected = pq.read_table(finished_survey.run / "rejected.parquet").to_pylist()
    assert [(row["file"], row["row"], row["id"], row["kind"]) for row in rejected] == [
        ("alpha.cat", 6, "3", "duplicate"), ("beta.cat", 5, "2", "duplicate"),
    ]  # fmt: skip
    omitted = pq.read_table(finished_survey.run / "omitted.parquet").to_pylist()
    assert [(row["field"], row["id"]) for row in omitted] == [("alpha", "6"), ("beta", "5")]
    assert omitted[0]["flags"] == "F435W: OFF_IMAGE; F814W: OFF_IMAGE; F160W: OFF_IMAGE"
    for view in json.loads((finished_survey.run / "release" / "summary.json").read_text())["views"]:
        assert view["sources"] == view["classified"] + view["blocked"] == 11


def test_a_half_covered_mosaic_flags_the_sources_of_the_other_half(finished_survey):
    (logits,) = (finished_survey.run / "logits" / "net" / "F435W").glob("alpha-*.parquet")
    table = pq.read_table(logits).to_pydict()
    no_data = [i for i, flags in zip(table["id"], table["flags"], strict=True) if flags & 4]
    assert no_data == hidden(finished_survey) != []
    pixels = fits.getdata(finished_survey.folder / "mosaics" / "alpha_f435w.fits")
    assert np.isnan(pixels[:, 100:]).all()
    assert all((table["disk"][table["id"].index(i)] is None) for i in no_data)


def test_a_rerun_makes_nothing_and_changes_no_byte(finished, release_bytes):
    before, times = release_bytes(finished), products(finished)
    done = finished("run", "tiny.toml")
    assert done.status == 0
    assert "ingest: 13 rows read, 2 rejected, 11 sources; 0 made, 1 up to date" in done.err
    assert "0 made, 6 up to date" in done.lines[1]
    assert "; 0 made, 6 up to date" in done.lines[2]
    assert release_bytes(finished) == before
    assert products(finished) == times


@pytest.mark.parametrize("first", [["ingest"], ["cutouts", "--band", "F435W"]])
def test_the_stages_one_by_one_give_the_bytes_of_run(survey, finished_survey, release_bytes, first):
    """In a new folder `cutouts` does the work of `ingest`, too."""
    (survey.folder / "catmorph.toml").symlink_to("tiny.toml")
    for arguments in (first, ["cutouts", "--band", "F160W"], ["classify", "--band", "F160W"], ["cutouts"],
                      ["classify", "--band", "F435W", "--band", "F814W"], ["export"], ["summarize"]):  # fmt: skip
        done = survey(*arguments)
        assert done.status == 0, done.err
    assert release_bytes(survey) == release_bytes(finished_survey)
    assert "0 made, 6 up to date" in survey("run", "tiny.toml").lines[1]


@pytest.mark.parametrize(
    "change", [["--workers", "2", "-w", "elsewhere/deep"], ["--set", "run.chunk_rows=2", "--workers", "2"]]
)
def test_workers_chunks_and_folder_do_not_change_the_bytes(survey, finished_survey, change, monkeypatch):
    monkeypatch.setattr("catmorph.engine.WORTH_A_POOL_SECONDS", 0.0)
    done = survey("run", "tiny.toml", *change)
    assert done.status == 0, done.err
    folder = survey.folder / change[3] if "-w" in change else survey.run
    for name in ("Tiny.csv", "summary.json", "summary.md", "columns.md"):
        here, there = ((one / "release" / name).read_bytes() for one in (folder, finished_survey.run))
        assert here == there, name
    if "--set" not in change:
        provenance = (folder / "release" / "provenance.json").read_bytes()
        assert provenance == (finished_survey.run / "release" / "provenance.json").read_bytes()


def test_several_chunks_a_field(survey):
    assert survey("ingest", "-r", "tiny.toml", "--set", "run.chunk_rows=2").status == 0
    assert len(pq.read_table(survey.run / "plan.parquet")) > 4


# --- options ----------------------------------------------------------------------------------------------


def test_the_recipe_comes_from_the_option_the_environment_or_the_folder(survey, monkeypatch):
    assert survey("status").lines == [
        "catmorph: error: no recipe; give one, set CATMORPH_RECIPE, or work where a catmorph.toml is "
        "(`catmorph init PRESET` writes one)"
    ]
    (survey.folder / "catmorph.toml").write_text(survey.recipe.read_text().replace('"tiny"', '"local"'))
    assert survey("status").out.splitlines()[0] == str(survey.folder / "runs" / "local")
    (survey.folder / "other.toml").write_text(survey.recipe.read_text().replace('"tiny"', '"other"'))
    monkeypatch.setenv("CATMORPH_RECIPE", "other.toml")
    assert survey("status").out.splitlines()[0] == str(survey.folder / "runs" / "other")
    assert survey("status", "-r", "tiny.toml").out.splitlines()[0] == str(survey.run)


def test_run_takes_the_recipe_of_the_folder_too(finished):
    finished.recipe.rename(finished.folder / "catmorph.toml")
    assert finished("run", "-q").status == 0


def test_set_overrides_a_value_and_is_written_into_the_run_folder(survey):
    done = survey("ingest", "-r", "tiny.toml", "--set", "catalog.cuts=ID < 3", "--set", "name=few")
    assert "ingest: 13 rows read, 9 rejected, 4 sources; 1 made, 0 up to date" in done.lines
    assert '"ID < 3"' in (survey.folder / "runs" / "few" / "recipe.toml").read_text()


def test_quiet_prints_nothing_on_stderr(finished):
    done = finished("run", "tiny.toml", "-q")
    assert (done.status, done.err) == (0, "")
    assert done.out == f"{finished.run / 'release' / 'Tiny.csv'}\n"


def test_verbose_says_why_products_are_made(finished):
    done = finished("run", "tiny.toml", "-v", "--set", "stamp.max_bad_fraction=0.4")
    assert "  made because: [stamp] changed (6)" in done.lines


def test_json_is_all_there_is_on_stdout(finished):
    for arguments in (["run", "tiny.toml"], ["summarize", "-r", "tiny.toml"], ["export", "-r", "tiny.toml"],
                      ["status", "-r", "tiny.toml"], ["check", "-r", "tiny.toml"]):  # fmt: skip
        done = finished(*arguments, "--json")
        assert done.status == 0, done.err
        assert isinstance(json.loads(done.out), dict)
    summary = json.loads(finished("run", "tiny.toml", "--json", "-q").out)
    assert summary["account"]["released"] == 9
    assert summary == json.loads((finished.run / "release" / "summary.json").read_text())


def test_a_change_of_the_release_runs_no_network(finished):
    done = finished("run", "tiny.toml", "--set", "release.decimals=1", "--set", "classifiers.net.temperature=2")
    assert "; 0 made, 6 up to date" in done.lines[2]
    assert len(rows_of(finished)[1][9]) == 3


def test_precision_is_part_of_the_validity_of_logits(finished):
    done = finished("classify", "-r", "tiny.toml", "--precision", "bfloat16", "--band", "F160W")
    assert "classify: 9 classified, 2 blocked; 2 made, 0 up to date" in done.lines
    mixed = finished("export", "-r", "tiny.toml")
    assert (mixed.status, mixed.lines[-1]) == (1, (
        f"catmorph: error: {finished.run}: logits of 'net' were made on different devices or in different precision; "
        "run `catmorph run` or `catmorph classify`"
    ))
    back = finished("classify", "-r", "tiny.toml")
    assert "2 made, 4 up to date" in back.err


# --- status -----------------------------------------------------------------------------------------------


def states(survey):
    found = json.loads(survey("status", "-r", "tiny.toml", "--json").out)
    return {(row["stage"], row["view"]): (row["done"], row["stale"], row["missing"]) for row in found["stages"]}


def test_status_before_partly_and_after(survey):
    assert states(survey) == {("ingest", ""): (0, 0, 1)}
    assert not survey.run.exists()
    survey("ingest", "-r", "tiny.toml")
    survey("cutouts", "-r", "tiny.toml", "--band", "F160W")
    partly = states(survey)
    assert partly["ingest", ""] == (1, 0, 0)
    assert partly["cutouts", "F160W"] == (2, 0, 0)
    assert partly["cutouts", "F435W"] == partly["classify", "F160W"] == (0, 0, 2)
    survey("run", "tiny.toml", "-q")
    assert set(states(survey).values()) == {(1, 0, 0), (2, 0, 0)}
    text = survey("status", "-r", "tiny.toml").out
    assert re.search(r"cutouts    F435W                 2      0        0  .*NO_DATA \d, NO_MOSAIC 5", text)


def change_a_radius(survey):
    catalog = survey.folder / "catalogs" / "alpha.cat"
    lines = catalog.read_text().splitlines()
    cells = lines[6].split()
    cells[3] = "15.25"
    catalog.write_text("\n".join([*lines[:6], " ".join(cells), *lines[7:]]) + "\n")


def test_status_says_what_is_stale_and_why(finished):
    change_a_radius(finished)
    finished.edit('method = "asinh"', 'method = "minmax"')
    found = json.loads(finished("status", "-r", "tiny.toml", "--json").out)["stages"]
    assert found[0]["why"] == {"catalog alpha.cat changed": 1}
    last = finished("status", "-r", "tiny.toml", "--set", "classifiers.net.checkpoint=none.safetensors")
    assert "none.safetensors: no such checkpoint" in last.out
    warned = finished("cutouts", "-r", "tiny.toml")
    assert warned.lines[0] == (
        "catmorph: warning: the sources are those of the last `catmorph ingest`, but catalog alpha.cat changed"
    )


def test_status_says_when_the_release_is_of_before_a_change(finished):
    assert states(finished)["export", ""] == (1, 0, 0)
    assert finished("run", "tiny.toml", "--dry-run").out.splitlines()[-1] == "export: 0 to make, 1 up to date"
    changed = ("--set", "release.decimals=2")
    assert finished("status", "-r", "tiny.toml", *changed).out.splitlines()[-1].endswith(
        "0      1        0  exported before a change of [release] (1)")
    assert finished("run", "tiny.toml", "--dry-run", *changed).out.splitlines()[-1] == (
        "export: 1 to make, 0 up to date; exported before a change of [release] (1)")
    shutil.rmtree(finished.run / "release")
    assert states(finished)["export", ""] == (0, 0, 1)


def test_a_gallery_says_what_is_out_of_date(finished):
    assert "warning" not in finished("gallery", "-r", "tiny.toml", "--band", "F814W").err
    before = "catmorph: warning: what is drawn may be out of date: "
    for change, why in (("classifiers.net.batch=32", "classifier changed; see `catmorph status`\n"),
                        ("stamp.resample=area", "{folder}/untrained.safetensors: does not fit the recipe: "),
                        ("classifiers.net.checkpoint=none.safetensors", "{folder}/none.safetensors: no such check")):
        told = finished("gallery", "-r", "tiny.toml", "--band", "F814W", "--set", change)
        assert (told.status, before + why.format(folder=finished.folder) in told.err) == (0, True), told.err


def test_stale_logits_are_not_released(finished, release_bytes):
    before = release_bytes(finished)
    (path,) = (finished.run / "logits" / "net" / "F435W").glob("alpha-*")
    for change, why in (("stamp.resample=area", "stamps are to be cut again: [stamp]"),
                        ("normalise.fill=zero", None), ("classifiers.net.batch=32", "classifier changed")):  # fmt: skip
        refused = finished("export", "-r", "tiny.toml", "--set", change)
        assert refused.status in (1, 2)
        if why and "stamp" not in change:
            assert refused.lines == [
                f"catmorph: error: {path}: out of date ({why}), as 6 of 6 logits files are; "
                "run `catmorph run` or `catmorph classify`"
            ]
    assert release_bytes(finished) == before


def test_workers_of_a_large_new_survey_begin_before_the_recipe_is_checked(finished):
    code = """
import sys
from catmorph import engine
from catmorph.cli import main, production
production._LARGE_CATALOG_BYTES = int(sys.argv.pop(1))
engine.expect_workers = lambda workers, *modules: print('begun', workers, *modules, 'pydantic' in sys.modules)
"""
    build, block = "catmorph.stamps.build", "catmorph.stamps.block"
    begun = f"begun 2 {build} {block} False"
    for limit, folder, expected in (("1", "new", [begun]), ("1", finished.run, []), ("1000000", "other", [])):
        done = start(finished, limit, "cutouts", "-r", "tiny.toml", "-w", str(folder), "-q", "--workers", "2",
                     code=code)  # fmt: skip
        out, err = done.communicate(timeout=60)
        assert (done.returncode, out.splitlines()) == (0, expected), err


@pytest.mark.parametrize(("name", "file"), [("a" * 300, "sources.csv"), ("tiny", "gone.csv")])
def test_what_cannot_be_looked_up_early_is_told_as_ever(tmp_path, monkeypatch, name, file):
    """Workers begin before the recipe is checked: that must not fail for what the recipe is wrong about."""
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    (tmp_path / "runs").mkdir()
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(f'name = "{name}"\nscheme = "clash"\n[catalog]\nfiles = "{file}"\n')
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["run", "wrong.toml", "--workers", "2"])
    assert done.exit_code == 2
    assert done.output.startswith("catmorph: error: wrong.toml: ")
    assert "No such file" not in done.output


def test_what_runs_no_network_leaves_torch_alone(finished):
    code = """
import sys
from catmorph.lifetime import Leaving
leave = Leaving.__call__
def tell(self):
    print('torch' in sys.modules)
    leave(self)
Leaving.__call__ = tell
"""
    for command in (("status", "-r", "tiny.toml"), ("export", "-r", "tiny.toml"), ("run", "tiny.toml", "--dry-run"),
                    ("run", "tiny.toml"), ("classify", "-r", "tiny.toml")):  # fmt: skip
        done = start(finished, *command, "-q", code=code)
        out, err = done.communicate(timeout=60)
        assert (done.returncode, out.splitlines()[-1]) == (0, "False"), err


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "no such checkpoint"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "untrained.safetensors: "),
        (lambda path: path.write_bytes(b"x" * 64), "untrained.safetensors: "),
    ],
)
def test_a_dry_run_tells_of_checkpoints_that_cannot_be_used(survey, damage, told):
    path = survey.folder / "untrained.safetensors"
    content = path.read_bytes()
    path.unlink()  # a link to that of all tests
    path.write_bytes(content)
    damage(path)
    done = survey("run", "tiny.toml", "--dry-run")
    assert (done.status, len(done.lines)) == (2, 1)
    assert told in done.err
    whole = survey("check", "-r", "tiny.toml")
    assert done.lines[0] in whole.lines


def test_a_dry_run_tells_of_a_card_that_does_not_fit(survey):
    done = survey("run", "tiny.toml", "--dry-run", "--set", "stamp.pixels=40")
    assert done.status == 2
    assert "untrained.safetensors" in done.err


# --- export, summarize, gallery ---------------------------------------------------------------------------


def test_export_writes_every_format(finished):
    formats = ["csv", "ecsv", "fits", "parquet", "votable"]
    done = finished("export", "-r", "tiny.toml", *(word for name in formats for word in ("--format", name)))
    assert done.status == 0, done.err
    assert "13 rows read = 2 rejected + 2 omitted + 9 released" in done.lines
    paths = done.out.splitlines()
    assert len(paths) == 5
    for path in paths:
        kind = {"vot": "votable", "ecsv": "ascii.ecsv", "csv": "ascii.csv"}.get(path.rsplit(".", 1)[1])
        table = Table.read(path, format=kind) if kind else Table.read(path)
        assert len(table) == 9
        assert ("F160W_entropy" in table.colnames) == (kind != "ascii.csv")


def test_files_of_an_earlier_release_are_removed_and_told(finished):
    both = finished("export", "-r", "tiny.toml", "--format", "csv", "--format", "FITS")
    assert (both.status, len(both.lines)) == (0, 1), both.err
    other = finished("export", "-r", "tiny.toml", "--format", "csv", "--set", "release.decimals=2")
    assert other.status == 0, other.err
    old = finished.run / "release" / "Tiny.fits"
    assert not old.exists()
    assert f"removed {old}: it was of an earlier release; export that format again if it is needed" in other.lines


def test_a_summary_that_is_not_of_the_catalog_beside_it_says_so(finished):
    def warnings(*options):
        return [line for line in finished("summarize", "-r", "tiny.toml", *options).lines if "warning" in line]

    other = ("--set", "release.decimals=2")
    assert warnings() == warnings("--set", "run.tolerance=0.5") == []
    assert warnings(*other) == [
        f"catmorph: warning: {finished.run / 'release'}: the catalog there was made before a change of [release], the "
        "summary after it; run `catmorph export`"]
    assert finished("export", "-r", "tiny.toml", *other).status == 0
    assert warnings(*other) == []


def test_an_unknown_format_is_refused(finished):
    refused = finished("export", "-r", "tiny.toml", "--format", "cvs")
    assert (refused.status, refused.lines) == (2, ["catmorph: error: unknown format 'cvs'; did you mean 'csv'?"])


def test_gallery_writes_a_png(finished):
    done = finished("gallery", "-r", "tiny.toml", "--band", "F160W", "-o", "sheet.png")
    assert done.status == 0, done.err
    assert (finished.folder / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert finished("gallery", "-r", "tiny.toml", "-q").err == ""
    assert (finished.run / "gallery.png").exists()


def test_faults_beyond_the_tolerance_end_with_3(finished):
    for command in (["run", "tiny.toml", "-q"], ["summarize", "-r", "tiny.toml", "-q"]):
        done = finished(*command, "--set", "run.tolerance=0.1")
        assert done.status == 3
        assert done.lines == [
            "catmorph: done, but 15.38% of the rows have a fault, more than run.tolerance 10.00%; see "
            f"{finished.run / 'release' / 'summary.md'}"
        ]


# --- mosaics that cannot be read --------------------------------------------------------------------------


def test_an_unreadable_mosaic_flags_its_sources_and_a_repair_redoes_just_them(survey, finished_survey, release_bytes):
    mosaic = survey.folder / "mosaics" / "beta_f160w.fits"
    good = mosaic.read_bytes()
    mosaic.write_bytes(good[:50000])
    done = survey("run", "tiny.toml")
    assert done.status == 3
    (warning,) = [line for line in done.lines if "warning" in line]
    assert warning.startswith("catmorph: warning: beta_f160w.fits (field beta): ")
    assert warning.endswith("; its sources are flagged UNREADABLE")
    assert done.lines[-1].startswith("catmorph: done, but 53.85% of the rows have a fault, more than run.tolerance 20")
    assert counts(survey)["released"] == 9
    assert "failed: beta_f160w.fits (field beta): " in survey("status", "-r", "tiny.toml").out
    before = products(survey)

    mosaic.write_bytes(good)
    repaired = survey("run", "tiny.toml")
    assert repaired.status == 0, repaired.err
    assert "1 made, 5 up to date" in repaired.lines[1]
    assert "1 made, 5 up to date" in repaired.lines[2]
    after = products(survey)
    changed = [path for path in after if after[path] != before[path]]
    assert len(changed) == 2
    assert all("F160W/beta-" in path for path in changed)
    assert release_bytes(survey) == release_bytes(finished_survey)


# --- files and streams ------------------------------------------------------------------------------------


def test_the_output_may_be_cut_off_by_its_reader(finished_survey):
    process = start(finished_survey, "status", "-r", "tiny.toml")
    process.stdout.close()
    err = process.stderr.read()
    process.wait(60)
    process.stderr.close()
    assert (process.returncode, err) == (1, "")


def test_shards_are_as_documented(finished_survey):
    (path,) = (finished_survey.run / "stamps" / "F160W").glob("alpha-*.h5")
    with h5py.File(path) as file:
        assert file["stamps"].shape == (5, 1, 80, 80)
        assert file["rows"][:].tolist() == [0, 1, 2, 3, 4, -1]


NAMED = {"classes", "classifiers", "tests", "files"}
"""Keys of tables whose own keys are names of the survey, its classes or files."""


def keys_of(value):
    """Yield the keys of what a JSON file holds that are the same for all surveys."""
    if isinstance(value, list):
        for one in value:
            yield from keys_of(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            if key in NAMED and isinstance(one, dict):
                yield from keys_of(list(one.values()))
            elif key not in ("recipe", "versions") and "_by_" not in key:
                yield from keys_of(one)


@pytest.mark.parametrize("name", ["summary.json", "provenance.json"])
def test_every_key_beside_the_catalog_is_documented(finished_survey, name):
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text()
    section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    told = {word for text in re.findall("`([^`]*)`", section) for word in text.split(".")}
    found = set(keys_of(json.loads((finished_survey.run / "release" / name).read_text())))
    assert len(found) > 10
    assert found - told == set()


@pytest.mark.parametrize("command", ["export", "summarize"])
def test_a_release_is_made_by_as_many_processes_as_are_asked_for(finished, monkeypatch, release_bytes, command):
    from catmorph.release import reading

    asked, run_in_order = [], reading.run_in_order

    def noted(*given, workers, **more):
        asked.append(workers)
        return run_in_order(*given, workers=workers, **more)

    monkeypatch.setattr(reading, "run_in_order", noted)
    before = release_bytes(finished)
    for number in (1, 3):
        for name in ("export.json", "counts.json"):
            (finished.run / "ledger" / name).unlink(missing_ok=True)
        assert finished(command, "-r", "tiny.toml", "--workers", number).status == 0
    assert set(asked) == {1, 3}
    assert release_bytes(finished) == before
    assert finished(command, "-r", "tiny.toml", "--workers", 0).status == 2
