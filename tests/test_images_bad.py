"""Images and archives that are not what they should be: flagged or refused, counted, and told in one line."""

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from contextlib import closing

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from picture_survey import encoded, pack, pictures, pixels, pristine_pictures, warnings_of
from PIL import Image

from catmorph.quality import Flag, describe
from catmorph.sources.archives import Archive, scan
from catmorph.stamps import images
from catmorph.stamps.images import ImageError, decode, shape_of

__all__ = ["pictures", "pristine_pictures"]

GOOD = encoded(pixels(1))


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, depth, raw):
    """A PNG of three channels, of which the header claims a size."""
    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)


DEEP = png(32, 32, 16, b"".join(b"\0" + bytes(32 * 6) for _ in range(32)))
"""Pillow reads it as 8 bits a channel."""


def cube(planes=3, **options):
    buffer = io.BytesIO()
    data = np.arange(planes * 32 * 32, dtype=options.pop("dtype", "f4")).reshape(planes, 32, 32)
    fits.PrimaryHDU(np.squeeze(data), **options).writeto(buffer)
    return buffer.getvalue()


def table():
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])])]).writeto(buffer)
    return buffer.getvalue()


RGB = Image.fromarray(pixels(1))
BAD = {
    "empty": (b"", "is empty", "UNREADABLE"),
    "cut_png": (GOOD[:-900], "cannot be decoded: ", "UNREADABLE"),
    "cut_jpeg": (encoded(pixels(1), "JPEG")[:-200], "cannot be decoded: image file is truncated", "UNREADABLE"),
    "short_jpeg": (encoded(pixels(1), "JPEG")[:30], "cannot be decoded: ", "UNREADABLE"),
    "damaged_png": (GOOD[:60] + b"\xff" * 40 + GOOD[100:], "cannot be decoded: ", "UNREADABLE"),
    "cut_fits": (cube()[:9000], "is truncated: 9000 of at least 15168 bytes", "UNREADABLE"),
    "cut_gzip": (gzip.compress(cube())[:-40], "is truncated", "UNREADABLE"),
    "damaged_gzip": (b"\x1f\x8b\x08\x00" + b"\xff" * 60, "cannot be unpacked: ", "UNREADABLE"),
    "grey": (encoded(pixels(1, planes=1)), "has 1 plane, not 3", "BAD_IMAGE"),
    "wrong_size": (encoded(pixels(1, 32, 31)), "has 31 x 32 pixels, not 32 x 32", "BAD_IMAGE"),
    "cmyk": (saved(RGB.convert("CMYK"), "JPEG"), "is CMYK, not RGB", "BAD_IMAGE"),
    "grey16": (encoded(np.arange(1024, dtype=np.uint16).reshape(32, 32)), "has 16 bits a channel, not 8", "BAD_IMAGE"),
    "rgb16": (DEEP, "has 16 bits a channel, not 8", "BAD_IMAGE"),
    "alpha": (saved(RGB.convert("RGBA")), "has an alpha channel", "BAD_IMAGE"),
    "grey_alpha": (saved(RGB.convert("LA")), "has an alpha channel", "BAD_IMAGE"),
    "palette_alpha": (saved(RGB.convert("P"), transparency=0), "has transparent pixels", "BAD_IMAGE"),
    "one_bit": (saved(RGB.convert("1")), "is black and white, with 1 bit a pixel", "BAD_IMAGE"),
    "animated": (saved(RGB, save_all=True, append_images=[RGB.transpose(0)]), "holds several pictures", "BAD_IMAGE"),
    "bomb": (png(60000, 60000, 8, bytes(99)), "has more than 67,108,864 pixels", "BAD_IMAGE"),
    "large": (png(9000, 9000, 8, bytes(99)), "has more than 67,108,864 pixels", "BAD_IMAGE"),
    "gif": (saved(RGB, "GIF"), "is no JPEG, PNG or FITS image", "BAD_IMAGE"),
    "tiff": (saved(RGB, "TIFF"), "is no JPEG, PNG or FITS image", "BAD_IMAGE"),
    "html": (b"<!DOCTYPE html><p>404", "is a web page saved under an image's name", "BAD_IMAGE"),
    "gzipped_text": (gzip.compress(b"hello"), "is no JPEG, PNG or FITS image", "BAD_IMAGE"),
    "four_planes": (cube(4), "has 4 planes, not 3", "BAD_IMAGE"),
    "table": (table(), "has no two-dimensional image", "BAD_IMAGE"),
}


@pytest.fixture(scope="module")
def bad_run(pristine_pictures, tmp_path_factory):
    """A survey with every kind of bad image among good ones, after `run`, and what that printed."""
    from picture_survey import copied

    survey = copied(pristine_pictures, tmp_path_factory.mktemp("bad") / "survey")
    for name, (data, _, _) in BAD.items():
        (survey.images / f"{name}.png").write_bytes(data)
    survey.edit('files = ["images"]', 'files = ["images"]\nsize = [32, 32]')
    return survey, survey("run", survey.recipe.name)


def test_every_bad_image_is_flagged_and_told(bad_run):
    survey, done = bad_run
    assert done.status == 0, done.err  # the recipe tolerates all
    flags = {name: describe(value) for name, (value, _) in survey.shard_of().items()}
    assert flags == {name: flag for name, (_, _, flag) in BAD.items()} | {f"{n:03d}": "" for n in range(12)}
    rows = pq.read_table(survey.run / "failures.parquet").to_pylist()
    reasons = {row["file"].removeprefix("images/").removesuffix(".png"): row["reason"] for row in rows}
    assert reasons.keys() == BAD.keys()
    for name, (_, reason, _) in BAD.items():
        assert reasons[name].startswith(reason), (name, reasons[name])
    assert {row["sources"] for row in rows} == {1}
    warnings = warnings_of(done)
    assert any(text.startswith("images/grey16.png and 1 other image: has 16 bits") for text in warnings)
    assert len(warnings) == 11  # ten reasons, and that there are more
    assert "BytesIO" not in done.err


def test_bad_images_count_as_faults_and_are_not_tried_again(bad_run):
    survey, _ = bad_run
    again = survey("run", survey.recipe.name, "--set", "run.tolerance=0.5")
    assert "cutouts: 38 (source, view)s, 12 stamps; 0 made, 1 up to date" in again.err
    assert again.status == 3
    assert "68.42% of the rows have a fault" in again.err
    stopped = survey("run", survey.recipe.name, "--fail-fast", "--set", "stamp.min_side_pixels=5")
    assert stopped.status == 1
    assert stopped.lines[-1].startswith("catmorph: error: images/")
    assert stopped.lines[-1].endswith("repair or remove it and run again, or leave --fail-fast out")


def test_check_tells_bad_images_by_their_headers_and_deep_by_their_pixels(bad_run):
    survey, _ = bad_run
    shallow, deep = (survey("check", "-r", survey.recipe.name, *more) for more in ((), ("--deep", "-q")))
    assert shallow.status == deep.status == 2
    assert "images/cmyk.png: is CMYK, not RGB" in shallow.err
    assert "cut_jpeg" not in shallow.err
    assert "images/cut_jpeg.png: cannot be decoded: image file is truncated" in deep.err
    assert all(any(reason in line for line in deep.lines) for _, reason, _ in BAD.values())
    assert all(line.startswith("catmorph: error: ") for line in deep.lines)


@pytest.mark.parametrize("data", [
    saved(RGB.convert("P")), saved(RGB.quantize(4)), encoded(pixels(1), "JPEG"), encoded(pixels(1, planes=1), "JPEG"),
    saved(RGB, "JPEG", progressive=True), saved(RGB.convert("L"), "PNG", bits=4), cube(1), cube(5),
    gzip.compress(cube(), mtime=0),
], ids=["palette", "few-colours", "jpeg", "grey-jpeg", "progressive", "four-bits", "one-plane", "five-planes", "gzip"])
def test_headers_tell_the_shape_that_decoding_gives(data):
    assert shape_of(data) == decode(data).shape


def test_values_are_those_of_the_file():
    np.testing.assert_array_equal(decode(GOOD), pixels(1).transpose(2, 0, 1))
    palette = RGB.quantize(16)
    np.testing.assert_array_equal(decode(saved(palette)), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    jpeg = encoded(pixels(1), "JPEG")
    np.testing.assert_array_equal(decode(jpeg), np.asarray(Image.open(io.BytesIO(jpeg))).transpose(2, 0, 1))
    turned = saved(RGB, "JPEG", exif=exif_of(6))
    np.testing.assert_array_equal(decode(turned), np.asarray(Image.open(io.BytesIO(turned))).transpose(2, 0, 1))
    np.testing.assert_array_equal(decode(cube()), np.arange(3 * 1024).reshape(3, 32, 32))


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_fits_values_are_physical_and_blanks_missing():
    buffer, data = io.BytesIO(), np.arange(1024, dtype=np.int16).reshape(32, 32)
    unit = fits.ImageHDU(data, name="SCI")
    unit.header.update({"BSCALE": 0.5, "BZERO": 3.0, "BLANK": 7})
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(buffer)
    expected = np.where(data == 7, np.nan, data * 0.5 + 3.0)
    for hdu in (None, 1, "SCI"):
        np.testing.assert_array_equal(decode(buffer.getvalue(), hdu)[0], expected)
    with pytest.raises(ImageError, match="has no HDU 'ERR'"):
        decode(buffer.getvalue(), "ERR")
    with pytest.raises(ImageError, match="its HDU 0 is no image"):
        decode(buffer.getvalue(), 0)


def test_files_larger_than_the_limit_are_refused(monkeypatch, pictures):
    monkeypatch.setattr("catmorph.stamps.images_block.MOST_BYTES", len(GOOD))
    monkeypatch.setattr(images, "MOST_BYTES", 5000)
    (pictures.images / "large.png").write_bytes(GOOD + bytes(len(GOOD)))
    (pictures.images / "unpacks.fits.gz").write_bytes(gzip.compress(bytes(10000)))
    for path in pictures.images.glob("0*"):
        path.unlink()
    for archive in (None, "packed.tar", "packed.zip"):
        if archive:
            pack(pictures.images, pictures.folder / archive)
        for command in ("ingest", "cutouts"):
            pictures(command, "-r", pictures.recipe.name, *(("--set", f'images.files="{archive}"') if archive else ()))
        rows = pq.read_table(pictures.run / "failures.parquet").to_pylist()
        reasons = sorted(row["reason"] for row in rows)
        assert reasons == [f"has more than {len(GOOD):,} bytes", "has more than 5,000 bytes"]


def member(name, data=GOOD, **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def hostile_tar(path):
    with tarfile.open(path, "w") as archive:
        for info, data in [
            member("ok.png"), member("./folder//deep.png"), member("/etc/absolute.png"), member("../../up.png"),
            member("a/../b.png"), member("twice.png"), member("./twice.png"), member("back\\slash.png"),
            member("line\nbreak.png"), member("C:/drive.png"),
        ]:
            archive.addfile(info, data)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            archive.addfile(member(f"special{kind!r}.png", b"", type=kind, linkname="/etc/passwd")[0])
        archive.addfile(member("folder", b"", type=tarfile.DIRTYPE)[0])
    return path


def hostile_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ok.png", "folder/deep.png", "/etc/absolute.png", "../../up.png", "back\\slash.png",
                     "C:/drive.png", "twice.png"):
            archive.writestr(zipfile.ZipInfo(name), GOOD)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice.png", GOOD)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("folder/", "")
    return path


@pytest.mark.parametrize(("make", "counts"), [
    (hostile_tar, {"absolute": 2, "leads out": 2, "shares": 2, "characters": 2, "link": 2, "device": 2}),
    (hostile_zip, {"absolute": 2, "leads out": 1, "shares": 2, "characters": 1, "link": 1}),
])
def test_hostile_members_are_left_out_and_counted(pictures, make, counts):
    archive = make(pictures.folder / f"hostile.{make.__name__[-3:]}")
    before = set(pictures.folder.rglob("*"))
    found = scan(archive)
    assert [one.name for one in found.members] == ["folder/deep.png", "ok.png"]
    with closing(Archive(archive)) as opened:
        assert [opened.read(one) for one in found.members] == [GOOD, GOOD]
    for text, count in counts.items():
        assert sum(n for reason, n in found.refused.items() if text in reason) == count, text
    assert sum(found.refused.values()) == sum(counts.values())
    done = pictures("run", pictures.recipe.name, "--set", f'images.files="{archive.name}"')
    assert done.status == 0
    assert sum("members are left out" in text for text in warnings_of(done)) == len(found.refused)
    assert sorted(pictures.shard_of()) == ["deep", "ok"]
    written = set(pictures.folder.rglob("*")) - before
    assert all((pictures.run in path.parents) or path in (pictures.run, pictures.run.parent) for path in written)


def test_members_that_are_damaged_are_flagged(pictures):
    archive = pictures.folder / "packed.zip"
    pack(pictures.images, archive)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as packed:
        place, other = packed.getinfo("003.png").header_offset, packed.getinfo("005.png").header_offset
    data[place + 200 : place + 220] = bytes(20)
    data[other : other + 4] = b"ZZZZ"
    archive.write_bytes(data)
    done = pictures("run", pictures.recipe.name, "--set", 'images.files="packed.zip"')
    assert done.status == 0
    flags = {name: describe(flags) for name, (flags, _) in pictures.shard_of().items() if flags}
    assert flags == {"003": "UNREADABLE", "005": "UNREADABLE"}
    assert "packed.zip/005.png: cannot be read from its archive: its place in the archive holds something" in done.err


def test_a_member_that_is_larger_than_it_says_is_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.png", bytes(1 << 22))
    (one,) = scan(path).members
    assert one.packed < 5000
    with closing(Archive(path)) as archive, pytest.raises(EOFError, match="is not as long as its archive says"):
        archive.read(one._replace(size=100))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-3000])


def huge_header(path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))


@pytest.mark.parametrize(("name", "spoil", "message"), [
    ("a.tar", lambda path: path.write_bytes(path.read_bytes()[:3584]),
     "cannot be read as an archive: unexpected end of data"),
    ("a.tar", lambda path: path.write_bytes(path.read_bytes()[:5000]),
     "cannot be read as an archive: it is damaged, or ends before its end mark"),
    ("a.tar", lambda path: path.write_bytes(path.read_bytes() * 2), "cannot be read as an archive: it goes on after"),
    ("a.tar.gz", cut_short, "cannot be read as an archive: "),
    ("a.zip", cut_short, "cannot be read as an archive: File is not a zip file"),
    ("a.tar", lambda path: path.write_bytes(b"no archive" * 1000), "cannot be read as an archive: "),
    ("a.tar", huge_header, "cannot be read as an archive: a header of 1099511627776 bytes"),
    ("a.tar", lambda path: path.unlink(), "no such images"),
    ("a.tar.xz", lambda path: None, "is an archive of a kind that is not read in place"),
])
def test_archives_that_cannot_be_used_are_refused(pictures, name, spoil, message):
    pack(pictures.images, pictures.folder / name)
    spoil(pictures.folder / name)
    for command in (("check", "-r"), ("run",), ("ingest", "-r")):
        done = pictures(*command, pictures.recipe.name, "--set", f'images.files="{name}"')
        assert done.status == 2
        (told,) = [line for line in done.lines if line.startswith("catmorph: error: ")]
        assert f"{name}: {message}" in told


def test_pipes_and_links_to_nowhere_do_not_stop_the_run(pictures):
    os.mkfifo(pictures.images / "pipe.png")
    (pictures.images / "nowhere.png").symlink_to("gone.png")
    done = pictures("run", pictures.recipe.name)
    assert done.status == 0
    assert any(text.endswith("pipe.png: is no regular file, and is left out") for text in warnings_of(done))
    assert describe(pictures.shard_of()["nowhere"][0]) == describe(Flag.UNREADABLE)
    assert "images/nowhere.png (field pictures): cannot be opened: No such file or directory" in done.err


def test_many_bad_images_are_told_by_their_reasons(pictures):
    for number in range(60):
        (pictures.images / f"w{number:03d}.png").write_bytes(encoded(pixels(1, 32, 31)))
        (pictures.images / f"x{number:03d}.png").write_bytes(b"")
    pictures.edit('files = ["images"]', 'files = ["images"]\nsize = [32, 32]')
    assert pictures("run", pictures.recipe.name).status == 0
    assert len(pq.read_table(pictures.run / "failures.parquet")) == 120
    listed = json.loads((pictures.run / "release" / "summary.json").read_text())["failures"]
    assert [(row["file"], row["sources"]) for row in listed] == [
        ("images/w000.png and 59 others", 60), ("images/x000.png and 59 others", 60)]
    status = json.loads(pictures("status", "-r", pictures.recipe.name, "--json").out)
    assert status["failures"] == {"images/w000.png and 59 other images": "has 31 x 32 pixels, not 32 x 32",
                                  "images/x000.png and 59 other images": "is empty"}


def test_names_that_no_table_can_hold(pictures):
    for path in pictures.images.iterdir():
        path.unlink()
    folder = os.fsencode(pictures.images)
    for name in (b"\xff.png", b"new\nline.png", b"sub\xff/inside.png", b"line\nfeed/bad.png", b"=1+1.png", b"NA.png",
                 "ünï.png".encode(), b"a b.png", b".hidden.png", b"-q.png"):
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"" if b"bad" in name else GOOD)
    done = pictures("run", pictures.recipe.name)
    assert done.status == 0, done.err
    assert describe(pictures.shard_of()["bad"][0]) == "UNREADABLE"
    assert warnings_of(done) == ["images/line?feed/bad.png: is empty; flagged, see failures.parquet"]
    assert sorted(pictures.shard_of()) == ["-q", "=1+1", "NA", "a b", "bad", "ünï"]
    rejected = pq.read_table(pictures.run / "rejected.parquet").to_pylist()
    assert [row["file"] for row in rejected] == ["images/new\nline.png", "images/\ufffd.png",
                                                 "images/sub\ufffd/inside.png"]
    assert {row["reason"] for row in rejected} == {"its name does not fit images.name '{id}'"}
    again = pictures("run", pictures.recipe.name)
    assert "0 made, 1 up to date" in again.err
