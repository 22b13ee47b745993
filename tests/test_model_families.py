"""Residual networks, networks of timm, twins, narrow networks, and averaging over symmetries."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from keras_files import write_recipe
from torch import nn

from catmorph.cli.models import models
from catmorph.errors import CheckpointError, UsageError
from catmorph.experiments.plan import plan
from catmorph.inference.predict import Predictor
from catmorph.models import MODELS, build, count_parameters, parameters_of
from catmorph.models.card import card_for
from catmorph.models.checkpoint import build_from, load_checkpoint, save_checkpoint
from catmorph.models.create import check_input, create_untrained
from catmorph.models.symmetry import symmetries
from catmorph.models.twin import Twin
from catmorph.recipe import load_recipe

# Keras' counts of the Galaxy Zoo 2 laboratory, and what timm's network lacks: the bias of each convolution.
KERAS_RESNET50, IDLE_BIASES = 23_587_712, 26_560


def on_meta(name, **sizes):
    with torch.device("meta"):
        return build(name, **sizes).eval()


def shapes_of(module, inputs):
    shapes = {}
    for name, layer in module.named_children():
        layer.register_forward_hook(lambda _, i, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    module(inputs)
    return shapes


@pytest.mark.parametrize(
    ("name", "published", "dense"),
    [
        ("gz2-resnet50", 23_890_853, {"head": ((37,), 8192 * 37 + 37)}),
        ("gz2-resnet50-tree", 25_250_149, {
            "dense1": ((200,), 8192 * 200 + 200), "dense2": ((100,), 200 * 100 + 100), "head": ((37,), 100 * 37 + 37),
        }),
    ],
)  # fmt: skip
def test_the_laboratorys_residual_networks_lack_only_keras_idle_biases(name, published, dense):
    module = on_meta(name)
    parameters, running = count_parameters(module)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert all(layer.bias is None for layer in convolutions)
    assert sum(layer.out_channels for layer in convolutions) == IDLE_BIASES
    assert (parameters + IDLE_BIASES, running) == (published, 53_120)
    shapes = shapes_of(module, torch.zeros(1, 3, 64, 64, device="meta"))
    counts = {child: count_parameters(layer)[0] for child, layer in module.named_children()}
    assert {child: (shapes[child], counts[child]) for child in dense} == dense
    assert sum(counts.values()) - sum(count for _, count in dense.values()) + IDLE_BIASES == KERAS_RESNET50
    assert {child: shapes[child] for child in ("conv1", "layer1", "layer2", "layer3", "layer4")} == {
        "conv1": (64, 32, 32), "layer1": (256, 16, 16), "layer2": (512, 8, 8), "layer3": (1024, 4, 4),
        "layer4": (2048, 2, 2),
    }  # fmt: skip


def test_the_trees_network_applies_relu_and_dropout_after_each_dense_layer():
    module = build("gz2-resnet50-tree", seed=0).eval()
    seen = {}
    module.dense2.register_forward_pre_hook(lambda _, inputs: seen.update(dense2=inputs[0]))
    module.head.register_forward_pre_hook(lambda _, inputs: seen.update(head=inputs[0]))
    with torch.inference_mode():
        module(torch.rand(1, 3, 64, 64))
    assert all((values >= 0).all() and (values == 0).any() for values in seen.values())
    assert module.dropout.p == 0.2


@pytest.mark.parametrize(("name", "published"), [
    # torchvision's documented counts; running statistics besides.
    ("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("vgg19_bn", 143_678_248),
])  # fmt: skip
def test_backbones_have_the_published_parameters(name, published):
    parameters, running = parameters_of(name)
    assert parameters - running == published


def test_any_network_of_timm():
    spec = MODELS.get("timm/convnext_nano")
    assert spec.stages == ("stem", "stages", "head")
    assert (spec.smallest, spec.pixels, spec.backbone) == (32, 224, "convnext_nano")
    assert MODELS.get("timm/inception_v3").smallest == 96
    fixed = MODELS.get("timm/vit_tiny_patch16_224")
    assert not fixed.takes(96)
    assert fixed.takes(224)
    with pytest.raises(UsageError, match=r"unknown model 'timm/convnext_nan'; did you mean 'timm/convnext_nano'\?$"):
        MODELS.get("timm/convnext_nan")
    for name in ("timm/hf-hub:someone/something", "timm/local-dir:/tmp/x", "timm/../resnet18", "timm/"):
        with pytest.raises(UsageError, match="unknown model"):
            MODELS.get(name)
    with pytest.raises(UsageError, match=r"has not one last layer but \('head', 'head_dist'\)"):
        MODELS.get("timm/deit_tiny_distilled_patch16_224")


def test_sizes_are_checked_against_the_recipe_and_the_card(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path / "r.toml", "clash", 24, bands=3))
    with pytest.raises(UsageError, match=r"^stamps of the recipe have 24 pixels, resnet-narrow takes any size from 32"):
        check_input("resnet-narrow", recipe)
    small = recipe.model_copy(update={"stamp": recipe.stamp.model_copy(update={"pixels": 40})})
    create_untrained("resnet-narrow", small, tmp_path / "x.safetensors")
    checkpoint = load_checkpoint(tmp_path / "x.safetensors")
    assert build_from(checkpoint)(torch.zeros(2, 3, 40, 40)).shape == (2, 5)
    tiny = checkpoint.card.model_copy(update={"stamp": checkpoint.card.stamp.model_copy(update={"pixels": 24})})
    save_checkpoint(tmp_path / "y.safetensors", build_from(checkpoint), tiny)
    with pytest.raises(CheckpointError, match="stamps of 24 pixels, resnet-narrow takes any size from 32 pixels"):
        build_from(load_checkpoint(tmp_path / "y.safetensors"))


def test_each_copy_of_a_twin_sees_three_bands_and_zeros_fill_the_last():
    module = build("twin-narrow", classes=4, channels=5, seed=0).eval()
    assert isinstance(module, Twin)
    seen = []
    for copy in module.copies.children():
        copy.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stamps = torch.rand(2, 5, 32, 32)
    with torch.no_grad():
        logits = module(stamps)
        joined = torch.cat([copy(part) for copy, part in zip(module.copies.children(), list(seen), strict=True)], dim=1)
    assert torch.equal(seen[0], stamps[:, :3])
    assert torch.equal(seen[1][:, :2], stamps[:, 3:])
    assert not seen[1][:, 2].any()
    assert module.head.bias is None
    assert torch.allclose(logits, joined @ module.head.weight.detach().T, atol=1e-6)
    first, second = (copy.conv1[0].weight for copy in module.copies.children())
    assert not torch.equal(first, second)
    assert [len(build("twin-narrow", channels=n, seed=0).parts) for n in (1, 3, 4, 7)] == [1, 1, 2, 3]


def test_published_twins_are_two_backbones_and_a_matrix():
    for backbone in ("resnet18", "vgg19_bn"):
        one = parameters_of(backbone, classes=4)[0]
        assert parameters_of(f"twin-{backbone}", classes=4, channels=5)[0] == 2 * one + 8 * 4


@pytest.mark.parametrize("name", ["dominguez-narrow", "gz2-narrow", "resnet-narrow", "twin-narrow"])
def test_narrow_networks_fit_into_a_quarter_of_a_megabyte(tmp_path, name):
    spec = MODELS.get(name)
    assert parameters_of(name, classes=37, channels=5)[0] < 120_000
    recipe = load_recipe(write_recipe(tmp_path / "r.toml", "clash", spec.pixels, bands=spec.channels))
    card = card_for(recipe, name, channels=spec.channels)
    save_checkpoint(tmp_path / "x.safetensors", build(name, classes=5, seed=0), card, "float16")
    assert (tmp_path / "x.safetensors").stat().st_size < 250_000


@pytest.mark.parametrize("name", ["dominguez-narrow", "gz2-narrow", "resnet-narrow", "twin-narrow"])
def test_narrow_networks_learn_a_simple_difference(name):
    """Smooth light profiles of two widths, 24 stamps: the loss falls to less than half."""
    spec = MODELS.get(name)
    module = build(name, classes=2, seed=0)
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(24) % 2
    axis = torch.linspace(-1, 1, spec.pixels)
    radius2 = axis[:, None] ** 2 + axis**2
    width = (0.25 + 0.3 * labels + 0.05 * torch.rand(24, generator=generator))[:, None, None, None]
    stamps = torch.exp(-radius2 / (2 * width**2)).expand(24, spec.channels, -1, -1)
    stamps = stamps + 0.05 * torch.randn(stamps.shape, generator=generator)
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for _ in range(15):
            loss = nn.functional.cross_entropy(module(stamps), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", ["dominguez-narrow-d4", "resnet-narrow-d4", "twin-narrow-d4", "gz2-narrow-d4"])
def test_a_pooled_network_answers_the_same_for_all_eight_symmetries(tmp_path, name):
    spec, base = MODELS.get(name), MODELS.get(name.removesuffix("-d4"))
    assert spec.stages == base.stages
    recipe = load_recipe(write_recipe(tmp_path / "r.toml", "clash", spec.pixels, bands=spec.channels))
    module = build(name, classes=5, seed=0)
    save_checkpoint(tmp_path / "x.safetensors", module, card_for(recipe, name, channels=spec.channels))
    predictor = Predictor(load_checkpoint(tmp_path / "x.safetensors"), "cpu", "float32", batch=16)
    stamps = np.random.default_rng(0).random((2, spec.channels, spec.pixels, spec.pixels), dtype=np.float32)
    # Bit for bit, as the eight are summed in an order of their values.
    turned = [predictor.logits(np.ascontiguousarray(one.numpy())) for one in symmetries(torch.from_numpy(stamps))]
    assert all(np.array_equal(one, turned[0]) for one in turned)
    plain = build(base.name, classes=5, seed=0).eval()
    with torch.inference_mode():
        each = torch.stack([plain(one) for one in symmetries(torch.from_numpy(stamps))])
    assert np.allclose(each.mean(0), turned[0], atol=1e-5)
    assert each.std(0).max() > 1e-4
    assert plain.state_dict().keys() == module.state_dict().keys()


def test_a_pooled_network_learns_through_all_its_views():
    module = build("resnet-narrow-d4", classes=2, channels=1, seed=0).train()
    stamps = torch.zeros(4, 1, 32, 32)
    stamps[:, :, 3, 20] = 1
    stamps.requires_grad_()
    module(stamps).square().sum().backward()
    assert stamps.grad.abs().amax(dim=(0, 1)).gt(0).all()
    assert module.bn1.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("resnet-narrow", 33), ("twin-narrow", 32), ("resnet-narrow-d4", 32), ("timm/convnext_atto", 32),
     ("timm/test_vit", 160)],
)  # fmt: skip
def test_production_predicts_as_the_network_does(tmp_path, name, pixels):
    module = build(name, classes=5, channels=5, seed=1).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 2)
    recipe = load_recipe(write_recipe(tmp_path / "recipe.toml", "clash", pixels, bands=5))
    save_checkpoint(tmp_path / "net.safetensors", module, card_for(recipe, name, channels=5))
    checkpoint = load_checkpoint(tmp_path / "net.safetensors")
    stamps = np.random.default_rng(0).random((3, 5, pixels, pixels), dtype=np.float32)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(stamps)).numpy()
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 0.05)):
        predictor = Predictor(checkpoint, "cpu", precision, batch=16)
        found = predictor.logits(stamps)
        assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()
        assert np.array_equal(predictor.logits(stamps[::-1])[::-1], found)


def test_tables_that_a_network_computes_are_there_after_loading(tmp_path):
    """The windows of Swin are no weights: they are not in the file."""
    name = "timm/swin_tiny_patch4_window7_224"
    module = on_meta(name)
    assert set(dict(module.named_buffers())) - set(module.state_dict())
    small = "timm/test_vit"
    recipe = load_recipe(write_recipe(tmp_path / "r.toml", "clash", 160, bands=3))
    create_untrained(small, recipe, tmp_path / "x.safetensors")
    loaded = build_from(load_checkpoint(tmp_path / "x.safetensors"))
    assert not any(one.is_meta for one in (*loaded.buffers(), *loaded.parameters()))


def test_show_and_create_know_the_networks_of_timm(tmp_path):
    run = CliRunner()
    shown = json.loads(run.invoke(models, ["show", "timm/test_resnet-d4", "--json"], catch_exceptions=False).stdout)
    assert shown["stages"][-1] == "fc"
    assert shown["sizes"] == "any size from 32 pixels"
    with pytest.raises(UsageError, match="did you mean 'timm/test_resnet'"):
        run.invoke(models, ["show", "timm/test_resnett"], catch_exceptions=False)


def test_quick_experiments_take_the_narrow_network_without_a_backbone(tmp_path):
    path = write_recipe(tmp_path / "r.toml", "des-disk", 69, bands=3)
    for model, narrow in (("dominguez-cnn", "dominguez-narrow"), ("resnet18-d4", "resnet-narrow-d4"),
                          ("resnet-narrow", "resnet-narrow")):  # fmt: skip
        backbone = 'backbone = "imagenet"\nfreeze_before = "layer4"\n' if model == "resnet18-d4" else ""
        text = path.read_text().partition("[training]")[0]
        path.write_text(f'{text}[training]\nmodel = "{model}"\noutput = "x"\n{backbone}')
        quick = plan("repeat", load_recipe(path), quick=True).section
        assert (quick.model, quick.backbone, quick.freeze_before) == (narrow, None, None)
        full = plan("repeat", load_recipe(path)).section
        assert (full.model, full.backbone) == (model, "imagenet" if backbone else None)
