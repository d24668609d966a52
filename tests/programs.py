"""Random programs that are run in minigrad and in PyTorch, and compared after each step.

`program(seed)` draws one; `print` shows it as Python that can be pasted. `check` runs it, and
`shrink` makes a failing one short. A new operation is one line in OPERATIONS, anything else in
STEPS: text in which each ``{word}`` is drawn by the function of this name in WORDS.

A program runs in three worlds. `ours` is minigrad. `theirs` is PyTorch, of which only the errors
are used. The right numbers come from `kept`: PyTorch with a copy of everything that `backward`
needs. There, changes in place never affect a gradient, which belongs to the numbers that were
used in the forward pass.

To count messages for the seeds 0 to 1999, run ``python tests/programs.py 0 2000``.
"""

import collections
import contextlib
import copy
import math
import random
import re
import sys
import time
import warnings

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks

import minigrad as mg
from minigrad import functional

# Ways to make a new Tensor. A line is used if minigrad has everything that it names.
OPERATIONS = """
{clear} + {partner}
{clear} - {partner}
{clear} * {partner}
{clear} / {partner}
{clear} ** {partner}
{clear} {sign} {number}
{number} {sign} {clear}
{clear} {comparison} {rival}
{clear} {comparison} {number}
lib.tensor([0, 1, 44, 255], dtype=uint8) {comparison} {number}
-{tensor}
{factor} @ {other_factor}
{factor} @ {other_factor}
{matrix} @ {it}.T
{tensor}[{index}]
{tensor}[{index}]
{tensor}[{index}]
{tensor}.exp()
{positive}.log()
lib.tanh({tensor})
{floating}.relu()
F.log_softmax({floating}, dim={dim})
F.linear({rows}, {weight})
F.linear({rows}, {weight}, {bias})
F.nll_loss({scores}, {targets})
F.nll_loss({scores}, {targets})
F.nll_loss({scores}, {targets}, reduction={reduction})
{tensor}.sum({dims})
{floating}.mean({dims})
{tensor}.sum(())
{ranked}.max()
{ranked}.max({dim})[0]
{ranked}.max({dim})[0]
{ranked}.max(dim={dim}, keepdim=True)[0]
{ranked}.max(dim={dim}, keepdim=True)[1]
{ranked}.argmax({dims})
{tensor}.view({shape})
{tensor}.reshape({shape})
{tensor}.transpose({dim}, {dim})
{matrix}.T
{matrix}.transpose(0, 1)
{tensor}.clone()
{tensor}.detach()
{tensor}.data
{clear}.to({dtype})
{tensor}.float()
{tensor}.double()
{clear}.long()
lib.zeros_like({tensor})
lib.tensor({tensor}.item())
lib.tensor([np.float64({number}), 0.5])
lib.tensor([0, 200, 200], dtype=uint8).sum()
{tensor}[lib.zeros(0, dtype=bool)]
{hollow}[{it} > 0]
{hollow}[{it} > 0]
({floating}.detach() * 0 + 6e4).to(float16).mean().double()
copy.copy({tensor})
copy.deepcopy({tensor})
{lonely}.requires_grad_()
{clear}.abs()
{positive}.sqrt()
{tensor}.sigmoid()
{tensor}.sin()
{tensor}.cos()
F.softmax({floating}, dim={dim})
{ranked}.min()
{ranked}.min({dim})[0]
{ranked}.argmin({dims})
lib.maximum({clear}, {alike})
lib.minimum({clear}, {alike})
{clear}.clamp({number}, {number})
{clear}.clamp(min={number})
lib.where({clear} > 0, {tensor}, {alike})
lib.cat([{tensor}, {alike}], dim={dim})
lib.stack([{tensor}, {alike}], dim={dim})
{tensor}.squeeze()
{tensor}.squeeze({dim})
{tensor}.unsqueeze({dim})
{tensor}.flatten()
{matrix}.permute(1, 0)
{floating}.var({dims})
{floating}.std({dims})
{tensor}.prod({dims})
{tensor}.cumsum({dim})
F.cross_entropy({scores}, {targets}, reduction={reduction})
F.mse_loss({floating}, {alike})
"""

# All other steps. A bar separates the lines of a step that has several.
STEPS = """
{new} = {leaf}
{new} = {tensor}
del {tensor}
{under}{clear} {sign}= {partner}
{under}{clear} {sign}= {partner}
{under}{tensor}[{index}] = {partner}
{under}{clear}[{index}] {sign}= {number}
{under}{tensor}.{alias}[{index}] = {partner}
{clear}.data {sign}= {number}
{tensor}.data = {like}
{plain}.data = {leaf}
{under}{tensor}.zero_()
{tensor}.{alias}.zero_()
for row in {clear}: row {sign}= {number} | del row
for row in {clear}: row {sign}= {number}
def go(x): x {sign}= {number} | go({clear})
{unused}.requires_grad = {flag}
g = no_grad()(lambda x: (yield x * 2))({floating}) | {new} = next(g)
y = ({trainable} + 1).sum() | y.backward() | with no_grad(): {it} += 1 | y.backward()
{new} = {floating} {sign} {it} | {under}{it} {sign}= {number}
y = {floating}.exp() | {under}y {sign}= {number}
{new} = {tensor}.{same} | {it}.{alias}[...] = {like}
{new} = {tensor}.{same} | {it}.{alias}[...] = {like}
h = lib.tensor([1, 2], dtype=uint8) | h[0] = {number}
{new} = {matrix}.T.view(-1)
y = {rows} * {it} | {it}.detach()[0] = 3 | y.sum().backward()
i = {places} | {new} = {it}[i] | i[0] = 0
i = lib.tensor({places}) | {new} = {it}[i, None] | i += 1
i = {row_mask} | {new} = {it}[i] | i[...] = True
{backward}
{backward}
{backward}
{trained}.grad = None
{trained}.grad.zero_()
{new} = {trained}.grad
with no_grad(): {trained} -= 0.5 * {it}.grad
{trained}.data -= 0.5 * {it}.grad.data
o = optim.SGD([{trainable}], lr=0.5, momentum=0.5) | ({it} * {it}).sum().backward() | o.step() | o.step()
o = optim.{optimizer}([{trainable}], lr=0.25) | ({it} * {it}).sum().backward() | {steady}o.step() | o.step()
o = optim.{optimizer}([{trainable}], lr=0.25) | ({it} * {it}).sum().backward() | {steady}o.step() | o.step()
{steady}o.step()
o.zero_grad()
m = {model} | x = {example} | y = m(x)
m = {model} | x = {example} | y = m(x) | y.sum().backward() | o = optim.{optimizer}(m.parameters(), lr=0.25) | {steady}o.step()
w = m[0].weight
m = {model} | w = m[0].weight.{alias} | m.load_state_dict({name: 2 * entry for name, entry in m.state_dict().items()})
m = {model} | s = {name: 2 * entry for name, entry in m.state_dict().items()} | m.load_state_dict(s) | m[0].weight.{alias}.zero_()
m = {model} | y = m({example}) | s = m.state_dict() | m.load_state_dict({name: 2 * entry for name, entry in s.items()}) | y.sum().backward()
"""

TYPES = ["float32", "float64", "int64", "int32", "uint8", "bool"]
SHAPES = [  # the shapes of one program broadcast, as far as possible
    [(2, 3), (2, 3), (3,), (1, 3), (2, 1), ()],
    [(2, 2), (2, 2), (2,), (1, 2), ()],
    [(2, 1, 3), (2, 3), (3,), (2, 2, 1)],
    [(3,), (1,), (3,), (3, 1), ()],
    [(0, 2), (2,), (1, 2), (0, 1), (2, 0), (0,), ()],
]
LARGE = 1e4  # where programs end
LENIENT = re.compile(  # what PyTorch refuses, and minigrad computes as NumPy does
    r"operator, with a bool tensor|negative integer powers|argmax.* bool input|can't assign a list|a single memory location"
)
REFUSALS = RuntimeError, ValueError, TypeError, IndexError, OverflowError


class NothingFits(Exception):
    """No variable fits a template."""


def clear(t):
    """Whether rounding, which differs between the libraries, cannot carry a number across a
    threshold: each number is a multiple of 1/4 or far from all of these."""
    away = (t.detach().double() * 4).frac().abs()
    return bool(((away == 0) | (away > 1e-3) & (away < 1 - 1e-3)).all())


def floating(t):
    return t.is_floating_point() and clear(t)


class Draw:
    """Random choices. `it` is the name of the Tensor that was drawn last, and `value` is that
    Tensor in PyTorch."""

    def __init__(self, seed):
        self.random, self.world = random.Random(seed), world(torch)
        self.types = self.pick(TYPES, TYPES[1:], ["float32"], ["float64"], ["float32", "int64"])
        self.shapes, self.coarse = self.pick(*SHAPES), self.pick(True, False)

    def fill(self, template):
        return re.sub(r"\{(\w+)\}", lambda match: str(WORDS[match[1]](self)), template)

    def pick(self, *options):
        return self.random.choice(options)

    def below(self, n):
        return self.random.randrange(n)

    def find(self, test, keep_it=False):
        """The name of a variable that passes a test."""
        tensors = {n: v for n, v in self.world.items() if isinstance(v, torch.Tensor)}
        name = self.pick(*[n for n, v in tensors.items() if test(v)] or [None])
        if name is None:
            raise NothingFits
        if not keep_it:
            self.it, self.value = name, tensors[name]
        return name

    def partner(self, test):
        """A variable that broadcasts with `it` and passes a test."""
        lengths = self.value.shape[::-1]
        fits = lambda v: all(n == m or 1 in (n, m) for n, m in zip(lengths, v.shape[::-1]))
        return self.find(lambda v: fits(v) and test(v), keep_it=True)

    def apart(self, v):
        """Whether rounding does not decide how `it` and another variable compare."""
        return clear(self.value.double() - v.double())

    def multiplies(self, v):
        return v.dtype == self.value.dtype and v.shape[-2:][:1] == self.value.shape[-1:]

    def places(self, count, length):
        return [self.random.randrange(length) for _ in range(count)]

    def number(self):
        return self.pick("0", "1", "2", "3", "-1", "300", "0.5", "-1.5", "True")

    def numbers(self, shape, dtype):
        """Multiples of 1/4, so that hardly anything is rounded."""
        if shape:
            return [self.numbers(shape[1:], dtype) for _ in range(shape[0])]
        if "float" in dtype:
            return self.random.randint(-2, 2) / 2 if self.coarse else self.random.randint(-8, 8) / 4
        return self.pick(*{"bool": [True, False], "uint8": [0, 1, 2, 200]}.get(dtype, range(-2, 4)))

    def leaf(self, shape, dtype, grad=None):
        grad = "float" in dtype and self.pick(True, True, False) if grad is None else grad
        data = f"zeros({shape}" if 0 in shape else f"tensor({self.numbers(shape, dtype)}"
        return f"lib.{data}, dtype={dtype}{', requires_grad=True' * grad})"

    def like(self, *shape, grad=None):
        """A leaf with the dtype of `it`."""
        return self.leaf(shape, str(self.value.dtype)[6:], grad)

    def dim(self):
        """A dimension of `it`; rarely no dimensions, or one that it does not have."""
        if self.value.ndim == 0 and self.below(5):
            raise NothingFits
        n = max(self.value.ndim, 1)
        return self.random.randrange(-n, n) if self.random.random() < 0.95 else n

    def shape(self):
        """Another shape for `it`."""
        n = self.value.numel()
        return self.pick(-1, (n,), (n, 1), *[s for s in sum(SHAPES, []) if math.prod(s) == n])

    def index(self):
        """A mask, a variable, or an index for some dimensions."""
        shape, kind = tuple(self.value.shape), self.random.random()
        if kind < 0.1:
            return self.leaf(shape[: self.random.randint(min(1, len(shape)), len(shape))], "bool")
        if kind < 0.2:
            return self.find(lambda v: v.ndim and not v.is_floating_point(), keep_it=True)
        parts = []
        for n in shape[: self.random.randint(1, 3)]:
            ints = [self.random.randrange(-n, n) for _ in range(3)] if n else [0]
            rare = self.pick("None", "...", "[]", f"{[True] * n}", f"lib.tensor({ints})")
            parts += [self.pick(":", "1:", ":-1", "::2", ints[0], ints[0], ints[:2], ints, rare)]
        return ", ".join(map(str, parts)) or self.pick("...", "None", "()")

    def backward(self, test=lambda v: True):
        inner = lambda v: v.requires_grad and (not v.is_leaf or self.below(4) == 0)
        loss = self.find(lambda v: inner(v) and test(v))
        shape = tuple(self.value.shape)
        ones = f"lib.ones({shape}, dtype={str(self.value.dtype)[6:]})"
        given = f"{loss}.backward(gradient={self.pick(ones, self.like(*shape, grad=False))})"
        square = f"({loss} * {loss}).sum().backward()"
        return self.pick(given, given, square, f"{loss}.sum().backward()", f"{loss}.backward()")

    def used(self):
        """The leaves of a graph; for that graph, minigrad keeps whether they required grad."""
        return [leaf for v in variables(self.world).values() for leaf in leaves_of(v)]

    def steady(self):
        """Nothing, if no gradient is nearly 0: an optimiser might divide it by its size."""
        grads = [v.grad for v in variables(self.world).values() if v.is_leaf]
        if not all(clear(grad) for grad in grads if grad is not None):
            raise NothingFits
        return ""

    def model(self):
        sizes = {"0.weight": (3, 2), "0.bias": (3,), "2.weight": (2, 3), "2.bias": (2,)}
        state = ", ".join(f"{k!r}: {self.leaf(v, 'float32', False)}" for k, v in sizes.items())
        layers = "nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)"
        return f"nn.Sequential({layers}); m.load_state_dict({{{state}}})"


WORDS = {
    # variables
    "it": lambda d: d.it,
    "new": lambda d: d.pick(*"abcdefgh"),
    "tensor": lambda d: d.find(lambda v: True),
    "clear": lambda d: d.find(clear),
    "ranked": lambda d: d.find(lambda v: clear(v.double().reshape(-1, 1) - v.double().reshape(-1))),
    "positive": lambda d: d.find(lambda v: (v > 0).all()),
    "floating": lambda d: d.find(floating),
    "rows": lambda d: d.find(lambda v: floating(v) and v.ndim > 0),
    "scores": lambda d: d.find(lambda v: floating(v) and v.ndim == 2 and v.shape[1] > 0),
    "hollow": lambda d: d.find(lambda v: v.ndim > 0 and v.numel() == 0),
    "matrix": lambda d: d.find(lambda v: v.ndim == 2),
    "factor": lambda d: d.find(lambda v: v.ndim > 0),
    "lonely": lambda d: d.find(
        lambda v: all(w._base is not v for w in variables(d.world).values())
    ),
    "unused": lambda d: d.find(
        lambda v: (
            v.is_leaf
            and not any(v is leaf for leaf in d.used())
            and all(w._base is not v for w in variables(d.world).values())
        )
    ),
    "plain": lambda d: d.find(lambda v: not v.requires_grad),
    "trainable": lambda d: d.find(lambda v: v.is_leaf and v.requires_grad),
    "trained": lambda d: d.find(lambda v: v.is_leaf and v.grad is not None),
    # others that go together with `it`
    "partner": lambda d: d.partner(clear) if d.below(2) else d.number(),
    "rival": lambda d: d.partner(d.apart) if d.below(2) else d.number(),
    "alike": lambda d: d.partner(lambda v: v.dtype == d.value.dtype and d.apart(v)),
    "other_factor": lambda d: d.find(d.multiplies, keep_it=True),
    # new ones
    "leaf": lambda d: d.leaf(d.pick(*d.shapes), d.pick(*d.types)),
    "like": lambda d: d.like(*d.value.shape, grad=False),
    "weight": lambda d: d.like(2, d.value.shape[-1]),
    "bias": lambda d: d.like(2),
    "example": lambda d: d.leaf((2, 2), "float32"),
    "targets": lambda d: f"lib.tensor({d.places(len(d.value), d.value.shape[1])}, dtype=int64)",
    "places": lambda d: d.find(lambda v: v.ndim and len(v) > 1) and d.places(2, len(d.value)),
    "row_mask": lambda d: (
        d.find(lambda v: v.ndim and len(v) > 1) and d.leaf((len(d.value),), "bool")
    ),
    # settings
    "number": Draw.number,
    "sign": lambda d: d.pick("+", "-", "*", "/", "**"),
    "comparison": lambda d: d.pick("<", "<=", ">", ">=", "==", "!="),
    "under": lambda d: d.pick("", "with no_grad(): "),
    "alias": lambda d: d.pick("data", "detach()"),
    "same": lambda d: d.pick(
        "clone()", "detach()", "data", "float()", "double()", "long()", "view(-1)"
    ),
    "flag": lambda d: d.pick(True, False),
    "dtype": lambda d: d.pick(*d.types),
    "reduction": lambda d: d.pick("'mean'", "'sum'", "'none'"),
    "optimizer": lambda d: d.pick("SGD", "RMSprop", "Adam"),
    "dim": Draw.dim,
    "dims": lambda d: d.pick("", d.dim(), f"dim={d.dim()}, keepdim=True", "(0, 1)", "dim=(-1,)"),
    "shape": Draw.shape,
    "index": Draw.index,
    "backward": Draw.backward,
    "backward_y": lambda d: d.backward(lambda v: v is d.world["y"]),
    "steady": Draw.steady,
    "model": Draw.model,
}


HEADER = """\
import copy
import minigrad as lib  # or torch; backward() needs retain_graph=True there
from minigrad import functional as F, nn, no_grad, optim  # from torch.nn import functional as F
import numpy as np
from numpy import bool, float16, float32, float64, int32, int64, uint8  # from torch
"""


class Program:
    """Lines of Python, valid for both libraries."""

    def __init__(self, lines, seed=None):
        self.lines, self.seed = lines, seed

    def __str__(self):
        return HEADER + "\n".join([f"# program({self.seed})", *self.lines])


def world(lib):
    """The variables that a program starts with."""
    F, types = (functional, np) if lib is mg else (torch.nn.functional, torch)
    found = {name: getattr(types, name) for name in [*TYPES, "float16"]}
    return found | dict(
        np=np, lib=lib, F=F, nn=lib.nn, optim=lib.optim, no_grad=lib.no_grad, copy=copy
    )


def variables(world):
    """All Tensors by name, including those of models and their states."""
    found = {}
    for name, value in world.items():
        if isinstance(value, (mg.Tensor, torch.Tensor)):
            found[name] = value
        elif isinstance(value, (mg.nn.Module, torch.nn.Module)):
            found |= {f"{name}.{key}": parameter for key, parameter in value.named_parameters()}
        elif name == "s":
            found |= {f"s.{key}": entry for key, entry in value.items()}
    return found


def run(line, world, after=None):
    """Run a line; the type and the text of its error, or None."""
    try:
        exec(line, world)
        if after is not None:
            after(world)
    except Exception as error:  # not kept: it would keep the variables of its frames alive
        return type(error), str(error)


def disclaim(world):
    """For a view made under no_grad, PyTorch says that it requires grad, but it never receives a
    gradient. Correct that."""
    for name, v in world.items():
        if isinstance(v, torch.Tensor) and v._is_view() and v._base.requires_grad and v.is_leaf:
            world[name] = v.detach()


def run_in_torch(line, world, keep=False):
    """Run a line in PyTorch as it is meant: graphs are retained, comparisons do not wrap a number
    that the dtype cannot hold, and a view may copy."""
    line = line.replace(".backward(", ".backward(retain_graph=True, ")
    line = re.sub(r"(\w+|lib\..*\)) (<|<=|>|>=|==|!=) (-?[\d.]+)$", r"\1.double() \2 \3", line)
    line = re.sub(r"(\b[a-z]) (<|<=|>|>=|==|!=) ([a-z])$", r"\1.double() \2 \3.double()", line)
    line = line.replace(".view(", ".reshape(") if keep else line
    copies = saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t)
    with copies if keep else contextlib.nullcontext():
        return run(line, world, disclaim)


def leaves_of(t):
    """The leaves of the graph of a PyTorch tensor that receive a gradient."""
    found, unexplored = [], [t.grad_fn]
    while unexplored:
        node = unexplored.pop()
        if hasattr(node, "variable"):
            found.append(node.variable)
        unexplored += [parent for parent, _ in getattr(node, "next_functions", ())]
    return found


class Stale:
    """Detects a second sweep from a loss after one of its leaves has changed: minigrad refuses it."""

    def __init__(self):
        self.swept = []  # nodes of losses, and what their leaves were then

    def about_to_run(self, line, world):
        loss = world.get(line.partition(".backward(")[0]) if ".backward(" in line else None
        if not isinstance(loss, torch.Tensor) or loss.is_leaf:
            return False
        now = [(leaf, leaf.detach().clone()) for leaf in leaves_of(loss)]
        before = [then for fn, then in self.swept if fn is loss.grad_fn][-1:]
        self.swept.append((loss.grad_fn, now))
        return any(not equal(a, b) for then in before for (_, a), (_, b) in zip(then, now))


def equal(a, b):
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def has(template):
    """Whether minigrad has all functions and methods that are named."""
    names = re.findall(r"(?<!np)\.([a-z]\w*)", template)
    rooms = mg.Tensor, mg, functional, mg.nn, mg.optim, mg.nn.Module, mg.optim.SGD, copy
    return all(any(hasattr(room, name) for room in rooms) for name in names)


FORMS = "{new} = ", "{new} = ", "with no_grad(): {new} = ", "y = ", "y = "
KNOWN = [
    form + operation + " | {backward_y}" * (form == "y = ")
    for operation in filter(has, OPERATIONS.strip().splitlines())
    for form in FORMS
]
KNOWN_STEPS = STEPS.strip().splitlines()


def calm(world):
    """Whether all numbers are finite, and small enough that rounding hides no faults."""
    tensors = variables(world).values()
    tensors = [*tensors, *(t.grad for t in tensors if t.is_leaf and t.grad is not None)]
    values = [t.detach().double() for t in tensors if t.numel()]
    return all(float(value.abs().max()) < LARGE for value in values)


def program(seed):
    """Draw a program: leaves, steps, and at last gradients."""
    d, lines = Draw(seed), []
    leaves, between = ["{new} = {leaf}"] * 3, d.random.randint(2, 12)
    operations = d.pick(0.3, 0.9)  # their share: with fewer changes in place, more is compared
    steps = [
        d.pick(*KNOWN if d.random.random() < operations else KNOWN_STEPS) for _ in range(between)
    ]
    for step in leaves + steps + ["{backward}"] * 4:
        with contextlib.suppress(NothingFits):
            for template in step.split(" | "):
                line = d.fill(template)
                error = run_in_torch(line, d.world, keep=True)
                if error and run_in_torch("pass", d.world):  # it refuses to say what a view is
                    return Program(lines, seed)
                if error is None or error[0] is not NameError and d.pick(True, False, False):
                    lines.append(line)
                if error:
                    break
        if not calm(d.world):
            break
    return Program(lines, seed)


class Comparison:
    """Compares our variables with the right ones, with a tolerance for rounding."""

    def __init__(self):
        self.scale, self.tolerance = 1, 1e-12

    def difference(self, ours, kept):
        """The first difference between two worlds in words, or None."""
        mine, right = variables(ours), variables(kept)
        if mine.keys() != right.keys():
            return f"variables {[*mine]}, wanted {[*right]}"
        for name, t in right.items():
            text = self.between(mine[name], t)
            if text is None and t.is_leaf:
                name, text = f"{name}.grad", self.between(mine[name].grad, t.grad)
            if text:
                return f"{name}: {text}"
        for a in right:
            for b in right:
                if "." not in a + b and (mine[a] is mine[b]) != (right[a] is right[b]):
                    return f"{a} is {b}: {mine[a] is mine[b]}, wanted {right[a] is right[b]}"

    def between(self, mine, right):
        if mine is None or right is None:
            return None if mine is right else f"{mine}, wanted {right}"
        if facts(mine) != facts(right):
            return f"{facts(mine)}, wanted {facts(right)}"
        x, y = mine.detach().numpy(), right.detach().numpy()
        single = y.dtype == np.float32
        if y.dtype.kind == "f" and y.size:
            self.scale = max(self.scale, abs(y).max(initial=0, where=np.isfinite(y)))
            if single and (y * 64 % 1).any():
                self.tolerance = 1e-5  # from now on, float64 may have been computed from float32
        rtol = max(self.tolerance, 1e-5 * single) * (y.dtype.kind == "f")
        rtol *= 1 if self.scale < LARGE else 100  # x ** 300 has 300 times the relative error of x
        if not ((x == y).all() or np.allclose(x, y, rtol, rtol * self.scale, equal_nan=True)):
            return f"{x.tolist()}, wanted {y.tolist()}"


def facts(t):
    dtype = str(t.dtype).removeprefix("torch.")
    return f"{dtype} {tuple(t.shape)}{', requires grad' * t.requires_grad}{', leaf' * t.is_leaf}"


Verdict = collections.namedtuple("Verdict", "kind step text")


def check(program):
    """Run a program in the three worlds until they differ.

    The kind of the verdict is "same" (also if all raise); "ours raises", if PyTorch does not;
    "theirs raises", if ours does not and its numbers are right (or LENIENT, where they are not
    compared); or "silent difference". `step` is where the program ended, and `text` is the message
    or the difference.
    """
    ours, theirs, kept, comparison = world(mg), world(torch), world(torch), Comparison()
    stale, alive = Stale(), []
    for step, line in enumerate(program.lines):
        is_stale = stale.about_to_run(line, kept)
        if "o.step" in line:  # computes with rounded roots
            comparison.tolerance = 1e-5
        error, their_error = run(line, ours), run_in_torch(line, theirs)
        kept_error = run_in_torch(line, kept, keep=True)
        if error and not their_error:
            proper = issubclass(error[0], REFUSALS) and error[1]
            return Verdict(
                "ours raises" if proper else "silent difference",
                step,
                f"{error[0].__name__}: {error[1]}",
            )
        if is_stale and not error:
            return Verdict("silent difference", step, "a stale loss was swept again")
        if kept_error and not error:
            kind = "theirs raises" if LENIENT.search(kept_error[1]) else "silent difference"
            return Verdict(kind, step, f"only PyTorch raises: {kept_error[1]}")
        if error:  # PyTorch may have done half of it
            return Verdict("same", step, error[1])
        # A leaf that no variable holds gets no gradient in minigrad, even if its `grad` is held.
        alive += [v for v in variables(ours).values() if v.is_leaf and v._grad is not None]
        text = comparison.difference(ours, kept)
        if text:
            return Verdict("silent difference", step, text)
        if copied_for_a_view(line, ours):
            return Verdict("silent difference", step, "view copied")
        if their_error and not kept_error:
            return Verdict("theirs raises", step, their_error[1])
    return Verdict("same", len(program.lines), "")


def copied_for_a_view(line, world):
    """Whether minigrad's view does not share memory; PyTorch's views always do."""
    view = re.match(r"(?:with no_grad\(\): )?(\w) = (\w)(?:\.T)?\.view\(", line)
    if view is None or view[1] == view[2]:
        return False
    made, base = world[view[1]].array, world[view[2]].array
    return made.size > 0 and not np.shares_memory(made, base)


@contextlib.contextmanager
def quiet():
    """No warnings about what programs do on purpose, such as dividing by 0; and one thread, because
    for small arrays, waiting for others takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.set_num_threads(threads)


def shrink(program):
    """The program without the lines that do not affect its verdict."""
    lines, kind = program.lines, check(program).kind
    for i in reversed(range(len(lines))):
        shorter = Program(lines[:i] + lines[i + 1 :], program.seed)
        if check(shorter).kind == kind:
            lines = shorter.lines
    return Program(lines, program.seed)


def pattern(text):
    """A message without its numbers, for counting."""
    return re.sub(r"-?\b\d[\d.e-]*", "#", text.partition("\n")[0])[:150]


if __name__ == "__main__":
    seeds, start = range(*map(int, sys.argv[1:])), time.perf_counter()
    with quiet():
        found = {}
        for seed in seeds:
            verdict = check(program(seed))
            found.setdefault((verdict.kind, pattern(verdict.text)), []).append(seed)
    print(f"{len(seeds) / (time.perf_counter() - start):.0f} programs a second")
    for (kind, text), them in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{len(them):6} {kind}, first in program {them[0]}: {text}")
