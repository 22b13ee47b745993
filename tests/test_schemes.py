import csv

import pytest

from catmorph.errors import UsageError
from catmorph.schemes import load_scheme, scheme_names


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
