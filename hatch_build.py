"""Compiles catmorph/stamps/_kernel.c when catmorph is installed; without a C compiler catmorph does without it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

_NAME = "catmorph.stamps._kernel"
_SOURCE = "catmorph/stamps/_kernel.c"
_EXACT = ["-ffp-contract=off", "-fno-fast-math", "-fno-unsafe-math-optimizations"]
"""Products and sums are rounded one by one, as NumPy does, whatever CFLAGS say."""

# Microsoft's compiler is exact unless told otherwise.
_OPTIONS = [] if sys.platform == "win32" else ["-O3", *_EXACT]


class KernelHook(BuildHookInterface[Any]):
    """Adds the compiled module to wheels and, in an editable installation, to the source tree."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say that it cannot be done."""
        self._temporary = tempfile.TemporaryDirectory()
        try:
            compiled = _compile(Path(self.root), Path(self._temporary.name))
        except (CCompilerError, ExecError, PlatformError) as error:
            self.app.display_warning(f"stamps will be the same, cut more slowly: no C compiler ({error})")
            return
        inside = f"catmorph/stamps/{compiled.name}"
        if version == "editable":
            # Not written over: a process that runs has the old one in its memory.
            beside = Path(self.root) / f"{inside}.new"
            shutil.copyfile(compiled, beside)
            beside.replace(Path(self.root) / inside)
        else:
            build_data["force_include"][str(compiled)] = inside
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled, once it is in the wheel."""
        self._temporary.cleanup()


def _compile(root: Path, folder: Path) -> Path:
    extension = Extension(_NAME, [str(root / _SOURCE)], extra_compile_args=_OPTIONS)
    command = build_ext(Distribution({"name": "catmorph", "ext_modules": [extension]}))
    command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
    command.ensure_finalized()
    command.run()
    return Path(command.get_outputs()[0])
