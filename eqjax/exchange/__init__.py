"""Networks of other kinds, in and out."""

from eqjax.exchange.exporting import export, read_plain

__all__ = ["export", "read_plain"]
