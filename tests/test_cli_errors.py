"""Bad input through the real command: one line that says what, where and what to do; nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import random
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from catmorph.models.checkpoint import rewrite_card
from catmorph.models.header import load_card
from catmorph.workspace import WRITTEN

RUN = ("run", "tiny.toml")


def catalog(survey):
    return survey.folder / "catalogs" / "alpha.cat"


def mosaic(survey):
    return survey.folder / "mosaics" / "alpha_f160w.fits"


def checkpoint(survey):
    return survey.folder / "untrained.safetensors"


def rewrite(path, change):
    data = change(path.read_bytes())
    path.unlink()  # the checkpoint is a link to one that other tests use
    path.write_bytes(data)


def comments_only(data):
    return b"".join(line for line in data.splitlines(keepends=True) if line.startswith(b"#"))


def edit(old, new):
    return lambda survey: survey.edit(old, new)


def without_work(survey):
    """Whether the run folder holds nothing that a stage makes."""
    made = {path.name for path in survey.run.rglob("*") if path.is_file()} if survey.run.exists() else set()
    return made <= {"lock", "folder.json", "recipe.toml", "run.json", "catmorph.jsonl"}


# --- refused: exit status 2, nothing made -----------------------------------------------------------------

REFUSED = {
    "missing column": (
        edit('"PETRO_RADIUS"', '"PETRO_RAD"'), RUN,
        "{folder}/catalogs/alpha.cat: no column 'PETRO_RAD' for catalog.size; did you mean 'PETRO_RADIUS'?",
    ),
    "missing column, none near": (
        edit('"ID"', '"OBJECT_NUMBER"'), RUN,
        "{folder}/catalogs/alpha.cat: no column 'OBJECT_NUMBER' for catalog.id; "
        "valid: ID, RA, DEC, PETRO_RADIUS, F160W_MAG, FLAG",
    ),
    "unknown unit": (
        edit('"RA", unit = "deg"', '"RA", unit = "degg"'), RUN,
        "tiny.toml: catalog.ra.unit: unknown unit 'degg', did you mean 'deg'?",
    ),
    "empty catalog": (
        lambda survey: [rewrite(path, comments_only) for path in (survey.folder / "catalogs").iterdir()], RUN,
        "{folder}/catalogs/*.cat: the catalog has no rows",
    ),
    "catalog of no bytes": (
        lambda survey: rewrite(catalog(survey), lambda data: b""), RUN,
        "{folder}/catalogs/alpha.cat: the file is empty",
    ),
    "catalog is a pipe": (
        lambda survey: os.mkfifo(survey.folder / "catalogs" / "pipe.cat"), RUN,
        "{folder}/catalogs/pipe.cat: is no file, but a pipe or a device; check catalog.files in the recipe",
    ),
    "duplicate ids": (
        edit('duplicates = "first"', 'duplicates = "refuse"'), RUN,
        "alpha.cat: 2 duplicate ids: alpha 3 (row 6); beta 2 (beta.cat, row 5); "
        "set catalog.duplicates to 'first' or 'brightest' to keep one of each",
    ),
    "no row left": (
        edit("magnitude < 30", "magnitude < 3"), RUN,
        "{folder}/catalogs/*.cat: no row of the catalog is left (13 cut); "
        "check catalog.cuts, or set catalog.allow_empty = true",
    ),
    "cut on an unknown column": (
        edit("magnitude < 30", "magnitud < 30"), RUN,
        "cut 'magnitud < 30' names unknown column 'magnitud'; did you mean 'magnitude'?",
    ),
    "file name without field": (
        edit("{field}.cat", "{field}.dat"), RUN,
        "{folder}/catalogs/alpha.cat: the file name does not match catalog.field.pattern '{{field}}.dat'",
    ),
    "unknown band": (
        None, ("cutouts", "-r", "tiny.toml", "--band", "F160X"), "unknown band or view 'F160X'; did you mean 'F160W'?",
    ),
    "catalog pattern that matches nothing": (
        edit("catalogs/*.cat", "catalog/*.cat"), RUN,
        "{folder}/catalog/*.cat: no such catalog file; check catalog.files in the recipe",
    ),
    "mosaic pattern that matches nothing, check": (
        edit("mosaics/{field}", "mosaic/{field}"), ("check", "-r", "tiny.toml", "-q"),
        "{folder}/mosaic/{{field}}_{{band|lower}}.fits: no mosaic of any band matches for any field; "
        "check mosaics.pattern and bands.files in the recipe",
    ),
    "checkpoint missing": (
        lambda survey: checkpoint(survey).unlink(), RUN,
        "{folder}/untrained.safetensors: no such checkpoint; "
        "`catmorph train` and `catmorph models create` write one",
    ),
    "checkpoint cut short": (
        lambda survey: rewrite(checkpoint(survey), lambda data: data[:100000]), RUN,
        "{folder}/untrained.safetensors: is cut short: 100000 of {size} bytes; copy it again",
    ),
    "checkpoint corrupt": (
        lambda survey: rewrite(checkpoint(survey), lambda data: data[:9] + b"}" + data[10:]), RUN,
        "{folder}/untrained.safetensors: is damaged: its header is not valid JSON; copy or train it again",
    ),
    "checkpoint a pickle": (
        lambda survey: rewrite(checkpoint(survey), lambda data: pickle.dumps({"weights": [1.0]})), RUN,
        "{folder}/untrained.safetensors: is a Python pickle, which could run code when opened, not a safetensors "
        "checkpoint; a checkpoint is a safetensors file with a card, as `catmorph train` and `catmorph models create` "
        "write",
    ),
    "checkpoint of another scheme": (
        lambda survey: rewrite(
            checkpoint(survey),
            lambda data: data.replace(rb"\"scheme\": \"clash\"", rb"\"scheme\": \"other\""),
        ), RUN,
        "{folder}/untrained.safetensors: does not fit the recipe: scheme is other in the checkpoint, clash in the "
        "recipe; change the recipe, or choose or train a checkpoint for it",
    ),
    "checkpoint for other stamps": (
        edit('method = "asinh"', 'method = "minmax"'), RUN,
        "{folder}/untrained.safetensors: does not fit the recipe: normalise.method is asinh in the checkpoint, minmax "
        "in the recipe; change the recipe, or choose or train a checkpoint for it",
    ),
    "no classifier": (
        lambda survey: survey.recipe.write_text(re.sub(r"(?s)\[classifiers.*\[rel", "[rel", survey.recipe.read_text())),
        RUN, "the recipe names no classifier; add [classifiers.NAME] with a checkpoint",
    ),
    "unknown merger class": (
        edit('"irregular"', '"irreg"'), RUN, "scheme 'clash' has no class 'irreg'; did you mean 'irregular'?",
    ),
    "no GPU": (None, (*RUN, "--device", "cuda"),
               "there is no CUDA device that torch can use; use --device cpu or auto"),
    "recipe typo": (
        edit("pixel_scale", "pixelscale"), RUN,
        "tiny.toml: catalog.pixelscale: unknown key, did you mean 'pixel_scale'?",
    ),
    "recipe missing": (None, ("run", "none.toml"), "none.toml: no such recipe; `catmorph init PRESET` writes one"),
    "recipe is not TOML": (
        lambda survey: survey.recipe.write_text("name = \n[[["), RUN,
        "tiny.toml: is not valid TOML: Invalid value (at line 1, column 8)",
    ),
    "recipe is a binary file": (
        lambda survey: survey.recipe.write_bytes(bytes(range(256))), RUN,
        "tiny.toml: is not text in UTF-8; a recipe is a TOML file",
    ),
    "recipe is a folder": (None, ("run", "catalogs"), "catalogs: cannot be read: Is a directory"),
    "catalog is a folder": (
        edit("catalogs/*.cat", "catalogs"), RUN,
        "{folder}/catalogs: is a folder; name its files in catalog.files, such as *.cat",
    ),
    "--set without value": (None, (*RUN, "--set", "nonsense"), "--set 'nonsense' must be section.key=value"),
    "--set without key": (None, (*RUN, "--set", "=3"), "--set '=3' must be section.key=value"),
    "--set of an unknown key": (
        None, (*RUN, "--set", "run.chunkrows=3"),
        "tiny.toml: run.chunkrows: unknown key, did you mean 'chunk_rows'?",
    ),
    "unknown command": (None, ("rum",), "unknown command 'rum'; did you mean 'run'?"),
    "unknown models command": (
        None, ("models", "lst"), "no such command 'lst'; did you mean 'list'? (see `catmorph models --help`)",
    ),
    "unknown option": (
        None, ("cutouts", "--bands", "F160W"),
        "no such option '--bands'; did you mean '--band'? (see `catmorph cutouts --help`)",
    ),
    "option out of range": (
        None, (*RUN, "--workers", "0"),
        "invalid value for '--workers': 0 is not in the range x>=1 (see `catmorph run --help`)",
    ),
    "one argument too many": (
        None, (*RUN, "more"), "got unexpected extra argument (more) (see `catmorph run --help`)",
    ),
    "recipe as an argument of a stage": (
        None, ("status", "tiny.toml"),
        "got unexpected extra argument (tiny.toml) (see `catmorph status --help`); this command takes the recipe as "
        "-r RECIPE",
    ),
    "unknown preset": (None, ("init", "clsh"), "unknown preset 'clsh'; did you mean 'clash'?"),
    "unknown model": (None, ("models", "show", "clash-incption"),
                      "unknown model 'clash-incption'; did you mean 'clash-inception'?"),
    "unwritable folder": (
        None, (*RUN, "-w", "tiny.toml/run"),
        "{folder}/tiny.toml/run: the folder cannot be made or written; choose another -w/--workdir",
    ),
    "unwritable folder, ingest": (
        None, ("ingest", "-r", "tiny.toml", "-w", "tiny.toml/run"),
        "{folder}/tiny.toml/run: the folder cannot be made or written: Not a directory; "
        "choose another -w/--workdir",
    ),
    "folder on a read-only system": (
        None, ("ingest", "-r", "tiny.toml", "-w", "/proc/catmorph"),
        "/proc/catmorph: the folder cannot be made or written: No such file or directory; "
        "choose another -w/--workdir",
    ),
    "stage without the one before": (
        None, ("classify", "-r", "tiny.toml"),
        "{run}: the survey table is not read in yet; run `catmorph ingest`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_any_work(survey, name):
    change, command, message = REFUSED[name]
    values = {"folder": survey.folder, "run": survey.run, "size": checkpoint(survey).stat().st_size}
    if change:
        change(survey)
    done = survey(*command)
    assert done.lines == ["catmorph: error: " + message.format(**values)]
    assert (done.status, done.out) == (2, "")
    assert without_work(survey)


def test_all_problems_are_listed_at_once(survey):
    survey.edit("pixel_scale", "pixelscale")
    survey.edit("decimals = 3", 'decimals = 0\nname_ = "x"')
    done = survey(*RUN)
    assert done.status == 2
    keys = sorted(line.split(": ")[3] for line in done.lines)
    assert keys == ["catalog.pixelscale", "release.decimals", "release.name_"]


def test_check_lists_problems_of_every_kind(survey):
    survey.edit('duplicates = "first"', 'duplicates = "refuse"')
    survey.edit('"irregular"', '"irreg"')
    checkpoint(survey).unlink()
    mosaic(survey).write_text("<!DOCTYPE html><html></html>")
    done = survey("check", "-r", "tiny.toml", "-q")
    assert done.status == 2
    assert done.lines == [
        "catmorph: error: scheme 'clash' has no class 'irreg'; did you mean 'irregular'?",
        f"catmorph: error: {survey.folder}/untrained.safetensors: no such checkpoint; "
        "`catmorph train` and `catmorph models create` write one",
        "catmorph: error: alpha.cat: 2 duplicate ids: alpha 3 (row 6); beta 2 (beta.cat, row 5); "
        "set catalog.duplicates to 'first' or 'brightest' to keep one of each",
        f"catmorph: error: {mosaic(survey)}: is a web page saved under a FITS name; download it again",
    ]
    assert not survey.run.exists()


def test_a_column_with_the_wrong_unit(survey):
    for path in (survey.folder / "catalogs").iterdir():
        table = Table.read(path, format="ascii.sextractor")
        table["RA"].unit = "mag"
        table.write(path.with_suffix(".ecsv"), format="ascii.ecsv")
    survey.edit("catalogs/*.cat", "catalogs/*.ecsv")
    survey.edit("{field}.cat", "{field}.ecsv")
    survey.edit('ra = { column = "RA", unit = "deg" }', 'ra = "RA"')
    done = survey("ingest", "-r", "tiny.toml")
    assert done.status == 2
    (line,) = done.lines
    assert "catalog.ra" in line
    assert "'mag'" in line


def test_a_mosaic_pattern_that_matches_nothing(survey):
    survey.edit("mosaics/{field}", "mosaic/{field}")
    done = survey(*RUN, "-q")
    assert (done.status, done.lines) == (2, [
        f"catmorph: error: {survey.folder}/mosaic/{{field}}_{{band|lower}}.fits: no mosaic of any band matches for any "
        "field; check mosaics.pattern and bands.files in the recipe"
    ])  # fmt: skip
    assert not (survey.run / "stamps").exists()


def test_a_band_without_any_mosaic_is_warned_of(survey):
    for path in (survey.folder / "mosaics").glob("*_f814w.fits"):
        path.unlink()
    survey("ingest", "-r", "tiny.toml")
    done = survey("cutouts", "-r", "tiny.toml")
    assert done.status == 0
    assert done.lines[-1] == (
        f"catmorph: warning: {survey.folder}/mosaics/{{field}}_{{band|lower}}.fits: no mosaic of band F814W matches "
        "for any field; check mosaics.pattern and bands.files in the recipe"
    )


# --- bad rows ---------------------------------------------------------------------------------------------


def rejected(survey):
    rows = pq.read_table(survey.run / "rejected.parquet").to_pylist()
    return [(row["file"], row["row"], row["kind"], row["reason"]) for row in rows if row["kind"] == "bad_cell"]


def set_cell(survey, row, column, text):
    lines = catalog(survey).read_text().splitlines()
    cells = lines[5 + row].split()
    cells[column] = text
    lines[5 + row] = " ".join(cells)
    catalog(survey).write_text("\n".join(lines) + "\n")


def test_bad_cells_are_rejected_with_row_and_reason(survey):
    set_cell(survey, 1, 1, "abc")
    set_cell(survey, 2, 1, "450.5")
    set_cell(survey, 4, 2, "-91")
    done = survey("ingest", "-r", "tiny.toml")
    assert done.lines == ["ingest: 13 rows read, 5 rejected, 8 sources; 1 made, 0 up to date"]
    assert rejected(survey) == [
        ("alpha.cat", 1, "bad_cell", "ra is not a number: 'abc'"),
        ("alpha.cat", 2, "bad_cell", "ra 450.5 deg is outside -180..360"),
        ("alpha.cat", 4, "bad_cell", "dec -91 deg is outside -90..90"),
    ]


def test_bad_rows_count_against_the_tolerance(finished):
    set_cell(finished, 1, 1, "abc")
    done = finished(*RUN, "-q")
    assert done.status == 3
    assert done.lines[0].startswith("catmorph: done, but 23.08% of the rows have a fault, more than run.tolerance 20")


# --- bad mosaics: flagged, the run goes on ----------------------------------------------------------------


def no_wcs(path):
    fits.PrimaryHDU(fits.getdata(path)).writeto(path, overwrite=True)


def only_nan(path):
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[:] = np.nan


BAD_MOSAICS = {
    "truncated": (lambda path: rewrite(path, lambda data: data[:50000]), "UNREADABLE", "cut short|truncated"),
    "truncated header": (lambda path: rewrite(path, lambda data: data[:1000]), "UNREADABLE", ""),
    "web page": (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "UNREADABLE", "is a web page"),
    "empty": (lambda path: path.write_bytes(b""), "UNREADABLE", "empty"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "UNREADABLE", "is no file, but a pipe"),
    "random": (lambda path: path.write_bytes(random.Random(1).randbytes(9000)), "UNREADABLE", ""),
    "no WCS": (no_wcs, "UNREADABLE", "has no celestial world coordinate system"),
    "only NaN": (only_nan, "NO_DATA", None),
}


@pytest.mark.parametrize("name", BAD_MOSAICS)
def test_a_bad_mosaic_flags_its_sources_and_stops_nothing(survey, name):
    spoil, flag, reason = BAD_MOSAICS[name]
    spoil(mosaic(survey))
    survey("ingest", "-r", "tiny.toml")
    done = survey("cutouts", "-r", "tiny.toml", "--band", "F160W")
    assert done.status == 0, done.err
    warnings = [line for line in done.lines if "warning" in line]
    if reason is None:
        assert warnings == [
            "catmorph: warning: F160W, field alpha: its mosaics hold no valid pixel at any source (5 NO_DATA); "
            "are they blank?"
        ]
    else:
        (line,) = warnings
        assert re.fullmatch(
            rf"catmorph: warning: alpha_f160w.fits \(field alpha\): .*({reason}).*; its sources are flagged UNREADABLE",
            line,
        )
    status = json.loads(survey("status", "-r", "tiny.toml", "--json").out)
    flags = next(row["flags"] for row in status["stages"] if (row["stage"], row["view"]) == ("cutouts", "F160W"))
    assert flags[flag] == (5 if flag == "NO_DATA" else 6)
    assert ("alpha_f160w.fits (field alpha)" in status["failures"]) == (flag == "UNREADABLE")


# --- the run folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 99, "recipe": "tiny"}', "{run}: the run folder has format 99, this catmorph knows up to 1; "
         "update catmorph or choose another -w/--workdir"),
        ('{"format": 1, "recipe": "other"}', "{run}: the run folder belongs to recipe 'other', not 'tiny'; "
         "choose another -w/--workdir"),
        ('["format"]', "{run}/folder.json: is damaged; delete it and run again"),
    ],
)  # fmt: skip
def test_a_run_folder_of_another_kind_is_refused(survey, content, message):
    survey.run.mkdir(parents=True)
    (survey.run / "folder.json").write_text(content)
    for command in (RUN, ("ingest", "-r", "tiny.toml"), ("status", "-r", "tiny.toml")):
        done = survey(*command)
        assert (done.status, done.lines) == (2, ["catmorph: error: " + message.format(run=survey.run)])
    assert [path.name for path in survey.run.iterdir()] == ["folder.json"]


# --- a little fuzzing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_random_bytes_never_end_in_a_traceback(survey, seed):
    generator = random.Random(seed)
    target = [catalog(survey), survey.recipe, checkpoint(survey)][seed % 3]

    def spoiled(data):
        if seed < 3:
            return generator.randbytes(400)
        spoilt = bytearray(data)
        for _ in range(8):
            spoilt[generator.randrange(min(len(data), 2000))] = generator.randrange(32, 127)
        return bytes(spoilt)

    rewrite(target, spoiled)
    done = survey("check", "-r", "tiny.toml", "-q")
    assert done.status in (0, 2)
    assert all(line.startswith("catmorph: error: ") for line in done.lines)
    assert not survey.run.exists()


def test_check_names_catalogs_without_rows(survey):
    table = survey.folder / "catalogs" / "beta.cat"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if line.startswith("#")))
    done = survey("check", "-r", "tiny.toml")
    assert "catalog: beta.cat has no rows" in done.lines
    done = survey("ingest", "-r", "tiny.toml")
    assert "catmorph: warning: beta.cat: the file has no rows" in done.lines


def test_check_does_not_miss_mosaics_of_no_source(survey):
    done = survey("check", "-r", "tiny.toml", "--set", "catalog.cuts=magnitude < 0")
    (problem,) = [line for line in done.lines if line.startswith("catmorph: error: ")]
    assert "no row of the catalog is left (13 cut)" in problem


def test_check_notes_the_views_that_a_network_was_not_trained_on(survey):
    assert "trained on" not in survey("check", "-r", "tiny.toml").err
    rewrite(checkpoint(survey), lambda data: data)
    card = load_card(checkpoint(survey))
    rewrite_card(checkpoint(survey), card.model_copy(update={"views": ("F160W",)}))
    assert f"{checkpoint(survey)}: trained on F160W, not on F435W, F814W" in (
        survey("check", "-r", "tiny.toml").lines)


def test_check_notes_what_a_network_is_not_for(survey):
    assert f"{checkpoint(survey)}: UNTRAINED: random weights" in survey("check", "-r", "tiny.toml").err


def test_check_foretells_more_faults_than_are_tolerated(survey):
    text = ("catalog: 15.38% of the rows have a fault, more than run.tolerance (10.00%): a run will end with status 3")
    assert text not in survey("check", "-r", "tiny.toml").lines
    assert text in survey("check", "-r", "tiny.toml", "--set", "run.tolerance=0.1").lines


def test_check_does_not_take_a_mosaic_without_weights_for_none(survey):
    done = survey("check", "-r", "tiny.toml", "--set", "mosaics.weight=mosaics/{field}_{band}_wht.fits")
    assert done.status == 2
    assert "weight maps" in done.err
    assert "no mosaic of band" not in done.out + done.err


@pytest.mark.parametrize(("change", "absent"), [
    ("catalog.files=nowhere.cat", True), ("mosaics.pattern={field}-{band}.fits", True),
    ("classifiers.net.checkpoint=nowhere.safetensors", True), ("catalog.cuts=magnitude <", False),
    ("catalog.duplicates=refuse", False), ("catalog.id=IDENT", False),
])  # fmt: skip
def test_check_says_where_data_can_be_had_when_they_are_not_there(survey, change, absent):
    done = survey("check", "-r", "tiny.toml", "--set", "obtain=the archive", "--set", change)
    assert done.status == 2
    assert ("where the data can be had: the archive" in done.lines) == absent


@pytest.mark.parametrize("catalog", ["catalog.id=IDENT", "catalog.files=nowhere.cat"])
def test_check_looks_at_the_mosaics_though_the_catalog_cannot_be_read(survey, catalog):
    damaged = survey.folder / "mosaics" / "nofield_f814w.fits"
    damaged.write_bytes(b"SIMPLE  =   ")
    done = survey("check", "-r", "tiny.toml", "--set", catalog)
    assert done.status == 2
    assert sum(line.startswith("catmorph: error: ") for line in done.lines) == 2
    assert f"catmorph: error: {damaged}: " in done.err
    assert "no mosaic" not in done.err
    nothing = survey("check", "-r", "tiny.toml", "--set", catalog, "--set", "mosaics.pattern=m/{field}-{band}.fits")
    assert sum(line.startswith("catmorph: error: ") for line in nothing.lines) == 2
    assert "{field}-{band}.fits: no mosaic of any band matches for any field" in nothing.err
    for path in (survey.folder / "mosaics").glob("*_f435w.fits"):
        path.unlink()
    assert "no mosaic of band F435W matches for any field" in survey("check", "-r", "tiny.toml", "--set", catalog).err


def test_check_tells_how_wide_the_stamps_will_be(survey):
    """A size in pixels that is read as one in arcsec is seen at once."""
    wide = re.compile(r"^stamps: (\S+) to (\S+) arcsec wide$", re.MULTILINE)
    told = wide.search(survey("check", "-r", "tiny.toml").err)
    assert 0 < float(told[1]) < float(told[2]) < 60
    survey.edit('"PETRO_RADIUS", unit = "pixels" }', '"PETRO_RADIUS", unit = "arcsec" }')
    other = wide.search(survey("check", "-r", "tiny.toml").err)
    assert float(other[2]) == pytest.approx(float(told[2]) / 0.065, rel=0.01)
    survey.edit("[normalise]", '[stamp]\nside = "5 arcsec"\n[normalise]')
    assert "stamps:" not in survey("check", "-r", "tiny.toml").err


def test_check_tells_how_many_sources_have_no_size(survey):
    """They are read as -1 pixel here, which no stamp can be of."""
    survey.edit('"PETRO_RADIUS", unit = "pixels" }', '"SIZE", unit = "pixels" }')
    for path in survey.folder.glob("catalogs/*.cat"):
        table = Table.read(path, format="ascii.sextractor")
        table["SIZE"] = 20
        table["SIZE"][0] = -1 if path.name == "beta.cat" else 20
        table.write(path, format="ascii.commented_header", overwrite=True)
    assert "stamps: 5.2 to 5.2 arcsec wide; 1 of the sources have no size above 0" in (
        survey("check", "-r", "tiny.toml").lines)
    survey.edit('"SIZE", unit = "pixels" }', '"SIZE", unit = "pixels", null = 20 }')
    assert "stamps: none; 11 of the sources have no size above 0" in survey("check", "-r", "tiny.toml").lines


def test_check_notes_files_of_labels_and_trainings_that_are_not_there(survey):
    text = f"{survey.folder / 'votes.csv'}: no such file; it is labels.table of tiny, for training and evaluation"
    done = survey("check", "-r", "tiny.toml", "--set", "labels.table=votes.csv")
    assert (done.status, text in done.lines) == (0, True)
    (survey.folder / "votes.csv").touch()
    assert text not in survey("check", "-r", "tiny.toml", "--set", "labels.table=votes.csv").lines


def test_check_notes_every_file_of_trainings_and_experiments_that_is_not_there(survey):
    text = survey.recipe.read_text()
    survey.recipe.write_text(text + """
[training]
output = "new.safetensors"
teachers = ["a.safetensors", "b.safetensors"]
[experiments]
start = "c.safetensors"
networks.one = { backbone = "imagenet", teachers = "d.safetensors" }
networks.two = { backbone = "e.pth", start = "f.safetensors" }
""")
    told = {"a.safetensors": "training.teachers", "b.safetensors": "training.teachers",
            "c.safetensors": "experiments.start", "f.safetensors": "experiments.networks.two.start",
            "e.pth": "experiments.networks.two.backbone", "d.safetensors": "experiments.networks.one.teachers"}
    ends = {"training": "training and evaluation", "experiments": "experiments"}
    wanted = [f"{survey.folder / name}: no such file; it is {key} of tiny, for {ends[key.partition('.')[0]]}"
              for name, key in told.items()]  # fmt: skip
    done = survey("check", "-r", "tiny.toml")
    assert (done.status, [line for line in done.lines if "no such file" in line]) == (0, wanted)
    for name in told:
        (survey.folder / name).touch()
    assert "no such file" not in survey("check", "-r", "tiny.toml").err


def test_a_recipe_for_training_alone_needs_no_classifier(survey):
    text = survey.recipe.read_text()
    survey.recipe.write_text(text[: text.index("[classifiers.net]")] + text[text.index("[release]") :])
    wanted = "the recipe names no classifier; add [classifiers.NAME] with a checkpoint"
    assert wanted in survey("check", "-r", "tiny.toml").err
    training = ("--set", "training.model=clash-inception", "--set", "training.output=new.safetensors")
    done = survey("check", "-r", "tiny.toml", *training)
    assert done.status == 0, done.err
    assert "the recipe names no classifier: it is for training, not for a catalog" in done.lines
    done = survey("run", "tiny.toml", *training)
    assert (done.status, wanted in done.err) == (2, True)


def test_a_checkpoint_that_the_recipe_trains_need_not_be_there_yet(survey):
    training = ("--set", "training.model=clash-inception", "--set", "training.output=new.safetensors",
                "--set", "classifiers.net.checkpoint=new.safetensors")  # fmt: skip
    done = survey("check", "-r", "tiny.toml", *training)
    assert done.status == 0, done.err
    path = survey.folder / "new.safetensors"
    assert f"{path}: is not there yet, `catmorph train` makes it; classifiers.net needs it" in done.lines
    done = survey("run", "tiny.toml", *training)
    assert (done.status, f"catmorph: error: {path}: no such checkpoint" in done.err) == (2, True)


def test_check_says_each_problem_once(survey):
    survey.edit("catalogs/*.cat", "elsewhere/*.cat")
    done = survey("check", "-r", "tiny.toml")
    assert done.status == 2
    assert [line for line in done.lines if "no such catalog file" in line] == [
        f"catmorph: error: {survey.folder}/elsewhere/*.cat: no such catalog file; check catalog.files in the recipe"
    ]


@pytest.mark.parametrize("command", ["run", "run --dry-run", "check", "ingest", "cutouts", "status"])
@pytest.mark.parametrize("name", ["recipe.toml", "sources.parquet", "run.json", "stamps"])
def test_somebody_elses_files_are_not_written_over(survey, command, name):
    theirs = survey.folder / "theirs"
    theirs.mkdir()
    path = theirs / name
    path.mkdir() if name == "stamps" else path.write_text("theirs")
    recipe = ("tiny.toml",) if command.startswith("run") else ("-r", "tiny.toml")
    told = survey(*command.split(), *recipe, "-w", "theirs")
    assert told.status == 2
    assert (f"catmorph: error: {theirs}: is no run folder, and has {name}, which a run would write over; "
            "choose another -w/--workdir\n") in told.err  # fmt: skip
    assert [one.name for one in theirs.iterdir()] == [name]
    assert path.is_dir() or path.read_text() == "theirs"


@pytest.mark.parametrize("command", ["run tiny.toml", "check -r tiny.toml", "status -r tiny.toml"])
def test_a_file_is_no_run_folder(survey, command):
    told = survey(*command.split(), "-w", "tiny.toml")
    assert told.status == 2
    assert f"{survey.folder}/tiny.toml: is no folder; choose another -w/--workdir" in told.err


def test_all_that_a_run_writes_is_somebody_elses_where_no_run_made_it(finished):
    own = {"folder.json", "ledger", "lock", "logs"}
    assert {path.name for path in finished.run.iterdir()} - own <= set(WRITTEN)


def test_a_run_folder_without_its_mark_is_one_all_the_same(finished):
    (finished.run / "folder.json").unlink()
    assert finished(*RUN, "-q").status == 0
    assert (finished.run / "folder.json").exists()
