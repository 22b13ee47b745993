"""Results that several processes read, and markers that are read once, give the same release."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catmorph import engine
from catmorph.errors import CatmorphError
from catmorph.ledger import Ledger, Parts
from catmorph.release import assemble, reading
from catmorph.release.waiting import put_down, taken_by_id


@pytest.mark.parametrize("rows", [8192, 3])
def test_processes_that_read_results_do_not_change_the_release(finished, release_bytes, monkeypatch, rows):
    """Neither do rows that wait on disk to be put in order by id, of fields of more than `rows` sources."""
    small = ("-r", "tiny.toml", "--set", "run.chunk_rows=4")
    for stage in ("ingest", "cutouts", "classify", "export", "summarize"):
        assert finished(stage, *small).status == 0
    before = release_bytes(finished)
    for path in [*(finished.run / "release").iterdir(), finished.run / "ledger" / "counts.json"]:
        path.unlink()
    sorted_fields = []
    for module in (assemble, reading):
        monkeypatch.setattr(module, "SOURCES_A_TASK", rows)
    monkeypatch.setattr(assemble, "taken_by_id", lambda *args: sorted_fields.append(args) or taken_by_id(*args))
    monkeypatch.setattr(reading, "_CHUNKS_A_TASK", 1)
    monkeypatch.setattr(engine, "WORTH_A_POOL_SECONDS", 0.0)
    assert finished("export", *small, "--workers", 2).status == 0
    assert (finished.run / "ledger" / "counts.json").exists()
    assert finished("summarize", *small, "--workers", 2).status == 0
    assert release_bytes(finished) == before
    assert bool(sorted_fields) == (rows == 3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_disk_without_room_for_rows_that_wait_is_told():
    ids = pa.array(["1"])
    with pytest.raises(CatmorphError, match=r"^/dev: cannot be written: No space left on device; free space or choose"):
        put_down(Path("/dev/full"), "a611", pa.record_batch([ids], ["id"]), ids)


def test_what_a_process_cannot_read_is_told_as_it_is(finished, monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_POOL_SECONDS", 0.0)
    monkeypatch.setattr(reading, "_CHUNKS_A_TASK", 1)
    monkeypatch.setattr("catmorph.pipeline.release.refuse_outdated", lambda run: None)
    for path in (finished.run / "release").iterdir():
        path.unlink()
    broken = next((finished.run / "logits" / "net" / "F160W").glob("beta-*.parquet"))
    broken.write_bytes(b"PAR1" + bytes(100))
    done = finished("export", "-r", "tiny.toml", "--workers", 2)
    assert done.status == 1
    assert done.lines[-1].startswith(f"catmorph: error: {broken}: is damaged: ")


def test_logits_without_a_class_are_told(finished, monkeypatch):
    monkeypatch.setattr("catmorph.pipeline.release.refuse_outdated", lambda run: None)
    for path in (finished.run / "release").iterdir():
        path.unlink()
    poor = next((finished.run / "logits" / "net" / "F160W").glob("beta-*.parquet"))
    pq.write_table(pq.read_table(poor).drop_columns(["disk"]), poor)
    done = finished("export", "-r", "tiny.toml")
    assert done.status == 1
    assert done.lines[-1].startswith(f"catmorph: error: {poor}: has no column 'disk'")


def test_markers_are_read_once_while_nobody_writes(tmp_path):
    ledger, product = Ledger(tmp_path), tmp_path / "product"
    product.write_text("x")
    ledger.write(product, Parts({"a": 1}), count=1)
    with ledger.remembered():
        assert ledger.read(product)["count"] == 1
        Ledger(tmp_path).write(product, Parts({"a": 1}), count=2)
        assert ledger.read(product)["count"] == 1
        ledger.write(product, Parts({"a": 1}), count=3)
        assert ledger.read(product)["count"] == 3
        ledger.forget(product)
        assert ledger.read(product) is None
    Ledger(tmp_path).write(product, Parts({"a": 1}), count=4)
    assert ledger.read(product)["count"] == 4


@pytest.mark.parametrize("kept", [True, False])
def test_a_product_that_is_not_kept_is_missing_but_known(tmp_path, kept):
    ledger, product, parts = Ledger(tmp_path), tmp_path / "product", Parts({"a": 1})
    ledger.note(product, parts, flags={"EDGE": 1})
    if kept:
        product.write_text("left by another")
    state = ledger.state(product, parts)
    assert (state.name, state.why) == (
        ("stale", "damaged: its size is not what was written") if kept else ("missing", "not kept"))
    assert state.marker["flags"] == {"EDGE": 1}
