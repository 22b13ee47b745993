"""Cross-validation: other sources validate, the same ones test."""

from __future__ import annotations

import numpy as np
import pytest
from training_data import section, stamps

from catmorph.errors import UsageError
from catmorph.labels import split_sources


def test_folds_validate_with_all_that_is_not_tested_and_test_with_the_same(tmp_path):
    splits = [split_sources(stamps(), section(tmp_path, fold=fold)) for fold in range(4)]
    for split in splits:
        assert split.counts() == {"training": 24, "validation": 8, "test": 8}
        np.testing.assert_array_equal(split.test, splits[0].test)
        together = np.concatenate([split.training, split.validation, split.test])
        np.testing.assert_array_equal(np.sort(together), np.arange(40))
    validated = np.concatenate([split.validation for split in splits])
    np.testing.assert_array_equal(np.sort(validated), np.setdiff1d(np.arange(40), splits[0].test))


def test_a_fold_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^training\.fold: 32 sources that are not tested have no 5 shares of 8"):
        split_sources(stamps(), section(tmp_path, fold=4))
