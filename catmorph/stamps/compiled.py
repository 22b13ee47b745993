"""The compiled code of catmorph (`_kernel.c`), where a C compiler was there when catmorph was installed."""

from __future__ import annotations

from typing import Any

_VERSION = 1
"""Of the code that gives the bits of this catmorph; another one is left over from another catmorph."""

kernel: Any
"""The module, or None: what it does is then done by NumPy and HDF5, the same bits more slowly."""

try:
    from catmorph.stamps import _kernel as kernel
except Exception:  # whatever lies there in its place
    kernel = None
else:
    kernel = kernel if getattr(kernel, "VERSION", None) == _VERSION else None
