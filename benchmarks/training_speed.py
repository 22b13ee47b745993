"""Training speed against a plain Lightning loop over single stamp files with torchvision's transforms.

Both train the same network with the same batches, Adam and augmentation; they alternate in one process:

    python benchmarks/training_speed.py --precision auto --threads 2 --out speed.json

The plain loop computes as torch does when nothing is said, in float32; catmorph in `--precision`. Times are seconds a
step, medians over the rounds; "data" is the part before the network, alone. Needs torchvision (pip install
torchvision), which catmorph itself does not.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from importlib.util import find_spec

import lightning
import numpy as np
import torch
from astropy.io import fits
from script import Report, options, say, scratch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from catmorph.labels import LabelledStamps, Split
from catmorph.models import build
from catmorph.models.device import resolve_precision
from catmorph.recipe import TrainingSection
from catmorph.schemes import load_scheme
from catmorph.training import loop
from catmorph.training.augment import augment

PIXELS = 80


class Files(Dataset):
    """One FITS file a stamp, as a user would write it."""

    def __init__(self, paths, fractions):
        from torchvision.transforms import v2

        self.paths, self.fractions = paths, fractions
        bilinear = v2.InterpolationMode.BILINEAR
        self.transform = v2.Compose([
            v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.RandomRotation(180, interpolation=bilinear),
            v2.RandomAffine(0, translate=(4 / PIXELS, 4 / PIXELS), interpolation=bilinear),
        ])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        image = fits.getdata(self.paths[row]).astype(np.float32)
        return self.transform(torch.from_numpy(image)[None]), self.fractions[row]


class Plain(lightning.LightningModule):
    def __init__(self, module, rate):
        super().__init__()
        self.module, self.rate = module, rate

    def training_step(self, batch):
        loss = torch.nn.functional.cross_entropy(self.module(batch[0]), batch[1])
        self.log("training_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.module.parameters(), lr=self.rate)


class Timer(lightning.Callback):
    """Seconds of each step but the first, from the end of one to the end of the next."""

    def __init__(self):
        self.ends = []

    def on_train_batch_end(self, *_):
        self.ends.append(time.perf_counter())

    def seconds(self):
        return np.diff(self.ends).tolist()


class Nothing:
    def on_epoch(self, rows): ...

    def on_best(self, epoch, module): ...

    def where(self):
        return "nothing is kept"


def plain(files, args):
    loader = DataLoader(files, batch_size=args.batch, num_workers=args.workers,
                        sampler=RandomSampler(files, replacement=True, num_samples=args.batch * args.steps))
    timer = Timer()
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
                                enable_model_summary=False, enable_progress_bar=False, callbacks=[timer])
    trainer.fit(Plain(build(args.model, seed=0), 5e-5), loader)
    start = time.perf_counter()
    count = sum(1 for _ in loader)
    return timer.seconds(), (time.perf_counter() - start) / count


def ours(data, args):
    section = TrainingSection(
        model=args.model, output="unused", batch=args.batch, batches_per_epoch=args.steps, epochs=1
    )
    rows = np.arange(len(data))
    job = loop.Job(build(args.model, seed=0), data, Split(rows, rows[:2], rows[:2]), section, load_scheme("clash"),
                   device="cpu", precision=resolve_precision(args.precision, "cpu"), progress=False,
                   keeper=Nothing(), resume=None)
    timer, trainer = Timer(), loop._trainer

    def timed(made, callbacks):
        return trainer(made, [*callbacks, timer])

    loop._trainer = timed
    try:
        task = loop.fit(job).task
    finally:
        loop._trainer = trainer
    start = time.perf_counter()
    for step in range(args.steps):
        generator = torch.Generator().manual_seed(step)
        drawn = torch.randint(len(data), (args.batch,), generator=generator)
        augment(task._stamps(drawn), section, generator).contiguous(memory_format=torch.channels_last)
    return timer.seconds(), (time.perf_counter() - start) / args.steps


def stamps(count):
    """Return noise with labels at random."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(count, 1, PIXELS, PIXELS)).astype(np.float32)
    fractions = random.dirichlet(np.ones(5), count).astype(np.float32)
    names = np.arange(count).astype(str)
    return LabelledStamps(inputs, fractions, np.full(count, "a"), names, np.full(count, "F160W"))


def result(args, steps, paths_alone):
    """Return what the rounds so far have shown."""
    step = {name: statistics.median(values) for name, values in steps.items()}
    alone = {name: statistics.median(values) for name, values in paths_alone.items()}
    return {
        "model": args.model, "precision": resolve_precision(args.precision, "cpu"), "batch": args.batch,
        "threads": args.threads, "plain_workers": args.workers,
        "rounds": len(paths_alone["plain"]), "steps_measured": len(steps["plain"]),
        "step_seconds": step, "step_ratio": step["plain"] / step["catmorph"],
        "data_seconds": alone, "data_ratio": alone["plain"] / alone["catmorph"],
        "data_share_of_step": {name: alone[name] / step[name] for name in step},
    }  # fmt: skip


def main():
    parser = options(__doc__, batch=32, steps=8, rounds=3, stamps=512, threads=1)
    parser.add_argument("--model", default="clash-inception")
    parser.add_argument("--precision", default="float32", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--workers", type=int, default=0, help="worker processes of the plain loop's DataLoader")
    args = parser.parse_args()
    if not find_spec("torchvision"):
        sys.exit("this comparison needs torchvision: pip install torchvision")
    if args.steps < 2:
        parser.error("--steps: at least 2, as times are from one step to the next")
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    report = Report(args.out, "torch", "torchvision", "lightning", "numpy", "astropy")
    data = stamps(args.stamps)
    steps, paths_alone = {"plain": [], "catmorph": []}, {"plain": [], "catmorph": []}
    with scratch(args.folder, gigabytes=args.stamps * 30e-6) as folder:
        paths = [folder / f"{name}.fits" for name in data.ids]
        for path, stamp in zip(paths, data.inputs[:, 0], strict=True):
            fits.writeto(path, stamp)
        files = Files(paths, torch.from_numpy(data.fractions))
        for number in range(args.rounds):
            for name, run in (("plain", lambda: plain(files, args)), ("catmorph", lambda: ours(data, args))):
                seconds, alone = run()
                steps[name] += seconds
                paths_alone[name].append(alone)
            say(f"round {number + 1} of {args.rounds}")
            report.keep(**result(args, steps, paths_alone))
    report.end(**result(args, steps, paths_alone))


if __name__ == "__main__":
    main()
