import errno
import hashlib
import json
import os
import pickle
import struct
import zipfile

import pytest
import safetensors.torch
import torch

from catmorph.errors import CatmorphError, CheckpointError
from catmorph.models import build
from catmorph.models.card import card_for, check_fits
from catmorph.models.checkpoint import build_from, load_checkpoint, rewrite_card, save_checkpoint
from catmorph.models.header import HEADER_LIMIT, METADATA_KEY, load_card
from catmorph.recipe import load_recipe


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("configs/clash.toml")


@pytest.fixture(scope="module")
def module():
    return build("clash-inception", seed=5).eval()


@pytest.fixture(scope="module")
def card(recipe):
    return card_for(
        recipe, "clash-inception", channels=1, views=("F160W",), title="a title", licence="CC0",
        training={"trained": True, "stamps": {"training": 3}}, metrics={"rmse": 0.125},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory, module, card):
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    save_checkpoint(path, module, card)
    return path


def with_header(path, header, data=b"", length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def message(path):
    """The one line that opening `path` fails with, without the path; the card's reader says the same."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


HINT = "; a checkpoint is a safetensors file with a card, as `catmorph train` and `catmorph models create` write"


def test_weights_and_card_come_back(saved, module, card):
    opened = load_checkpoint(saved)
    assert opened.card == card == load_card(saved)
    assert opened.digest == hashlib.sha256(saved.read_bytes()).hexdigest()
    again = build_from(opened)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in module.state_dict().items())
    inputs = torch.randn(2, 1, 80, 80)
    with torch.inference_mode():
        assert torch.equal(again.eval()(inputs), module(inputs))


def test_same_weights_same_bytes(saved, tmp_path, module, card):
    save_checkpoint(tmp_path / "again.safetensors", module, card)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_float16_halves_the_file(saved, tmp_path, module, card):
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, module, card, "float16")
    assert path.stat().st_size < 0.51 * saved.stat().st_size
    weight = load_checkpoint(path).state["head.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, module.head.weight.detach().half().float())


def test_the_card_holds_no_path_clock_or_host(saved):
    text = load_card(saved).model_dump_json()
    assert str(saved.parent) not in text
    assert "/" not in load_card(saved).model_dump_json(exclude={"purpose"})


def test_a_failed_write_leaves_the_old_file(tmp_path, module, card, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CatmorphError, match="cannot be written: No space left on device"):
        save_checkpoint(path, module, card)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]


def test_missing(tmp_path):
    assert message(tmp_path / "none") == (
        "no such checkpoint; `catmorph train` and `catmorph models create` write one"
    )


def test_a_folder(tmp_path):
    assert message(tmp_path) == "cannot be read: Is a directory"


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def write_pickle(path):
    path.write_bytes(pickle.dumps(Trap()))


def write_torch(path):
    torch.save({"weight": torch.zeros(3)}, path)
    assert zipfile.is_zipfile(path)


FOREIGN = {
    "a Python pickle, which could run code when opened": write_pickle,
    "a zip archive, such as torch.save writes": write_torch,
    "an HDF5 file, such as Keras writes": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "a web page or XML": lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>404</html>"),
    "a Git LFS pointer, not the file it stands for": lambda path: path.write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    ),
    "gzip-compressed": lambda path: path.write_bytes(b"\x1f\x8b" + bytes(30)),
    "a FITS file": lambda path: path.write_bytes(b"SIMPLE  =                    T".ljust(2880)),
    "of an unknown kind": lambda path: path.write_bytes(b"weights, weights, weights"),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(b"\x10\0\0"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_another_kind_are_named_and_not_run(tmp_path, kind):
    path = tmp_path / "file.pt"
    FOREIGN[kind](path)
    assert message(path) == f"is {kind}, not a safetensors checkpoint{HINT}"


@pytest.mark.parametrize("part", [0.001, 0.3, 0.9999])
def test_cut_short(saved, tmp_path, part):
    whole = saved.read_bytes()
    kept = int(len(whole) * part)
    (tmp_path / "cut").write_bytes(whole[:kept])
    assert message(tmp_path / "cut").startswith(f"is cut short: {kept} of ")
    assert message(tmp_path / "cut").endswith(" bytes; copy it again")


def test_bytes_too_many(saved, tmp_path):
    (tmp_path / "long").write_bytes(saved.read_bytes() + b"more")
    assert message(tmp_path / "long").startswith("is damaged: ")


def test_a_huge_header_is_not_read(tmp_path):
    path = with_header(tmp_path / "x", b"{}", length=2**60)
    assert message(path) == f"declares a header of {2**60} bytes, more than {HEADER_LIMIT}{HINT}"


def test_a_header_that_is_not_json(tmp_path):
    assert message(with_header(tmp_path / "x", b"{" + b"\xff" * 20)) == (
        "is damaged: its header is not valid JSON; copy or train it again"
    )


def test_deeply_nested_json(tmp_path):
    assert message(with_header(tmp_path / "x", b'{"a":' + b"[" * 200_000)).startswith("is damaged: its header is not")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]},
        {"dtype": "X99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": "2", "data_offsets": None},
        [1, 2],
    ],
)
def test_declared_shapes_must_fit_the_bytes(tmp_path, entry):
    path = with_header(tmp_path / "x", {"head.weight": entry}, bytes(8))
    assert message(path) == (
        "is damaged: the header's entry of layer 'head.weight' contradicts itself; copy or train it again"
    )


def test_consistent_but_huge_shapes_are_cut_short(tmp_path):
    entry = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    assert message(with_header(tmp_path / "x", {"w": entry})).startswith("is cut short: ")


def test_weights_without_a_card(tmp_path):
    path = tmp_path / "bare.safetensors"
    path.write_bytes(safetensors.torch.save({"w": torch.zeros(2)}, {"format": "pt"}))
    assert message(path) == f"has weights but no card{HINT}"


def write_card(path, text):
    path.write_bytes(safetensors.torch.save({"w": torch.zeros(2)}, {METADATA_KEY: text}))
    return path


def test_a_card_that_is_not_json(tmp_path):
    assert message(write_card(tmp_path / "x", "{")) == f"has a card that is not valid JSON{HINT}"


def test_a_card_with_a_wrong_value(tmp_path, card):
    table = card.model_dump(mode="json") | {"channels": 0}
    assert message(write_card(tmp_path / "x", json.dumps(table))) == (
        f"has a card that is not valid: channels: Input should be greater than or equal to 1{HINT}"
    )


def test_a_card_of_another_format(tmp_path, card):
    table = card.model_dump(mode="json") | {"format": 7}
    assert message(write_card(tmp_path / "x", json.dumps(table))) == (
        "has card format 7; this catmorph reads 1; use the catmorph that wrote it"
    )


def test_the_first_layer_that_differs_is_named(tmp_path, module, card):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, module, card.model_copy(update={"classes": ("a", "b", "c")}))
    with pytest.raises(CheckpointError) as caught:
        build_from(load_checkpoint(path))
    assert str(caught.value) == (
        f"{path}: layer 'head.weight' is 5x1024 in the file, 3x1024 in model 'clash-inception' with 1 channels and "
        "3 classes; the weights belong to another network"
    )


def test_a_missing_and_an_unknown_layer_are_named(tmp_path, saved, card):
    opened = load_checkpoint(saved)
    lacking = {name: value for name, value in opened.state.items() if name != "conv2.conv.bias"}
    for state, wanted in (
        (lacking, r"layer 'conv2.conv.bias' is absent in the file, 128 in model"),
        (opened.state | {"extra": torch.zeros(2, 2)}, r"layer 'extra' is 2x2 in the file, absent in model"),
    ):
        with pytest.raises(CheckpointError, match=wanted):
            build_from(type(opened)(opened.path, card, state, opened.digest))


def test_it_fits_the_recipe_it_was_made_for(card, recipe):
    check_fits(card, recipe)
    check_fits(card, recipe, ["F225W", "F160W"])


def test_everything_that_does_not_fit_is_listed(card):
    other = load_recipe("configs/clash.toml", [
        "stamp.pixels=64", "stamp.side='5 radii'", "stamp.resample='area'", "stamp.orientation='north'",
        "stamp.values='flux'", "normalise.softening=1.5", "normalise.fill='zero'",
        "views.colour=['F435W', 'F814W']",
    ])
    with pytest.raises(CheckpointError) as caught:
        check_fits(card, other, ["colour"], where="net.safetensors")
    assert str(caught.value) == (
        "net.safetensors: does not fit the recipe: channels of view colour is 1 in the checkpoint, 2 in the recipe; "
        "stamp.side is 4 radii in the checkpoint, 5 radii in the recipe; "
        "stamp.pixels is 80 in the checkpoint, 64 in the recipe; "
        "stamp.resample is bilinear in the checkpoint, area in the recipe; "
        "stamp.orientation is mosaic in the checkpoint, north in the recipe; "
        "stamp.values is surface_brightness in the checkpoint, flux in the recipe; "
        "normalise.fill is median in the checkpoint, zero in the recipe; "
        "normalise.softening is 3.0 in the checkpoint, 1.5 in the recipe; "
        "change the recipe, or choose or train a checkpoint for it"
    )


def test_what_makes_no_difference_is_no_difference(card):
    check_fits(card, load_recipe("configs/clash.toml", ["stamp.side='4.0radii'", "normalise.low=3.0"]))


def test_another_scheme_does_not_fit(card, recipe):
    with pytest.raises(CheckpointError, match="scheme is gz2 in the checkpoint, clash in the recipe"):
        check_fits(card.model_copy(update={"scheme": "gz2"}), recipe)
    with pytest.raises(CheckpointError, match="classes of the scheme is disk, spheroid in the checkpoint, spheroid, "):
        check_fits(card.model_copy(update={"classes": ("disk", "spheroid")}), recipe)


def weights_of(path):
    data = path.read_bytes()
    return data[8 + struct.unpack("<Q", data[:8])[0] :]


def test_a_rewritten_card_leaves_the_weights_as_they_are(saved, tmp_path, card):
    path = tmp_path / "net.safetensors"
    path.write_bytes(saved.read_bytes())
    new = card.model_copy(update={"temperature": 1.25, "evaluation": {"rmse": 0.1, "note": "Pérez"}, "title": "t"})
    rewrite_card(path, new)
    assert load_card(path) == load_checkpoint(path).card == new
    assert weights_of(path) == weights_of(saved)
    assert (len(path.read_bytes()) - len(weights_of(path))) % 8 == 0
    build_from(load_checkpoint(path))
    rewrite_card(path, card)
    again = path.read_bytes()
    rewrite_card(path, card)
    assert path.read_bytes() == again
    assert list(tmp_path.iterdir()) == [path]


def test_a_card_of_another_network_is_not_put_on_weights(saved, tmp_path, card):
    path = tmp_path / "net.safetensors"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(CheckpointError, match=r"has weights of another network: channels 1, not 3$"):
        rewrite_card(path, card.model_copy(update={"channels": 3}))
    with pytest.raises(CheckpointError, match=r"has weights of another network: model clash-inception, not other$"):
        rewrite_card(path, card.model_copy(update={"model": "other"}))
    with pytest.raises(CheckpointError, match=r"has weights of another network: classes \('spheroid', .*, not"):
        rewrite_card(path, card.model_copy(update={"classes": ("one", "two")}))
    assert path.read_bytes() == saved.read_bytes()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        rewrite_card(tmp_path / "none.safetensors", card)
