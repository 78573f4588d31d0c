"""Settings of networks that train in no time, for commands and for configurations."""

TINY = (
    "--features 1 1 --kernel-size 3 --pool-after 1 2 --head-features 4 --epochs 2"
).split()
SMALL = {
    "features": (1, 1),
    "kernel_size": 3,
    "pool_after": (1, 2),
    "head_features": 4,
    "epochs": 1.0,
}
