"""Networks of other kinds, in and out."""

from eqjax.exchange.escnn import from_escnn, from_escnn_norm
from eqjax.exchange.exporting import export, read_plain
from eqjax.exchange.importing import (
    NearestLayer as NearestLayer,
    PlainConv as PlainConv,
    from_conv,
    to_conv,
)
from eqjax.exchange.transplanting import (
    TransplantedLayer as TransplantedLayer,
    TransplantReport as TransplantReport,
    from_plain,
)

__all__ = [
    "export",
    "from_conv",
    "from_escnn",
    "from_escnn_norm",
    "from_plain",
    "read_plain",
    "to_conv",
]
