"""Networks of timm: residual networks and VGG19 by their names, any other one as ``timm/NAME``.

Nothing is downloaded here; weights trained on ImageNet are the matter of `catmorph.models.pretrained`.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import nn

from catmorph.errors import UsageError, suggest
from catmorph.models import MODELS, ModelSpec
from catmorph.models.symmetry import pooled

PREFIX = "timm/"
SMALLEST = 32
"""Pixels: the networks of timm halve their maps five times."""
IMAGENET_CLASSES = 1000
LICENCE = "Apache-2.0 (timm's code; weights have licences of their own)"
RESNET_STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
BACKBONES = {
    "resnet18": ("Residual network of 18 layers", "He et al. 2016, as in timm", RESNET_STAGES),
    "resnet34": ("Residual network of 34 layers", "He et al. 2016, as in timm", RESNET_STAGES),
    "resnet50": ("Residual network of 50 layers", "He et al. 2016, as in timm", RESNET_STAGES),
    "vgg19_bn": ("VGG network of 19 layers with batch normalisation", "Simonyan & Zisserman 2015, as in timm",
                 ("features", "pre_logits", "head")),
}  # fmt: skip
"""timm's name -> title, source, stages of the networks that have a name of their own here."""


def create(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    """Build timm's network `name`, freshly initialised; ``options`` go to ``timm.create_model``."""
    # timm takes seconds to import.
    import timm

    return timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **options)


def _builder(name: str, classes: int, channels: int) -> nn.Module:
    return create(name, classes, channels)


for _name, (_title, _source, _stages) in BACKBONES.items():
    MODELS.register(_name)(
        ModelSpec(
            name=_name,
            title=_title,
            builder=partial(_builder, _name),
            stages=_stages,
            channels=3,
            pixels=224,
            classes=IMAGENET_CLASSES,
            scheme="",
            source=_source,
            licence=LICENCE,
            notes="for any scheme and number of bands",
            smallest=SMALLEST,
            backbone=_name,
            narrow="resnet-narrow",
        )
    )
MODELS.register("resnet18-d4")(pooled(MODELS.registered("resnet18")))


@MODELS.family
@cache
def timm_spec(name: str) -> ModelSpec | None:
    """Return timm's network ``timm/NAME``; None for other names.

    Its stages are its children with parameters, the one with the last dense layer at the end.

    Raises
    ------
    UsageError
        When timm has no network of that name (the nearest is named), or it does not answer with one head.
    """
    if not name.startswith(PREFIX):
        return None
    import timm

    own, names = name.removeprefix(PREFIX), timm.list_models()
    # Only names of the list: timm would also load networks that are named by a folder or a web address.
    if own not in names:
        hint = suggest(own, names).replace("did you mean '", f"did you mean '{PREFIX}")
        raise UsageError(f"unknown model {name!r}", where="timm", hint=hint)
    with torch.device("meta"):
        module = create(own, IMAGENET_CLASSES, 3)
    settings: dict[str, Any] = module.default_cfg  # type: ignore[assignment]
    return ModelSpec(
        name=name,
        title=f"timm's {own}",
        builder=partial(_builder, own),
        stages=_stages_of(module, name, settings.get("classifier")),
        channels=3,
        pixels=settings["input_size"][-1],
        classes=IMAGENET_CLASSES,
        scheme="",
        source=f"timm {timm.__version__}",
        licence=LICENCE,
        notes="for any scheme and number of bands",
        smallest=None if settings.get("fixed_input_size") else _smallest(module),
        backbone=own,
        narrow="resnet-narrow",
    )


def _stages_of(module: nn.Module, name: str, classifier: Any) -> tuple[str, ...]:
    if not isinstance(classifier, str):
        raise UsageError(f"{name} cannot be used: it has not one last layer but {classifier!r}", where="timm")
    head = classifier.partition(".")[0]
    names = [child for child, layer in module.named_children() if any(True for _ in layer.parameters())]
    if head not in names:
        raise UsageError(f"{name} cannot be used: its last layer {classifier!r} is no stage of it", where="timm")
    return (*(child for child in names if child != head), head)


def _smallest(module: nn.Module) -> int:
    """Return the smallest of 32, 64, 96 ... pixels that the network takes; nothing is computed on the meta device."""
    for pixels in range(SMALLEST, 513, SMALLEST):
        try:
            module.eval()(torch.zeros(1, 3, pixels, pixels, device="meta"))
        except (RuntimeError, ValueError, AssertionError):
            continue
        return pixels
    raise UsageError(f"{type(module).__name__} takes no stamps of up to 512 pixels", where="timm")
