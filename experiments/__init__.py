"""The short name of `eqjax_experiments` in a clone: `python -m experiments`."""

from eqjax_experiments import __path__

__all__ = ["__path__"]
