"""Starting from the weights of a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from training_data import recipe, section, stamps, train

from catmorph.errors import CheckpointError, UsageError
from catmorph.models import build
from catmorph.models.card import card_for
from catmorph.models.checkpoint import load_checkpoint, save_checkpoint
from catmorph.models.header import load_card
from catmorph.training.transfer import transfer

NARROW = "clash-inception-narrow"


def make(path, *, of=None, model=NARROW, channels=1, outputs=5, trained=True, change=None, **card):
    of = of or recipe()
    module = build(model, classes=outputs, channels=channels, seed=77)
    if change:
        change(module)
    training = {"trained": trained}
    made = card_for(of, model, channels=channels, title="pre-trained", training=training)
    save_checkpoint(path, module, made.model_copy(update=card))
    return path


def without_head(card_classes):
    return {"scheme": "other", "classes": card_classes}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return make(tmp_path_factory.mktemp("start") / "start.safetensors")


def moved(path, module):
    return transfer(module, recipe(), NARROW, path)


def test_everything_is_taken_where_everything_fits(start):
    module = build(NARROW, seed=1)
    found = moved(start, module)
    state = module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in load_checkpoint(start).state.items())
    layers = {name.rpartition(".")[0] for name in state}
    assert set(found.taken) == layers
    numbers = sum(value.numel() for value in state.values() if value.is_floating_point())
    assert found.report() == [f"taken {len(layers)} layers, {numbers:,} parameters; fresh: nothing"]
    assert found.warnings == ()


def test_the_head_is_new_where_the_classes_differ(tmp_path):
    three = make(tmp_path / "three", outputs=3, **without_head(("a", "b", "c")))
    module, before = build(NARROW, seed=1), build(NARROW, seed=1)
    found = moved(three, module)
    assert found.fresh == {"head": "3 -> 5 classes"}
    assert found.report()[0].endswith("fresh: head (3 -> 5 classes)")
    assert torch.equal(module.head.weight, before.head.weight)
    assert not torch.equal(module.dense2.weight, before.dense2.weight)
    renamed = make(tmp_path / "renamed", **without_head(tuple("abcde")))
    assert moved(renamed, build(NARROW, seed=1)).fresh == {"head": "other classes"}


def test_the_first_layer_is_new_where_the_channels_differ(tmp_path):
    module = build(NARROW, channels=1, seed=1)
    found = moved(make(tmp_path / "x", channels=3), module)
    assert found.fresh == {"conv1.conv": "3 -> 1 channels"}


def test_nothing_in_common_is_an_error(tmp_path):
    wide = make(tmp_path / "wide", model="clash-inception", **without_head(tuple("abcde")))
    with pytest.raises(CheckpointError, match=r"has no layer in common with clash-inception-narrow \(it is a "
                                              r"clash-inception\); start from a checkpoint of the same architecture"):
        moved(wide, build(NARROW, seed=1))


def test_layers_without_a_place_are_told(tmp_path, start):
    tensors = safetensors.torch.load_file(start)
    tensors["extra.weight"] = torch.zeros(3)
    del tensors["conv3.conv.bias"]
    path = tmp_path / "x"
    from catmorph.models.header import METADATA_KEY, card_text

    path.write_bytes(safetensors.torch.save(tensors, {METADATA_KEY: card_text(load_card(start))}))
    found = moved(path, build(NARROW, seed=1))
    assert found.fresh == {"conv3.conv": "other parts"}
    assert found.report()[1] == "not used: 1 layer of the checkpoint: extra"


def test_weights_that_are_not_finite_are_refused(tmp_path):
    def spoil(module):
        module.dense1.weight.data[0, 0] = np.nan

    with pytest.raises(CheckpointError, match=r"holds NaN or infinity in dense1.weight$"):
        moved(make(tmp_path / "x", change=spoil), build(NARROW, seed=1))


def test_other_stamps_are_told_and_kept_in_the_card(tmp_path):
    of = recipe()
    other = of.model_copy(update={"stamp": of.stamp.model_copy(update={"side": "6 radii"}),
                                  "normalise": of.normalise.model_copy(update={"method": "bytescale"})})
    path = make(tmp_path / "x", of=other, trained=False)
    result = train(section(tmp_path, start=str(path), epochs=1))
    lines = [
        "the weights of the checkpoint were never trained",
        "stamp.side is 6 radii in the checkpoint, 4 radii in the recipe",
        f"normalise.method is bytescale in the checkpoint, {of.normalise.method} in the recipe",
    ]
    assert list(result.start.warnings)[:3] == lines
    written = load_card(result.checkpoint).training
    assert written["start"]["differences"][:3] == lines
    assert written["start"]["title"] == "pre-trained"
    assert written["start"]["sha256"] == load_checkpoint(path).digest
    assert str(tmp_path) not in str(written)


def test_frozen_stages_stay_bit_for_bit(tmp_path, start):
    result = train(section(tmp_path, start=str(start), freeze_before="inception3", learning_rate=0.01))
    before, after = load_checkpoint(start).state, load_checkpoint(result.checkpoint).state
    frozen = {"conv1", "conv2", "inception1", "inception2"}
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert not {name for name in changed if name.partition(".")[0] in frozen}
    trained = {name for name in before if name.partition(".")[0] not in frozen}
    still = {name for name in trained - changed if not name.endswith("num_batches_tracked")}
    # A bias of a ReLU that never fires has no gradient; weights and running statistics all move.
    assert not {name for name in still if name.endswith(("running_mean", "running_var"))}
    assert len(still) < 0.2 * len(trained)


def test_freezing_needs_weights_to_freeze(tmp_path, start):
    for options, wanted in [
        ({"freeze_before": "conv2"}, "training.freeze_before: without training.start the frozen layers would keep "
         "their random weights; set training.start, or train all stages"),
        ({"freeze_before": "inception33", "start": str(start)}, f"training.freeze_before: {NARROW} has no stage "
         "'inception33'; did you mean 'inception3'?"),
        ({"freeze_before": "conv2", "start": str(make(tmp_path / "x", channels=2))},
         "training.freeze_before: conv1.conv would be frozen with random weights: not taken from the checkpoint; "
         "freeze less"),
    ]:
        with pytest.raises(UsageError) as caught:
            train(section(tmp_path / "out", **options))
        assert str(caught.value) == wanted


def test_a_training_goes_on_only_with_the_same_start(tmp_path, start):
    one = train(section(tmp_path / "one", start=str(start), epochs=1))
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(start.read_bytes())
    two = train(section(tmp_path / "two", start=str(copy), epochs=1))
    scratch = train(section(tmp_path / "three", epochs=1))
    assert one.checkpoint.read_bytes() == two.checkpoint.read_bytes()
    assert not np.array_equal(one.test_logits, scratch.test_logits)
    assert len(stamps()) == 40
