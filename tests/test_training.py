import csv
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from catmorph.errors import CatalogError, CatmorphError, UsageError
from catmorph.evaluation import metrics
from catmorph.inference.predict import Predictor
from catmorph.labels import LabelledStamps, match_labels, read_labels, split_sources, stamp_names
from catmorph.models.checkpoint import load_checkpoint
from catmorph.models.header import load_card
from catmorph.recipe import TrainingSection, load_recipe
from catmorph.schemes import load_scheme
from catmorph.training import fit
from catmorph.training.augment import augment, perturbations, resample

REAL = os.environ.get("CATMORPH_REAL_DATA")
SCHEME = load_scheme("clash")
HEADER = "ID,p_smooth,p_features,p_irregular,p_point_source,p_unclassifiable,votes\n"


def section(**options):
    return TrainingSection(**({"output": "net.safetensors"} | options))


# Label tables


def write_labels(path, text):
    path.write_text(HEADER + text)
    return path


def test_labels_come_in_the_order_of_the_scheme(tmp_path):
    path = tmp_path / "labels.csv"
    header = "p_features,ID,p_smooth,p_unclassifiable,p_irregular,p_point_source\n"
    path.write_text(header + "0.4, a611_f475w_860 ,.6,0,0,0\n")
    table = read_labels(path, SCHEME)
    assert table.names == ("a611_f475w_860",)
    np.testing.assert_allclose(table.fractions, [[0.6, 0.4, 0, 0, 0]], atol=1e-7)
    assert table.fractions.dtype == np.float32
    assert table.votes is None


def test_rounded_fractions_are_scaled_to_1(tmp_path):
    table = read_labels(write_labels(tmp_path / "x", "a,0.33,0.33,0.33,0,0,9\n"), SCHEME, votes_column="votes")
    assert table.fractions.sum() == pytest.approx(1, abs=1e-6)
    assert table.votes.tolist() == [9]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a,1,0,0,0,0,5\nb,.5,.4,0,0,0,5\nc,1,1,0,0,0,5\n",
         "the fractions (p_smooth, p_features, p_irregular, p_point_source, p_unclassifiable) do not sum to 1 "
         "within 0.01 in 2 of 3 rows: row 2, 3"),
        ("".join(f"{i},0,0,0,0,0,5\n" for i in range(9)),
         "the fractions (p_smooth, p_features, p_irregular, p_point_source, p_unclassifiable) do not sum to 1 "
         "within 0.01 in 9 of 9 rows: row 1, 2, 3, 4, 5 ..."),
        ("a,1,0,0,0,0,5\nb,x,0,0,0,0,5\n", "column 'p_smooth' is no number from 0 to 1 in 1 of 2 rows: row 2"),
        ("a,1.5,-.5,0,0,0,5\n", "column 'p_smooth' is no number from 0 to 1 in 1 of 1 rows: row 1"),
        ("a,1,0,0,0,,5\n", "column 'p_unclassifiable' is no number from 0 to 1 in 1 of 1 rows: row 1"),
        ("a,1,0,0,0,0,many\n", "column 'votes' is no number of 0 or more, at most 1e+09 in 1 of 1 rows: row 1"),
        ("a,1,0,0,0,0,5\nb,1,0,0,0,0,5\na,1,0,0,0,0,5\n", "column 'ID' repeats a name in 1 of 3 rows: row 3"),
        (",1,0,0,0,0,5\n", "column 'ID' is empty in 1 of 1 rows: row 1"),
    ],
)
def test_bad_label_tables_name_the_rows(tmp_path, text, wanted):
    path = write_labels(tmp_path / "labels.csv", text)
    with pytest.raises(CatalogError) as caught:
        read_labels(path, SCHEME, votes_column="votes")
    assert str(caught.value) == f"{path}: {wanted}; correct these rows, or leave them out"


def test_a_missing_column_names_the_nearest(tmp_path):
    path = write_labels(tmp_path / "labels.csv", "a,1,0,0,0,0,5\n")
    with pytest.raises(CatalogError, match=r"has no column 'vote'; did you mean 'votes'\?; set labels.votes_column$"):
        read_labels(path, SCHEME, votes_column="vote")
    with pytest.raises(CatalogError, match="no such label table"):
        read_labels(tmp_path / "none.csv", SCHEME)


def test_labels_find_their_stamps(tmp_path):
    rows = ["a611_f475w_860", "a611_f225w_1", *(f"nowhere_f475w_{i}" for i in range(7))]
    table = read_labels(write_labels(tmp_path / "x", "".join(f"{row},1,0,0,0,0,5\n" for row in rows)), SCHEME)
    names = stamp_names(
        "{field}_{view|lower}_{id}", ["a611"] * 4, ["1", "860", "2", "3"], ["F225W", "F475W", "F225W", "F225W"]
    )
    assert names == ["a611_f225w_1", "a611_f475w_860", "a611_f225w_2", "a611_f225w_3"]
    match = match_labels(table, names)
    assert match.stamps.tolist() == [0, 1]
    assert match.labels.tolist() == [1, 0]
    assert match.report() == [
        "7 labels have no stamp: nowhere_f475w_0, nowhere_f475w_1, nowhere_f475w_2, nowhere_f475w_3, nowhere_f475w_4"
        " ...",
        "2 stamps have no label: a611_f225w_2, a611_f225w_3",
    ]


def test_no_label_fits(tmp_path):
    path = write_labels(tmp_path / "labels.csv", "a611_f475w_860,1,0,0,0,0,5\n")
    with pytest.raises(CatalogError) as caught:
        match_labels(read_labels(path, SCHEME), ["A611/860"])
    assert str(caught.value) == (
        f"{path}: no label fits a stamp: labels are named like 'a611_f475w_860', stamps like 'A611/860'; "
        "set labels.stamp"
    )


# Subsets


def stamps_of(fields, ids, views, side=2):
    count = len(fields)
    return LabelledStamps(
        np.zeros((count, 1, side, side), np.float32), np.full((count, 5), 0.2, np.float32),
        np.array(fields, str), np.array(ids, str), np.array(views, str),
    )


def survey(fields=3, sources=20, views=4):
    rows = [(f"f{f}", str(s), f"V{v}") for f in range(fields) for s in range(sources) for v in range(views)]
    return stamps_of(*zip(*rows, strict=True))


def sources_in(data, rows):
    return {(data.fields[row], data.ids[row]) for row in rows}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(10, 40), st.integers(1, 4), st.integers(0, 99))
def test_no_source_is_in_two_subsets_even_through_different_views(fields, sources, views, seed):
    data = survey(fields, sources, views)
    split = split_sources(data, section(seed=seed))
    subsets = [sources_in(data, rows) for rows in (split.training, split.validation, split.test)]
    assert sum(map(len, subsets)) == len(set.union(*subsets)) == fields * sources
    assert sorted(np.concatenate([split.training, split.validation, split.test])) == list(range(len(data)))
    assert len(subsets[1]) == len(subsets[2]) == round(0.15 * fields * sources)


def test_whole_fields_can_be_kept_for_the_test():
    data = survey()
    split = split_sources(data, section(test_fields=["f1"]))
    assert set(data.fields[split.test]) == {"f1"}
    assert split.counts() == {"training": 136, "validation": 24, "test": 80}
    with pytest.raises(UsageError, match=r"^training.test_fields: no labelled stamp is in field nowhere$"):
        split_sources(data, section(test_fields=["nowhere", "f1"]))


def test_the_division_depends_on_the_seed_and_not_on_the_order():
    data = survey()
    order = np.random.default_rng(0).permutation(len(data))
    shuffled = stamps_of(data.fields[order], data.ids[order], data.views[order])
    one, same = (sources_in(d, split_sources(d, section(seed=1)).test) for d in (data, shuffled))
    assert one == same
    assert one != sources_in(data, split_sources(data, section(seed=2)).test)


def test_trainings_of_different_seeds_can_share_their_split():
    data = survey()
    one, other = (split_sources(data, section(seed=seed, split_seed=7, size=60)) for seed in (1, 2))
    alone = split_sources(data, section(seed=7, size=60))
    for name in ("training", "validation", "test"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist() == getattr(alone, name).tolist()


def test_an_empty_subset_is_refused():
    with pytest.raises(UsageError, match=r"^the training subset would be empty: 2 labelled stamps of 2 sources; label"):
        split_sources(survey(1, 2, 1), section(validation=0.5, test=0.5))


# Augmentation


def blobs(count=64, side=40, channels=1):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    blob = torch.exp(-((x - (side - 1) / 2) ** 2 + (y - (side - 1) / 2) ** 2) / 18.0)
    return blob.expand(count, channels, side, side).clone()


def centres(stamps):
    side = stamps.shape[-1]
    axis = torch.arange(side) - (side - 1) / 2
    weight = stamps[:, 0].sum(dim=(1, 2))
    return torch.stack([(stamps[:, 0].sum(dim=d) * axis).sum(dim=1) / weight for d in (1, 2)], dim=1)


def perturb(stamps, seed=0, **options):
    off = {"rotate": False, "flip": False, "shift_pixels": 0.0}
    return augment(stamps, section(**(off | options)), torch.Generator().manual_seed(seed))


def test_nothing_asked_nothing_done():
    stamps = torch.rand(4, 2, 9, 9)
    torch.testing.assert_close(perturb(stamps), stamps, atol=1e-5, rtol=0)


def test_shifts_are_up_to_the_pixels_asked_in_x_and_y():
    moved = centres(perturb(blobs(400), shift_pixels=4.0))
    assert 3.5 < moved.abs().max() <= 4.01
    assert moved.mean(dim=0).abs().max() < 0.5
    assert abs(np.corrcoef(moved.T.numpy())[0, 1]) < 0.2


def test_flips_make_the_four_mirror_images_equally_often():
    stamp = torch.rand(1, 1, 8, 8)
    images = [stamp, stamp.flip(2), stamp.flip(3), stamp.flip(2, 3)]
    flipped = perturb(stamp.expand(400, 1, 8, 8), flip=True)
    found = torch.stack([((flipped - image).abs().amax(dim=(1, 2, 3)) < 1e-4) for image in images])
    assert found.sum(dim=0).tolist() == [1] * 400
    assert found.sum(dim=1).min() > 70


def test_rotation_is_about_the_centre_by_any_angle():
    torch.testing.assert_close(perturb(blobs(), rotate=True), blobs(), atol=0.03, rtol=0)
    off_centre = blobs(500)[:, :, :, 6:].contiguous()[:, :, 3:-3]
    moved = centres(perturb(off_centre, rotate=True))
    radius, angle = moved.norm(dim=1), torch.atan2(moved[:, 1], moved[:, 0])
    torch.testing.assert_close(radius, torch.full((500,), 3.0), atol=0.1, rtol=0)
    assert torch.histc(angle, 4, -np.pi, np.pi).min() > 90


def test_a_number_of_rotations_gives_as_many_angles_evenly_spaced():
    off_centre = blobs(500)[:, :, :, 6:].contiguous()[:, :, 3:-3]
    moved = centres(perturb(off_centre, rotate=5))
    steps = torch.atan2(moved[:, 1], moved[:, 0]) / (2 * np.pi / 5)
    # The blob lies at -x: turned by 180 degrees, half a step.
    places, counts = torch.unique(torch.round(steps - 0.5).long() % 5, return_counts=True)
    assert (steps - 0.5 - torch.round(steps - 0.5)).abs().max() < 0.05
    assert places.tolist() == [0, 1, 2, 3, 4]
    assert counts.min() > 70


def test_the_zoom_is_uniform_between_its_limits():
    widths = torch.sqrt(perturb(blobs(600, side=60), zoom=[0.75, 1.3])[:, 0].sum(dim=(1, 2)))
    factors = torch.sqrt(blobs(1, side=60)[0].sum()) / widths
    assert 0.745 < factors.min() < 0.76
    assert 1.29 < factors.max() < 1.305
    assert torch.histc(factors, 5, 0.75, 1.3).min() > 85
    torch.testing.assert_close(perturb(blobs(), zoom=[1.0, 1.0]), blobs(), atol=1e-5, rtol=0)


def test_new_perturbations_leave_the_draws_of_the_others_as_they_were():
    generator = torch.Generator().manual_seed(8)
    plain = perturbations(5, (21, 21), section(), generator)
    zoomed = perturbations(5, (21, 21), section(zoom=[2.0, 2.0]), generator.manual_seed(8))
    torch.testing.assert_close(zoomed[:, :, :2], 2 * plain[:, :, :2])
    assert torch.equal(zoomed[:, :, 2], plain[:, :, 2])


@pytest.mark.parametrize(("options", "wanted"), [
    ({"zoom": [1.3, 0.75]}, "the first must not be larger than the second, not [1.3, 0.75]"),
    ({"zoom": [0, 1]}, "greater than 0"),
    ({"rotate": 1}, "greater than or equal to 2"),
    ({"optimiser": "lbfgs"}, "'adam' or 'sgd'"),
])  # fmt: skip
def test_perturbations_that_make_no_sense_are_refused(options, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        section(**options)


def test_channels_of_a_stamp_move_together_and_stamps_apart():
    stamps = torch.rand(3, 1, 12, 12).expand(3, 2, 12, 12)
    moved = perturb(stamps, rotate=True, flip=True, shift_pixels=4.0)
    assert torch.equal(moved[:, 0], moved[:, 1])
    same = perturb(stamps[:1].expand(3, 2, 12, 12), rotate=True)
    assert not torch.equal(same[0], same[1])


def test_corners_are_filled_with_sky():
    sky = torch.rand(20, 1, 40, 40) + 1
    assert perturb(sky, rotate=True, shift_pixels=4.0).min() >= 0.999


def test_perturbations_are_those_of_scipy():
    inputs, options = torch.rand(6, 1, 21, 21, dtype=torch.float64), section(shift_pixels=3.0)
    matrices = perturbations(6, (21, 21), options, torch.Generator().manual_seed(8))
    found = resample(inputs, matrices.double()).numpy()
    centre = np.array([10.0, 10.0])
    for stamp, matrix, perturbed in zip(inputs[:, 0].numpy(), matrices.double().numpy(), found[:, 0], strict=True):
        # scipy's axes are y, x; half a stamp side is 10.5 pixels.
        turn = matrix[::-1, 1::-1]
        offset = centre + 10.5 * matrix[::-1, 2] - turn @ centre
        wanted = ndimage.affine_transform(stamp, turn, offset, order=1, mode="reflect")
        np.testing.assert_allclose(perturbed, wanted, atol=1e-6)
        assert np.linalg.det(turn) == pytest.approx(np.sign(np.linalg.det(turn)))


def test_flips_and_quarter_turns_keep_every_pixel():
    stamps = torch.rand(1, 2, 16, 16)
    for turns in range(4):
        c, s = np.cos(turns * np.pi / 2), np.sin(turns * np.pi / 2)
        for flip in (1, -1):
            matrix = torch.tensor([[[c * flip, -s, 0], [s * flip, c, 0]]], dtype=torch.float32)
            found = resample(stamps, matrix)
            images = [torch.rot90(image, k, (2, 3)) for k in range(4) for image in (stamps, stamps.flip(3))]
            assert min((found - image).abs().max() for image in images) < 1e-5


# Metrics


def test_metrics_by_hand():
    predicted = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    fractions = np.array([[0.0, 1.0], [0.5, 0.5], [0.0, 1.0]])
    assert metrics.rmse(predicted, fractions) == pytest.approx(np.sqrt(2.08 / 6))
    assert metrics.authors_rmse(predicted, fractions) == pytest.approx((1 + 0 + 0.2) / 3)
    assert metrics.rmse_by_class(predicted, fractions) == pytest.approx([np.sqrt(1.04 / 3)] * 2)
    assert metrics.confusion(predicted, fractions).tolist() == [[1, 0], [1, 1]]
    assert metrics.mean_label(fractions, 2) == pytest.approx(np.array([[1 / 6, 5 / 6]] * 2))


def test_one_question_alone_is_counted_by_no_and_yes():
    predicted, fractions = np.array([[0.9], [0.2], [0.7], [0.4]]), np.array([[1.0], [0.0], [0.0], [0.8]])
    found = metrics.summary(predicted, fractions, ("bar",))
    assert found["confusion"] == [[1, 1], [1, 1]]
    assert found["accuracy"] == 0.5


def test_the_vote_noise_is_what_repeated_votes_show():
    random = np.random.default_rng(0)
    truth = random.dirichlet(np.ones(5), 4000)
    votes = random.integers(1, 10, 4000)
    fractions = np.stack([random.multinomial(n, p) / n for n, p in zip(votes, truth, strict=True)])
    enough = votes >= 2
    floor, _ = metrics.vote_noise(fractions, votes)
    assert floor == pytest.approx(metrics.rmse(truth[enough], fractions[enough]), rel=0.03)
    assert np.isnan(metrics.vote_noise(fractions, 1)).all()


@pytest.mark.skipif(not REAL, reason="CATMORPH_REAL_DATA is not set")
@pytest.mark.parametrize(
    ("name", "rows", "votes", "baseline", "floor"),
    [("CANDELS", 7567, 5, (0.2352, 0.2125), (0.139, 0.124)), ("CLASH", 1600, 7, (0.2958, 0.2772), (0.098, 0.080))],
)
def test_public_label_tables(name, rows, votes, baseline, floor):
    table = read_labels(Path(REAL) / "clash" / f"{name}_labels.csv", SCHEME)
    assert len(table) == rows
    mean = metrics.mean_label(table.fractions, rows)
    found = metrics.rmse(mean, table.fractions), metrics.authors_rmse(mean, table.fractions)
    assert found == pytest.approx(baseline, abs=6e-5)
    assert metrics.vote_noise(table.fractions, votes) == pytest.approx(floor, abs=1e-3)


# Training


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("configs/clash.toml")


@pytest.fixture(scope="module")
def data():
    return leveled(30)


def leveled(count):
    """Return noise on a level that tells the class."""
    random = np.random.default_rng(3)
    kinds = np.arange(count) % 5
    inputs = random.normal(0, 0.1, (count, 1, 80, 80)) + kinds[:, None, None, None] / 5
    fractions = 0.9 * np.eye(5)[kinds] + 0.02
    return LabelledStamps(
        inputs.astype(np.float32), fractions.astype(np.float32), np.array(["a"] * count),
        np.arange(count).astype(str), np.array(["F160W"] * count), np.full(count, 7.0),
    )


def short(path, **options):
    """A training of 2 epochs of 2 batches of 4 stamps."""
    small = {"epochs": 2, "batches_per_epoch": 2, "batch": 4, "learning_rate": 1e-3, "validation": 0.1, "test": 0.2,
             "seed": 5, "output": str(path / "net.safetensors")}
    return section(**(small | options))


def train(data, recipe, settings, **options):
    return fit.train(data, recipe, settings, device="cpu", threads=1, progress=False, **options)


@pytest.fixture(scope="module")
def trained(data, recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained")
    torch.manual_seed(1)
    result = train(data, recipe, short(path, schedule="one-cycle", saved_precision="float16"), log_dir=path / "log")
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    return result


def test_the_card_tells_the_test_result_of_the_weights(data, recipe, trained):
    opened = load_checkpoint(trained.checkpoint)
    assert opened.card == trained.card
    assert opened.card.training["stamps"] == {"training": 21, "validation": 3, "test": 6}
    assert opened.card.views == ("F160W",)
    test = split_sources(data, short(trained.checkpoint.parent)).test
    predictor = Predictor(opened, device="cpu", precision="float32", batch=16)
    predicted = SCHEME.probabilities(predictor.logits(data.inputs[test]))
    assert trained.metrics["rmse"] == pytest.approx(metrics.rmse(predicted, data.fractions[test]), abs=2e-6)
    assert trained.metrics["confusion"] == metrics.confusion(predicted, data.fractions[test]).tolist()
    assert {"rmse_authors", "rmse_by_class", "mean_label_rmse", "vote_noise_rmse"} <= trained.metrics.keys()


def test_the_learning_curve_has_a_row_an_epoch(trained):
    assert trained.curve == trained.checkpoint.with_suffix(".curve.csv")
    with open(trained.curve) as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "learning_rate", "training_loss", "validation_loss", "validation_rmse",
                             "training_accuracy", "validation_accuracy"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    losses = [float(row["validation_loss"]) for row in rows]
    assert trained.best_epoch == 1 + int(np.argmin(losses))


def test_the_best_weights_so_far_are_kept_and_the_state_is_not(trained):
    folder = trained.checkpoint.parent / "log"
    assert [one.name for one in folder.iterdir()] == ["best.safetensors"]
    assert load_card(folder / "best.safetensors").training["best_epoch"] == trained.best_epoch


def test_an_interrupted_training_goes_on_to_the_same_bytes(data, recipe, trained, tmp_path, monkeypatch):
    settings = short(tmp_path, schedule="one-cycle", saved_precision="float16")
    calls = []

    def interrupt(path, content, write=fit.write_bytes):
        calls.append(path)
        write(path, content)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(data, recipe, settings, log_dir=tmp_path / "log")
    assert not Path(settings.output).exists()
    assert len(list((tmp_path / "log").glob("resume-*.ckpt"))) == 1
    result = train(data, recipe, settings, log_dir=tmp_path / "log")
    assert len(calls) == 3  # the curve after each epoch, and at the end
    assert result.checkpoint.read_bytes() == trained.checkpoint.read_bytes()
    assert result.curve.read_bytes() == trained.curve.read_bytes()


def test_it_stops_when_patience_ends(data, recipe, tmp_path):
    settings = short(tmp_path, epochs=6, patience=1, learning_rate=0.5, batches_per_epoch=1, loss="rmse")
    result = train(data, recipe, settings)
    assert result.best_epoch < result.epochs < 6


def test_a_loss_that_is_never_finite_is_told(data, recipe, tmp_path):
    settings = short(tmp_path, learning_rate=1e30, batches_per_epoch=1, epochs=1)
    wanted = ("the validation loss is nan after epoch 1; stamps: a_F160W_10, a_F160W_17, a_F160W_26; no epoch was "
              "finished before; lower training.learning_rate, or look at these stamps")
    with pytest.raises(CatmorphError, match=f"^{wanted}$"):
        train(data, recipe, settings)


def test_stamps_that_are_not_finite_are_refused(data, recipe, tmp_path):
    inputs = data.inputs.copy()
    inputs[[2, 9], 0, 0, 0] = np.nan
    spoilt = LabelledStamps(inputs, data.fractions, data.fields, data.ids, data.views)
    wanted = "2 of 30 stamps hold NaN or infinity: a_F160W_2, a_F160W_9; leave out blocked stamps"
    with pytest.raises(UsageError, match=f"^{wanted}$"):
        train(spoilt, recipe, short(tmp_path))


def test_rows_must_agree(data):
    with pytest.raises(ValueError, match=r"^ids has 29 rows, inputs has 30$"):
        LabelledStamps(data.inputs, data.fractions, data.fields, data.ids[1:], data.views)


def test_without_lightning_it_says_what_to_install(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(UsageError, match=r"^training needs Lightning; pip install 'catmorph\[train\]'$"):
        train(data, recipe, short(tmp_path))


@pytest.mark.slow
def test_it_learns(recipe, tmp_path):
    # Of other seeds too: the running statistics of the batch norms need some hundred steps.
    settings = short(tmp_path, model="clash-inception-narrow", epochs=20, batches_per_epoch=40, batch=8,
                     learning_rate=3e-3)  # fmt: skip
    result = train(leveled(200), recipe, settings)
    assert result.metrics["rmse"] < 0.6 * result.metrics["mean_label_rmse"]
