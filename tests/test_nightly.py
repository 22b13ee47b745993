"""Night after night: only the needed work, the same bytes as from scratch, and a record of what was done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from tiny_survey import Survey


def stages(survey: Survey) -> dict[str, dict]:
    """Return what the last run did, by stage."""
    return {stage["stage"]: stage for stage in json.loads((survey.run / "run.json").read_text())["stages"]}


def brighten(survey: Survey) -> None:
    """Replace a mosaic by a deeper one."""
    path = survey.folder / "mosaics" / "alpha_f160w.fits"
    with fits.open(path) as hdus:
        # Not a mere factor: the network's input does not depend on that.
        hdus[0].data += np.linspace(0, 1, hdus[0].data.shape[1], dtype=np.float32)
        hdus.writeto(path, overwrite=True)


def add_mosaic(survey: Survey) -> None:
    """Give field beta a mosaic in the band that it lacks."""
    shutil.copy(survey.folder / "mosaics" / "beta_f814w.fits", survey.folder / "mosaics" / "beta_f435w.fits")


def rows_of(survey: Survey, field: str) -> tuple[Path, list[str], list[str]]:
    """Return a catalog's file, header lines and rows."""
    path = survey.folder / "catalogs" / f"{field}.cat"
    lines = path.read_text().splitlines()
    return path, [line for line in lines if line.startswith("#")], [line for line in lines if not line.startswith("#")]


def add_row(survey: Survey) -> None:
    path, header, rows = rows_of(survey, "beta")
    added = rows[0].split()
    added[0] = "900"
    path.write_text("\n".join([*header, *rows, " ".join(added)]) + "\n")


def edit_row(survey: Survey) -> None:
    path, header, rows = rows_of(survey, "beta")
    cells = rows[0].split()
    cells[3] = f"{float(cells[3]) * 1.1:.3f}"
    path.write_text("\n".join([*header, " ".join(cells), *rows[1:]]) + "\n")


def remove_row(survey: Survey) -> None:
    path, header, rows = rows_of(survey, "beta")
    path.write_text("\n".join([*header, *rows[1:]]) + "\n")


def edit_magnitude(survey: Survey) -> None:
    path, header, rows = rows_of(survey, "beta")
    cells = rows[0].split()
    cells[4] = "21.5"
    path.write_text("\n".join([*header, " ".join(cells), *rows[1:]]) + "\n")


def new_checkpoint(survey: Survey) -> None:
    (survey.folder / "untrained.safetensors").unlink()
    made = survey("models", "create", "clash-inception", "-r", "tiny.toml", "-o", "untrained.safetensors", "--seed", 7)
    assert made.status == 0, made.err


# Two fields of one cell each, three bands: six shards and six logits files.
CHANGES = {
    "mosaic replaced": (brighten, 1, 1, "mosaic F160W changed"),
    "mosaic added": (add_mosaic, 1, 1, "mosaic F435W changed"),
    "row added": (add_row, 3, 3, "sources changed"),
    "row edited": (edit_row, 3, 3, "sources changed"),
    "row removed": (remove_row, 3, 3, "sources changed"),
    "magnitude edited": (edit_magnitude, 0, 0, ""),
    "cut edited": (lambda s: s.edit('"magnitude < 30"', '"magnitude < 30 and field != \'beta\'"'), 0, 0, ""),
    "checkpoint changed": (new_checkpoint, 0, 6, "classifier changed"),
    "temperature changed": (lambda s: s.edit("batch = 16", "batch = 16\ntemperature = 1.5"), 0, 0, ""),
    "layout changed": (lambda s: s.edit("decimals = 3", "decimals = 5"), 0, 0, ""),
    "chunks smaller": (lambda s: s.edit("tolerance =", "chunk_rows = 4\ntolerance ="), None, None, "not made yet"),
    "band removed": (lambda s: s.edit('"F435W", ', ""), 0, 0, ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_the_needed_work_and_the_bytes_of_a_new_run(finished, release_bytes, change):
    act, cut, classified, why = CHANGES[change]
    act(finished)
    again = finished("run", "tiny.toml", "-q")
    assert again.status == 0, again.err
    done = stages(finished)
    if change == "chunks smaller":
        # Cells that are the same stay: those of the smaller field, where it is not split.
        assert 0 < done["cutouts"]["made"] == done["classify"]["made"]
    else:
        assert (done["cutouts"]["made"], done["classify"]["made"]) == (cut, classified)
    reasons = list(done["cutouts"]["why"]) or list(done["classify"]["why"])
    assert not why or any(why in reason for reason in reasons), reasons
    kept = release_bytes(finished)
    shutil.rmtree(finished.run)
    assert finished("run", "tiny.toml", "-q").status == 0
    assert kept == release_bytes(finished)


def test_a_band_can_be_added(survey, release_bytes):
    bands = 'names = ["F435W", "F814W", "F160W"]'
    survey.edit(bands, 'names = ["F814W", "F160W"]')
    assert survey("run", "tiny.toml", "-q").status == 0
    survey.edit('names = ["F814W", "F160W"]', bands)
    assert survey("run", "tiny.toml", "-q").status == 0
    done = stages(survey)
    assert (done["cutouts"]["made"], done["cutouts"]["kept"]) == (2, 4)
    assert (done["classify"]["made"], done["classify"]["kept"]) == (2, 4)
    kept = release_bytes(survey)
    shutil.rmtree(survey.run)
    assert survey("run", "tiny.toml", "-q").status == 0
    assert kept == release_bytes(survey)


def test_status_says_why_something_is_stale(finished):
    brighten(finished)
    lines = finished("status", "-r", "tiny.toml").out.splitlines()
    (line,) = [line for line in lines if line.startswith("cutouts") and "F160W" in line]
    assert "mosaic F160W changed" in line
    (line,) = [line for line in lines if line.startswith("classify") and "F160W" in line]
    assert " ".join(line.split()).startswith(
        "classify F160W 1 1 0 stamps are to be cut: mosaic F160W changed (1) / ")
    assert lines[-1].split(maxsplit=4) == ["export", "0", "1", "0", "exported before what classify is to do (1)"]


def test_dry_run_says_what_and_how_long_and_writes_nothing(finished):
    brighten(finished)
    before = {path: path.stat().st_mtime_ns for path in finished.run.rglob("*")}
    out = finished("run", "tiny.toml", "--dry-run").out.splitlines()
    assert out[0] == "ingest: 0 to make, 1 up to date"
    assert out[1].startswith("cutouts: 1 to make, 5 up to date; 6 (source, view)s, about ")
    assert out[1].endswith("at the last rate; mosaic F160W changed (1)")
    assert "stamps are to be cut: mosaic F160W changed (1)" in out[2]
    assert out[3] == "export: 1 to make, 0 up to date; after classify (1)"
    assert before == {path: path.stat().st_mtime_ns for path in finished.run.rglob("*")}


def test_dry_run_knows_the_rates_of_runs_before_one_that_did_nothing(finished):
    assert finished("run", "tiny.toml", "-q").status == 0  # all is up to date
    log = finished.run / "logs" / "catmorph.jsonl"
    odd = ['{"event": "stage"', '{"event": "stage", "stage": "cutouts", "worked": "6", "seconds": 0.0}',
           '{"event": "stage", "stage": ["cutouts"], "worked": 6, "seconds": 1.5}', "[" * 10_000 + '"stage"', "\xff"]
    log.write_text(log.read_text() + "\n".join(odd) + "\n")
    brighten(finished)
    out = finished("run", "tiny.toml", "--dry-run").out.splitlines()
    assert " at the last rate; " in out[1]
    shutil.move(log, f"{log}.1")  # as when it has become too long
    assert finished("run", "tiny.toml", "--dry-run").out.splitlines() == out


def test_dry_run_knows_what_is_kept_and_how_networks_are_to_run(finished):
    def plan(*args):
        lines = finished("run", "tiny.toml", "--dry-run", *args).out.splitlines()
        return [line.partition(" to make")[0] for line in lines]

    kept = ["ingest: 0", "cutouts: 0", "classify: 0", "export: 0"]
    assert plan() == plan("--precision", "float32") == kept
    assert plan("--precision", "bfloat16") == ["ingest: 0", "cutouts: 0", "classify: 6", "export: 1"]
    # Shards that were removed are cut to the same stamps, of which the logits are known.
    shutil.rmtree(finished.run / "stamps")
    assert plan() == ["ingest: 0", "cutouts: 6", "classify: 0", "export: 0"]
    assert finished("run", "tiny.toml", "-q").status == 0
    assert [stages(finished)[name]["made"] for name in ("cutouts", "classify")] == [6, 0]


def test_dry_run_of_a_device_that_is_not_there(finished, monkeypatch):
    monkeypatch.setattr("catmorph.models.device._torch_has_gpu", lambda: False)
    refused = finished("run", "tiny.toml", "--dry-run", "--device", "cuda")
    assert (refused.status, refused.lines) == (
        2, ["catmorph: error: there is no CUDA device that torch can use; use --device cpu or auto"])


def test_dry_run_writes_no_control_characters(finished, monkeypatch):
    """A terminal would obey them; where stdout is none, click leaves them out by itself."""
    (finished.folder / "catalogs" / "alpha.cat").rename(finished.folder / "catalogs" / "al\x1b[31mpha.cat")
    told = []
    monkeypatch.setattr("click.echo", lambda text="", **_: told.append(str(text)))
    finished("run", "tiny.toml", "--dry-run")
    assert "catalog al?[31mpha.cat added" in told[0]


def test_dry_run_of_a_new_folder(survey):
    report = json.loads(survey("run", "tiny.toml", "--dry-run", "--json").out)
    assert [(stage["stage"], stage["make"]) for stage in report] == [
        ("ingest", 1), ("cutouts", 6), ("classify", 6), ("export", 1)]
    assert not survey.run.exists()


def test_run_json_says_what_was_done(finished):
    record = json.loads((finished.run / "run.json").read_text())
    assert (record["status"], record["outcome"]) == (0, "done")
    assert [stage["stage"] for stage in record["stages"]] == ["ingest", "cutouts", "classify", "export", "summarize"]
    assert all(stage["seconds"] >= 0 for stage in record["stages"])
    assert set(record["release"]) == {path.name for path in (finished.run / "release").iterdir()}
    assert record["account"]["read"] == stages(finished)["ingest"]["counts"]["rows read"]
    log = [json.loads(line) for line in (finished.run / "logs" / "catmorph.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log[-6:]] == ["stage"] * 5 + ["end"]


def damage(survey: Survey) -> Path:
    path = survey.folder / "mosaics" / "alpha_f814w.fits"
    path.write_bytes(path.read_bytes()[:50_000])
    return path


def test_failures_are_listed_and_tried_again(survey, finished_survey, release_bytes):
    whole = (survey.folder / "mosaics" / "alpha_f814w.fits").read_bytes()
    path = damage(survey)
    assert survey("run", "tiny.toml", "-q").status == 3
    (row,) = pq.read_table(survey.run / "failures.parquet").to_pylist()
    assert (row["stage"], row["view"], row["field"], row["file"]) == ("cutouts", "F814W", "alpha", path.name)
    assert row["reason"].startswith("is truncated")
    assert row["sources"] == 6
    summary = (survey.run / "release" / "summary.md").read_text()
    assert "## Files that could not be used" in summary
    assert r"alpha\_f814w.fits" in summary
    (told,) = json.loads((survey.run / "release" / "summary.json").read_text())["failures"]
    assert told["reason"] == row["reason"]
    path.write_bytes(whole)
    assert survey("run", "tiny.toml", "-q").status == 0
    assert pq.read_table(survey.run / "failures.parquet").num_rows == 0
    assert release_bytes(survey) == release_bytes(finished_survey)


def test_fail_fast_stops_at_the_first_failure(survey):
    damage(survey)
    done = survey("run", "tiny.toml", "-q", "--fail-fast")
    assert done.status == 1
    (line,) = done.lines
    assert line.startswith("catmorph: error: alpha_f814w.fits: is truncated")
    assert line.endswith("repair it and run again, or leave --fail-fast out")
    record = json.loads((survey.run / "run.json").read_text())
    assert record["status"] == 1
    assert "is truncated" in record["stages"][-1]["error"]
    assert not (survey.run / "release").exists()


def test_command_after_the_run_gets_the_manifest(finished, tmp_path):
    script = "import json, sys; print(json.load(open(sys.argv[1]))['outcome'], file=open(sys.argv[2] + '.txt', 'w'))"
    note = tmp_path / "note; rm -rf $HOME"  # a shell would stumble over it
    program = tmp_path / "after.py"
    program.write_text(script.replace("sys.argv[1]", "sys.argv[-1]").replace("sys.argv[2]", "sys.argv[1]"))
    done = finished("run", "tiny.toml", "-q", "--after", f"{sys.executable} {program} '{note}'")
    assert done.status == 0, done.err
    assert Path(f"{note}.txt").read_text() == "done\n"


def test_command_after_the_run_gets_the_environment_of_the_user(finished, tmp_path):
    """What a run sets for its own libraries is not for others."""
    program = tmp_path / "after.sh"
    program.write_text('echo "${OPENBLAS_NUM_THREADS-not set}" > ' + str(tmp_path / "found"))
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-m", "catmorph", "run", "tiny.toml", "-q", "--after", f"sh {program}"]
    done = subprocess.run(command, cwd=finished.folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "found").read_text() == "not set\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/no/program", "/no/program: the command after the run cannot be started: No such file or directory"),
        ("false", "false: the command after the run ended with status 1"),
    ],
)
def test_command_after_the_run_that_fails(finished, command, message):
    done = finished("run", "tiny.toml", "-q", "--after", command)
    assert done.status == 1
    assert done.lines == [f"catmorph: error: {message}"]


def test_clean_removes_what_is_not_needed_after_saying_what(finished, release_bytes):
    before = release_bytes(finished)
    finished.edit('"F435W", ', "")
    (finished.run / "stamps" / ".partial-left.h5").write_bytes(b"half")
    dry = finished("clean", "-r", "tiny.toml", "--dry-run")
    listed = dry.out.splitlines()
    assert "stamps/.partial-left.h5" in listed
    assert sum(line.startswith("stamps/F435W/") for line in listed) == 2
    assert sum(line.startswith("ledger/") for line in listed) == 4
    assert all("F435W" in line or "partial" in line for line in listed)
    assert all((finished.run / line).exists() for line in listed)
    assert finished("clean", "-r", "tiny.toml").out == dry.out
    assert not any((finished.run / line).exists() for line in listed)
    assert not (finished.run / "stamps" / "F435W").exists()
    assert release_bytes(finished) == before
    assert finished("run", "tiny.toml", "-q").status == 0
    assert stages(finished)["cutouts"]["made"] == 0


def with_weights(survey: Survey, role: str) -> None:
    """Give every mosaic a map of ones and zeros, as weight or as flag map."""
    for path in (survey.folder / "mosaics").glob("*.fits"):
        mask = np.ones(fits.getdata(path).shape, np.int16)
        mask[:, : mask.shape[1] // 2] = 0
        fits.writeto(survey.folder / "maps" / path.name, mask, overwrite=True)
    survey.edit("[normalise]", f'{role} = "maps/{{field}}_{{band|lower}}.fits"\n\n[normalise]')


def test_a_weight_map_that_becomes_a_flag_map_cuts_again(survey):
    (survey.folder / "maps").mkdir()
    with_weights(survey, "weight")
    assert survey("run", "tiny.toml", "-q").status == 0
    survey.edit("weight =", "flag =")
    assert survey("run", "tiny.toml", "-q").status == 0
    assert stages(survey)["cutouts"]["made"] == 6 - 1  # beta has no mosaic in F435W


def test_a_view_whose_bands_change_order_is_cut_again(survey):
    survey.edit("[mosaics]", '[views]\npair = ["F814W", "F160W"]\n\n[mosaics]')
    assert survey("ingest", "-r", "tiny.toml").status == 0
    assert survey("cutouts", "-r", "tiny.toml").lines[-1].startswith("cutouts: 11 (source, view)s")
    survey.edit('["F814W", "F160W"]\n', '["F160W", "F814W"]\n')
    assert "2 made, 0 up to date" in survey("cutouts", "-r", "tiny.toml").lines[-1]


def test_a_mosaic_that_goes_is_told(finished):
    (finished.folder / "mosaics" / "alpha_f160w.fits").unlink()
    done = finished("run", "tiny.toml")
    (line,) = [line for line in done.lines if "has gone" in line]
    assert line == "catmorph: warning: F160W, field alpha: the mosaic has gone; its 5 stamps are given up"


def test_an_older_release_in_another_format_does_not_stay(finished):
    assert finished("export", "-r", "tiny.toml", "--format", "parquet").status == 0
    assert {"Tiny.csv", "Tiny.parquet"} <= {path.name for path in (finished.run / "release").iterdir()}
    brighten(finished)
    assert finished("run", "tiny.toml", "-q").status == 0
    assert not (finished.run / "release" / "Tiny.parquet").exists()


def test_status_changes_nothing(finished):
    (finished.run / "rejected.parquet").unlink()
    markers = sorted((finished.run / "ledger").rglob("*.json"))
    assert "rejected.parquet is missing" in finished("status", "-r", "tiny.toml").out
    assert sorted((finished.run / "ledger").rglob("*.json")) == markers
    assert finished("run", "tiny.toml", "-q").status == 0
    assert (finished.run / "rejected.parquet").exists()


def test_failures_of_other_bands_stay_listed(survey):
    damage(survey)
    assert survey("ingest", "-r", "tiny.toml").status == 0
    assert survey("cutouts", "-r", "tiny.toml").status == 0
    assert survey("cutouts", "-r", "tiny.toml", "--band", "F160W").status == 0
    assert pq.read_table(survey.run / "failures.parquet").num_rows == 1


def test_an_interrupted_change_that_is_taken_back_leaves_no_wrong_shard(finished, monkeypatch):
    """Killed between a new shard and its marker, then the recipe as it was: the shard is cut again."""
    from catmorph.ledger import Ledger

    write = Ledger.write

    def killed(self, product, parts, **facts):
        if product.suffix == ".h5":
            raise KeyboardInterrupt
        write(self, product, parts, **facts)

    shards = sorted((finished.run / "stamps").rglob("*.h5"))
    before = [path.read_bytes() for path in shards]
    monkeypatch.setattr(Ledger, "write", killed)
    assert finished("cutouts", "-r", "tiny.toml", "-q", "--set", "stamp.resample=area").status == 1
    monkeypatch.setattr(Ledger, "write", write)
    assert [path.read_bytes() for path in shards] != before
    assert finished("run", "tiny.toml", "-q").status == 0
    assert [path.read_bytes() for path in shards] == before


def test_deep_check_finds_what_looks_unchanged(finished):
    assert finished("run", "tiny.toml", "-q").status == 0  # the files were copied: remembers them where they are now
    assert finished("check", "-r", "tiny.toml", "--deep").status == 0
    mosaic = finished.folder / "mosaics" / "alpha_f160w.fits"
    shard = next((finished.run / "stamps" / "F814W").glob("*.h5"))
    for path in (mosaic, shard):
        before, data = path.stat(), bytearray(path.read_bytes())
        data[-3000] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert finished("check", "-r", "tiny.toml").status == 0
    done = finished("check", "-r", "tiny.toml", "--deep")
    assert done.status == 2
    assert [line for line in done.lines if "error" in line] == [
        f"catmorph: error: {mosaic}: its bytes changed, but not its size, time and inode; touch it and run again",
        f"catmorph: error: {shard}: is damaged: its bytes are not what was written; delete it and run again",
    ]
    shard.unlink()
    os.utime(mosaic)
    assert finished("run", "tiny.toml", "-q").status == 0
    assert stages(finished)["cutouts"]["made"] == 2
    assert finished("check", "-r", "tiny.toml", "--deep").status == 0
