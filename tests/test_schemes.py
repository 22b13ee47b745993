import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from catmorph import schemes
from catmorph.errors import UsageError
from catmorph.labels import read_labels
from catmorph.labels.aggregate import count_votes, write_labels
from catmorph.labels.votes import read_votes
from catmorph.labels.zooniverse import ExportOptions
from catmorph.recipe import TrainingSection, load_recipe, preset_path
from catmorph.release.layout import build_layout
from catmorph.release.results import answer_names
from catmorph.schemes import load_scheme, scheme_names
from catmorph.training.losses import loss_for, probabilities


@pytest.mark.parametrize("name", scheme_names())
def test_every_scheme_is_complete_and_without_duplicates(name):
    scheme = load_scheme(name)
    assert scheme.title
    assert scheme.reference
    for field in ("name", "code", "label", "title"):
        values = [getattr(one, field) for one in scheme.classes]
        assert all(values)
        assert len(set(values)) == len(values), field
    assert scheme.merger is None or scheme.merger in scheme.class_names


def test_gz2_has_the_answers_of_the_tree_in_their_order():
    # Willett et al. (2013), Table 2: answers of the eleven questions.
    answers = (3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6)
    labels = [f"Class{question}.{k}" for question, count in enumerate(answers, 1) for k in range(1, count + 1)]
    scheme = load_scheme("gz2")
    assert [one.label for one in scheme.classes] == labels
    assert scheme.kind == "sigmoid"
    assert scheme.classes[scheme.index("merger")].label == "Class8.6"
    assert scheme.classes[scheme.index("edge_on_no")].label == "Class2.2"


def test_gz2_has_the_columns_of_the_challenge(real_data):
    with open(real_data / "galaxyzoo" / "kaggle_label_rows.csv", newline="") as file:
        columns = next(csv.reader(file))
    assert [one.label for one in load_scheme("gz2").classes] == columns[1:38]


def test_an_unknown_scheme_names_the_nearest():
    with pytest.raises(UsageError, match=r"^unknown label scheme 'des-disc'; did you mean 'des-disk'\?$"):
        load_scheme("des-disc")


@pytest.fixture
def write_scheme(tmp_path, monkeypatch):
    """Write a scheme file into a folder that holds those of catmorph, too."""
    folder = tmp_path / "schemes"
    folder.mkdir()
    for path in schemes._FOLDER.iterdir():
        if path.name.endswith(".toml"):
            (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(schemes, "_FOLDER", folder)
    load_scheme.cache_clear()
    yield lambda name, text: (folder / f"{name}.toml").write_text(text)
    load_scheme.cache_clear()


WHOLE = """
title = "Mine"
reference = "none"
kind = "softmax"
[[classes]]
name = "one"
code = "1"
label = "one"
title = "first"
"""


@pytest.mark.parametrize(("old", "new", "problem"), [
    ('title = "Mine"\n', "", "title: missing"),
    ('code = "1"\n', "", "classes.0.code: missing"),
    ('code = "1"', "code = 1", "classes.0.code: Input should be a valid string"),
    ('kind = "softmax"', 'kind = "soft"', "kind: Input should be 'softmax', 'sigmoid' or 'tree'"),
    ('kind = "softmax"', 'kind = "softmax"\nmergers = "one"', "mergers: unknown key"),
    ('kind = "softmax"', 'kind = "softmax"\nmerger = "two"', "its merger class 'two' is none of its classes"),
    ('kind = "softmax"', 'kind = "softmax"\nname = "own"', "name: unknown key; a scheme is called as its file"),
])  # fmt: skip
def test_a_scheme_that_is_not_valid_names_the_key(write_scheme, old, new, problem):
    assert old in WHOLE
    write_scheme("mine", WHOLE.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_scheme("mine")
    assert str(caught.value) == f"label scheme 'mine' is not valid: {problem}"


def test_a_scheme_that_is_no_toml(write_scheme):
    write_scheme("mine", WHOLE + "kind")
    with pytest.raises(UsageError, match=r"^label scheme 'mine' is not valid TOML: Expected '='"):
        load_scheme("mine")


def test_schemes_of_the_documentation(write_scheme):
    page = (Path(__file__).parents[1] / "docs" / "labels.md").read_text(encoding="utf-8")
    examples = dict(re.findall(r"```toml\n# (\S+)\.toml\n(.*?)```", page, flags=re.DOTALL))
    assert list(examples) == ["bars", "clusters", "gz2-mine"]
    for name, text in examples.items():
        write_scheme(name, text)
    bars, clusters, mine = map(load_scheme, examples)
    assert bars.tree.parents == (-1, 0)
    np.testing.assert_allclose(bars.probabilities(np.zeros(4)), [0.5, 0.5, 0.25, 0.25])
    assert clusters.class_names == ("cluster", "other")
    assert mine.classes == load_scheme("gz2").classes
    assert mine.tree.reweight == "parent"


def drawn_votes(scheme, people, random):
    """Counts of `people` who answer what the scheme asks at random, shape (class,)."""
    if scheme.tree is None:
        fair = np.full(len(scheme.classes), 1 / len(scheme.classes))
        return random.multinomial(people, fair) if scheme.kind == "softmax" else random.binomial(people, 0.5 + 0 * fair)
    counts = np.zeros(len(scheme.classes), dtype=int)
    for answers, parent in zip(scheme.tree.questions, scheme.tree.parents, strict=True):
        asked = people if parent < 0 else counts[parent]
        counts[list(answers)] = random.multinomial(asked, np.full(len(answers), 1 / len(answers)))
    return counts


def label_table(scheme, counts, people, folder):
    """The label table of these votes: by counting them one by one where one vote is for one class."""
    path, votes = folder / "labels.csv", folder / "votes.csv"
    if scheme.kind == "softmax":
        rows = [(f"s{n}", f"user{n}-{k}-{i}", one.title) for n, row in enumerate(counts)
                for k, one in enumerate(scheme.classes) for i in range(row[k])]  # fmt: skip
        with open(votes, "w", newline="") as file:
            csv.writer(file).writerows([("stamp", "user", "answer"), *rows])
        counted = count_votes(read_votes(votes, scheme, {}, ExportOptions()), scheme, minimum_votes=1)
        write_labels(path, counted, scheme)
    else:
        header = ["ID", *(one.label for one in scheme.classes)]
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([header, *([f"s{n}", *row / people] for n, row in enumerate(counts))])
    return read_labels(path, scheme)


@pytest.mark.parametrize("name", scheme_names())
def test_every_scheme_goes_from_votes_to_columns(name, tmp_path):
    scheme, people, random = load_scheme(name), 60, np.random.default_rng(5)
    counts = np.array([drawn_votes(scheme, people, random) for _ in range(6)])
    table = label_table(scheme, counts, people, tmp_path)
    assert table.names == tuple(f"s{n}" for n in range(6))
    np.testing.assert_allclose(table.fractions, counts / people, atol=1e-7)

    # Logits of the least loss are those of the votes themselves.
    logits = torch.zeros(counts.shape, dtype=torch.float64, requires_grad=True)
    loss = loss_for(TrainingSection(output="x.safetensors"), scheme)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def step():
        optimiser.zero_grad()
        value = loss(logits, torch.tensor(table.fractions), torch.full((6,), float(people)))
        value.backward()
        return value

    optimiser.step(step)
    found = scheme.probabilities(logits.detach().numpy())
    np.testing.assert_allclose(probabilities(logits.detach(), scheme.form).numpy(), found, atol=1e-5)
    wanted = table.fractions
    if scheme.kind == "tree":
        wanted = scheme.tree.chained(scheme.tree.shares(wanted))
    np.testing.assert_allclose(found, wanted, atol=0.01)

    recipe = load_recipe(preset_path("clash"), [f"scheme={name}"])
    layout = build_layout(recipe, None)
    column = {one.source: one for one in layout.columns if one.role == "probability" and one.key.view == "F160W"}
    assert list(column) == list(scheme.class_names)
    assert [one.name for one in column.values()] == [f"F160w_P{one.code}" for one in scheme.classes]
    for text, row in zip(answer_names(scheme, found).to_pylist(), found, strict=True):
        assert len(text) <= scheme.longest_answer
        named = [part for part in text.split("|") if part]
        assert all(name in scheme.class_names for name in named)
        if scheme.kind == "softmax":
            assert named == [scheme.class_names[row.argmax()]]
        elif scheme.kind == "sigmoid":
            assert named == [one for one, p in zip(scheme.class_names, row, strict=True) if p >= 0.5]
        else:
            assert {"odd_yes", "odd_no"} & set(named)


def test_gz2_questions_are_those_of_the_document():
    # The parents by column; Q1 and Q6 are always asked.
    parents = {2: "1.2", 3: "2.2", 4: "2.2", 5: "2.2", 7: "1.1", 8: "6.1", 9: "2.1", 10: "4.1", 11: "4.1"}
    for name in ("gz2", "gz2-tree", "gz2-tree-parent"):
        scheme = load_scheme(name)
        code = {one.name: one.code for one in scheme.classes}
        assert [[code[one].split(".")[0] for one in q.classes] for q in scheme.questions] == [
            [str(number)] * count for number, count in enumerate((3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6), 1)
        ]
        assert {n: code[q.parent] for n, q in enumerate(scheme.questions, 1) if q.parent} == parents
        assert scheme.merger == "merger"
    assert load_scheme("gz2-tree-parent").epsilon == 1e-12


def test_perseus_folds_the_seven_classes():
    visual, folded = load_scheme("perseus-visual"), load_scheme("perseus")
    code = {one.name: one.code for one in visual.classes}
    assert list(code.values()) == list("0123456")
    assert {name: {code[one] for one in several} for name, several in folded.fold.classes.items()} == {
        "background": {"0", "1", "2", "6"}, "member": {"3", "5"}
    }
    assert [code[one] for one in folded.fold.apart] == ["4"]
    assert code[visual.merger] == "4"
    assert (folded.class_names, folded.merger) == (("background", "member"), None)
    assert load_scheme("phangs").class_names == ("symmetric", "asymmetric", "association", "not_cluster")
