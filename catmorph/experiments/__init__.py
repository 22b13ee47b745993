"""Grids of trainings, resumable, with their tables and figures."""
