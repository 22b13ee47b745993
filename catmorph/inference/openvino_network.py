"""A network on the processor through OpenVINO, which fuses layers: about twice as fast as torch."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from catmorph.errors import UsageError

_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
"""float32 throughout, and all threads on one batch."""


class OpenVinoNetwork:
    """A compiled network: one fixed shape of batches in, logits out.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the processor.
    shape : tuple of int
        (batch, channel, y, x).

    Raises
    ------
    UsageError
        When OpenVINO is not installed, or cannot run the network.
    """

    def __init__(self, module: nn.Module, shape: tuple[int, int, int, int]):
        try:
            import openvino
            from openvino.frontend import FrontEndManager
            from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
        except ImportError:
            raise UsageError("--device openvino needs OpenVINO", hint="pip install 'catmorph[openvino]'") from None
        # Not by `openvino.convert_model`, which reports its use to the makers.
        frontend = FrontEndManager().load_by_framework("pytorch")
        try:
            with warnings.catch_warnings():
                # torch deprecates tracing; OpenVINO's way through torch.export warns of more.
                warnings.simplefilter("ignore")
                decoder = TorchScriptPythonDecoder(module, example_input=(torch.zeros(shape),))
                model = frontend.convert(frontend.load(decoder))
            model.reshape(list(shape))
            settings = {**_SETTINGS, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            self._run = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise UsageError(f"OpenVINO cannot run this network: {str(error).strip().splitlines()[0]}",
                             hint="use --device cpu") from error

    def place(self, batch: np.ndarray) -> Tensor:
        """Return a batch of stamps (batch, channel, y, x) float32 as a tensor."""
        return torch.from_numpy(batch)

    def __call__(self, batch: Tensor) -> np.ndarray:
        """Return the logits (batch, class) float32 of a batch."""
        inputs = batch.contiguous().numpy()
        logits = np.array(next(iter(self._run.infer([inputs]).values())))
        # Its maxima make zeros of NaN: a stamp that is not finite would get an answer.
        logits[~np.isfinite(inputs).all(axis=(1, 2, 3))] = np.nan
        return logits
