"""Many models that differ in groups alone: one program trains them."""

from eqjax.population.devices import Strategy, device_mesh
from eqjax.population.memory import choose_strategy
from eqjax.population.stack import Population

__all__ = ["Population", "Strategy", "choose_strategy", "device_mesh"]
