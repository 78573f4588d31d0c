"""Training and evaluation of one model: pure functions of state and batch.

Programs are kept by model, optimizer and loss. Models are compared by value, so that an
equal one made anew is no new program; optimizers and losses are functions, each equal
to itself alone. Make each once and pass the same object:

    optimizer = optax.adam(1e-3)  # beside the model, not inside of a loop or a call
    state, metrics = train(state, batches, model=model, optimizer=optimizer)
"""

from eqjax.training.batches import Split as Split, batches as batches
from eqjax.training.evaluation import evaluate as evaluate, predict as predict
from eqjax.training.gammas import (
    dual_gammas as dual_gammas,
    scheduled_gammas as scheduled_gammas,
    triangular as triangular,
)
from eqjax.training.hypergradient import hypergradient as hypergradient
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
    mean_squared_error as mean_squared_error,
    pixel_cross_entropy as pixel_cross_entropy,
    sigmoid_cross_entropy as sigmoid_cross_entropy,
    training_loss as training_loss,
)
from eqjax.training.state import (
    TrainState as TrainState,
    count_parameters as count_parameters,
    init_state as init_state,
    pack_state as pack_state,
)

__all__ = ["dual_gammas", "scheduled_gammas"]
