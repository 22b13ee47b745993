"""Starting from the weights of a backbone: files as timm and torchvision write them, and timm's own loader."""

from __future__ import annotations

import os
import pickle

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from click.testing import CliRunner
from keras_files import write_recipe
from training_data import recipe, section, train

from catmorph.cli.models import models
from catmorph.errors import CatmorphError, CheckpointError, UsageError
from catmorph.models import MODELS, build
from catmorph.models.header import load_card
from catmorph.models.pretrained import load_backbone, timm_name
from catmorph.recipe import load_recipe
from catmorph.training.fit import refuse_misfits

TINY = "timm/test_resnet"


def backbone_state(name="test_resnet", seed=5):
    torch.manual_seed(seed)
    return {key: value.clone() for key, value in timm.create_model(name).state_dict().items()}


@pytest.fixture(scope="module")
def weights():
    return backbone_state()


@pytest.fixture(scope="module")
def file(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    safetensors.torch.save_file(weights, path)
    return path


def take(source, name=TINY, classes=4, channels=3):
    module = build(name, classes=classes, channels=channels, seed=1)
    return module, load_backbone(module, MODELS.get(name), source)


def test_everything_but_the_last_layer_is_taken(weights, file):
    module, account = take(file)
    fresh = build(TINY, classes=4, channels=3, seed=1).state_dict()
    for name, value in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, fresh[name] if name.startswith("fc.") else weights[name]), name
    assert account.fresh == {"fc": "last layer"}
    assert account.unused == ("fc",)
    numbers = sum(value.numel() for name, value in weights.items()
                  if value.is_floating_point() and not name.startswith("fc."))
    assert account.parameters == numbers
    assert account.report() == [
        f"taken {len(account.taken)} layers, {numbers:,} parameters; fresh: fc (last layer)",
        "not used: 1 layer of the checkpoint: fc",
    ]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_first_convolution_is_adapted_to_the_bands_as_timm_does(weights, file, channels):
    module, account = take(file, channels=channels)
    kernel = weights["conv1.0.weight"]
    if channels == 1:
        wanted = kernel.sum(dim=1, keepdim=True)
    else:
        wanted = torch.stack([kernel[:, band % 3] for band in range(channels)], dim=1) * 3 / channels
    assert torch.allclose(module.conv1[0].weight, wanted)
    assert account.adapted == {"conv1.0": f"3 -> {channels} channels"}
    assert f"adapted: conv1.0 (3 -> {channels} channels)" in account.report()
    assert account.to_card()["adapted"] == account.adapted


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "resnet18.pth"
    # As torchvision: the counters of batch normalisation are not in older files.
    state = {name: value for name, value in backbone_state("resnet18").items() if "num_batches" not in name}
    torch.save(state, path)
    return path, state


def test_each_copy_of_a_twin_takes_the_weights_and_the_joint_matrix_is_fresh(resnet18):
    path, state = resnet18
    module, account = take(path, "twin-resnet18", channels=5)
    for copy in module.copies.children():
        assert torch.equal(copy.conv1.weight, state["conv1.weight"])
        assert torch.equal(copy.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
        assert copy.fc.weight.shape == (4, 512)
    assert account.fresh == dict.fromkeys(("copies.0.fc", "copies.1.fc", "head"), "last layer")
    assert account.unused == ("fc",)
    assert account.adapted == {}


def test_a_pooled_network_takes_what_the_plain_one_takes(file):
    plain, pooled = take(file)[1], take(file, f"{TINY}-d4")[1]
    assert plain == pooled


# A network without numbers shows what is taken; torch warns that nothing is copied.
without_numbers = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter:UserWarning")


@without_numbers
def test_the_dense_layers_behind_a_backbone_are_fresh(tmp_path):
    with torch.device("meta"):
        empty = timm.create_model("resnet50")
    # Zeros without room for them; what is taken is told by the account.
    state = {name: torch.zeros(()).expand(value.shape) for name, value in empty.state_dict().items()}
    torch.save(state, tmp_path / "resnet50.pth")
    with torch.device("meta"):
        module = build("gz2-resnet50-tree")
    account = load_backbone(module, MODELS.get("gz2-resnet50-tree"), tmp_path / "resnet50.pth")
    assert account.fresh == {"dense1": "not in the weights", "dense2": "not in the weights", "head": "last layer"}
    assert account.parameters == 23_508_032 + 53_120


def test_torchvisions_names_of_vgg_are_those_that_timm_reads():
    from timm.models.vgg import _filter_fn

    names = ["features.0.weight", "features.1.running_mean", "classifier.0.bias", "classifier.3.bias",
             "classifier.6.weight", "classifier.6.bias"]  # fmt: skip
    theirs = _filter_fn({name: torch.zeros(1) for name in names})
    assert [timm_name(name) for name in names] == list(theirs)
    assert timm_name("module.features.0.weight") == "features.0.weight"


@without_numbers
def test_dense_layers_become_the_convolutions_of_timms_vgg(tmp_path):
    with torch.device("meta"):
        module = build("vgg19_bn", classes=4)
    state = {}
    for name, value in module.state_dict().items():
        name = name.replace("pre_logits.fc1", "classifier.0").replace("pre_logits.fc2", "classifier.3")
        shape = {"classifier.0.weight": (4096, 25088), "classifier.3.weight": (4096, 4096)}.get(name, value.shape)
        state[name] = torch.zeros(()).expand(shape)
    torch.save({"state_dict": state}, tmp_path / "vgg.pth")
    account = load_backbone(module, MODELS.get("vgg19_bn"), tmp_path / "vgg.pth")
    assert account.fresh == {"head.fc": "last layer"}
    assert {"pre_logits.fc1", "pre_logits.fc2", "features.0"} <= set(account.taken)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch bomb",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"conv1.weight": Bomb()}, protocol=2), "cannot be read as weights: "),
        (b"PK\x03\x04 not a zip at all", "cannot be read as weights: "),
        (b"<html>404</html>", "is a web page or XML, not a file of weights; weights are a .safetensors or .pth file"),
        (b"", "is empty, not a file of weights"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00{", "declares a header"),
    ],
)
def test_other_files_are_refused_and_run_no_code(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        take(tmp_path / "weights.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'weights.pth'}: ")
    assert message in str(caught.value) or "is damaged" in str(caught.value) or "is cut short" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bomb").exists()


def test_weights_of_another_network_or_not_finite_are_refused(tmp_path, weights, file):
    with pytest.raises(CheckpointError, match=r"has no layer in common with convnext_atto, the backbone of timm/"):
        take(file, "timm/convnext_atto")
    with pytest.raises(UsageError, match=r"^backbone: dominguez-narrow holds no backbone of timm; leave it out"):
        take(file, "dominguez-narrow")
    spoiled = dict(weights) | {"conv1.0.weight": weights["conv1.0.weight"] * np.nan}
    torch.save(spoiled, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x.pth: holds NaN or infinity in conv1.0.weight$"):
        take(tmp_path / "x.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list, not layers by name"):
        take(tmp_path / "list.pth")


def test_imagenet_weights_come_through_timms_own_loader_from_its_cache(tmp_path, monkeypatch, weights):
    """The cache of the hub as it lies on disk, with weights of our own in it; without internet as a user may be."""
    tag = timm.get_pretrained_cfg("test_resnet").tag
    repository = tmp_path / f"models--timm--test_resnet.{tag}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    safetensors.torch.save_file(weights, snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    module, account = take("imagenet")
    assert torch.equal(module.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])
    assert account.title == f"timm's test_resnet.{tag}"
    assert account.fresh == {"fc": "last layer"}


def test_without_internet_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CatmorphError) as caught:
        take("imagenet")
    text = str(caught.value)
    assert text.startswith("the weights test_resnet.")
    assert "without internet, copy model.safetensors of https://huggingface.co/timm/test_resnet." in text
    assert text.endswith("here and name it instead of 'imagenet'")
    assert "\n" not in text


def test_a_training_starts_from_a_backbone_and_its_card_says_so(tmp_path, file):
    result = train(section(tmp_path, model=TINY, backbone=str(file), epochs=1))
    assert result.start.fresh == {"fc": "last layer"}
    written = load_card(result.checkpoint).training
    assert written["start"]["title"] == "tiny.safetensors"
    assert written["start"]["adapted"] == {"conv1.0": "3 -> 1 channels"}
    assert "backbone" not in written["settings"]
    scratch = train(section(tmp_path / "scratch", model=TINY, epochs=1))
    assert not np.array_equal(result.test_logits, scratch.test_logits)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        refuse_misfits(recipe(), section(tmp_path, model=TINY, backbone=str(tmp_path / "missing.pth")))
    with pytest.raises(UsageError, match="clash-inception-narrow holds no backbone"):
        refuse_misfits(recipe(), section(tmp_path, backbone="imagenet"))


def test_a_recipe_may_say_imagenet_or_a_path(tmp_path):
    path = write_recipe(tmp_path / "r.toml", "clash", 64, bands=3)
    text = path.read_text()
    for given, wanted in (("imagenet", "imagenet"), ("w.pth", str(tmp_path / "w.pth"))):
        path.write_text(text + f'[training]\nmodel = "resnet18"\noutput = "x"\nbackbone = "{given}"\n')
        assert load_recipe(path).training.backbone == wanted
    assert load_recipe(path, ["training.backbone=imagenet"]).training.backbone == "imagenet"
    with pytest.raises(UsageError, match=r"unknown key, did you mean 'backbone'"):
        load_recipe(path, ["training.backbon=imagenet"])


def test_create_with_a_backbone(tmp_path, file):
    path = write_recipe(tmp_path / "r.toml", "clash", 64, bands=5)
    output = tmp_path / "x.safetensors"
    arguments = ["create", TINY, "-r", str(path), "-o", str(output), "--backbone", str(file)]
    ran = CliRunner().invoke(models, arguments, catch_exceptions=False)
    assert "fresh: fc (last layer)" in ran.output
    assert "adapted: conv1.0 (3 -> 5 channels)" in ran.output
    card = load_card(output)
    assert card.purpose.startswith("UNTRAINED: the weights of a backbone")
    assert card.training["backbone"]["title"] == "tiny.safetensors"
    assert not card.trained
