"""Weights of a backbone, such as those trained on ImageNet, as the start of a network.

They come from timm, which fetches and keeps them, or from a file. Nothing in a file is run.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from catmorph.errors import CatmorphError, CheckpointError, UsageError, listed
from catmorph.files import digest
from catmorph.models import ModelSpec
from catmorph.models.account import Transfer, by_layer, shape_in_words
from catmorph.models.header import kind_of_file, open_checkpoint, read_header

IMAGENET = "imagenet"
TORCHVISION_VGG = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
"""torchvision's name of a dense layer of VGG -> timm's, where it is a convolution. Names of ResNets are the same."""
COUNTER = "num_batches_tracked"
"""Part of a batch normalisation that older files lack; it decides nothing."""
WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the weights."""
NETWORK_LIBRARIES = ("httpx", "httpx2", "requests", "urllib3", "huggingface_hub")
HINT = "weights are a .safetensors or .pth file with timm's names, or torchvision's of ResNet and VGG"


def load_backbone(module: nn.Module, spec: ModelSpec, source: str | Path) -> Transfer:
    """Put the weights of timm's network ``spec.backbone`` into `module`, into each copy where it holds several.

    The last layer stays as it was initialised. A first convolution with another number of channels is adapted as
    timm does: the three colours are summed for one channel, else repeated in turn and scaled by 3 / channels.

    Parameters
    ----------
    module : nn.Module
        A freshly built network of `spec`; changed in place.
    source : str or path
        ``imagenet`` for the weights that timm takes by default, which are fetched when they are not in its cache; or a
        file: safetensors, or what ``torch.save`` wrote of a state.

    Returns
    -------
    Transfer
        What was taken, adapted and not; counted by layer, those of copies each.

    Raises
    ------
    UsageError
        When the network holds no backbone, or timm has no weights for it.
    CheckpointError
        When the file is none of weights, a layer holds NaN or infinity, or not one layer fits.
    CatmorphError
        When the weights cannot be fetched.
    """
    settings = _settings(spec)
    title, sha256, weights = _fetch(spec, settings) if str(source) == IMAGENET else _read(Path(source))
    bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"holds NaN or infinity in {listed(bad)}", where=source)
    theirs = by_layer(weights)
    parts: dict[str, nn.Module] = getattr(module, "parts", {"": module})
    taking = _Taking(theirs, settings, spec)
    for prefix, part in parts.items():
        taking.take(f"{prefix}." if prefix else "", part.state_dict())
    for layer in by_layer(module.state_dict()):
        if layer not in taking.state and layer not in taking.fresh:
            taking.fresh[layer] = "last layer" if layer == spec.stages[-1] else "no part of the backbone"
    if not taking.state:
        raise CheckpointError(f"has no layer in common with {spec.backbone}, the backbone of {spec.name}",
                              where=source, hint=HINT)
    state = {name: value for layer in taking.state.values() for name, value in layer.items()}
    module.load_state_dict(state, strict=False)
    mine = {layer for part in parts.values() for layer in by_layer(part.state_dict())}
    return Transfer(
        title=title, sha256=sha256, taken=tuple(taking.state),
        parameters=sum(value.numel() for value in state.values() if value.is_floating_point()),
        fresh=taking.fresh, adapted=taking.adapted,
        unused=tuple(layer for layer in theirs if layer not in mine or taking.is_last(layer)),
    )


def refuse_bad_source(spec: ModelSpec, source: str | Path) -> None:
    """Find what `load_backbone` would refuse, as far as that is told without fetching or reading the weights."""
    _settings(spec)
    if str(source) != IMAGENET:
        with open_checkpoint(Path(source)) as file:
            _format(file.read(16), Path(source))


class _Taking:
    """Collects what is taken: layer of the network -> its tensors by full name."""

    def __init__(self, theirs: Mapping[str, dict[str, Tensor]], settings: Any, spec: ModelSpec):
        self.theirs, self.spec, self.last = theirs, spec, settings.classifier
        first = settings.first_conv
        self.first = (first,) if isinstance(first, str) else tuple(first or ())
        self.state: dict[str, dict[str, Tensor]] = {}
        self.fresh: dict[str, str] = {}
        self.adapted: dict[str, str] = {}

    def is_last(self, layer: str) -> bool:
        """Whether a layer of the backbone gives ImageNet's classes."""
        return layer == self.last or layer.startswith(f"{self.last}.")

    def take(self, prefix: str, state: dict[str, Tensor]) -> None:
        """Take what fits into a backbone whose layers are called `prefix` + timm's name."""
        for layer, mine in by_layer(state).items():
            found = self._fitting(prefix, layer, mine)
            if isinstance(found, str):
                self.fresh[prefix + layer] = found
            else:
                self.state[prefix + layer] = {prefix + name: value for name, value in found.items()}

    def _fitting(self, prefix: str, layer: str, mine: dict[str, Tensor]) -> dict[str, Tensor] | str:
        """Return the tensors of a layer, or why it cannot be taken."""
        if self.is_last(layer):
            return "last layer"
        if layer not in self.theirs:
            return "last layer" if layer.partition(".")[0] == self.spec.stages[-1] else "not in the weights"
        theirs = {name: value for name, value in self.theirs[layer].items() if not name.endswith(COUNTER)}
        mine = {name: value for name, value in mine.items() if not name.endswith(COUNTER)}
        if mine.keys() != theirs.keys():
            return "other parts"
        taken = {}
        for name, value in theirs.items():
            wanted = mine[name]
            channels = value.ndim == wanted.ndim == 4 and (value.shape[1], wanted.shape[1])
            if layer in self.first and channels and channels[0] != channels[1]:
                self.adapted[prefix + layer] = f"{channels[0]} -> {channels[1]} channels"
                value = _adapt(value, wanted.shape[1])
            elif value.ndim == 2 and wanted.ndim == 4 and value.numel() == wanted.numel():
                value = value.reshape(wanted.shape)
            if value.shape != wanted.shape:
                return f"{shape_in_words(value)} -> {shape_in_words(wanted)}"
            taken[name] = value
        return taken


def _adapt(kernel: Tensor, channels: int) -> Tensor:
    from timm.models import adapt_input_conv

    return adapt_input_conv(channels, kernel, base_chans=kernel.shape[1])


def _settings(spec: ModelSpec) -> Any:
    if not spec.backbone:
        raise UsageError(f"{spec.name} holds no backbone of timm", where="backbone",
                         hint="leave it out, or take a network such as resnet18, gz2-resnet50 or twin-resnet18")
    import timm

    settings = timm.get_pretrained_cfg(spec.backbone)
    if settings is None:
        raise UsageError(f"timm does not say which layers of {spec.backbone} are the first and the last",
                         where="backbone", hint="leave it out")
    return settings


def _fetch(spec: ModelSpec, settings: Any) -> tuple[str, str, dict[str, Tensor]]:
    """Return title, digest and weights of timm's default weights, from its cache or the network."""
    import timm

    if not settings.has_weights:
        raise UsageError(f"timm has no weights of {spec.backbone}", hint="name a file of weights")
    title = f"{spec.backbone}.{settings.tag}" if settings.tag else spec.backbone
    try:
        state = timm.create_model(spec.backbone, pretrained=True).state_dict()
    except Exception as error:
        # Which errors a download ends with is the matter of the library that timm fetches with.
        known = isinstance(error, OSError | RuntimeError | ValueError | SafetensorError)
        if not known and type(error).__module__.partition(".")[0] not in NETWORK_LIBRARIES:
            raise
        raise CatmorphError(
            f"the weights {title} cannot be fetched: {_first_sentence(error)}",
            hint=f"without internet, copy model.safetensors of https://huggingface.co/timm/{title} here and name it "
            f"instead of {IMAGENET!r}",
        ) from error
    # timm does not say which file it took; the same weights give the same digest.
    return f"timm's {title}", hashlib.sha256(safetensors.torch.save(state)).hexdigest(), state


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__


def _read(path: Path) -> tuple[str, str, dict[str, Tensor]]:
    """Return name, sha256 and weights (float32) of a file."""
    with open_checkpoint(path) as file:
        kind = _format(file.read(16), path)
        file.seek(0)
        if kind == "safetensors":
            read_header(file, path)
    try:
        state = (safetensors.torch.load_file(path) if kind == "safetensors"
                 else torch.load(path, map_location="cpu", weights_only=True))
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, OSError,
            pickle.UnpicklingError) as error:
        raise CheckpointError(f"cannot be read as weights: {_first_sentence(error)}", where=path, hint=HINT) from error
    return path.name, digest(path), _clean(state, path)


def _format(start: bytes, path: Path) -> str:
    if start[8:9] == b"{":
        return "safetensors"
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return "torch"
    kind = kind_of_file(start, path.stat().st_size)
    raise CheckpointError(f"is {kind}, not a file of weights", where=path, hint=HINT)


def _clean(state: Any, path: Path) -> dict[str, Tensor]:
    """Return the weights of a state as float32, with timm's names."""
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise CheckpointError(f"holds a {type(state).__name__}, not layers by name", where=path, hint=HINT)
    weights = {str(name): value for name, value in state.items() if isinstance(value, Tensor) and not value.is_sparse}
    if not weights:
        raise CheckpointError("holds no layers by name", where=path, hint=HINT)
    return {timm_name(name): value.float() if value.is_floating_point() else value for name, value in weights.items()}


def timm_name(name: str) -> str:
    """Return timm's name of a tensor; those of torchvision's VGG and of parallel training are known."""
    name = name.removeprefix("module.")
    layer, dot, part = name.rpartition(".")
    return TORCHVISION_VGG.get(layer, layer) + dot + part
