"""The names of all collections of variables that layers of eqjax keep or write."""

PARAMS = "params"  # what an optimizer of the weights trains
BATCH_STATS = "batch_stats"  # running statistics of norms
MIXTURE = "mixture"  # logits of mixed layers
INITIAL_NORMS = "initial_norms"  # norms that the kernels of mixed layers are held at
ORBITS = "orbits"  # orbit tables of layers whose group is data
PENALTIES = "penalties"  # what training adds to the loss
PROBES = "probes"  # what is added to full arrays, to differentiate by it
