"""The stages as functions of a run folder: what each finds done, makes, and reports.

`catmorph run` is these in a row. Each holds the folder's lock while it works, skips what is there and still
valid, and returns a `StageReport`. A stage is a module, so that a command imports what it needs and no more.
"""
