"""The tolerances of the laws, each with its reason."""

# Float64 laws: a few thousand additions of order one, each rounded at 1e-16.
DOUBLE = 1e-10
# The same in float32, rounded at 6e-8.
SINGLE = 1e-5
# A relative difference above this is no rounding: random parameters break a symmetry
# by a relative error of order one, here hundreds of times larger.
BROKEN = 1e-3
