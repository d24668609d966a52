"""Names that people try and that minigrad leaves out on purpose, with what to use instead."""

from typing import Any

USE = {
    "minigrad": {
        "FloatTensor": "tensor()",
        "array": "tensor()",
        "autograd": "loss.backward(), and then w.grad; operation() in place of Function",
        "asarray": "tensor(), which copies, or from_numpy(), which shares",
        "as_tensor": "tensor(), which copies, or from_numpy(), which shares",
        "bmm": "x @ y, which multiplies stacks of matrices",
        "concat": "cat()",
        "concatenate": "cat()",
        "cuda": "the CPU: minigrad has nothing else, so leave this out",
        "device": "the CPU: minigrad has nothing else, so leave this out",
        "dot": "x @ y",
        "einsum": "x @ y, permute() and sum()",
        "empty": "zeros(): uninitialised memory holds wrong numbers",
        "enable_grad": "no_grad() around the parts that must not be recorded",
        "expand_dims": "unsqueeze()",
        "float16": "float32: half precision loses small gradients",
        "grad": "loss.backward(), and then w.grad",
        "inference_mode": "no_grad()",
        "logsumexp": "(x - x.log_softmax(dim)).mean(dim)",
        "mm": "x @ y",
        "norm": "(x * x).sum().sqrt()",
        "random": "randn(), rand() and randint()",
        "set_grad_enabled": "no_grad() around the parts that must not be recorded",
        "sort": "argmax(), or NumPy's argsort on x.detach().numpy()",
        "topk": "argmax(), or NumPy's argsort on x.detach().numpy()",
        "utils": "datasets.minibatches() in place of a DataLoader",
    },
    "minigrad.nn": {
        "BatchNorm1d": "inputs that are normalised once, as in `minigrad.datasets`",
        "Conv2d": "Linear: minigrad is about multi-layer perceptrons",
        "Dropout": "x * mask / keep, where mask is (mg.rand(*x.shape) < keep)",
        "Embedding": "a Parameter W and W[indices]",
        "ModuleDict": "a dict: its Modules are found",
        "ModuleList": "a list: its Modules are found",
        "ParameterList": "a list: its Parameters are found",
        "functional": "minigrad.functional",
        "init": "`with no_grad(): weight[...] = ...`",
        "utils": "minigrad.functional and plain loops over model.parameters()",
    },
    "minigrad.functional": {
        "binary_cross_entropy": "cross_entropy with two classes",
        "dropout": "x * mask / keep, where mask is (mg.rand(*x.shape) < keep)",
        "one_hot": "eye(classes)[targets]",
        "sigmoid": "x.sigmoid()",
        "tanh": "x.tanh()",
    },
    "minigrad.optim": {
        "AdamW": "Adam",
        "Adagrad": "RMSprop",
        "LBFGS": "SGD with momentum, or Adam",
        "lr_scheduler": "`optimizer.lr *= 0.5` between steps",
    },
    "Tensor": {
        "add_": "x += y",
        "astype": "to(dtype)",
        "copy_": "x[...] = y",
        "copy": "clone(), or detach().clone() without a history",
        "cpu": "the CPU: minigrad has nothing else, so leave this out",
        "cuda": "the CPU: minigrad has nothing else, so leave this out",
        "device": "the CPU: minigrad has nothing else, so leave this out",
        "dim": "ndim",
        "expand": "broadcasting, which arithmetic does automatically",
        "fill_": "x[...] = value",
        "dot": "x @ y",
        "gather": "x[rows, indices]",
        "grad_fn": "x.node, which `explain` shows",
        "half": "float(): half precision loses small gradients",
        "int": "long()",
        "mm": "x @ y",
        "mul_": "x *= y",
        "norm": "(x * x).sum().sqrt()",
        "ravel": "flatten()",
        "repeat": "cat([x, x])",
        "register_hook": "retain_grad()",
        "square": "x * x",
        "sub_": "x -= y",
        "t": "T",
    },
}


def missing(where: str, name: str) -> AttributeError:
    """The error for a name that ``where``, a module or a class, does not have."""
    hint = USE[where].get(name)
    said = f"{where} has no attribute {name!r}"
    return AttributeError(f"{said}, on purpose; use {hint}" if hint else said)


def getattr_of(where: str) -> Any:
    """A module's ``__getattr__``, which Python calls for names that the module lacks."""

    def __getattr__(name: str) -> Any:
        raise missing(where, name)

    return __getattr__
