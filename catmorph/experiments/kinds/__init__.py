"""The experiments, one a file; a new file here is a new experiment, of the file's name with hyphens."""

from pkgutil import iter_modules

NAMES = tuple(sorted(module.name.replace("_", "-") for module in iter_modules(__path__)))
"""The names of the experiments, known without importing them."""
