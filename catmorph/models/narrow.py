"""Narrow networks, for quick trials, samples and tests; none is published.

Each has less than 120,000 parameters: a checkpoint in float16 takes a quarter of a megabyte.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from catmorph.models import MODELS, ModelSpec
from catmorph.models.backbones import LICENCE, RESNET_STAGES, SMALLEST
from catmorph.models.dominguez import DominguezCnn, DominguezWidths
from catmorph.models.gz2 import Gz2Cnn, Gz2Widths
from catmorph.models.twin import Twin

OWN = "BSD-3-Clause"
NOTES = "not published; for quick experiments and tests"
WIDE, THIN = (16, 24, 40, 64), (12, 16, 24, 40)
"""Channels of the four stages of residual networks: alone, and in each of two copies."""


def _resnet(widths: tuple[int, ...], classes: int, channels: int) -> nn.Module:
    """Build timm's residual network with one block a stage and a stem of three 3x3 convolutions."""
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(
        BasicBlock, (1, 1, 1, 1),  # type: ignore[arg-type]
        num_classes=classes, in_chans=channels, channels=widths, stem_type="deep",
        stem_width=8,
    )  # fmt: skip


MODELS.register("dominguez-narrow")(
    ModelSpec(
        name="dominguez-narrow",
        title="dominguez-cnn with fewer channels",
        builder=partial(
            DominguezCnn, extra_first=True, widths=DominguezWidths((8, 16, 16, 16), 16, (0.1, 0.1, 0.2))
        ),
        stages=MODELS.registered("dominguez-cnn").stages,
        channels=3,
        pixels=69,
        classes=1,
        scheme="des-disk",
        source="dominguez-cnn, narrowed",
        licence=OWN,
        notes=NOTES + "; less dropout",
    )
)
MODELS.register("gz2-narrow")(
    ModelSpec(
        name="gz2-narrow",
        title="gz2-cnn with fewer channels",
        builder=partial(Gz2Cnn, widths=Gz2Widths((16, 24, 24), (40, 32), 0.1)),
        stages=MODELS.registered("gz2-cnn").stages,
        channels=3,
        pixels=64,
        classes=37,
        scheme="gz2",
        source="gz2-cnn, narrowed",
        licence=OWN,
        notes=NOTES + "; less dropout",
    )
)
MODELS.register("resnet-narrow")(
    ModelSpec(
        name="resnet-narrow",
        title="Residual network of 11 layers and few channels",
        builder=partial(_resnet, WIDE),
        stages=RESNET_STAGES,
        channels=3,
        pixels=64,
        classes=5,
        scheme="",
        source="He et al. 2016, as in timm, narrowed",
        licence=LICENCE,
        notes=NOTES + "; for any scheme and number of bands",
        smallest=SMALLEST,
    )
)
MODELS.register("twin-narrow")(
    ModelSpec(
        name="twin-narrow",
        title="Copies of a narrow residual network with three bands each",
        builder=partial(Twin, builder=partial(_resnet, THIN)),
        stages=("copies", "head"),
        channels=5,
        pixels=64,
        classes=4,
        scheme="phangs",
        source="twin-resnet18, narrowed",
        licence=LICENCE,
        notes=NOTES,
        smallest=SMALLEST,
    )
)
