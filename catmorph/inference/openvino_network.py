"""A network on the processor through OpenVINO, which fuses layers: faster than torch."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from catmorph.errors import CatmorphError, UsageError

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""Our names of precisions -> those of OpenVINO."""

_TRACED = 2
"""Stamps that tracing sees."""
_MOST_AT_ONCE = 8
"""Batches that are computed at a time, each on its share of the threads; each holds its own maps, 36 MB of
`clash-inception` in bfloat16. Two of them, on a thread each, take 10% less than one after the other on both."""


class OpenVinoNetwork:
    """A network for one fixed shape of batches: stamps in, logits out; it is compiled when the first batch comes.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the processor.
    shape : tuple of int
        (batch, channel, y, x).
    precision : {"float32", "bfloat16"}
    together : int
        How many batches come at a time: so many are computed at once, where there are the threads.

    Raises
    ------
    UsageError
        At the first batch, when OpenVINO cannot be loaded.
    CatmorphError
        At the first batch, when it cannot run the network.
    """

    def __init__(
        self, module: nn.Module, shape: tuple[int, int, int, int], precision: str = "float32", together: int = 1
    ):
        self._module, self._shape, self._precision, self._together = module, shape, precision, together

    def place(self, batch: np.ndarray) -> Tensor:
        """Return a batch of stamps (batch, channel, y, x) float32 as a tensor."""
        return torch.from_numpy(batch)

    def each(self, batches: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield the logits (batch, class) float32 of each batch, in order; some are computed at a time."""
        free, under_way = list(self._requests), deque[tuple[Any, np.ndarray]]()
        try:
            for batch in batches:
                if not free:
                    yield _finished(*under_way[0])
                    free.append(under_way.popleft()[0])
                inputs = batch.contiguous().numpy()
                request, finite = free.pop(), np.isfinite(inputs).all(axis=(1, 2, 3))
                request.start_async([inputs])
                under_way.append((request, finite))
            while under_way:
                yield _finished(*under_way[0])
                under_way.popleft()
        finally:
            for request, _ in under_way:
                request.wait()

    @cached_property
    def _requests(self) -> list[Any]:
        # What finds everything done does without: this takes two seconds.
        try:
            compiled = self._compiled()
            return [compiled.create_infer_request() for _ in range(compiled.get_property("NUM_STREAMS"))]
        except ImportError as error:
            raise UsageError(f"OpenVINO is there, but cannot be loaded: {str(error).strip().splitlines()[0]}",
                             hint="install it again, or use --device cpu") from error
        except RuntimeError as error:
            # The lines before the last one say where in OpenVINO's sources it was.
            other = "" if self._precision == "float32" else "--precision float32 or "
            raise CatmorphError(f"OpenVINO cannot run this network in {self._precision}: "
                                f"{str(error).strip().splitlines()[-1]}", hint=f"use {other}--device cpu") from error

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
        hint, threads = _HINTS[self._precision], torch.get_num_threads()
        compiled = openvino.Core().compile_model(model, "CPU", {
            "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": min(threads, self._together, _MOST_AT_ONCE),
        })
        if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != hint:
            raise RuntimeError(f"it does not compute in {self._precision} on this processor")
        return compiled


def _finished(request: Any, finite: np.ndarray) -> np.ndarray:
    """Wait for a batch, and return its logits."""
    request.wait()
    logits = np.array(request.get_output_tensor(0).data)
    # Its maxima make zeros of NaN: a stamp that is not finite would get an answer.
    logits[~finite] = np.nan
    return logits
