"""Nothing is exported or counted again while nothing has changed, and all of it when something has."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from catmorph.api import open_run
from catmorph.files import write_sealed
from catmorph.ledger import Ledger
from catmorph.pipeline.release import run_release, run_summary
from catmorph.release.bundle import export as write_release
from catmorph.release.counts import counted, no_counts
from catmorph.release.reading import read_results


@pytest.fixture
def reads(monkeypatch):
    """Count how often logits are read."""
    found = []
    from catmorph.release import results

    read = results._read_columns
    monkeypatch.setattr(results, "_read_columns", lambda path, names: found.append(path) or read(path, names))
    return found


def export(survey, *args):
    assert survey("export", "-r", "tiny.toml", *args).status == 0


def test_nothing_is_read_again_after_a_run(finished, reads, release_bytes):
    before = release_bytes(finished)
    assert finished("run", "tiny.toml").status == 0
    export(finished)
    assert finished("summarize", "-r", "tiny.toml").status == 0
    assert not reads
    assert release_bytes(finished) == before


def test_an_export_removes_what_a_killed_one_left(finished, release_bytes):
    before = release_bytes(finished)
    (finished.run / "release" / ".partial-rows").write_bytes(b"half of the rows")
    (finished.run / "release" / "Tiny.csv").unlink()
    export(finished)
    assert release_bytes(finished) == before
    assert not list(finished.run.rglob(".partial-*"))


@pytest.mark.parametrize("name", ["Tiny.csv", "columns.md", "provenance.json", "omitted.parquet"])
@pytest.mark.parametrize("harm", ["removed", "changed"])
def test_what_is_not_whole_is_written_again(finished, reads, release_bytes, name, harm):
    before = release_bytes(finished)
    path = finished.run / "release" / name if name != "omitted.parquet" else finished.run / name
    content = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    export(finished)
    assert reads
    assert release_bytes(finished) == before


def test_a_file_that_an_earlier_export_wrote_is_kept_or_gone(finished, reads):
    export(finished, "--format", "fits")
    export(finished)
    provenance = finished.run / "release" / "provenance.json"
    assert set(json.loads(provenance.read_bytes())["files"]) == {"Tiny.csv", "Tiny.fits"}
    reads.clear()
    export(finished, "--format", "csv", "--format", "fits")
    assert not reads
    (finished.run / "release" / "Tiny.fits").unlink()
    export(finished)
    assert set(json.loads(provenance.read_bytes())["files"]) == {"Tiny.csv"}
    reads.clear()
    export(finished)
    assert not reads


def test_a_record_that_was_edited_is_not_carried_on(finished):
    export(finished, "--format", "fits")
    provenance = finished.run / "release" / "provenance.json"
    facts = json.loads(provenance.read_bytes())
    facts["files"]["Tiny.fits"]["sha256"] = "0" * 64
    provenance.write_text(json.dumps(facts))
    told = finished("export", "-r", "tiny.toml")
    fits = provenance.parent / "Tiny.fits"
    assert f"{fits}: is not what was exported; it was left there, and is no part of this release" in told.err
    assert set(json.loads(provenance.read_bytes())["files"]) == {"Tiny.csv"}
    assert fits.exists()


def test_only_what_an_export_wrote_is_removed(finished):
    """Whatever the list of files says, which anybody may have edited."""
    export(finished, "--format", "fits")
    folder = finished.run / "release"
    (folder / "notes.txt").write_text("mine")
    facts = json.loads((folder / "provenance.json").read_bytes())
    facts["files"] |= {"notes.txt": {}, "columns.md": {}, "provenance.json": {}, "../sources.parquet": {}}
    (folder / "provenance.json").write_text(json.dumps(facts))
    told = finished("export", "-r", "tiny.toml", "--set", "title=Another")
    assert told.status == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert f"removed {folder / 'Tiny.fits'}: it was of an earlier release" in told.err
    assert (folder / "columns.md").exists()
    assert (finished.run / "sources.parquet").exists()
    assert set(json.loads((folder / "provenance.json").read_bytes())["files"]) == {"Tiny.csv"}


@pytest.mark.parametrize("change", ["run.tolerance=0.5", "labels.minimum_votes=3", "summary.merger_threshold=0.3"])
def test_what_no_catalog_is_made_of_leaves_it_alone(finished, reads, change, release_bytes):
    export(finished, "--format", "fits")
    export(finished)
    release = finished.run / "release"
    before = {path: path.stat().st_mtime_ns for path in release.glob("Tiny.*")}
    reads.clear()
    assert finished("run", "tiny.toml", "--dry-run", "--set", change).out.splitlines()[-1] == (
        "export: 0 to make, 1 up to date")
    export(finished, "--set", change)
    assert not reads
    assert before == {path: path.stat().st_mtime_ns for path in release.glob("Tiny.*")}
    assert said(finished, "--set", change) == ""
    # As from scratch: provenance.json has the recipe that was asked for.
    kept = release_bytes(finished)
    for path in (*release.glob("Tiny.*"), release / "provenance.json", finished.run / "ledger" / "export.json"):
        path.unlink()
    export(finished, "--set", change, "--format", "csv", "--format", "fits")
    assert reads
    assert release_bytes(finished) == kept


def said(survey, *args):
    """Return what `status` and a dry run say of the export, and whether `run` writes it."""
    status = survey("status", "-r", "tiny.toml", *args).out.splitlines()[-1].split(maxsplit=4)
    plan = survey("run", "tiny.toml", "--dry-run", *args).out.splitlines()[-1]
    whys = {status[4].removesuffix(" (1)"), plan.partition("; ")[2].removesuffix(" (1)")} if status[4:] else {""}
    assert plan.startswith(f"export: {1 - int(status[1])} to make, {status[1]} up to date")
    (why,) = whys
    return why


@pytest.mark.parametrize(("name", "why"), [
    ("release/Tiny.csv", "missing or cut off: release/Tiny.csv"),
    ("omitted.parquet", "missing or cut off: omitted.parquet"),
    ("ledger/export.json", "not known of what it was exported"),
])  # fmt: skip
@pytest.mark.parametrize("harm", ["removed", "cut off"])
def test_a_release_that_is_not_whole_is_told(finished, release_bytes, name, why, harm):
    before, path = release_bytes(finished), finished.run / name
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    assert said(finished) == why
    assert finished("run", "tiny.toml").status == 0
    assert said(finished) == ""
    assert release_bytes(finished) == before


def test_a_catalog_of_other_sources_is_told(finished):
    """Magnitudes decide no stamp and no logits."""
    path = finished.folder / "catalogs" / "alpha.cat"
    lines = path.read_text().splitlines()
    cells = lines[6].split()
    cells[-2] = "18.25"
    path.write_text("\n".join([*lines[:6], " ".join(cells), *lines[7:]]) + "\n")
    assert finished("ingest", "-r", "tiny.toml").status == 0
    assert said(finished) == "exported before a change of the sources"
    told = finished("summarize", "-r", "tiny.toml")
    assert "the catalog there was made before a change of the sources, the summary after it" in told.err
    assert finished("run", "tiny.toml").status == 0
    assert said(finished) == ""


def test_a_format_that_is_asked_for_is_told(finished):
    export(finished, "--format", "fits")
    assert said(finished) == ""
    assert said(finished, "--set", "release.formats=['csv', 'fits']") == "exported before a change of [release]"


def test_logits_that_were_not_compared_leave_nothing_to_keep(finished, reads):
    export(finished)
    write_release(open_run(finished.folder / "tiny.toml", finished.run), ("csv",))
    reads.clear()
    export(finished)
    assert reads


def test_another_temperature_or_threshold_is_counted_anew(finished, reads):
    def summary(*args):
        assert finished("summarize", "-r", "tiny.toml", *args).status == 0
        return json.loads((finished.run / "release" / "summary.json").read_bytes())

    first = summary()
    assert not reads
    sharper = summary("--set", "classifiers.net.temperature=0.3")
    assert reads
    assert sharper["views"] != first["views"]
    assert summary("--set", "summary.threshold=0.9")["threshold"] == 0.9
    assert summary() == first


def test_damaged_counts_are_made_again(finished, reads):
    path, summary = finished.run / "ledger" / "counts.json", finished.run / "release" / "summary.json"
    before = summary.read_bytes()
    for content in (b"{}", path.read_bytes().replace(b'"released": ', b'"released": 1')):
        path.write_bytes(content)
        reads.clear()
        assert finished("summarize", "-r", "tiny.toml").status == 0
        assert reads
        assert summary.read_bytes() == before


def test_counts_that_export_kept_are_those_of_summarize(finished, reads):
    summary = finished.run / "release" / "summary.json"
    before = summary.read_bytes()
    (finished.run / "ledger" / "counts.json").unlink()
    for path in (finished.run / "release").iterdir():
        path.unlink()
    export(finished)
    reads.clear()
    assert finished("summarize", "-r", "tiny.toml").status == 0
    assert not reads
    assert summary.read_bytes() == before


def test_counts_come_back_from_plain_values(finished):
    run = open_run(finished.folder / "tiny.toml", finished.run,
                   ['evaluation.groups={ small = "size < 0.7", rest = "not (size < 0.7)" }'])  # fmt: skip
    counts = counted(no_counts(run.recipe), read_results(run))
    again = no_counts(run.recipe)
    again.restore(json.loads(json.dumps(counts.plain())))
    assert again.plain() == counts.plain()
    assert repr((again.fields, again.groups.groups)) == repr((counts.fields, counts.groups.groups))
    assert sum(again.groups.sources.values()) == again.sources == run.ingest_counts()["sources"]


def test_counts_of_other_logits_are_not_taken(finished):
    run = open_run(finished.folder / "tiny.toml", finished.run)
    run_release(run)
    before = run_summary(run).values
    path = run.path / "ledger" / "counts.json"
    write_sealed(path, {"fingerprint": "of other logits", "counts": {}})
    assert run_summary(run).values == before


def test_the_comparison_with_the_ledger_is_made_once_in_a_block(tmp_path):
    ledger, calls = Ledger(tmp_path), []
    for _ in range(2):
        ledger.once(lambda: calls.append(1), "it")
    assert len(calls) == 2
    with ledger.remembered():
        for _ in range(2):
            with ledger.remembered():
                ledger.once(lambda: calls.append(1), "it")
    assert len(calls) == 3
    ledger.once(lambda: calls.append(1), "it")
    assert len(calls) == 4


def test_an_export_does_without_pandas(finished):
    for path in (finished.run / "release").iterdir():
        path.unlink()
    code = f"""\
import sys
from catmorph.pipeline.release import run_release, run_summary
from catmorph.recipe import load_recipe
from catmorph.workspace import RunFolder
run = RunFolder({str(finished.run)!r}, load_recipe("tiny.toml"))
run_release(run)
run_summary(run)
sys.exit("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=finished.folder, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (finished.run / "release" / "Tiny.csv").exists()
