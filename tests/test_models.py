import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from keras_files import write_recipe
from torch import nn

from catmorph.cli.models import models
from catmorph.errors import UsageError
from catmorph.inference.predict import Predictor
from catmorph.models import MODELS, build, count_parameters, parameters_of
from catmorph.models.card import card_for
from catmorph.models.checkpoint import load_checkpoint, save_checkpoint
from catmorph.models.clash import Inception, Widths
from catmorph.models.header import load_card
from catmorph.recipe import load_recipe
from catmorph.schemes import load_scheme

# Table 1 of Perez-Carrasco et al. (2019), written out: output (channel, y, x), then for each convolution
# kernel area x channels in x channels out + biases (+ 4 a channel of batch normalisation).
CLASH_LAYERS = {
    "conv1": ((64, 74, 74), 49 * 1 * 64 + 64 + 256),
    "conv2": ((128, 32, 32), 36 * 64 * 128 + 128 + 512),
    "inception1": (
        (240, 16, 16),
        (128 * 96 + 96 + 384) + (9 * 96 * 128 + 128 + 512) + (128 * 16 + 16 + 64) + (25 * 16 * 16 + 16 + 64)
        + (128 * 64 + 64 + 256) + (128 * 32 + 32 + 128),
    ),
    "inception2": (
        (480, 16, 16),
        (240 * 128 + 128 + 512) + (9 * 128 * 192 + 192 + 768) + (240 * 32 + 32 + 128) + (25 * 32 * 96 + 96 + 384)
        + (240 * 128 + 128 + 512) + (240 * 64 + 64 + 256),
    ),
    "inception3": (
        (512, 8, 8),
        (480 * 96 + 96 + 384) + (9 * 96 * 208 + 208 + 832) + (480 * 16 + 16 + 64) + (25 * 16 * 48 + 48 + 192)
        + (480 * 192 + 192 + 768) + (480 * 64 + 64 + 256),
    ),
    "inception4": (
        (512, 8, 8),
        (512 * 112 + 112) + (9 * 112 * 224 + 224) + (512 * 24 + 24) + (25 * 24 * 64 + 64)
        + (512 * 160 + 160) + (512 * 64 + 64),
    ),
    "inception5": (
        (544, 8, 8),
        (512 * 144 + 144) + (9 * 144 * 288 + 288) + (512 * 32 + 32) + (25 * 32 * 64 + 64)
        + (512 * 128 + 128) + (512 * 64 + 64),
    ),
    "inception6": (
        (528, 4, 4),
        (544 * 144 + 144) + (9 * 144 * 288 + 288) + (544 * 32 + 32) + (25 * 32 * 64 + 64)
        + (544 * 112 + 112) + (544 * 64 + 64),
    ),
    "average": ((528, 2, 2), 0),
    "conv3": ((256, 2, 2), 528 * 256 + 256),
    "dense1": ((1024,), 1024 * 1024 + 1024),
    "dense2": ((1024,), 1024 * 1024 + 1024),
    "head": ((5,), 1024 * 5 + 5),
}


def shapes_by_layer(module, inputs):
    found = {}

    def note(name):
        def hook(layer, inputs, output):
            found[name] = tuple(output.shape[1:])

        return hook

    for name, layer in module.named_children():
        layer.register_forward_hook(note(name))
    with torch.inference_mode():
        module.eval()(inputs)
    return found


def test_clash_inception_layer_by_layer():
    module = build("clash-inception", seed=0)
    shapes = shapes_by_layer(module, torch.zeros(2, 1, 80, 80))
    counts = {name: count_parameters(layer)[0] for name, layer in module.named_children()}
    assert {name: (shapes[name], counts[name]) for name in CLASH_LAYERS} == CLASH_LAYERS
    assert {name for name, count in counts.items() if count} <= set(CLASH_LAYERS)


def test_clash_inception_has_the_parameters_of_the_authors_widths():
    parameters, running = count_parameters(build("clash-inception", seed=0))
    assert parameters == 5_127_853
    assert running == 3616
    assert sum(count for _, count in CLASH_LAYERS.values()) == 5_127_853


def test_clash_inception_normalises_after_the_relu_and_only_before_module_4():
    module = build("clash-inception", seed=0)
    kinds = [type(layer) for layer in module.conv1]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    norms = [name for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert {name.split(".")[0] for name in norms} == {"conv1", "conv2", "inception1", "inception2", "inception3"}
    assert {(layer.eps, layer.momentum) for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)} == {
        (1e-3, 0.01)
    }


def test_branches_are_concatenated_as_3x3_5x5_pool_1x1():
    widths = Widths(reduce3=2, conv3=3, reduce5=2, conv5=4, conv1=5, pool=6)
    module = Inception(1, widths, norm=lambda channels: None)
    for value, name in enumerate(("conv3", "conv5", "convp", "conv1"), start=1):
        getattr(module, name).conv.weight.data.zero_()
        getattr(module, name).conv.bias.data.fill_(value)
    assert module(torch.zeros(1, 1, 2, 2))[0, :, 0, 0].tolist() == [1] * 3 + [2] * 4 + [3] * 6 + [4] * 5


def test_gradients_of_concatenated_maps_are_laid_out_like_the_maps():
    torch.manual_seed(0)
    module = Inception(6, Widths(4, 5, 2, 3, 7, 2), norm=nn.BatchNorm2d).double().to(memory_format=torch.channels_last)
    dense = []
    for branch in (module.conv3, module.conv5, module.convp, module.conv1):
        branch.norm.register_full_backward_pre_hook(
            lambda _, gradients: dense.append(gradients[0].is_contiguous(memory_format=torch.channels_last))
        )
    inputs = torch.randn(2, 6, 8, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(2, 17, 8, 8, dtype=torch.float64)
    (module(inputs) * weights).sum().backward()
    found = [parameter.grad.clone() for parameter in module.parameters()]
    assert dense == [True] * 4

    module.zero_grad()
    branches = module.conv3(module.reduce3(inputs)), module.conv5(module.reduce5(inputs)), module.convp(
        module.pool(inputs)), module.conv1(inputs)
    sum((branch * part).sum() for branch, part in zip(branches, weights.split([5, 3, 2, 7], 1), strict=True)).backward()
    for mine, parameter in zip(found, module.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)


def test_clash_inception_starts_as_keras_does():
    module = build("clash-inception", seed=3)
    weight = module.conv2.conv.weight
    limit = math.sqrt(6 / (36 * 64 + 36 * 128))
    assert 0.99 * limit < weight.abs().max() <= limit
    assert not module.conv2.conv.bias.any()


# The graph of the authors' released weights. Its batch normalisations are as long as the maps are wide
# (74, 32, 16, 16, 8), four numbers a column; module 3 has no 5x5 branch, and its 3x3 branch counts twice.
RELEASED_LAYERS = {
    "conv1": ((64, 74, 74), 49 * 1 * 64 + 64 + 4 * 74),
    "conv2": ((128, 32, 32), 36 * 64 * 128 + 128 + 4 * 32),
    "inception1": (
        (240, 16, 16),
        (128 * 96 + 96) + (9 * 96 * 128 + 128) + (128 * 16 + 16) + (25 * 16 * 16 + 16)
        + (128 * 64 + 64) + (128 * 32 + 32) + 6 * 4 * 16,
    ),
    "inception2": (
        (480, 16, 16),
        (240 * 128 + 128) + (9 * 128 * 192 + 192) + (240 * 32 + 32) + (25 * 32 * 96 + 96)
        + (240 * 128 + 128) + (240 * 64 + 64) + 6 * 4 * 16,
    ),
    "inception3": (
        (672, 8, 8),
        (480 * 96 + 96) + (9 * 96 * 208 + 208) + (480 * 192 + 192) + (480 * 64 + 64) + 4 * 4 * 8,
    ),
    "inception4": (
        (512, 8, 8),
        (672 * 112 + 112) + (9 * 112 * 224 + 224) + (672 * 24 + 24) + (25 * 24 * 64 + 64)
        + (672 * 160 + 160) + (672 * 64 + 64),
    ),
    **{name: CLASH_LAYERS[name] for name in ("inception5", "inception6", "average", "conv3")},
    **{name: CLASH_LAYERS[name] for name in ("dense1", "dense2", "head")},
}
DOMINGUEZ_LAYERS = {
    "conv1": ((32, 69, 69), 3_488),
    "conv2": ((64, 69, 69), 51_264),
    "conv3": ((128, 34, 34), 32_896),
    "conv4": ((128, 17, 17), 147_584),
    "dense": ((64,), 2_367_552),
    "head": ((1,), 65),
}
GZ2_LAYERS = {
    "conv1": ((32, 62, 62), 9 * 3 * 32 + 32 + 4 * 32),
    "conv2": ((64, 29, 29), 9 * 32 * 64 + 64),
    "conv3": ((128, 9, 9), 36 * 64 * 128 + 128),
    "dense1": ((128,), 10_368 * 128 + 128),
    "dense2": ((64,), 128 * 64 + 64),
    "head": ((37,), 64 * 37 + 37),
}


@pytest.mark.parametrize(
    ("name", "layers", "parameters", "running"),
    [
        ("clash-inception-released", RELEASED_LAYERS, 5_152_597, 660),
        ("dominguez-cnn", DOMINGUEZ_LAYERS, 2_602_849, 0),
        ("dominguez-cnn-tensorflow", DOMINGUEZ_LAYERS, 2_602_849, 0),
        ("gz2-cnn", GZ2_LAYERS, 1_652_453, 64),
    ],
)
def test_published_networks_layer_by_layer(name, layers, parameters, running):
    spec, module = MODELS.get(name), build(name, seed=0)
    shapes = shapes_by_layer(module, torch.zeros(1, spec.channels, spec.pixels, spec.pixels))
    counts = {child: count_parameters(layer)[0] for child, layer in module.named_children()}
    assert {child: (shapes[child], counts[child]) for child in layers} == layers
    assert {child for child, count in counts.items() if count} <= set(layers)
    assert count_parameters(module) == (parameters, running)


def test_the_released_graph_normalises_each_column_of_the_maps():
    module = build("clash-inception-released", seed=0)
    lengths = [layer.num_features for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert lengths == [74, 32, *[16] * 12, *[8] * 4]
    norm = module.conv1.norm.eval()
    norm.running_mean[3] = 5.0
    norm.weight.data[7] = 2.0
    result = norm(torch.ones(1, 64, 74, 74))
    assert torch.allclose(result[..., 3], torch.tensor(-4.0 / math.sqrt(1.001)))
    assert torch.allclose(result[..., 7], torch.tensor(2.0 / math.sqrt(1.001)))
    assert torch.allclose(result[:, :, 3, 8:], torch.tensor(1.0 / math.sqrt(1.001)))


def test_the_released_graph_has_its_3x3_branch_twice():
    module = build("clash-inception-released", seed=0).eval()
    with torch.inference_mode():
        maps = module.inception3(torch.rand(1, 480, 8, 8))
    assert torch.equal(maps[:, :208], maps[:, 208:416])
    assert not any("5" in name.split(".")[0] for name, _ in module.inception3.named_parameters())


@pytest.mark.parametrize(("name", "first"), [("dominguez-cnn", 3), ("dominguez-cnn-tensorflow", 2)])
def test_same_padding_of_even_kernels_has_its_extra_pixel_where_the_backend_puts_it(name, first):
    layer = build(name, seed=0).conv1
    layer.conv.weight.data.zero_()
    layer.conv.weight.data[0, 0, 0, 0] = 1
    image = torch.zeros(1, 3, 69, 69)
    image[0, 0, 20, 30] = 1
    # The kernel's first pixel sees a pixel `first` further down and right.
    assert layer(image)[0, 0].nonzero().tolist() == [[20 + first, 30 + first]]


def on_meta(name, **sizes):
    """Build a network without its numbers: shapes are those of the real one, and nothing is computed."""
    with torch.device("meta"):
        return build(name, **sizes).eval()


@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.get(name).scheme])
def test_every_model_has_a_scheme_with_its_classes(name):
    spec = MODELS.get(name)
    assert len(load_scheme(spec.scheme).classes) == spec.classes


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_keeps_its_promises(name):
    spec = MODELS.get(name)
    assert spec.name == name
    assert all((spec.title, spec.source, spec.licence))
    sizes = {spec.pixels} if spec.smallest is None else {spec.smallest, spec.smallest + 1, spec.pixels}
    module = on_meta(name, classes=3, channels=2)
    for pixels in sizes:
        assert spec.takes(pixels)
        assert module(torch.zeros(2, 2, pixels, pixels, device="meta")).shape == (2, 3)
    assert not spec.takes(min(sizes) - 1)
    if spec.narrow:
        narrow = MODELS.get(spec.narrow)
        assert narrow.takes(spec.pixels)
        assert parameters_of(spec.narrow) < parameters_of(name)


@pytest.mark.parametrize("name", MODELS.names())
def test_the_stages_are_the_children_with_parameters_in_forward_order(name):
    spec = MODELS.get(name)
    module = on_meta(name)
    order = []
    for child, layer in module.named_children():
        if any(True for _ in layer.parameters()):
            layer.register_forward_hook(lambda *_, child=child: order.append(child))
    module(torch.zeros(1, spec.channels, spec.pixels, spec.pixels, device="meta"))
    assert tuple(order) == spec.stages
    # Every parameter belongs to a stage, and the last stage gives the answers.
    assert {parameter.split(".")[0] for parameter in module.state_dict()} == set(spec.stages)
    head = list(module.get_submodule(spec.stages[-1]).state_dict().values())
    assert head[-1].shape[0] == spec.classes
    # Inference in bfloat16 leaves the last layer of the module in float32: it must be one of the head.
    layers = [layer for layer, one in module.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert layers[-1].split(".")[0] == spec.stages[-1]


def test_the_narrow_network_has_the_layout_of_the_full_one_at_a_quarter_of_its_widths():
    full, narrow = (build(name, seed=0).state_dict() for name in ("clash-inception", "clash-inception-narrow"))
    assert list(full) == list(narrow)
    for name, value in full.items():
        ratios = {one / other for one, other in zip(value.shape, narrow[name].shape, strict=True)}
        assert ratios <= {1, 4}, name
    assert narrow["head.weight"].shape == (5, 256)
    assert narrow["conv1.conv.weight"].shape == (16, 1, 7, 7)


@pytest.mark.parametrize("name", ["clash-inception-released", "dominguez-cnn", "gz2-cnn"])
def test_a_published_network_predicts_the_same_in_production(tmp_path, name):
    spec, module = MODELS.get(name), build(name, seed=1).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 2)
    recipe = load_recipe(write_recipe(tmp_path / "recipe.toml", spec.scheme, spec.pixels, bands=spec.channels))
    save_checkpoint(tmp_path / "net.safetensors", module, card_for(recipe, name, channels=spec.channels))
    checkpoint = load_checkpoint(tmp_path / "net.safetensors")
    stamps = np.random.default_rng(0).random((4, spec.channels, spec.pixels, spec.pixels), dtype=np.float32)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(stamps)).numpy()
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.03)):
        predictor = Predictor(checkpoint, "cpu", precision, batch=16)
        found = predictor.logits(stamps)
        assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()
        assert np.array_equal(predictor.logits(stamps[::-1])[::-1], found)


def test_a_seed_decides_the_weights_and_leaves_the_callers_random_state_alone():
    torch.manual_seed(11)
    wanted = torch.rand(1)
    torch.manual_seed(11)
    one, other, third = (build("clash-inception", seed=seed) for seed in (1, 1, 2))
    assert torch.rand(1) == wanted
    assert torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.head.weight, third.head.weight)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UsageError, match=r"^unknown model 'clash_inception'; did you mean 'clash-inception'\?$"):
        build("clash_inception")


def run(*arguments):
    return CliRunner().invoke(models, [str(one) for one in arguments], catch_exceptions=False)


def test_list():
    lines = run("list").output.splitlines()
    assert [line.split()[0] for line in lines] == MODELS.names()
    assert re.match(r"clash-inception  +Inception network for CLASH morphologies \(Perez-Carrasco", lines[0])
    assert [one["name"] for one in json.loads(run("list", "--json").stdout)] == MODELS.names()


def test_show_an_architecture():
    shown = json.loads(run("show", "clash-inception", "--json").stdout)
    assert shown["parameters"] == 5_127_853
    assert shown["running_statistics"] == 3616
    assert shown["input"] == [1, 80, 80]
    assert shown["scheme"] == "clash"
    assert shown["stages"][2] == "inception1"
    assert shown["keras_weights"] is False
    assert "parameters: 5127853\n" in run("show", "clash-inception").stdout


@pytest.mark.parametrize("name", MODELS.names())
def test_the_table_of_the_documentation_is_right(name):
    spec = MODELS.get(name)
    parameters, running = parameters_of(name)
    size = f"{spec.pixels} x {spec.pixels}" + (f", from {spec.smallest} on" if spec.smallest else "")
    scheme = f"`{spec.scheme}`" if spec.scheme else "any"
    row = (
        f"| `{name}` | {spec.channels}, {size} | {spec.classes}, {scheme} | "
        f"{parameters:,} | {running:,} | {'yes ' if spec.keras else ''}|"
    )
    assert row in (Path(__file__).parents[1] / "docs" / "models.md").read_text().splitlines()


def test_create_writes_an_untrained_checkpoint_that_says_so(tmp_path):
    path = tmp_path / "new" / "untrained.safetensors"
    assert run("create", "clash-inception", "-r", "configs/clash.toml", "--output", path, "--seed", 4).exit_code == 0
    card = load_card(path)
    assert not card.trained
    assert card.purpose.startswith("UNTRAINED")
    assert card.classes == ("spheroid", "disk", "irregular", "point_source", "unclassifiable")
    shown = run("show", path)
    assert "  purpose: UNTRAINED: random weights" in shown.stdout
    assert "    method: asinh\n" in shown.stdout
    found = json.loads(run("show", path, "--json").stdout)
    assert found["card"]["stamp"]["side"] == "4 radii"
    assert (found["parameters"], found["running_statistics"]) == (5_127_853, 3616)
    assert found["input"] == [1, 80, 80]


def test_create_refuses_stamps_of_another_size(tmp_path):
    with pytest.raises(UsageError, match=r"^stamps of the recipe have 64 pixels, clash-inception takes 80; set stamp"):
        run("create", "clash-inception", "-r", "configs/clash.toml", "--set", "stamp.pixels=64", "--output",
            tmp_path / "x.safetensors")


def test_help_and_show_of_a_file_do_not_import_torch(tmp_path):
    path = tmp_path / "untrained.safetensors"
    run("create", "clash-inception", "-r", "configs/clash.toml", "--output", path)
    code = (
        "import sys; from click.testing import CliRunner; from catmorph.cli.models import models\n"
        f"for arguments in (['--help'], ['create', '--help'], ['show', {str(path)!r}]):\n"
        "    assert CliRunner().invoke(models, arguments).exit_code == 0\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
