import json

import pytest

from catmorph import logbook
from catmorph.logbook import Logbook


def lines(book):
    return [json.loads(line) for line in book.path.read_text().splitlines()]


def test_events_are_json_lines(tmp_path):
    book = Logbook(tmp_path)
    book.note("stage", stage="cutouts", path=tmp_path)
    book.note("done", status=0)
    book.close()
    first, second = lines(book)
    assert (first["event"], first["stage"], first["path"]) == ("stage", "cutouts", str(tmp_path))
    assert second["status"] == 0
    assert first["time"].endswith("+00:00")


def test_timed_event_keeps_what_the_block_adds_and_its_error(tmp_path):
    book = Logbook(tmp_path)
    with book.timed("stage", stage="ingest") as facts:
        facts["rows"] = 7
    with pytest.raises(ValueError, match="no"), book.timed("stage", stage="classify"):
        raise ValueError("no")
    book.close()
    good, bad = lines(book)
    assert good["rows"] == 7
    assert good["seconds"] >= 0
    assert bad["error"] == "ValueError: no"


def test_rotation_bounds_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(logbook, "MAX_BYTES", 2000)
    book = Logbook(tmp_path)
    for number in range(200):
        book.note("stage", number=number)
    book.close()
    files = sorted(path.name for path in book.path.parent.iterdir())
    assert files == ["catmorph.jsonl", *(f"catmorph.jsonl.{i}" for i in range(1, 6))]
    assert all(path.stat().st_size <= 2000 for path in book.path.parent.iterdir())
    assert lines(book)[-1]["number"] == 199


def test_log_that_cannot_be_written_does_not_stop_the_work(tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    Logbook(tmp_path).note("stage")
