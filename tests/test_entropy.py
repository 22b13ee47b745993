"""The histogram of entropies, of an evaluation and of a release."""

from __future__ import annotations

import numpy as np
import pytest
from release_run import clash, galaxies, given, write_run

from catmorph.report import entropy as module
from catmorph.report.entropy import draw_entropies, entropies_of, joined
from catmorph.report.release_figures import draw_release
from catmorph.schemes import load_scheme

P = np.array([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.9, 0.1], [np.nan] * 4])


def figure_of(found, monkeypatch):
    """Return the figure itself, and the caption."""
    drawn = []
    monkeypatch.setattr(module, "drawing", lambda key, title, caption, draw: drawn.append((key, caption, draw())))
    draw_entropies(found, "stamps")
    return drawn[0]


def test_the_entropy_of_four_classes(monkeypatch):
    """Star clusters of four classes: at most 2 bits, or ln 4 = 1.39 nats as Wei et al. (2020) have it."""
    found = entropies_of(load_scheme("phangs"), P)
    np.testing.assert_allclose(found.bits, [2, 0, 1, -0.9 * np.log2(0.9) - 0.1 * np.log2(0.1), np.nan])
    assert found.predicted.tolist() == [0, 0, 0, 2, -1]
    assert found.maximum == 2
    key, caption, figure = figure_of(found, monkeypatch)
    axes = figure.axes[0]
    assert (key, axes.get_xlabel()) == ("entropy", "Shannon entropy (bits)")
    (nats,) = axes.child_axes
    figure.draw_without_rendering()
    assert nats.get_xlabel() == "nats"
    np.testing.assert_allclose(nats.get_xlim(), np.array(axes.get_xlim()) * np.log(2))
    assert "maximum, 2 bits or 1.39 nats" in caption
    assert "1 stamps have no probabilities" in caption
    counts = {patch.get_label(): patch.get_data().values for patch in axes.patches}
    assert counts["all (4)"].sum() == 4
    assert counts["all (4)"][[0, -1]].tolist() == [1, 1]  # the sure one, and the one that knows nothing
    assert sum(values.sum() for values in counts.values()) == 8


@pytest.mark.parametrize(("scheme", "classes", "maximum"), [("des-bar", 1, 1.0), ("gz2-tree", 37, None)])
def test_questions_and_trees(scheme, classes, maximum):
    found = entropies_of(load_scheme(scheme), np.full((3, classes), 0.5))
    assert found.maximum == maximum
    assert np.isfinite(found.bits).all()
    drawn = draw_entropies(found, "stamps", "-x")
    assert (drawn.key, drawn.png[:4], drawn.pdf[:4]) == ("entropy-x", b"\x89PNG", b"%PDF")
    assert drawn == draw_entropies(joined([found]), "stamps", "-x")


def test_a_release_is_drawn_with_the_entropies_of_its_sources(tmp_path, monkeypatch):
    recipe = clash("evaluation.entropy=true", 'bands.names=["F160W"]')
    shares = np.array([[0.2] * 5, [0.96, 0.01, 0.01, 0.01, 0.01], [0.5, 0.5, 0, 0, 0]])
    run = write_run(tmp_path, recipe, [galaxies(3)], given([0, 0, 0], np.clip(shares, 1e-6, 1)))
    drawn = []
    monkeypatch.setattr("catmorph.report.release_figures.draw_entropies",
                        lambda found, *names: drawn.append(found) or draw_entropies(found, *names))  # fmt: skip
    assert [path.name for path in draw_release(run)] == ["entropy.png", "entropy.pdf"]
    sure = -0.96 * np.log2(0.96) - 0.04 * np.log2(0.01)
    np.testing.assert_allclose(drawn[0].bits, [np.log2(5), sure, 1.0], atol=1e-3)
