"""The section of a recipe on training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, StrictBool, field_validator

from catmorph.recipe.base import PathMark, Section, Strings, path_marks

Rotations = StrictBool | Annotated[int, Field(strict=True, ge=2)]
"""Whether to rotate, or the number of angles."""


class TrainingSection(Section):
    """How `catmorph train` makes a checkpoint from labelled stamps of this recipe."""

    model: str = Field("clash-inception", description="architecture, see `catmorph models list`")
    output: Annotated[str, PathMark(looked_for=False)] = Field(
        description="checkpoint to write, relative to the recipe"
    )
    title: str = Field("", description="what the checkpoint is, for its card")
    licence: str = Field("", description="licence of the checkpoint, for its card")
    purpose: str = Field("", description="what it may be used for, for its card")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of split, initialisation and augmentation")
    split_seed: int | None = Field(None, ge=0, description="seed of the split alone, for trainings that differ in "
                                   "`seed` and share their subsets, as members of an ensemble must; default: `seed`")
    validation: float = Field(0.15, gt=0, description="fraction of sources for validation; from 1 on, number of "
                              "stamps (at least, with fold 0; other folds have as many sources)")
    test: float = Field(0.15, gt=0, description="fraction of sources for the test; from 1 on, number of stamps "
                        "(at least)")
    fold: int = Field(0, ge=0, description="which share of the sources that are not tested validates, from 0; the test "
                      "subset stays: members of an ensemble with different folds have all the others to train on")
    test_fields: Strings = Field((), description="fields that are kept for the test, instead of a fraction")
    leave_out: Strings = Field((), description="views whose stamps are tested, but neither trained on nor validated "
                               "with")
    duplicates_arcsec: float = Field(
        0.5, ge=0, description="sources this close to one another, through any field, go to the same subset"
    )
    size: int | None = Field(None, ge=1, description="stamps of the training subset that are used, drawn at random; "
                             "default: all")
    start: Annotated[str | None, PathMark()] = Field(
        None, description="checkpoint whose weights the training starts from"
    )
    backbone: Annotated[str | None, PathMark(words=("imagenet",))] = Field(
        None, description="where training.start names no checkpoint: weights that the network's backbone starts from, "
        "without its last layer: `imagenet` for those that timm fetches, or a file (safetensors, or .pth)"
    )
    freeze_before: str | None = Field(None, description="stage of the network before which no weight is trained")
    epochs: int = Field(100, ge=1, description="epochs at most")
    batches_per_epoch: int = Field(160, ge=1, description="batches an epoch, drawn with replacement")
    batch: int = Field(128, ge=2, description="stamps a batch")
    optimiser: Literal["adam", "sgd"] = Field("adam", description="Adam (beta 0.9, 0.999), or stochastic gradient "
                                              "descent with `momentum`")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: share of the last step that is taken again")
    learning_rate: float = Field(5e-5, gt=0, description="the optimiser's learning rate (one-cycle: its maximum)")
    schedule: Literal["constant", "one-cycle", "plateau", "exponential"] = Field(
        "constant", description="course of the learning rate"
    )
    plateau_factor: float = Field(0.1, gt=0, lt=1, description="plateau: the rate is multiplied by this")
    plateau_patience: int = Field(10, ge=0, description="plateau: epochs without better validation before that")
    plateau_monitor: Literal["loss", "accuracy"] | None = Field(
        None, description="plateau: what has to get better in validation; default: that of `monitor`"
    )
    plateau_least: float = Field(0.0, ge=0, description="plateau: the rate never falls below this")
    decay: float = Field(0.05, gt=0, description="exponential: the rate of epoch t (from 0) is "
                         "learning_rate * exp(-decay * t)")
    monitor: Literal["loss", "accuracy"] = Field(
        "loss", description="what of the validation says which weights are kept and when it stops: the loss, or the "
        "accuracy (share of stamps whose most probable class is the most voted one; with a single class, whose answer "
        "is right)"
    )
    patience: int = Field(35, ge=1, description="epochs without better validation before it stops")
    least_gain: float = Field(0.0, ge=0, description="gain of `monitor` below which validation is no better for "
                              "`patience`")
    loss: Literal["cross-entropy", "rmse", "mse", "binary", "multinomial", "dirichlet"] = Field(
        "cross-entropy", description="cross-entropy, RMSE or mean square error on the vote fractions; binary: "
        "cross-entropy of each class alone; multinomial, dirichlet: likelihood of the votes (labels.votes_column)"
    )
    class_weights: Literal["none", "balanced"] | dict[str, PositiveFloat] = Field(
        "none", description="weight of each class in the loss; balanced: inverse to its mean fraction, of independent "
        "questions the answers yes and no of each; a table: by class name, 1 where it has none"
    )
    average: float = Field(0.0, ge=0, lt=1, description="share of a running average of the weights that stays at each "
                           "step (0.999 goes back over about 1,000 steps); the averaged weights are validated and "
                           "saved; 0: none")
    batch_norm: bool = Field(False, description="batch norms after all layers but the head of a network without any, "
                             "in training only: at the end they become part of the weights")
    dropout: float = Field(1.0, ge=0, le=1, description="factor on the network's own rates of dropout")
    mix: float = Field(0.0, ge=0, description="mix each stamp and its label with another one's; both parameters of the "
                       "Beta distribution of its share; 0: none")
    teachers: Annotated[Strings, PathMark()] = Field(
        (), description="checkpoints, trained with the same stamps, whose mean probabilities of each perturbed stamp "
        "are part of its label"
    )
    teacher_share: float = Field(0.5, gt=0, le=1, description="share of the teachers in a label; the rest is the label "
                                 "of people")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="arithmetic of the training; auto takes bfloat16 where the device has it"
    )
    devices: int = Field(1, ge=1, description="GPUs to train on; they share each batch")
    rotate: Rotations = Field(
        True, description="rotate by any angle; a number of 2 or more: by one of so many evenly spaced angles"
    )
    flip: bool = Field(True, description="mirror in x and y, each with probability 1/2")
    shift_pixels: float = Field(4.0, ge=0, description="shift by up to this many stamp pixels in x and y")
    zoom: tuple[PositiveFloat, PositiveFloat] = Field(
        (1.0, 1.0), description="enlarge the side of what a stamp shows by a factor between these two, drawn anew each "
        "time; below 1 the galaxy grows"
    )
    saved_precision: Literal["float32", "float16"] = Field("float32", description="number format of the weights")

    @field_validator("zoom")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"the first must not be larger than the second, not {list(value)}")
        return value

    @property
    def plateau_watches(self) -> Literal["loss", "accuracy"]:
        """What the plateau schedule looks at."""
        return self.plateau_monitor or self.monitor

    @property
    def division_seed(self) -> int:
        """The seed of the split."""
        return self.seed if self.split_seed is None else self.split_seed


DESCRIPTIVE = {"title", "licence", "purpose", *path_marks(TrainingSection)}
"""Keys that say where or what, and do not change the weights: of files that are read the bytes count."""
