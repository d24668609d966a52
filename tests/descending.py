"""A small training in float64, on one process or, run under mpiexec, on several.

The arguments are sizes of batches; each rank writes what it found into a file of its own. (It is
not part of test_distributed.py, since the ranks would import PyTorch with that.)
"""

import sys
from functools import partial

import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

OPTIMIZERS = {
    "gradient descent": partial(optim.SGD, lr=0.1),
    "momentum": partial(optim.SGD, lr=0.02, momentum=0.9),
    "adam": partial(optim.Adam, lr=0.003),
}
STEPS = 50


def problem(seed):
    """A model, drawn from a seed, and examples with a generator that chooses some, always alike."""
    mg.manual_seed(seed)
    model = nn.MLP(30, 10, hidden_dims=[20]).double()
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((500, 30))
    targets = (inputs @ rng.standard_normal((30, 10))).argmax(1)
    return model, mg.tensor(inputs), mg.tensor(targets), rng


def flat(model):
    return np.concatenate([parameter.array.ravel() for parameter in model.parameters()])


def on_one_process(name, size):
    """Descend on whole batches; return the parameters and the losses."""
    model, inputs, targets, rng = problem(seed=0)
    optimizer, losses = OPTIMIZERS[name](model.parameters()), []
    for _ in range(STEPS):
        chosen = rng.integers(len(inputs), size=size)
        optimizer.zero_grad()
        loss = F.nll_loss(model(inputs[chosen]), targets[chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return flat(model), np.array(losses)


def on_this_rank(name, size):
    """The same on shares of the batches."""
    from minigrad import distributed

    model, inputs, targets, rng = problem(seed=distributed.rank)  # each rank starts elsewhere
    optimizer, losses = OPTIMIZERS[name](model.parameters()), []
    distributed.broadcast(model.parameters())
    for _ in range(STEPS):
        chosen = rng.integers(len(inputs), size=size)
        mine, labels = distributed.shard(inputs[chosen], targets[chosen])
        optimizer.zero_grad()
        loss = np.nan
        if len(labels):
            mean = F.nll_loss(model(mine), labels)
            mean.backward()
            loss = mean.item()
        losses += distributed.average_gradients(model.parameters(), len(labels), loss)
        optimizer.step()
    return flat(model), np.array(losses)


if __name__ == "__main__":
    from mpi4py import MPI

    found = {}
    for size in map(int, sys.argv[1:]):
        for name in OPTIMIZERS:
            found[f"{name} {size}"], found[f"{name} {size} losses"] = on_this_rank(name, size)
    np.savez(f"rank{MPI.COMM_WORLD.rank}.npz", **found)
