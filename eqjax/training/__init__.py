"""Training and evaluation of one model: pure functions of state and batch."""

from eqjax.training.batches import Split as Split, batches as batches
from eqjax.training.evaluation import evaluate as evaluate, predict as predict
from eqjax.training.loop import (
    mean_metrics as mean_metrics,
    run_steps as run_steps,
    train as train,
    train_step as train_step,
)
from eqjax.training.losses import (
    LossFn as LossFn,
    Metrics as Metrics,
    cross_entropy as cross_entropy,
    training_loss as training_loss,
)
from eqjax.training.state import (
    TrainState as TrainState,
    count_parameters as count_parameters,
    init_state as init_state,
    pack_state as pack_state,
)

__all__: list[str] = []
