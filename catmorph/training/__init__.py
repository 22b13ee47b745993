"""Training of checkpoints from labelled stamps; needs the extra ``train``."""

CODE_VERSION = 1
"""Raised when the same data and settings train other weights; part of the fingerprints of trainings."""
