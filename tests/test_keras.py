import json
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from keras_files import write_keras, write_recipe
from torch import nn

from catmorph.cli.models import models
from catmorph.errors import CheckpointError, UsageError
from catmorph.models import MODELS, KerasGraph, build
from catmorph.models.checkpoint import build_from, load_checkpoint
from catmorph.models.header import load_card
from catmorph.models.keras_file import open_keras
from catmorph.models.keras_weights import Origin, read_weights


def run(*arguments):
    return CliRunner().invoke(models, [str(one) for one in arguments], catch_exceptions=False)


def fill(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.05 + torch.rand(value.shape, generator=generator))
    return module.eval()


# --- a small network: every layout ------------------------------------------------------------------------


class Small(nn.Module):
    """3 x 4 x 5 pixels to two classes, with every kind of layer; no two axes of a kernel are equal by chance."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, (2, 2))
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, (1, 1))
        self.dense = nn.Linear(6 * 3 * 4, 5)
        self.head = nn.Linear(5, 2)


GRAPH = KerasGraph(("conv1", "norm", "conv2", "dense", "head"), "dense", (6, 3, 4), channels_first=True)


@pytest.fixture
def small():
    return fill(Small())


def read(path, module=None, theano=False, channels_first=True, graph=GRAPH):
    module = Small() if module is None else module
    with open_keras(path) as file:
        module.load_state_dict(read_weights(file, module, graph, Origin(theano, channels_first)))
    return module


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("backend", ["theano", "tensorflow"])
@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_every_layout_gives_the_weights_back(tmp_path, small, version, backend, channels_first, whole):
    path = write_keras(
        tmp_path / "w.h5", small, GRAPH, version=version, backend=backend, channels_first=channels_first, whole=whole
    )
    assert same(small, read(path, theano=backend == "theano", channels_first=channels_first))
    assert not same(small, read(path, theano=backend != "theano", channels_first=channels_first))
    assert not same(small, read(path, theano=backend == "theano", channels_first=not channels_first))


def test_a_kernel_of_theano_is_turned_by_180_degrees(tmp_path):
    # A true convolution: out[0] = w[1] x[0] + w[0] x[1].
    module = nn.Sequential(nn.Conv2d(1, 1, (1, 2)))
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(["c"], dtype="S")
        file.attrs["backend"] = np.bytes_("theano")
        file.attrs["keras_version"] = np.bytes_("2.1.6")
        file.create_group("c").attrs["weight_names"] = np.array(["c/kernel:0", "c/bias:0"], dtype="S")
        file["c/c/kernel:0"] = np.array([10.0, 1.0], "f4").reshape(1, 2, 1, 1)
        file["c/c/bias:0"] = np.zeros(1, "f4")
    graph = KerasGraph(("0",), "", (1, 1, 1), channels_first=True)
    inputs = torch.tensor([[[[3.0, 5.0]]]])
    with torch.inference_mode():
        assert read(path, module, theano=True, graph=graph)(inputs).item() == 1 * 3 + 10 * 5
        assert read(path, module, theano=False, graph=graph)(inputs).item() == 10 * 3 + 1 * 5


def test_long_lists_of_names_are_joined(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    with h5py.File(path, "a") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]
    assert same(small, read(path))


def test_a_model_inside_the_model_is_read_layer_by_layer(tmp_path, small):
    path = write_keras(tmp_path / "flat.h5", small, GRAPH)
    nested = tmp_path / "nested.h5"
    with h5py.File(path) as flat, h5py.File(nested, "w") as file:
        inner, names, late = file.create_group("model_1"), [], []
        for layer in flat.attrs["layer_names"]:
            for name in flat[layer].attrs["weight_names"]:
                inner[name] = flat[layer][name][()]
                # Keras lists what is not trained after all that is.
                (late if b"moving" in name else names).append(name)
        inner.attrs["weight_names"] = np.array(names + late, dtype="S")
        file.attrs["layer_names"] = np.array(["model_1"], dtype="S")
    assert same(small, read(nested))


def test_variables_without_a_name_are_told_by_their_axes(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    with h5py.File(path, "a") as file:
        for layer in file.attrs["layer_names"]:
            names = [f"param_{number}" for number in range(len(file[layer].attrs["weight_names"]))]
            for old, new in zip(file[layer].attrs["weight_names"], names, strict=True):
                file[layer].move(old.decode(), new)
            file[layer].attrs["weight_names"] = np.array(names, dtype="S") if names else np.zeros(0)
    assert same(small, read(path))


# --- files that do not fit --------------------------------------------------------------------------------


def problem(path, module=None, graph=GRAPH):
    with pytest.raises(CheckpointError) as caught:
        read(path, module, graph=graph)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


OTHER = "; the weights belong to another network, or the recipe has other classes or bands than they have"


def test_the_first_layer_that_differs_is_named_with_both_shapes(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    wide, short, long = Small(), Small(), Small()
    wide.conv2 = nn.Conv2d(4, 7, 1)
    wide.dense = nn.Linear(84, 9)
    assert problem(path, wide) == (
        "layer 'conv2d_3' has kernel 1x1x4x6 where the model's 'conv2' has kernel 1x1x4x7" + OTHER
    )
    short.head = nn.Linear(5, 3)
    assert problem(path, short) == "layer 'linear_5' has kernel 5x2 where the model's 'head' has kernel 5x3" + OTHER
    long.norm = nn.BatchNorm2d(9)
    assert problem(path, long).startswith("layer 'batchnorm2d_2' has gamma 4 where the model's 'norm' has gamma 9;")


def test_missing_surplus_and_other_layers_are_named(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    assert problem(path, graph=replace(GRAPH, layers=(*GRAPH.layers, "head"))) == (
        "ends after 5 layers with weights; there is none for 'head'" + OTHER
    )
    assert problem(path, graph=replace(GRAPH, layers=GRAPH.layers[:-1])) == (
        "has 5 layers with weights, the model 4; the first more is 'linear_5'" + OTHER
    )
    assert problem(path, graph=replace(GRAPH, layers=("conv1", "conv2", "norm", "dense", "head"))) == (
        "layer 'batchnorm2d_2' has gamma, beta, mean, variance where the model's 'conv2' has kernel, bias" + OTHER
    )


def test_the_axes_of_keras_1_are_not_taken_from_a_newer_file(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH, version=1)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = np.bytes_("2.0.0")
    assert problem(path).startswith("layer 'conv2d_1' has kernel 4x3x2x2 where the model's 'conv1' has kernel 2x2x3x4;")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("conv2d_1/conv2d_1/bias:0", np.nan, "layer 'conv2d_1' has a bias that is not finite"),
        ("batchnorm2d_2/batchnorm2d_2/moving_variance:0", -1.0, "layer 'batchnorm2d_2' has a negative variance"),
    ],
)
def test_numbers_that_cannot_be_weights_are_refused(tmp_path, small, name, value, told):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    with h5py.File(path, "a") as file:
        file[name][1] = value
    assert problem(path) == told


# --- hostile files ----------------------------------------------------------------------------------------


def replaced(path, put):
    """Replace the first bias of a file by what `put` makes of (group, name)."""
    with h5py.File(path, "a") as file:
        group = file["conv2d_1/conv2d_1"]
        del group["bias:0"]
        put(group, "bias:0")
    return path


def virtual(group, name):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "data", (4,))
    group.create_virtual_dataset(name, layout)


def references(group, name):
    data = group.create_dataset(name, (4,), h5py.ref_dtype)
    data[0] = group.ref


def unknown_filter(group, name):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(4242, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, properties)


LINKED = "; weights must lie in the file"
HOSTILE = {
    "external link": (
        lambda group, name: group.__setitem__(name, h5py.ExternalLink("secret.h5", "/data")),
        "'conv2d_1/bias:0' is a link to another file" + LINKED,
    ),
    "soft link": (
        lambda group, name: group.__setitem__(name, h5py.SoftLink("/secret")),
        "'conv2d_1/bias:0' is a link to elsewhere" + LINKED,
    ),
    "virtual dataset": (virtual, "'conv2d_1/bias:0' lies in another file" + LINKED),
    "external storage": (
        lambda group, name: group.create_dataset(name, (4,), "f4", external=[("secret.bin", 0, 16)]),
        "'conv2d_1/bias:0' lies in another file" + LINKED,
    ),
    "object references": (references, "'conv2d_1/bias:0' has no floating-point numbers but object;"),
    "integers": (
        lambda group, name: group.create_dataset(name, data=np.arange(4)),
        "'conv2d_1/bias:0' has no floating-point numbers but int64;",
    ),
    "a group": (lambda group, name: group.create_group(name), "'conv2d_1/bias:0' is no array;"),
    "nothing": (lambda group, name: None, "names 'conv2d_1/bias:0', which is not in it;"),
    "unknown filter": (unknown_filter, "'conv2d_1/bias:0' is compressed by an unknown filter;"),
    "huge": (
        lambda group, name: group.create_dataset(name, (2**40,), "f4", chunks=(2**16,), compression="gzip"),
        "layer 'conv2d_1' has bias 1099511627776 where the model's 'conv1' has bias 4;",
    ),
    "huge chunks": (
        lambda group, name: group.create_dataset(name, (4,), "f4", maxshape=(None,), chunks=(2**28,)),
        "'conv2d_1/bias:0' has chunks larger than itself;",
    ),
    "no space": (
        lambda group, name: group.create_dataset(name, data=h5py.Empty("f4")),
        "'conv2d_1/bias:0' has no floating-point numbers but float32;",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_array_is_refused(tmp_path, monkeypatch, small, kind):
    monkeypatch.chdir(tmp_path)
    with h5py.File("secret.h5", "w") as file:
        file["data"] = np.ones(4, "f4")
    (tmp_path / "secret.bin").write_bytes(np.ones(4, "f4").tobytes())
    put, told = HOSTILE[kind]
    path = replaced(write_keras(tmp_path / "w.h5", small, GRAPH), put)
    assert problem(path).startswith(told)


def test_groups_that_are_links_are_not_followed(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    with h5py.File(path, "a") as file:
        file.move("conv2d_1", "elsewhere")
        file["conv2d_1"] = h5py.SoftLink("/elsewhere")
    assert problem(path) == "'conv2d_1' is a link to elsewhere; weights must lie in the file"
    with h5py.File(tmp_path / "outer.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("w.h5", "/")
    assert problem(tmp_path / "outer.h5").startswith("'model_weights' is a link to another file;")


def test_attributes_that_are_no_text_are_refused(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = np.arange(3)
    assert problem(path).startswith("has an attribute layer_names that is no text;")
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs.create("layer_names", file.ref, dtype=h5py.ref_dtype)
    assert problem(path).startswith("has an attribute layer_names that is no text;")


def test_a_cut_or_foreign_file_says_what_it_is(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    whole = path.read_bytes()
    for length in (len(whole) // 2, 900, 100):
        path.write_bytes(whole[:length])
        assert problem(path).startswith("is damaged: ")
    path.write_bytes(whole[:4] + b"...." + whole[8:])
    assert problem(path) == "is damaged: its signature is not that of HDF5; copy it again"
    path.write_bytes(b"")
    assert problem(path).startswith("is empty, not an HDF5 file; a Keras weight file is written by")
    path.write_bytes(b"\x80\x02}q\x00.")
    assert problem(path).startswith("is a Python pickle, which could run code when opened, not an HDF5 file;")
    path.write_bytes(b"PK\x03\x04....")
    assert problem(path).startswith("is a zip archive, such as torch.save writes, not an HDF5 file;")
    with h5py.File(path, "w") as file:
        file["data"] = np.ones(3)
    assert problem(path).startswith("has no Keras weights;")
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones(3)
    assert problem(path) == (
        "has Keras 3's own layout, not the HDF5 layout of published weights; write it with model.save('weights.h5') "
        "in Keras"
    )
    assert problem(tmp_path / "none.h5") == "no such file"


def test_damaged_files_are_refused_or_give_finite_weights(tmp_path, small):
    path = write_keras(tmp_path / "w.h5", small, GRAPH)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(150):
        damaged = whole.copy()
        for place in rng.integers(0, len(whole), 8):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            state = read(path).state_dict()
        except CheckpointError:
            refused += 1
        else:
            assert all(torch.isfinite(value).all() for value in state.values())
    assert refused > 20


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with the weights of gz2-cnn as its author's Keras writes them."""
    folder = tmp_path_factory.mktemp("published")
    spec = MODELS.get("gz2-cnn")
    module = fill(build("gz2-cnn", seed=0))
    write_keras(folder / "gz2.h5", module, spec.keras, channels_first=False)
    write_recipe(folder / "gz2.toml", "gz2", 64, bands=3)
    return folder, module


def test_the_command_writes_a_checkpoint_with_its_origin(published, tmp_path):
    folder, module = published
    output = tmp_path / "new" / "gz2.safetensors"
    result = run("import-keras", folder / "gz2.h5", "--model", "gz2-cnn", "-r", folder / "gz2.toml", "-o", output)
    assert result.exit_code == 0
    assert result.stdout == f"{output}\n"
    assert result.stderr == "gz2-cnn: tensorflow kernels, flattened channels last\n"
    assert same(module, build_from(load_checkpoint(output)))
    card = load_card(output)
    assert card.trained
    assert card.training == {
        "trained": True,
        "imported": "gz2.h5",
        "sha256": card.training["sha256"],
        "backend": "tensorflow",
        "keras_version": "2.2.0",
        "flattened": "channels last",
    }
    assert len(card.training["sha256"]) == 64
    assert card.licence.startswith("not stated in the file; the weights are their authors'")
    assert len(card.classes) == 37
    assert card.classes[23] == "merger"
    shown = json.loads(run("show", output, "--json").stdout)
    assert (shown["parameters"], shown["running_statistics"]) == (1_652_453, 64)
    again = tmp_path / "again.safetensors"
    run("import-keras", folder / "gz2.h5", "--model", "gz2-cnn", "-r", folder / "gz2.toml", "-o", again)
    assert again.read_bytes() == output.read_bytes()


def test_the_output_stands_beside_the_file_unless_told(published):
    folder, _ = published
    result = run("import-keras", folder / "gz2.h5", "--model", "gz2-cnn", "-r", folder / "gz2.toml",
                 "--licence", "CC-BY-4.0", "-q")  # fmt: skip
    assert result.stdout == f"{folder / 'gz2.safetensors'}\n"
    assert result.stderr == ""
    assert load_card(folder / "gz2.safetensors").licence == "CC-BY-4.0"


def test_the_order_of_flattening_is_as_asked_else_as_the_file_says(published, tmp_path):
    folder, module = published
    code = {"class_name": "Lambda", "config": {"function": ["boom", None, None], "data_format": None}}
    convolution = {"class_name": "Conv2D", "config": {"data_format": "channels_first"}}
    config = json.dumps({"class_name": "Sequential", "config": {"layers": [code, convolution]}})
    graph = MODELS.get("gz2-cnn").keras
    write_keras(tmp_path / "w.h5", module, graph, channels_first=True, whole=True, config=config)
    output = tmp_path / "w.safetensors"
    run("import-keras", tmp_path / "w.h5", "--model", "gz2-cnn", "-r", folder / "gz2.toml")
    assert same(module, build_from(load_checkpoint(output)))
    run("import-keras", tmp_path / "w.h5", "--model", "gz2-cnn", "-r", folder / "gz2.toml", "--flatten",
        "channels-last")  # fmt: skip
    assert not same(module, build_from(load_checkpoint(output)))


@pytest.mark.parametrize(
    ("model", "backend", "version", "got"),
    [
        ("dominguez-cnn", "theano", 1, "dominguez-cnn"),
        ("dominguez-cnn-tensorflow", "theano", 1, "dominguez-cnn"),
        ("dominguez-cnn", "tensorflow", 2, "dominguez-cnn-tensorflow"),
    ],
)
def test_the_backend_decides_whose_padding_is_used(tmp_path, model, backend, version, got):
    module = fill(build(model, seed=0))
    write_keras(tmp_path / "q1.hd5", module, MODELS.get(model).keras, version=version, backend=backend)
    recipe = write_recipe(tmp_path / "des.toml", "des-disk", 69, bands=3)
    result = run("import-keras", tmp_path / "q1.hd5", "--model", model, "-r", recipe)
    assert result.stderr == f"{got}: {backend} kernels, flattened channels first\n"
    checkpoint = load_checkpoint(tmp_path / "q1.safetensors")
    assert checkpoint.card.model == got
    assert same(module, build_from(checkpoint))


def test_the_released_clash_graph_and_its_normalisation(tmp_path):
    module = fill(build("clash-inception-released", seed=0))
    write_keras(tmp_path / "w.h5", module, MODELS.get("clash-inception-released").keras, backend="theano")
    arguments = ("import-keras", tmp_path / "w.h5", "--model", "clash-inception-released", "-r", "configs/clash.toml")
    result = run(*arguments, "--set", "normalise.method=bytescale")
    assert "warning" not in result.stderr
    assert same(module, build_from(load_checkpoint(tmp_path / "w.safetensors")))
    assert run(*arguments).stderr.startswith(
        "catmorph: warning: the authors' weights expect normalise.method = 'bytescale', the recipe has 'asinh'\n"
    )


def test_what_cannot_work_is_told_before_anything_is_written(published, tmp_path):
    folder, _ = published
    path, output = folder / "gz2.h5", tmp_path / "x.safetensors"

    def refused(*arguments, kind=UsageError):
        with pytest.raises(kind) as caught:
            run("import-keras", *arguments, "-o", output)
        assert not output.exists()
        return str(caught.value)

    recipe = ("-r", folder / "gz2.toml")
    assert refused(path, "--model", "gz2-cn", *recipe) == "unknown model 'gz2-cn'; did you mean 'gz2-cnn'?"
    assert refused(path, "--model", "clash-inception", *recipe) == (
        "model 'clash-inception' has no Keras weights; did you mean 'clash-inception-released'?"
    )
    assert refused(path, "--model", "gz2-cnn", "-r", "configs/clash.toml").startswith(
        "stamps of the recipe have 80 pixels, gz2-cnn takes 64;"
    )
    text = refused(path, "--model", "gz2-cnn", *recipe, "--set", "scheme=clash", kind=CheckpointError)
    assert "layer 'linear_7' has kernel 64x37 where the model's 'head' has kernel 64x5;" in text
    assert refused(path, "--model", "dominguez-cnn", *recipe, "--set", "stamp.pixels=69", kind=CheckpointError) == (
        f"{path}: layer 'conv2d_1' has kernel 3x3x3x32 where the model's 'conv1.conv' has kernel 6x6x3x32" + OTHER
    )


def test_the_file_itself_is_not_overwritten(published):
    folder, _ = published
    before = (folder / "gz2.h5").read_bytes()
    with pytest.raises(UsageError, match=r"gz2\.h5: the checkpoint would replace the file it is made from; give anoth"):
        run("import-keras", folder / "gz2.h5", "--model", "gz2-cnn", "-r", folder / "gz2.toml", "-o", folder / "gz2.h5")
    assert (folder / "gz2.h5").read_bytes() == before


def test_published_weights_make_a_catalog(published, survey):
    folder, _ = published
    for old, new in (
        ('scheme = "clash"', 'scheme = "gz2"'),
        ("[mosaics]", '[views]\nrgb = ["F160W", "F814W", "F435W"]\n[stamp]\npixels = 64\n[mosaics]'),
        ('method = "asinh"', 'method = "bytescale"'),
        ("untrained.safetensors", "gz2.safetensors"),
        ('merger_class = "irregular"\n', ""),
    ):
        survey.edit(old, new)
    imported = survey("models", "import-keras", folder / "gz2.h5", "--model", "gz2-cnn", "-r", survey.recipe, "-o",
                      survey.folder / "gz2.safetensors")  # fmt: skip
    assert imported.status == 0
    assert survey("run", survey.recipe, "--no-progress").status == 0
    header, *rows = (survey.run / "release" / "Tiny.csv").read_text().splitlines()
    assert header.startswith("field,id,ra,dec,rgb_smooth,rgb_features,rgb_artifact,rgb_edge_on_yes,")
    assert header.count(",") == 3 + 37
    assert rows


@pytest.mark.parametrize(("backend", "said"), [(None, "does not say"), ("cntk", "says 'cntk' for")])
def test_a_file_of_an_unknown_backend_needs_to_be_told(tmp_path, published, backend, said):
    folder, module = published
    path = write_keras(tmp_path / "w.h5", module, MODELS.get("gz2-cnn").keras, backend=backend, channels_first=False)
    arguments = ("import-keras", path, "--model", "gz2-cnn", "-r", folder / "gz2.toml")
    with pytest.raises(CheckpointError) as caught:
        run(*arguments)
    assert str(caught.value) == (
        f"{path}: {said} the backend its kernels were made with; give --backend theano or tensorflow"
    )
    assert os.listdir(tmp_path) == ["w.h5"]
    assert run(*arguments, "--backend", "tensorflow").exit_code == 0
    assert same(module, build_from(load_checkpoint(tmp_path / "w.safetensors")))
