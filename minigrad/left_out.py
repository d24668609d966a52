"""Names that people try and that minigrad leaves out on purpose, with what to use instead."""

from typing import Any

FUNCTIONS_AND_METHODS = {
    "argsort": "NumPy's argsort on x.detach().numpy()",
    "chunk": "slices, such as x[:3] and x[3:]",
    "cuda": "the CPU: minigrad has nothing else, so leave this out",
    "device": "the CPU: minigrad has nothing else, so leave this out",
    "dot": "x @ y",
    "isnan": "x != x",
    "mm": "x @ y",
    "norm": "(x * x).sum().sqrt()",
    "sort": "argmax(), or NumPy's argsort on x.detach().numpy()",
    "split": "slices, such as x[:3] and x[3:]",
    "topk": "argmax(), or NumPy's argsort on x.detach().numpy()",
}
LAYERS = {
    "Dropout": "x * mask / keep while training, where mask is (mg.rand(*x.shape) < keep)",
    "GELU": "x * (1.702 * x).sigmoid(), which is close to it",
    "L1Loss": "(x - y).abs().mean()",
    "LayerNorm": "(x - x.mean(-1, True)) / (x.var(-1, False, True) + 1e-5).sqrt()",
    "LeakyReLU": "maximum(x, 0.01 * x)",
}
USE = {
    "minigrad": FUNCTIONS_AND_METHODS
    | {
        "add": "x + y",
        "allclose": "((x - y).abs() < 1e-5).all()",
        "FloatTensor": "tensor()",
        "Generator": "manual_seed(), which seeds the only generator",
        "array": "tensor()",
        "autograd": "loss.backward(), and then w.grad; operation() in place of Function",
        "asarray": "tensor(), which copies, or from_numpy(), which shares",
        "as_tensor": "tensor(), which copies, or from_numpy(), which shares",
        "bincount": "eye(classes)[targets].sum(0)",
        "bmm": "x @ y, which multiplies stacks of matrices",
        "concat": "cat()",
        "concatenate": "cat()",
        "div": "x / y",
        "einsum": "x @ y, permute() and sum()",
        "empty": "zeros(): uninitialised memory holds wrong numbers",
        "eq": "x == y",
        "equal": "(x == y).all()",
        "enable_grad": "no_grad() around the parts that must not be recorded",
        "expand_dims": "unsqueeze()",
        "float16": "float32: half precision loses small gradients",
        "grad": "loss.backward(), and then w.grad",
        "inference_mode": "no_grad()",
        "isclose": "(x - y).abs() < 1e-5",
        "isfinite": "x.abs() < math.inf",
        "linalg": "NumPy's linalg on x.detach().numpy(), or (x * x).sum().sqrt() for a norm",
        "logsumexp": "(x - x.log_softmax(dim)).mean(dim)",
        "mul": "x * y",
        "neg": "-x",
        "pow": "x ** y",
        "random": "randn(), rand() and randint()",
        "randperm": "NumPy's argsort on rand(n).numpy(), or datasets.minibatches(), which shuffles",
        "round": "NumPy's round on x.detach().numpy()",
        "set_default_dtype": "dtype=float64 for each new Tensor, and model.double()",
        "set_grad_enabled": "no_grad() around the parts that must not be recorded",
        "sign": "NumPy's sign on x.detach().numpy()",
        "sub": "x - y",
        "utils": "datasets.minibatches() in place of a DataLoader",
    },
    "minigrad.nn": LAYERS
    | {
        "BCELoss": "CrossEntropyLoss() with two classes",
        "BCEWithLogitsLoss": "CrossEntropyLoss() with two classes: stack([0 * x, x], 1), y.long()",
        "BatchNorm1d": "inputs that are normalised once, as in `minigrad.datasets`",
        "Conv2d": "Linear: minigrad is about multi-layer perceptrons",
        "Embedding": "a Parameter W and W[indices]",
        "Identity": "Sequential()",
        "ModuleDict": "a dict: its Modules are found",
        "ModuleList": "a list: its Modules are found",
        "ParameterDict": "a dict: its Parameters are found",
        "ParameterList": "a list: its Parameters are found",
        "functional": "minigrad.functional",
        "init": "`with no_grad(): weight[...] = ...`",
        "utils": "minigrad.functional and plain loops over model.parameters()",
    },
    "minigrad.functional": {
        "dropout": LAYERS["Dropout"],
        "gelu": LAYERS["GELU"],
        "l1_loss": LAYERS["L1Loss"],
        "layer_norm": LAYERS["LayerNorm"],
        "leaky_relu": LAYERS["LeakyReLU"],
        "binary_cross_entropy": "cross_entropy with two classes",
        "binary_cross_entropy_with_logits": (
            "cross_entropy with two classes: stack([0 * x, x], 1), y.long()"
        ),
        "normalize": "x / (x * x).sum(dim, True).sqrt()",
        "one_hot": "eye(classes)[targets]",
        "sigmoid": "x.sigmoid()",
        "tanh": "x.tanh()",
    },
    "minigrad.optim": {
        "AdamW": (
            "Adam, whose weight_decay is added to the gradient; for that of AdamW, write "
            "`p *= 1 - lr * decay` under no_grad() before each step, for p in the parameters"
        ),
        "Adagrad": "RMSprop",
        "LBFGS": "SGD with momentum, or Adam",
        "lr_scheduler": "`optimizer.lr *= 0.5` between steps",
    },
    "Module": {
        "add_module": "an attribute: self.name = module",
        "apply": "a loop over model.modules()",
        "buffers": "attributes; state_dict() holds Parameters only",
        "cpu": "the CPU: minigrad has nothing else, so leave this out",
        "cuda": "the CPU: minigrad has nothing else, so leave this out",
        "half": "float(): half precision loses small gradients",
        "register_forward_hook": "a forward() of your own, which may keep what it computes",
        "register_buffer": "an attribute: self.name = x; state_dict() does not hold it",
        "register_parameter": "an attribute: self.name = Parameter(x)",
    },
    "Optimizer": {
        "add_param_group": "one optimiser for each group",
        "param_groups": "`optimizer.lr` and the other settings, and `optimizer.params`",
    },
    "Tensor": FUNCTIONS_AND_METHODS
    | {
        "add_": "x += y",
        "astype": "to(dtype)",
        "bool": "x != 0",
        "clamp_": "x[...] = x.clamp(min, max)",
        "contiguous": "reshape() in place of view(), or clone() for a copy in order",
        "copy_": "x[...] = y",
        "copy": "clone(), or detach().clone() without a history",
        "cpu": "the CPU: minigrad has nothing else, so leave this out",
        "dim": "ndim",
        "expand": "broadcasting, which arithmetic does automatically",
        "fill_": "x[...] = value",
        "gather": "x[rows, indices], where rows is, say, arange(N).reshape(-1, 1)",
        "grad_fn": "x.node, which `explain` shows",
        "half": "float(): half precision loses small gradients",
        "int": "to(int32), or long()",
        "masked_fill": "where(mask, value, x)",
        "mul_": "x *= y",
        "nelement": "numel()",
        "nonzero": "x[mask], or NumPy's nonzero on x.detach().numpy()",
        "normal_": "x[...] = randn(*x.shape)",
        "ravel": "flatten()",
        "repeat": "cat([x, x])",
        "register_hook": "retain_grad()",
        "scatter_": "x[rows, indices] = value",
        "square": "x * x",
        "sub_": "x -= y",
        "swapaxes": "transpose()",
        "t": "T",
        "type": "to(dtype)",
        "uniform_": "x[...] = rand(*x.shape)",
        "zero_grad": "`w.grad = None`",
    },
}


def missing(where: str, name: str) -> AttributeError:
    """The error for a name that ``where``, a module or a class, does not have."""
    hint = USE[where].get(name)
    said = f"{where} has no attribute {name!r}"
    return AttributeError(f"{said}, on purpose; use {hint}" if hint else said)


def getattr_of(where: str) -> Any:
    """The ``__getattr__`` of a module or class, which Python calls for names that it lacks."""

    def __getattr__(*self_and_name: Any) -> Any:
        *holder, name = self_and_name
        if holder and name not in USE[where]:
            return object.__getattribute__(*self_and_name)  # Python's error, or that of a property
        raise missing(where, name)

    return __getattr__
