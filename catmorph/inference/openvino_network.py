"""A network on the processor through OpenVINO, which fuses layers: half as fast again as torch, or more."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from catmorph.errors import UsageError

_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
"""float32 throughout, and all threads on one batch."""

_TRACED = 2
"""Stamps that tracing sees."""


class OpenVinoNetwork:
    """A network for one fixed shape of batches: stamps in, logits out; it is compiled when the first batch comes.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the processor.
    shape : tuple of int
        (batch, channel, y, x).

    Raises
    ------
    UsageError
        At the first batch, when OpenVINO cannot be loaded or cannot run the network.
    """

    def __init__(self, module: nn.Module, shape: tuple[int, int, int, int]):
        self._module, self._shape = module, shape

    def place(self, batch: np.ndarray) -> Tensor:
        """Return a batch of stamps (batch, channel, y, x) float32 as a tensor."""
        return torch.from_numpy(batch)

    def __call__(self, batch: Tensor) -> np.ndarray:
        """Return the logits (batch, class) float32 of a batch."""
        inputs = batch.contiguous().numpy()
        logits = np.array(next(iter(self._request.infer([inputs]).values())))
        # Its maxima make zeros of NaN: a stamp that is not finite would get an answer.
        logits[~np.isfinite(inputs).all(axis=(1, 2, 3))] = np.nan
        return logits

    @cached_property
    def _request(self) -> Any:
        # What finds everything done does without: this takes two seconds.
        try:
            return self._compiled().create_infer_request()
        except ImportError as error:
            raise UsageError(f"OpenVINO is there, but cannot be loaded: {str(error).strip().splitlines()[0]}",
                             hint="install it again, or use --device cpu") from error
        except RuntimeError as error:
            raise UsageError(f"OpenVINO cannot run this network: {str(error).strip().splitlines()[0]}",
                             hint="use --device cpu") from error

    def _compiled(self) -> Any:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # Not by `openvino.convert_model`, which reports its use to the makers.
        frontend = FrontEndManager().load_by_framework("pytorch")
        with warnings.catch_warnings():
            # torch deprecates tracing; OpenVINO's way through torch.export warns of more.
            warnings.simplefilter("ignore")
            # Tracing runs the network: two stamps show as much as a batch, which takes seconds each time.
            example = torch.zeros(_TRACED, *self._shape[1:])
            decoder = TorchScriptPythonDecoder(self._module, example_input=(example,),
                                               trace_kwargs={"check_trace": False})
            model = frontend.convert(frontend.load(decoder))
        model.reshape(list(self._shape))
        if model.outputs[0].get_partial_shape()[0] != self._shape[0]:
            raise RuntimeError("its output does not follow the size of the batch")
        return openvino.Core().compile_model(
            model, "CPU", {**_SETTINGS, "INFERENCE_NUM_THREADS": torch.get_num_threads()})
