"""How good a checkpoint is: metrics, figures, calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catmorph.evaluation.numbers import metrics_of
    from catmorph.evaluation.run import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate", "metrics_of"]


def __getattr__(name: str) -> Any:
    # Training needs two of the metrics and not what `evaluate` imports.
    if name == "metrics_of":
        from catmorph.evaluation.numbers import metrics_of

        return metrics_of
    if name in __all__:
        from catmorph.evaluation import run

        return getattr(run, name)
    raise AttributeError(f"module 'catmorph.evaluation' has no attribute {name!r}")
