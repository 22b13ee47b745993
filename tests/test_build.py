"""The cutouts stage: which mosaics, which tasks, and shards of the same bytes however they are made."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from astropy.io import fits
from astropy.table import Table
from mosaic_files import draw_sources, tan_wcs, write_mosaic

from catmorph import engine
from catmorph.engine import run_tasks
from catmorph.errors import CatmorphError, RecipeError, UsageError
from catmorph.inference import direct
from catmorph.quality import describe
from catmorph.recipe import load_recipe
from catmorph.sources.ingest import ingest
from catmorph.stamps.build import cut_chunk, cut_tasks, task_state
from catmorph.stamps.mosaics import find_mosaics
from catmorph.stamps.sink import Sink
from catmorph.stamps.store import ShardContent, open_shard, write_shard
from catmorph.workspace import RunFolder

CENTRES = {"a1": (150.0, 2.2), "b-2": (0.001, -44.0)}
SHAPE = (160, 180)


def survey(folder: Path, *, rows: int = 24, **sections: dict[str, object]) -> Path:
    """Write a survey of two fields and two bands, the second of half the pixel size; return its recipe."""
    rng = np.random.default_rng(11)
    lines = []
    for field, (ra0, dec0) in CENTRES.items():
        base = tan_wcs(ra0, dec0, shape=SHAPE)
        ra, dec = base.all_pix2world(rng.uniform(-5, 185, rows), rng.uniform(-5, 165, rows), 0)
        lines += [(field, f"g{i}", ra[i], dec[i], rng.uniform(0.3, 1.0)) for i in range(rows)]
        for band, scale, angle in (("R", 0.1, 0.0), ("I", 0.05, 25.0)):
            shape = SHAPE if band == "R" else (420, 430)
            wcs = tan_wcs(ra0, dec0, shape=shape, scale=scale, angle=angle)
            image = draw_sources(wcs, shape, ra, dec, 0.2, scale) + rng.normal(0, 0.01, shape).astype(np.float32)
            write_mosaic(folder / "mosaics" / f"{field}_{band.lower()}.fits", image.astype(np.float32), wcs)
    Table(rows=lines, names=["FIELD", "ID", "RA", "DEC", "R50"]).write(folder / "survey.csv")
    recipe = {
        "name": "small", "scheme": "clash",
        "catalog": {"files": "survey.csv", "field": {"column": "FIELD"}, "id": "ID",
                    "ra": {"column": "RA", "unit": "deg"}, "dec": {"column": "DEC", "unit": "deg"},
                    "size": {"column": "R50", "unit": "arcsec"}},
        "bands": {"names": ["R", "I"]},
        "views": {"R": ["R"], "RI": ["R", "I"]},
        "mosaics": {"pattern": "mosaics/{field}_{band|lower}.fits"},
        "stamp": {"side": "5 radii", "pixels": 24},
        "run": {"chunk_rows": 16},
    }
    for name, section in sections.items():
        recipe[name] = {**recipe.get(name, {}), **section}
    path = folder / "survey.toml"
    path.write_text(tomli_w.dumps(recipe))
    return path


def copy_of(recipe: Path, folder: Path) -> Path:
    """Return the recipe of a copy of its survey that a test may damage."""
    return Path(shutil.copytree(recipe.parent, folder / "survey")) / recipe.name


def start(recipe: Path, workdir: Path, *overrides: str) -> RunFolder:
    run = RunFolder(workdir, load_recipe(recipe, overrides))
    run.prepare()
    ingest(run)
    return run


def cut_all(run: RunFolder, **settings: object) -> dict[str, bytes]:
    tasks = cut_tasks(run, run.chosen_views(()))
    tasks = tasks[::-1] if settings.pop("backwards", False) else tasks
    list(run_tasks(cut_chunk, tasks, **{"workers": 1, "estimated_seconds": 0.0, **settings}))
    return {str(task.shard.relative_to(run.path)): task.shard.read_bytes() for task in tasks}


def rows_of(run: RunFolder) -> dict[tuple[str, str, str], tuple[str, bytes | None]]:
    """Return (view, field, id) -> flags and the stamp's bytes."""
    result = {}
    for task in cut_tasks(run, run.chosen_views(())):
        with open_shard(task.shard) as shard:
            stamps = shard.read(slice(None))
            for identifier, flags, row in zip(shard.ids, shard.flags, shard.rows, strict=True):
                pixels = stamps[row].tobytes() if row >= 0 else None
                result[task.view, task.chunk.field, identifier] = describe(int(flags)), pixels
    return result


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return survey(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory) -> tuple[RunFolder, dict[str, bytes]]:
    run = start(recipe, tmp_path_factory.mktemp("made") / "run")
    return run, cut_all(run)


def test_every_source_is_in_every_view_once(made):
    run, shards = made
    rows = rows_of(run)
    assert set(rows) == {(view, field, f"g{i}") for view in ("R", "RI") for field in CENTRES for i in range(24)}
    assert len(shards) == len(set(shards)) >= 6
    flags = {flag for flag, _ in rows.values()}
    assert {"", "OFF_IMAGE", "EDGE"} <= flags
    assert {flag for flag, pixels in rows.values() if pixels is None} <= {"OFF_IMAGE", "BAD_PIXELS|EDGE"}
    assert {flag for flag, pixels in rows.values() if pixels is not None} == {"", "EDGE"}


def test_the_same_bytes_in_another_order_and_another_run(made, recipe, tmp_path):
    assert cut_all(start(recipe, tmp_path / "run"), backwards=True) == made[1]


def test_the_same_bytes_by_worker_processes(made, recipe, tmp_path):
    assert cut_all(start(recipe, tmp_path / "run"), workers=2, estimated_seconds=1000.0) == made[1]


def test_the_same_stamps_in_other_chunks(made, recipe, tmp_path):
    run = start(recipe, tmp_path / "run", "run.chunk_rows=1000")
    cut_all(run)
    assert len(run.chunks()) < len(made[0].chunks())
    assert rows_of(run) == rows_of(made[0])


def test_what_is_valid_is_known(recipe, tmp_path):
    run = start(recipe, tmp_path / "run")
    tasks = cut_tasks(run, ["R"])
    assert {task_state(run, task).name for task in tasks} == {"missing"}
    cut_all(run)
    assert {task_state(run, task).name for task in tasks} == {"done"}
    other = RunFolder(run.path, load_recipe(recipe, ["stamp.pixels=20"]))
    states = [task_state(other, task) for task in cut_tasks(other, ["R"])]
    assert {(state.name, state.why) for state in states} == {("stale", "[stamp] changed")}
    tasks[0].shard.unlink()
    assert task_state(run, tasks[0]).name == "missing"


def test_a_changed_mosaic_makes_its_shards_stale(recipe, tmp_path):
    run = start(copy_of(recipe, tmp_path), tmp_path / "run")
    cut_all(run)
    path = tmp_path / "survey" / "mosaics" / "a1_i.fits"
    with fits.open(path, mode="update") as file:
        file[0].data[0, 0] += 1
    run = RunFolder(run.path, run.recipe)
    stale = {(task.view, task.chunk.field): task_state(run, task).why
             for task in cut_tasks(run, ["R", "RI"]) if not task_state(run, task).done}
    assert stale == {("RI", "a1"): "mosaic I changed"}


def test_an_unreadable_mosaic_flags_its_field_and_is_tried_again(recipe, tmp_path):
    run = start(copy_of(recipe, tmp_path), tmp_path / "run")
    path = tmp_path / "survey" / "mosaics" / "a1_i.fits"
    whole = path.read_bytes()
    path.write_bytes(whole[:100000])
    reports = [cut_chunk(task) for task in cut_tasks(run, ["RI"])]
    failures = {failure for report in reports for failure in report.failures}
    assert failures == {("a1_i.fits", f"is truncated: 100000 of at least {2880 + 4 * 420 * 430} bytes")}
    states = {task.chunk.field: task_state(run, task) for task in cut_tasks(run, ["RI"])}
    assert states["b-2"].done
    assert (states["a1"].name, states["a1"].why) == ("stale", "a mosaic could not be read: " + next(iter(failures))[1])
    flags = {field: {flag for (view, where, _), (flag, _) in rows_of_view(run, "RI").items() if where == field}
             for field in CENTRES}
    assert all("UNREADABLE" in flag for flag in flags["a1"])
    assert not any("UNREADABLE" in flag for flag in flags["b-2"])
    path.write_bytes(whole)
    run = RunFolder(run.path, run.recipe)
    for task in cut_tasks(run, ["RI"]):
        cut_chunk(task)
    assert all(task_state(run, task).done for task in cut_tasks(run, ["RI"]))


def rows_of_view(run: RunFolder, view: str) -> dict[tuple[str, str, str], tuple[str, int]]:
    result = {}
    for task in cut_tasks(run, [view]):
        with open_shard(task.shard) as shard:
            for identifier, flags, row in zip(shard.ids, shard.flags, shard.rows, strict=True):
                result[view, task.chunk.field, identifier] = describe(int(flags)), int(row)
    return result


def test_a_field_without_a_band(recipe, tmp_path):
    path = copy_of(recipe, tmp_path)
    (path.parent / "mosaics" / "a1_i.fits").unlink()
    run = start(path, tmp_path / "run")
    for task in cut_tasks(run, ["RI"]):
        cut_chunk(task)
    rows = rows_of_view(run, "RI")
    assert all("NO_MOSAIC" in flag for (_, field, _), (flag, _) in rows.items() if field == "a1")


def test_unknown_views(made):
    with pytest.raises(UsageError, match=r"^unknown band or view 'RII'; did you mean 'RI'\?$"):
        made[0].chosen_views(["RII"])
    assert made[0].chosen_views(["RI"]) == ("RI",)


def test_shards_say_what_they_hold(made):
    run, _ = made
    task = cut_tasks(run, ["RI"])[0]
    with open_shard(task.shard) as shard:
        assert shard.attributes["bands"] == ["R", "I"]
        assert shard.attributes["stamp"]["pixels"] == 24
        assert shard.attributes["fingerprint"] == task.parts.fingerprint
        assert shard.read(np.array([2, 0, 2])).shape == (3, 2, 24, 24)
        np.testing.assert_array_equal(shard.read(np.array([2, 0]))[1], shard.read(slice(0, 1))[0])
        kept = shard.pixel_scale[shard.rows >= 0]
    np.testing.assert_allclose(kept, np.broadcast_to([0.1, 0.05], kept.shape), rtol=1e-5)
    marker = run.ledger.read(task.shard)
    assert marker["sources"] == task.chunk.count
    assert marker["stamps"] + marker["blocked"] == marker["sources"]


def test_damage_is_found_when_a_shard_is_read(made, tmp_path):
    run, _ = made
    source = cut_tasks(run, ["R"])[0].shard
    data = bytearray(source.read_bytes())
    data[-3000] ^= 1
    path = tmp_path / "a.h5"
    path.write_bytes(data)
    hint = r"; delete it and run `catmorph cutouts`$"
    with pytest.raises(CatmorphError, match=r"a\.h5: is damaged: .*" + hint), open_shard(path) as shard:
        shard.read(slice(None))
    path.write_bytes(data[:2000])
    with pytest.raises(CatmorphError, match=r"a\.h5: is damaged: .*" + hint), open_shard(path):
        pass
    with pytest.raises(CatmorphError, match=r"none\.h5: there are no stamps; run `catmorph cutouts`$"), open_shard(
        tmp_path / "none.h5"
    ):
        pass


def content(count: int, mosaics: int = 1) -> ShardContent:
    return ShardContent(
        ids=[f"s{i}" for i in range(count)], flags=np.zeros(count, np.uint32), rows=np.arange(count, dtype=np.int32),
        bad_fraction=np.zeros(count, np.float32), signal=np.ones(count, np.float32),
        centre=np.zeros((count, 1, 2)), pixel_scale=np.ones((count, 1), np.float32),
        mosaic=np.zeros((count, 1), np.int16), stamps=np.ones((count, 1, 8, 8), np.float32),
        mosaics=[f"survey_tile_with_a_long_name_{i:05d}_drz_sci.fits" for i in range(mosaics)],
    )


def test_shards_of_nothing_and_of_very_many_tiles(tmp_path):
    for count, mosaics in ((0, 1), (3, 5000), (70, 1)):
        write_shard(tmp_path / "a.h5", content(count, mosaics), {"view": "R"})
        with open_shard(tmp_path / "a.h5") as shard:
            assert (len(shard.ids), len(shard.read(slice(None))), len(shard.mosaics)) == (count, count, mosaics)


@pytest.mark.parametrize("bytes_left", [0, 100, 3000, 100_000, 800_000, 1_000_000])
def test_a_full_disk_leaves_no_shard(tmp_path, bytes_left):
    resource = pytest.importorskip("resource")
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        with pytest.raises(CatmorphError, match=r"a\.h5: cannot be written: .*; free space or choose another place"):
            write_shard(tmp_path / "a.h5", content(4000), {"view": "R"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_sink_keeps_errors_of_reading_and_seeking_to_itself(tmp_path):
    sink, only_written = Sink(tmp_path / "a.h5"), os.open(tmp_path / "b", os.O_WRONLY | os.O_CREAT)
    sink.write(b"abcd")
    sink.seek(0)
    os.dup2(only_written, sink._descriptor)  # what is open for writing alone cannot be read
    buffer = bytearray(b"xxxx")
    assert (sink.readinto(buffer), bytes(buffer), sink.tell()) == (4, bytes(4), 4)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sink.check()
    other = Sink(tmp_path / "c.h5")
    other.write(b"abcd")
    kept, other._descriptor = other._descriptor, -1
    assert other.seek(0, os.SEEK_END) == 4
    with pytest.raises(OSError, match="Bad file descriptor"):
        other.check()
    other._descriptor = kept
    for one in (sink, other):
        one.close()
    os.close(only_written)


def test_a_shard_has_the_same_bytes_where_a_profiler_looks_on(tmp_path):
    """Dask's workers have one: the frames that it looks at keep datasets of HDF5 open."""
    write_shard(tmp_path / "alone.h5", content(40), {"view": "R"})
    writing, done, interval = threading.get_ident(), threading.Event(), sys.getswitchinterval()

    def look() -> None:
        while not done.is_set():
            frame = sys._current_frames()[writing]
            time.sleep(0.0005)
            del frame

    looking = threading.Thread(target=look)
    sys.setswitchinterval(1e-4)
    try:
        looking.start()
        for _ in range(60):
            write_shard(tmp_path / "seen.h5", content(40), {"view": "R"})
            assert (tmp_path / "seen.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()
    finally:
        sys.setswitchinterval(interval)
        done.set()
        looking.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_hdf5_writes_comes_when_it_is_done(tmp_path, monkeypatch, number):
    """One that is raised in a call from HDF5 is lost, or ends the process in a segmentation fault."""
    write, calls = Sink.write, []

    def interrupted(sink, data):
        calls.append(len(data))
        signal.raise_signal(number)
        return write(sink, data)

    monkeypatch.setattr(Sink, "write", interrupted)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_shard(tmp_path / "a.h5", content(1), {})
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert len(calls) > 1
    assert not list(tmp_path.iterdir())


def test_worker_processes_start_from_one_that_has_imported_what_cutting_needs():
    assert engine._imports_of(cut_chunk) == ["catmorph.stamps.build", "catmorph.stamps.block"]
    assert engine._imports_of(direct._ready) == ["catmorph.inference.direct", "catmorph.stamps.block"]


def test_cutting_in_a_worker_process_needs_neither_recipe_nor_pandas(recipe, tmp_path):
    """Their imports would be waited for before the first stamp is cut."""
    (tmp_path / "tasks").write_bytes(pickle.dumps(cut_tasks(start(recipe, tmp_path / "run"), ["R", "RI"])))
    code = """
import pickle, sys
from catmorph.stamps.build import cut_chunk
done = [cut_chunk(task) for task in pickle.load(open(sys.argv[1], "rb"))]
assert sum(report.stamps for report in done) > 20
print([name for name in ("pydantic", "pandas", "dask", "scipy", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "tasks"], capture_output=True, text=True, check=False)
    # Stamps whose axes are turned need scipy; those of the view R are not.
    assert (done.stdout, done.stderr) == ("['scipy']\n", "")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(folder: Path, field: str = "f", **mosaics: object) -> list[tuple[str, str | None]]:
    path = folder / "pairs.toml"
    path.write_text(tomli_w.dumps({
        "name": "pairs", "scheme": "clash", "stamp": {"side": "3 arcsec"}, "bands": {"names": ["R"]},
        "catalog": {"files": "x.csv", "field": {"value": field}, "id": "ID", "ra": "RA", "dec": "DEC"},
        "mosaics": mosaics,
    }))
    found = find_mosaics(load_recipe(path), field, "R")
    return [(Path(f.image).name, Path(f.weight).name if f.weight else None) for f in found]


def test_maps_belong_to_the_mosaic_of_the_same_wildcards(tmp_path):
    """In plain order t10_wht.fits comes before t1_wht.fits, but t1.fits before t10.fits."""
    touch(tmp_path, *(f"f_R_t{i}.fits" for i in (1, 2, 10)), *(f"f_R_t{i}_wht.fits" for i in (1, 2, 10)))
    found = pairs(tmp_path, pattern="{field}_{band}_t*[0-9].fits", weight="{field}_{band}_t*[0-9]_wht.fits")
    assert found == [(f"f_R_t{i}.fits", f"f_R_t{i}_wht.fits") for i in (1, 10, 2)]


def test_maps_that_cannot_be_paired(tmp_path):
    touch(tmp_path, "f_R_t1.fits", "f_R_t2.fits", "f_R_x1.wht", "f_R_x2.wht", "f_R_t1.one", "f_R_t1.flag")
    message = (r"^mosaics\.weight: cannot tell which weight map belongs to which of the 2 mosaics of field 'f', "
               r"band 'R'; let its wildcards stand for the same as those of mosaics\.pattern$")
    with pytest.raises(RecipeError, match=message):
        pairs(tmp_path, pattern="{field}_{band}_t*.fits", weight="{field}_{band}_*.wht")
    message = (r"^mosaics\.weight: 1 weight maps for 2 mosaics of field 'f', band 'R'; "
               r"there must be one for each mosaic$")
    with pytest.raises(RecipeError, match=message):
        pairs(tmp_path, pattern="{field}_{band}_t*.fits", weight="{field}_{band}_*.one")
    assert pairs(tmp_path, pattern="{field}_{band}_t1.fits", weight="{field}_{band}*.one") == [
        ("f_R_t1.fits", "f_R_t1.one")]


def test_field_names_are_taken_literally(tmp_path):
    touch(tmp_path, "a+1_R_1.fits", "a+1_R_1.wht", "a+1_R_2.fits", "a+1_R_2.wht", "aa1_R_1.fits")
    found = pairs(tmp_path, field="a+1", pattern="{field}_{band}_?.fits", weight="{field}_{band}_?.wht")
    assert found == [(f"a+1_R_{i}.fits", f"a+1_R_{i}.wht") for i in (1, 2)]


def test_a_dangling_link_is_a_mosaic_that_cannot_be_read(tmp_path):
    (tmp_path / "f_R.fits").symlink_to(tmp_path / "gone.fits")
    (tmp_path / "f_R.fits.d").mkdir()
    assert pairs(tmp_path, pattern="{field}_{band}.fits*") == [("f_R.fits", None)]
