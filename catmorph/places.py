"""The names in a run folder that more than one module knows."""

from __future__ import annotations

STAMPS, MEF_STAMPS, LOGITS = "stamps", "stamps-mef", "logits"
PRODUCT_FOLDERS = (STAMPS, LOGITS, MEF_STAMPS)
"""Folders of what is made chunk by chunk; the ledger has folders of the same names for their markers."""

LEDGER = "ledger"
IDENTITIES, EXPORT, COUNTS = "identities.json", "export.json", "counts.json"
"""Files of the ledger that are no markers."""
