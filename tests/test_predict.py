import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catmorph.errors import CheckpointError, UsageError
from catmorph.inference import identity
from catmorph.inference.batches import Packer
from catmorph.inference.openvino_network import OpenVinoNetwork
from catmorph.inference.predict import Predictor
from catmorph.inference.torch_network import steady_dense
from catmorph.models import build
from catmorph.models import device as models_device
from catmorph.models.card import card_for
from catmorph.models.checkpoint import load_checkpoint, save_checkpoint
from catmorph.models.device import resolve_precision
from catmorph.recipe import load_recipe

BATCH = 16


@pytest.fixture(scope="module")
def module():
    return build("clash-inception", seed=2).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, module):
    path = tmp_path_factory.mktemp("predict") / "net.safetensors"
    save_checkpoint(path, module, card_for(load_recipe("configs/clash.toml"), "clash-inception", channels=1))
    return load_checkpoint(path)


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def device(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


@pytest.fixture(scope="module")
def predictor(checkpoint, device):
    return Predictor(checkpoint, device=device, precision="float32", batch=BATCH)


@pytest.fixture(scope="module")
def stamps():
    return np.random.default_rng(0).normal(size=(21, 1, 80, 80)).astype(np.float32)


@pytest.fixture(scope="module")
def logits(predictor, stamps):
    return predictor.logits(stamps)


def test_it_is_the_network(module, stamps, logits):
    with torch.inference_mode():
        wanted = module(torch.from_numpy(stamps)).numpy()
    assert logits.shape == (21, 5)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, wanted, atol=1e-5 * np.abs(wanted).max())


def test_same_bits_whatever_the_order_and_the_neighbours(predictor, stamps, logits):
    order = np.random.default_rng(1).permutation(21)[:BATCH]
    assert predictor.logits(stamps[order]).tobytes() == logits[order].tobytes()
    assert predictor.logits(stamps[20:]).tobytes() == logits[20:].tobytes()


def test_same_bits_whatever_the_chunks(predictor, stamps, logits):
    chunks = np.split(stamps, [1, 1, 4, 20])
    results = list(predictor.stream(enumerate(chunks)))
    assert [key for key, _ in results] == [0, 1, 2, 3, 4]
    assert [len(one) for _, one in results] == [1, 0, 3, 16, 1]
    assert np.concatenate([one for _, one in results]).tobytes() == logits.tobytes()


@pytest.mark.parametrize("batch", [17, 37, 70])
def test_same_bits_whatever_the_parts_of_a_batch(checkpoint, device, logits, stamps, batch):
    """A batch is computed in parts, of which the last may begin earlier: 2 of 19, 3 of 24 stamps."""
    predictor = Predictor(checkpoint, device=device, precision="float32", batch=batch)
    many = np.concatenate([stamps] * 4)
    result = predictor.logits(many)
    assert result.shape == (84, 5)
    assert result.tobytes() == np.concatenate([result[:21]] * 4).tobytes()
    np.testing.assert_allclose(result[:21], logits, rtol=0, atol=1e-6 * np.abs(logits).max())


def test_same_bits_whatever_the_number_of_threads(checkpoint, device, stamps, logits):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            predictor = Predictor(checkpoint, device=device, precision="float32", batch=BATCH)
            assert predictor.logits(stamps[:BATCH]).tobytes() == logits[:BATCH].tobytes()
    finally:
        torch.set_num_threads(before)


def test_a_stamp_that_overflows_does_not_touch_its_neighbours(predictor, stamps, logits):
    spoilt = stamps[:4].copy()
    spoilt[1] = np.inf
    result = predictor.logits(spoilt)
    assert not np.isfinite(result[1]).any()
    assert result[[0, 2, 3]].tobytes() == logits[[0, 2, 3]].tobytes()


@pytest.fixture
def half(checkpoint, device):
    """The network in bfloat16."""
    if device == "openvino" and resolve_precision("auto", device) != "bfloat16":
        pytest.skip("this processor has no bfloat16")
    return lambda: Predictor(checkpoint, device=device, precision="bfloat16", batch=BATCH)


def test_bfloat16_is_near_and_as_steady(half, stamps, logits):
    network = half()
    result = network.logits(stamps[:BATCH])
    assert 0 < np.abs(result - logits[:BATCH]).max() < 0.03 * np.abs(logits).max()
    assert network.logits(stamps[3:5]).tobytes() == result[3:5].tobytes()


def test_bfloat16_does_not_depend_on_the_threads(half, stamps):
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.add(half().logits(stamps).tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_openvino_without_bfloat16(checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f\n")
    monkeypatch.setattr(models_device, "_PROCESSOR", tmp_path / "cpuinfo")
    assert Predictor(checkpoint, device="openvino", batch=BATCH).precision == "float32"
    with pytest.raises(UsageError, match="OpenVINO does not compute in bfloat16 on this processor; use --precision "
                                         "float32, or --device cpu, which imitates it slowly"):
        Predictor(checkpoint, device="openvino", precision="bfloat16", batch=BATCH)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda_is_near_and_as_steady(checkpoint, stamps, logits, precision):
    gpu = Predictor(checkpoint, device="cuda", precision=precision, batch=BATCH)
    result = gpu.logits(stamps)
    assert np.abs(result - logits).max() < 0.03 * np.abs(logits).max()
    assert gpu.logits(stamps[3:5]).tobytes() == result[3:5].tobytes()


def test_symmetries_of_the_square(checkpoint, device, stamps, logits):
    eight = Predictor(checkpoint, device=device, precision="float32", batch=BATCH, test_time="d4")
    turned = np.rot90(stamps[:2], axes=(2, 3)).copy()
    np.testing.assert_allclose(eight.logits(turned), eight.logits(stamps[:2]), atol=1e-5)
    assert np.abs(eight.logits(stamps[:2]) - logits[:2]).max() > 1e-5


@pytest.mark.parametrize(("model", "channels", "pixels"), [
    ("dominguez-cnn", 3, 69), ("gz2-narrow", 3, 64), ("timm/test_resnet", 3, 48), ("resnet-narrow-d4", 3, 48),
    ("twin-narrow", 5, 48),
])  # fmt: skip
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_openvino_agrees_with_torch(model, channels, pixels, precision, tolerance):
    """Dense layers, a tree, a network of timm, eight symmetries, twins: the same answers, the same bits anywhere."""
    pytest.importorskip("openvino")
    if precision != "float32" and resolve_precision("auto", "openvino") != precision:
        pytest.skip("this processor has no bfloat16")
    module = build(model, classes=3, channels=channels, seed=1).eval().requires_grad_(False)
    random = np.random.default_rng(0)
    inputs = torch.from_numpy(random.normal(size=(BATCH, channels, pixels, pixels)).astype(np.float32))
    expected = module(inputs).numpy()
    network = OpenVinoNetwork(steady_dense(module), tuple(inputs.shape), precision, together=3)
    (logits,) = network.each([inputs])
    np.testing.assert_allclose(logits, expected, atol=tolerance * np.abs(expected).max())
    rolled = [inputs.roll(by, 0) for by in range(1, 12)]
    for by, found in enumerate(network.each(rolled), start=1):
        assert found.tobytes() == np.roll(logits, by, 0).tobytes()


def test_the_fingerprint_names_what_decides_the_bits(checkpoint, device, predictor, monkeypatch):
    def fingerprint(opened=checkpoint, **options):
        return Predictor(opened, **({"device": device, "precision": "float32", "batch": BATCH} | options)).fingerprint

    assert fingerprint() == predictor.fingerprint
    assert len(predictor.fingerprint) == len(hashlib.sha256().hexdigest())
    other = type(checkpoint)(checkpoint.path, checkpoint.card, checkpoint.state, "another digest")
    different = {fingerprint(batch=17), fingerprint(device="cpu", precision="bfloat16"), fingerprint(other),
                 predictor.fingerprint}
    monkeypatch.setattr(identity, "CODE_VERSION", identity.CODE_VERSION + 1)
    assert len(different | {predictor.fingerprint}) == 5
    monkeypatch.undo()
    assert predictor.fingerprint in identity.possible_fingerprints(predictor.network, batch=BATCH)
    if device == "openvino":
        assert fingerprint(device="cpu") != predictor.fingerprint


def test_stamps_of_another_shape_are_refused(predictor):
    with pytest.raises(UsageError, match=r"^stamps are \(2, 3, 80, 80\), the network takes \(n, 1, 80, 80\)$"):
        predictor.logits(np.zeros((2, 3, 80, 80), np.float32))


def test_a_card_with_another_stamp_size_is_refused(checkpoint):
    stamp = checkpoint.card.stamp.model_copy(update={"pixels": 64})
    card = checkpoint.card.model_copy(update={"stamp": stamp})
    with pytest.raises(CheckpointError, match="its card has stamps of 64 pixels, clash-inception takes 80"):
        Predictor(type(checkpoint)(checkpoint.path, card, checkpoint.state, ""), device="cpu")


def test_small_batches_are_refused(checkpoint):
    with pytest.raises(UsageError, match=r"^a batch of 8 is too small: at least 16$"):
        Predictor(checkpoint, batch=8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(checkpoint):
    with pytest.raises(UsageError, match=r"^there is no CUDA device that torch can use; use --device cpu or auto$"):
        Predictor(checkpoint, device="cuda")


def test_openvino_that_cannot_be_loaded(checkpoint, stamps, tmp_path, monkeypatch):
    broken = tmp_path / "openvino.py"
    broken.write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    predictor = Predictor(checkpoint, device="openvino", precision="float32", batch=BATCH)
    with pytest.raises(UsageError, match=r"^OpenVINO is there, but cannot be loaded: libtbb\.so\.12: .*; install it"):
        predictor.logits(stamps[:1])


def test_openvino_that_refuses_a_precision_says_what_to_do(checkpoint, stamps, tmp_path):
    """As where a virtual machine shows a processor's flags and does not let them be used."""
    pytest.importorskip("openvino")
    np.save(tmp_path / "stamps.npy", stamps[:1])
    code = f"""
import numpy as np
from catmorph.inference.predict import Predictor
from catmorph.models import device
from catmorph.models.checkpoint import load_checkpoint
device._processor_has = lambda wanted: True
predictor = Predictor(load_checkpoint({str(checkpoint.path)!r}), device="openvino", precision="bfloat16", batch={BATCH})
try:
    predictor.logits(np.load({str(tmp_path / "stamps.npy")!r}))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert re.fullmatch(r"CatmorphError OpenVINO cannot run this network in bfloat16: (?!Exception from).+; "
                        r"use --precision float32 or --device cpu\n", done.stdout), done.stdout + done.stderr


class Network:
    """Stands in for one: each stamp's sum and its mean, and a note of the batches it was given."""

    def __init__(self):
        self.sums = []

    def __call__(self, batch, count):
        assert not batch[count:].any()
        self.sums.append(batch.sum(axis=(1, 2, 3)))
        return np.stack([batch.sum(axis=(1, 2, 3)), batch.mean(axis=(1, 2, 3))], axis=1)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 23), max_size=12), st.integers(1, 9))
def test_any_chunks_fill_the_same_batches(sizes, batch):
    stamps = np.arange(1, 1 + sum(sizes), dtype=np.float32).reshape(-1, 1, 1, 1)
    chunks = np.split(stamps, np.cumsum(sizes)[:-1]) if sizes else []
    network = Network()
    results = list(Packer(network, (batch, 1, 1, 1), 2).stream(enumerate(chunks)))
    assert [key for key, _ in results] == list(range(len(sizes)))
    assert [len(logits) for _, logits in results] == sizes
    assert [x for _, logits in results for x in logits[:, 0]] == stamps.ravel().tolist()
    padding = -sum(sizes) % batch
    assert np.concatenate([*network.sums, []]).tolist() == stamps.ravel().tolist() + [0] * padding


def test_a_key_comes_as_soon_as_its_last_stamp_is_done():
    pulled = []

    def items():
        for key, size in enumerate((3, 0, 2, 9)):
            pulled.append(key)
            yield key, np.ones((size, 1, 1, 1), np.float32)

    results = Packer(Network(), (4, 1, 1, 1), 2).stream(items())
    seen = [(key, list(pulled)) for key, _ in results]
    assert seen == [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [0, 1, 2, 3]), (3, [0, 1, 2, 3])]
