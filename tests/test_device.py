"""Where networks run, told without torch as torch tells it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import catmorph
from catmorph.errors import UsageError
from catmorph.models import device


@pytest.mark.parametrize(("line", "wanted", "through_openvino"), [
    ("flags\t\t: fpu avx512f avx512_bf16 fma", "bfloat16", "bfloat16"),
    ("flags\t\t: fpu amx_bf16", "bfloat16", "bfloat16"),
    ("Features\t: fp asimd bf16", "bfloat16", "float32"),
    ("flags\t\t: fpu avx512f avx512_vnni", "float32", "float32"),
    ("processor : 0", "float32", "float32"),
])  # fmt: skip
def test_auto_precision(tmp_path, monkeypatch, line, wanted, through_openvino):
    monkeypatch.setattr(device, "_PROCESSOR", tmp_path / "cpuinfo")
    assert device.resolve_precision("auto", "cpu") == "float32"
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}\n")
    assert device.resolve_precision("auto", "cpu") == wanted
    assert device.resolve_precision("auto", "openvino") == through_openvino


def test_this_processor_is_told_as_torch_tells_it():
    told = getattr(torch.cpu, "get_capabilities", dict)()
    if not told:
        pytest.skip("this torch does not tell")
    native = any(told.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    assert device.resolve_precision("auto", "cpu") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize("name", ["nvidiactl", "kfd", "nvhost-gpu"])
def test_a_gpu_is_looked_for_where_a_driver_is(tmp_path, monkeypatch, name):
    monkeypatch.setattr(device, "_DEVICES", tmp_path)
    monkeypatch.setattr(device, "_torch_has_gpu", lambda: True)
    assert device.resolve_device("auto") == "cpu"
    (tmp_path / name).touch()
    assert device.resolve_device("auto") == "cuda"


def test_devices_and_precisions_that_are_unknown_are_told_the_valid_ones():
    checkpoint = Path(__file__).parents[1] / "sample_data" / "checkpoints" / "gz2-narrow-simulated.safetensors"
    with pytest.raises(UsageError, match=r"^unknown device 'gpu'; valid: auto, cpu, cuda, openvino$"):
        catmorph.classify(np.zeros((1, 3, 64, 64)), checkpoint, device="gpu")
    with pytest.raises(UsageError, match=r"^unknown precision 'half'; valid: auto, float32, bfloat16$"):
        catmorph.classify(np.zeros((1, 3, 64, 64)), checkpoint, device="cpu", precision="half")
