"""The questionnaire: eleven questions in a tree, after that of Galaxy Zoo 2 (Willett et al. 2013, Table 2).

A voter begins at the roots, and is asked a question when the answer that it hangs from was given.
"""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A question, its answers, and the answer after which it is asked (None: always)."""

    name: str
    answers: tuple[str, ...]
    parent: str | None


QUESTIONS = (
    Question("shape", ("smooth", "features", "artifact"), None),
    Question("edge_on", ("edge_on_yes", "edge_on_no"), "features"),
    Question("bar", ("bar_yes", "bar_no"), "edge_on_no"),
    Question("spiral", ("spiral_yes", "spiral_no"), "edge_on_no"),
    Question("bulge", ("bulge_none", "bulge_noticeable", "bulge_obvious", "bulge_dominant"), "edge_on_no"),
    Question("odd", ("odd_yes", "odd_no"), None),
    Question("round", ("round_completely", "round_between", "round_cigar"), "smooth"),
    Question("odd_kind", ("ring", "lens", "disturbed", "irregular", "other", "merger", "dust_lane"), "odd_yes"),
    Question("edge_bulge", ("edge_bulge_rounded", "edge_bulge_boxy", "edge_bulge_none"), "edge_on_yes"),
    Question("winding", ("winding_tight", "winding_medium", "winding_loose"), "spiral_yes"),
    Question("arms", ("arms_1", "arms_2", "arms_3", "arms_4", "arms_more", "arms_unknown"), "spiral_yes"),
)

ANSWERS = {answer: question.name for question in QUESTIONS for answer in question.answers}
"""Answer -> its question."""
