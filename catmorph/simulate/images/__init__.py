"""Simulated surveys of image files: colour images of single galaxies, catalog, truth and votes.

Galaxies with the features that people are asked about (:mod:`.galaxies`) are drawn as parts of one colour
(:mod:`.light`), seen by one or more surveys (:mod:`.render`), and voted on (:mod:`.voters`). A new kind of source
is an entry of ``galaxies._FEATURES``, a name in ``spec.KINDS`` and, where no part draws it yet, one in :mod:`.light`.
"""
