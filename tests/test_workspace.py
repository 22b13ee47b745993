"""The run folder: names, lock, formats, atomic files, ledger and identities."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from catalogs import new_run
from hypothesis import given
from hypothesis import strategies as st

from catmorph.errors import CatmorphError, HeldError, UsageError
from catmorph.experiments.run import held
from catmorph.files import atomic, checksum, read_json, remove_partial_files, write_bytes, write_json
from catmorph.ledger import Identities, Ledger, Parts
from catmorph.workspace import Chunk, RunFolder, field_problem, safe_name

names = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
                  st.text("%./\\~-_ 2EeF\0\n", max_size=6))
HOLDER = """
import sys, time
from pathlib import Path
from catmorph.recipe import load_recipe
from catmorph.workspace import RunFolder
with RunFolder(Path(sys.argv[1]) / "run", load_recipe(Path(sys.argv[1]) / "small.toml")).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@given(names)
def test_safe_names_are_harmless(text):
    name = safe_name(text)
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set("/\\ ~*?[]:\"'")
    assert not name.startswith(".")
    assert name


@given(names, names)
def test_safe_names_are_injective(one, other):
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(names)
def test_a_field_that_is_allowed_makes_a_file(text):
    if field_problem(text) is None:
        assert len(f".partial-{safe_name(text)}-o29p3458764513820540927.parquet12345678".encode()) < 255
        assert os.path.basename(text) == text


def test_chunk_keys_are_injective():
    keys = {Chunk(field, cell, 0, 1, "").key for field in ("a", "a-o1p2", "a/b", "a%2Fb") for cell in ("o1p2", "o0p1")}
    assert len(keys) == 8


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    run = new_run(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        held = rf"another run holds this folder \(process {holder.pid} on .+\); wait"
        with pytest.raises(HeldError, match=held) as caught:
            run.lock().__enter__()
        assert caught.value.exit_status == 4
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_the_lock_is_released_after_an_error_and_not_shared_within_a_process(tmp_path):
    run = new_run(tmp_path)
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock(), pytest.raises(HeldError, match=f"process {os.getpid()} on"):
        run.lock().__enter__()
    with run.lock():
        pass


def test_what_else_is_held_says_how_to_do_without(tmp_path):
    another = r"choose another experiments\.folder$"
    with held(tmp_path / "grid"), pytest.raises(HeldError, match="wait for it, or " + another), held(tmp_path / "grid"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/grid: .*: Not a directory; " + another), held(tmp_path / "file/grid"):
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UsageError, match="cannot be locked: No locks available; choose another -w/--workdir, on"):
        new_run(tmp_path).lock().__enter__()


def test_a_newer_folder_or_one_of_another_recipe_is_refused(tmp_path):
    run = new_run(tmp_path)
    run.prepare()
    assert read_json(run.path / "folder.json")["recipe"] == "small"
    new_run(tmp_path)
    with pytest.raises(UsageError, match="belongs to recipe 'small', not 'other'; choose another -w/--workdir"):
        new_run(tmp_path, "name=other")
    write_json(run.path / "folder.json", {"format": 99, "recipe": "small"})
    with pytest.raises(UsageError, match=r"has format 99, this catmorph knows up to \d+; update catmorph"):
        new_run(tmp_path)


@pytest.mark.parametrize("mark", ["[]", "3", '{"format": "new"}', '{"recipe": "small"}'])
def test_a_damaged_folder_mark_is_said_to_be(tmp_path, mark):
    run = new_run(tmp_path)
    run.prepare()
    (run.path / "folder.json").write_text(mark)
    with pytest.raises(UsageError, match=r"folder\.json: is damaged; delete it and run again"):
        new_run(tmp_path)


@pytest.mark.parametrize("mark", ["", "{", "\xff", "null"])
def test_a_folder_mark_that_is_no_json_is_written_again(tmp_path, mark):
    run = new_run(tmp_path)
    run.prepare()
    (run.path / "folder.json").write_text(mark, encoding="latin-1")
    new_run(tmp_path).prepare()
    assert read_json(run.path / "folder.json")["recipe"] == "small"


def test_the_resolved_recipe_lies_in_the_folder(tmp_path):
    run = new_run(tmp_path, "run.chunk_rows=7")
    run.prepare()
    assert "chunk_rows = 7" in (run.path / "recipe.toml").read_text()


def test_a_damaged_plan_says_what_to_do(tmp_path):
    run = new_run(tmp_path)
    run.prepare()
    run.plan_path().write_bytes(b"PAR1junkPAR1")
    run.sources_path().write_bytes(b"PAR1junkPAR1")
    with pytest.raises(CatmorphError, match=r"plan\.parquet: is damaged: .*; delete it and run `catmorph ingest`"):
        run.chunks()
    with pytest.raises(CatmorphError, match=r"sources\.parquet: is damaged: .*; delete it and run again"):
        run.read_sources(Chunk("f", "o0p0", 0, 1, ""))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1})
    with pytest.raises(KeyError, match="half"), atomic(path) as temporary:
        raise KeyError(temporary.write_text("half") and "half")
    assert read_json(path) == {"b": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.json", tmp_path / "folder"):
        with pytest.raises(CatmorphError, match=r"cannot be written: .*; move away what is there or choose") as caught:
            write_json(path, {})
        assert caught.value.exit_status == 1
        assert str(caught.value).startswith(f"{path}: ")
    run = RunFolder(tmp_path / "file", new_run(tmp_path).recipe)
    with pytest.raises(CatmorphError, match="cannot be written"):
        run.prepare()
    with pytest.raises(CatmorphError, match="is no folder; choose another -w"):
        run.lock().__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CatmorphError, match="cannot be written: Permission denied"):
        write_json(tmp_path / "a.json", {})


def test_partial_files_are_removed(tmp_path):
    for name in (".partial-x.h5", "deep/.partial-y"):
        write_bytes(tmp_path / name, b"1")
    write_bytes(tmp_path / "deep" / "kept", b"1")
    assert remove_partial_files(tmp_path) == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept"]


def test_the_states_of_a_product(tmp_path):
    ledger, product = Ledger(tmp_path), tmp_path / "deep" / "a.h5"
    parts = Parts({"rows": "1", "mosaic": "2", "code": 1})

    def state(now=parts, **options):
        found = ledger.state(product, now, **options)
        return found.name, found.why

    assert state() == ("missing", "not made yet")
    write_bytes(product, b"bytes")
    assert state() == ("missing", "not made yet")  # without its marker it is made again
    ledger.write(product, parts, counts={"stamps": 3})
    assert state(deep=True) == ("done", "")
    assert ledger.state(product, parts).marker["counts"] == {"stamps": 3}
    assert state(Parts({"rows": "9", "mosaic": "8", "code": 1})) == ("stale", "mosaic, rows changed")
    assert state(Parts({"rows": "1", "weight": "3", "code": 1})) == ("stale", "weight added; mosaic removed")
    product.write_bytes(b"other")
    assert state() == ("done", "")
    assert state(deep=True) == ("stale", "damaged: its bytes are not what was written")
    product.write_bytes(b"longer bytes")
    assert state() == ("stale", "damaged: its size is not what was written")
    product.unlink()
    assert state()[0] == "missing"
    write_bytes(product, b"bytes")
    ledger.forget(product)
    ledger.forget(product)
    assert state() == ("missing", "not made yet")


def test_markers_that_are_remembered_share_equal_parts_and_no_others(tmp_path):
    ledger = Ledger(tmp_path)
    given = [{"a": {"b": value}, "list": ["x"], "none": None} for value in (1, 1, 1.0, True)]
    products = [tmp_path / f"{number}.txt" for number in range(len(given))]
    for product, parts in zip(products, given, strict=True):
        product.write_text("x")
        ledger.write(product, Parts(parts))
    with ledger.remembered():
        found = [ledger.read(product)["parts"] for product in products]
        assert all(ledger.state(product, Parts(parts)).done for product, parts in zip(products, given, strict=True))
    assert [repr(parts) for parts in found] == [repr(parts) for parts in given]
    assert found[0]["a"] is found[1]["a"]
    assert found[0]["list"] is found[3]["list"]


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", "{}", '{"fingerprint": 1}', "\xff\xfe", '{"parts": []}',
                                  "[" * 100000])
def test_a_damaged_marker_counts_as_missing(tmp_path, text):
    ledger, product, parts = Ledger(tmp_path), tmp_path / "a.h5", Parts({"rows": "1"})
    write_bytes(product, b"bytes")
    ledger.write(product, parts)
    ledger.marker_path(product).write_text(text, encoding="latin-1")
    assert not ledger.state(product, parts).done
    ledger.write(product, parts)
    assert ledger.state(product, parts).done


def test_fingerprints_do_not_depend_on_the_order_of_parts():
    assert Parts({"a": 1, "b": [2, "ü"]}).fingerprint == Parts({"b": [2, "ü"], "a": 1}).fingerprint
    assert Parts({"a": 1}).fingerprint != Parts({"a": "1"}).fingerprint


def test_identities_are_remembered_until_the_file_changes(tmp_path):
    path, cache = tmp_path / "mosaic.fits", tmp_path / "identities.json"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))  # a file of this very moment is not remembered yet
    known = Identities(cache)
    first = known.of(path)
    known.save()
    assert first == checksum(path)
    stamp = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert Identities(cache).of(path) == first  # same size, time and inode: remembered, as designed
    assert Identities(cache).changed_unseen() == [str(path)]
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert Identities(cache).of(path) == checksum(path)
    replaced = tmp_path / "new"
    replaced.write_bytes(b"new")
    os.utime(replaced, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    replaced.rename(path)
    assert Identities(cache).of(path) == checksum(path)  # another inode


def test_files_that_cannot_be_read_have_an_identity_of_their_own(tmp_path):
    identities = Identities(tmp_path / "identities.json")
    assert identities.of(tmp_path / "none") == "unreadable: No such file or directory"
    assert identities.of(tmp_path).startswith("unreadable: ")
    identities.save()
    assert not (tmp_path / "identities.json").exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"FILE": 1}', '{"FILE": [1, 2]}', '{"FILE": []}', '{"FILE": "x"}']
)
def test_damaged_identities_are_computed_again(tmp_path, content):
    path, cache = tmp_path / "a", tmp_path / "identities.json"
    path.write_bytes(b"one")
    cache.write_text(content.replace("FILE", str(path)))
    assert Identities(cache).of(path) == checksum(path)


def test_json_is_written_in_one_form(tmp_path):
    write_json(tmp_path / "a.json", {"b": "ü", "a": [1, 2.5]})
    expected = json.dumps({"a": [1, 2.5], "b": "ü"}, indent=2, ensure_ascii=False) + "\n"
    assert (tmp_path / "a.json").read_text() == expected
    first = (tmp_path / "a.json").read_bytes()
    write_json(tmp_path / "a.json", {"a": [1, 2.5], "b": "ü"})
    assert (tmp_path / "a.json").read_bytes() == first


def test_messages_are_one_printable_line():
    error = CatmorphError("two\nlines \x1b[31mred\x07", where="a\tb.csv", hint="é\n")
    assert str(error) == "a b.csv: two lines ?[31mred?; é"


@pytest.mark.parametrize("harm", ["pipe", "loop", "folder"])
def test_json_that_is_no_file_is_told_at_once(tmp_path, harm):
    path = tmp_path / "a.json"
    {"pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path), "folder": path.mkdir}[harm]()
    with pytest.raises(CatmorphError, match=r"a\.json: is no file but a folder, a pipe or the like; move it away"):
        read_json(path)
