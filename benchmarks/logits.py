"""Logits at random, for benchmarks of what comes after the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catmorph.api import open_run
from catmorph.inference.classify import write_logits
from catmorph.inference.identity import possible_fingerprints
from catmorph.inference.members import all_members, network_of
from catmorph.inference.tasks import logits_tasks
from catmorph.ledger import Parts
from catmorph.schemes import load_scheme
from catmorph.stamps.build import recipe_parts
from catmorph.workspace import read_row_group


def put_logits(recipe: Path, folder: Path) -> None:
    """Put logits at random where those of the network would be, as if stamps had been cut and not kept.

    The survey table has been read in. Memory: that of a chunk.
    """
    run, random = open_run(recipe, folder), np.random.default_rng(1)
    (member,) = all_members(run.recipe)
    fingerprint = possible_fingerprints(network_of(run, member), batch=256)[0]
    names = load_scheme(run.recipe.classifier_scheme("net")).class_names
    for chunk in run.chunks():
        ids = read_row_group(run.sources_path(), chunk.group)["id"]
        for view in run.recipe.all_views:
            facts = {"sources": len(ids), "stamps": len(ids), "flags": {}, "blocked": 0, "failures": []}
            run.ledger.note(run.shard_path(view, chunk), Parts(recipe_parts(run.recipe, chunk)), **facts)
            (task,) = logits_tasks(run, member, [view], fingerprint, [chunk])
            logits = random.normal(0, 2, (len(names), len(ids))).astype(np.float32)
            zeros = np.zeros(len(ids), np.float32)
            table = {"id": ids, "flags": zeros.astype(np.uint32), "bad_fraction": zeros, "signal": zeros + 10,
                     **dict(zip(names, logits, strict=True))}
            task.product.parent.mkdir(parents=True, exist_ok=True)
            write_logits(task.product, table)
            run.ledger.write(task.product, task.parts, classified=len(ids), blocked=0, flags={})
