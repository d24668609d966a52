"""The page "When it does not learn": each row is reproduced, and so is its fix."""

import functools
import math
import re
import warnings

import numpy as np
import pytest
from helpers import ROOT
from threadpoolctl import threadpool_limits

import minigrad as mg
from minigrad import datasets, functional as F, nn, optim


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Products this small are slow on several threads while other programs are busy."""
    with threadpool_limits(1):
        yield


ROWS = {}  # by symptom


def row(symptom, seen, gone):
    """Register a function of a seed and of whether the cause is removed.

    `seen` says whether the numbers that it returns show the symptom, `gone` whether training
    works.
    """

    def register(function):
        ROWS[symptom] = function, seen, gone
        return function

    return register


@functools.cache
def digits():
    """Images (N, 784) and targets (N,): 600 to train, 360 to test."""
    train_set, test_set = datasets.load_digits_data(change_tensors=True)
    images, test_images = train_set.data.view(-1, 784)[:600], test_set.data.view(-1, 784)
    return images, train_set.targets[:600], test_images, test_set.targets


def accuracy(model, inputs, targets):
    return (model(inputs).argmax(1) == targets).float().mean().item()


def in_order(inputs, targets, batch_size):
    for i in range(0, len(inputs), batch_size):
        yield inputs[i : i + batch_size], targets[i : i + batch_size]


@functools.cache
def train(
    seed, inputs, targets, lr=0.1, epochs=5, hidden=(50,), size=32, batches=datasets.minibatches
):
    """A model, and the loss at each step."""
    mg.manual_seed(seed)
    model, losses = nn.MLP(inputs.shape[1], 10, hidden), []
    for _ in range(epochs):
        for batch, labels in batches(inputs, targets, size):
            loss = F.nll_loss(model(batch), labels)
            optim.gradient_update(loss, model.parameters(), lr=lr)
            losses.append(loss.item())
    return model, losses


def last(losses):
    return float(np.mean(losses[-20:]))


@row(
    "The loss stays near 2.30 (log 10: each of ten classes has probability 1/10)",
    seen=lambda loss: 2.2 < loss < 2.45,
    gone=lambda loss: loss < 0.6,
)
def rate_too_small(seed, fixed):
    inputs, targets, _, _ = digits()
    return last(train(seed, inputs, targets, lr=0.1 if fixed else 1e-5)[1])


@row(
    "The loss is huge for a few steps, then stays near 2.30",
    seen=lambda most, loss, spread: most > 100 and 2.2 < loss < 2.45 and spread == 0,
    gone=lambda most, loss, spread: most < 3 and loss < 0.6 and spread > 1,
)
def not_normalised(seed, fixed):
    train_set, _ = datasets.load_digits_data()
    inputs, targets, _, _ = digits()
    if not fixed:
        inputs = train_set.data.view(-1, 784)[:600].float()
    model, losses = train(seed, inputs, targets)
    return max(losses), last(losses), np.ptp(model(inputs).detach().numpy(), axis=0).max()


@row(
    "The loss becomes NaN or infinite after some steps",
    seen=lambda first, loss: math.isfinite(first) and not math.isfinite(loss),
    gone=lambda first, loss: math.isfinite(first) and loss < 1,
)
def rate_much_too_large(seed, fixed):
    inputs, targets, _, _ = digits()
    _, losses = train(seed, inputs, targets, 0.1 if fixed else 1e3, 8, (50, 50, 50))
    return losses[0], last(losses)


@row(
    "The loss is NaN or infinite at once",
    seen=lambda loss: not math.isfinite(loss),
    gone=lambda loss: math.isfinite(loss),
)
def log_of_zero(seed, fixed):
    inputs, targets, _, _ = digits()
    mg.manual_seed(seed)
    scores = 300 * nn.Linear(784, 10)(inputs)
    if fixed:
        return F.nll_loss(F.log_softmax(scores), targets).item()
    with np.errstate(all="ignore"):
        e = scores.exp()
        return F.nll_loss((e / e.sum(dim=1, keepdim=True)).log(), targets).item()


@row(
    "The loss jumps up and down from step to step",
    seen=lambda rises, loss: rises >= 6,
    gone=lambda rises, loss: rises == 0 and loss < 0.5,
)
def rate_too_large(seed, fixed):
    inputs, targets, _, _ = digits()
    rate = 0.03 if fixed else 2
    _, losses = train(seed, inputs, targets, rate, epochs=40, hidden=(), size=600)
    return int((np.diff(losses) > 0).sum()), losses[-1]


@row(
    "The loss on the training set falls, then stays flat far from 0",
    seen=lambda first, middle, loss: first - middle > 0.1 and middle - loss < 0.03 and loss > 0.2,
    gone=lambda first, middle, loss: loss < 0.1,
)
def too_small_a_model(seed, fixed):
    mg.manual_seed(seed)
    x = mg.randn(200, 2)
    targets = (x.numpy()[:, 1] > np.sin(3 * x.numpy()[:, 0])).astype(int)
    model, losses = nn.MLP(2, 2, [30] if fixed else []), []
    optimizer = optim.Adam(model.parameters(), lr=0.03)
    for _ in range(400):
        loss = F.nll_loss(model(x), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[200], losses[-1]


@row(
    "The loss is below 0",
    seen=lambda loss: loss < 0,
    gone=lambda loss: 0 < loss < 1,
)
def no_log_softmax(seed, fixed):
    inputs, targets, _, _ = digits()
    mg.manual_seed(seed)
    model = nn.Linear(784, 10)
    for _ in range(30):
        scores = model(inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = F.nll_loss(F.log_softmax(scores) if fixed else scores, targets)
        optim.gradient_update(loss, model.parameters(), lr=0.1)
    return loss.item()


@row(
    "The accuracy is 3600%, or 10% although the loss is small",
    seen=lambda total, mean, loss: 30 < total < 40 and 0.09 < mean < 0.11 and loss < 0.7,
    gone=lambda total, mean, loss: 0.8 < mean <= 1 and total == pytest.approx(mean) and loss < 0.7,
)
def shapes_that_broadcast(seed, fixed):
    inputs, targets, test_inputs, test_targets = digits()
    model, _ = train(seed, inputs, targets)
    predictions = model(test_inputs).argmax(1)
    right = predictions == (test_targets if fixed else test_targets.view(-1, 1))
    loss = F.nll_loss(model(test_inputs), test_targets).item()
    return right.sum().item() / len(test_targets), right.float().mean().item(), loss


@row(
    "The accuracy is near 0% although the loss is small",
    seen=lambda right, loss: right < 0.03 and loss < 0.7,
    gone=lambda right, loss: right > 0.8 and loss < 0.7,
)
def largest_of_all(seed, fixed):
    inputs, targets, test_inputs, test_targets = digits()
    model, _ = train(seed, inputs, targets)
    outputs = model(test_inputs)
    right = (outputs.argmax(1) if fixed else outputs.argmax()) == test_targets
    return right.float().mean().item(), F.nll_loss(outputs, test_targets).item()


@row(
    "The gradients grow from step to step",
    seen=lambda early, late: late > early > 1.5,
    gone=lambda early, late: late < early < 1,
)
def zero_grad_forgotten(seed, fixed):
    inputs, targets, _, _ = digits()
    mg.manual_seed(seed)
    model, norms = nn.MLP(), []
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    for _ in range(7):
        if fixed:
            optimizer.zero_grad()
        F.nll_loss(model(inputs), targets).backward()
        norms.append(float(np.linalg.norm(model.main[0].weight.grad.numpy())))
        optimizer.step()
    return norms[3] / norms[0], norms[6] / norms[0]


@row(
    "The parameters do not move",
    seen=lambda *distances: max(distances) == 0,
    gone=lambda *distances: min(distances) > 1e-3,
)
def no_step(seed, fixed):
    inputs, targets, _, _ = digits()
    distances = []
    for cause in ("no step", "made after the optimiser", "requires_grad is False", "name"):
        wrong = None if fixed else cause
        mg.manual_seed(seed)
        model = nn.MLP(hidden_dims=[20])
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        if wrong == "made after the optimiser":
            setattr(model.main, "0", nn.Linear(784, 20))
        model.main[0].weight.requires_grad = wrong != "requires_grad is False"
        before = model.main[0].weight.detach().numpy().copy()
        optimizer.zero_grad()
        F.nll_loss(model(inputs), targets).backward()
        if wrong == "name":
            for p in model.parameters():
                p = p - 0.1 * p.grad
        elif cause == "name":
            for p in model.parameters():
                p.data -= 0.1 * p.grad
        elif wrong != "no step":
            optimizer.step()
        distances.append(float(np.linalg.norm(model.main[0].weight.detach().numpy() - before)))
    return distances


@row(
    "`w.grad` is None at the second step",
    seen=lambda first, second: not first and second,
    gone=lambda first, second: not first and not second,
)
def a_new_tensor(seed, fixed):
    mg.manual_seed(seed)
    w, missing = mg.randn(3).tolist(), []
    w = mg.tensor(w, requires_grad=True)
    for _ in range(2):
        ((w - 1) ** 2).sum().backward()
        missing.append(w.grad is None)
        if fixed:
            w.data -= 0.1 * w.grad
            w.grad = None
        elif w.grad is not None:
            w = w - 0.1 * w.grad
    return missing


@row(
    "`backward` says that the loss was computed before a leaf changed",
    seen=lambda said, loss: re.search("was computed before a leaf .*changed", said),
    gone=lambda said, loss: said == "" and loss < 1,
)
def loss_computed_once(seed, fixed):
    inputs, targets, _, _ = digits()
    mg.manual_seed(seed)
    model = nn.MLP(hidden_dims=[50])
    loss = F.nll_loss(model(inputs), targets)
    try:
        for _ in range(40):
            if fixed:
                loss = F.nll_loss(model(inputs), targets)
            optim.gradient_update(loss, model.parameters(), lr=0.05)
    except RuntimeError as error:
        return str(error), loss.item()
    return "", loss.item()


@row(
    "The accuracy is 100% on the training set and much lower on the test set",
    seen=lambda train, test: train == 1 and test < 0.8,
    gone=lambda train, test: train - test < 0.15 and test > 0.85,
)
def too_few_examples(seed, fixed):
    inputs, targets, test_inputs, test_targets = digits()
    count, epochs = (600, 20) if fixed else (20, 60)
    inputs, targets = inputs[:count], targets[:count]
    model, _ = train(seed, inputs, targets, epochs=epochs)
    return accuracy(model, inputs, targets), accuracy(model, test_inputs, test_targets)


@row(
    "The accuracy on the test set stays near 10%, however long it trains",
    seen=lambda test: test < 0.25,
    gone=lambda test: test > 0.8,
)
def labels_shuffled_apart(seed, fixed):
    inputs, targets, test_inputs, test_targets = digits()
    order = np.random.default_rng(seed).permutation(len(inputs))
    model, _ = train(seed, inputs[order], targets[order] if fixed else targets, epochs=10)
    return accuracy(model, test_inputs, test_targets)


@row(
    "It predicts one class for almost everything",
    seen=lambda most: most > 0.5,
    gone=lambda most: most < 0.2,
)
def examples_in_order_of_class(seed, fixed):
    inputs, targets, test_inputs, test_targets = digits()
    order = np.argsort(targets.numpy(), kind="stable")
    model, _ = train(
        seed, inputs[order], targets[order], batches=datasets.minibatches if fixed else in_order
    )
    return max(np.bincount(model(test_inputs).argmax(1).numpy())) / len(test_targets)


@pytest.mark.filterwarnings("ignore:grad of a result")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("symptom", ROWS)
def test_the_symptom_has_this_cause(symptom, seed):
    function, seen, gone = ROWS[symptom]
    with np.errstate(all="ignore"):
        with_the_cause, without = function(seed, fixed=False), function(seed, fixed=True)
    as_arguments = lambda result: result if isinstance(result, (tuple, list)) else (result,)
    assert seen(*as_arguments(with_the_cause)), with_the_cause
    assert gone(*as_arguments(without)), without
    assert not seen(*as_arguments(without)) and not gone(*as_arguments(with_the_cause))


def test_the_table_has_these_rows():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (.*?) \| .* \| .* \|$", page, re.M)
    assert table[1:] == list(ROWS)  # after the title of the column
