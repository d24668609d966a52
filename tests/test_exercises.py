"""The page of exercises: stubs fail, solutions pass, typical mistakes are told how to go on."""

import re
import traceback

import pytest
from helpers import ROOT, child

PAGE = (ROOT / "docs" / "exercises.md").read_text()
EXERCISES = {
    int(number): re.findall(r"```python\n(.*?)```", text, re.DOTALL)  # stub, check, solution
    for number, text in re.findall(r"^## (\d)\. (.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}

# What the last line says while the stub is as it is on the page
STUBS = {
    1: r"rises left of 0 and falls right of 0",
    2: r"from \(2, 3\) to \(3,\): got shape \(2, 3\); sum over the axis .* in front",
    3: r"shape \(\), wanted \(3, 3\); x\[n, d\] is used in out\[n, h\] for every h",
    4: r"first loss is 0.000, .* does nll_loss receive log-probabilities\?",
    5: r"gives \[-inf -inf\]: exp overflows",
    6: r"mul: write the product on the tape",
}

NEW_AXES = "    while G.ndim > len(shape):\n        G = G.sum(axis=0)\n"
UPDATE, FORGET = "w.data -= lr * w.grad", "        w.grad = None\n"
WALK = "for place in range(root, -1, -1)"
LOOP = EXERCISES[6][2].split("    grads[root] = 1.0\n")[1]
RECURSION = """    def send(place):
        for i, derivative in tape[place][1]:
            grads[i] += grads[place] * derivative
            send(i)
    send(root)
    return grads
"""
TO_DO_LIST = """    to_do = [root]
    while to_do:
        place = to_do.pop()
        for i, derivative in tape[place][1]:
            grads[i] += grads[place] * derivative
            to_do.append(i)
    return grads
"""
OUT = "out = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))"
QUOTIENT = "e = np.exp(shifted); out = np.log(e / e.sum(axis=1, keepdims=True))"
TO_X = "G - np.exp(out) * G.sum(axis=1, keepdims=True)"

# Typical mistakes: what the solution has, what stands there instead, and what the last line says
MISTAKES = [
    (1, "G * -2 * x * out", "-2 * x * out", "multiply the derivative by G"),
    (1, "G * -2 * x * out", "G * out", "which factor of the chain rule changes sign"),
    (1, "-2 * x", "2 * x", "which factor of the chain rule changes sign"),
    (1, "-2 * x", "-x", "analytic gradient .* finite difference"),
    (1, "-2 * x * out", "-2 * x", "analytic gradient .* finite difference"),
    (1, "lambda G: G *", "lambda G: G * G *", "analytic gradient .* finite difference"),
    (2, NEW_AXES, "", r"to \(3,\): got shape \(2, 3\); sum over the axis .* in front"),
    (2, ", keepdims=True", "", r"to \(2, 1\): got shape \(2,\); .*keepdims=True"),
    (2, "G = G.sum(axis=0)", "G = G.mean(axis=0)", r"to \(3,\): .*each use counts in full"),
    (2, "G = G.sum(axis=0)", "G = G[0]", r"to \(3,\): .*each use counts in full"),
    (2, "G.sum(axis=axis, keepdims=True)", "G[:, :1]", r"to \(2, 1\): .*stretched axis"),
    (2, "    return G\n", "    return G.sum(axis=0)\n", "nothing was broadcast"),
    (2, "if length == 1:", "if length == 1 and axis > 0:", r"\(1, 3, 1\): got .* every stretched"),
    (2, "    return G\n", "    G\n", "unbroadcast returns nothing: is `return` missing"),
    (3, "G @ weight", "G @ weight.T", r"x\[n, d\] is used .* times weight\[h, d\]"),
    (3, "G.T @ x", "x.T @ G", r"weight\[h, d\] is used .* times x\[n, d\]"),
    (3, "G.T @ x", "G.T @ x / len(x)", r"wrong numbers; weight\[h, d\] .* sum G"),
    (3, "G.sum(axis=0)", "G", r"shape \(3, 3\), wanted \(3,\); bias\[h\] is used"),
    (3, "G.sum(axis=0)", "G.sum(axis=1)", r"bias\[h\] is used in out\[n, h\] for every n"),
    (3, "G.sum(axis=0)", "G.mean(axis=0)", r"wrong numbers; bias\[h\] .* sum G"),
    (4, "F.log_softmax(images @ w)", "images @ w", "does nll_loss receive log-prob"),
    (4, "F.log_softmax(images @ w)", "(images @ w).softmax(1)", "does nll_loss receive log-prob"),
    (4, UPDATE, "w = w - lr * w.grad", r"w\.data -= \.\.\. \(unsupported operand .*NoneType"),
    (4, UPDATE, "w = (w - lr * w.grad).detach()", r"w\.data -= \.\.\. \(backward\(\) found no"),
    (4, UPDATE, "w -= lr * w.grad", "may change in place only under no_grad"),
    (4, FORGET, "", "used the sum of two gradients.* forget the old gradient first"),
    (4, UPDATE, "w.grad.zero_(); " + UPDATE, "w does not move"),
    (4, FORGET, "        w.grad.zero_()\n", r"w\.grad is None until .* in which order .* 'zero_'"),
    (4, UPDATE, "w.grad = None; " + UPDATE, r"in which order does a step .* 'NoneType'"),
    (4, "loss.backward()", "loss.backward", r"w\.grad is None until backward\(\) has run"),
    (4, UPDATE, "w.data += lr * w.grad", r"is the update w\.data -= lr \* w\.grad\?"),
    (5, "shifted -", "x -", r"gives \[2000\. .* from both x in the formula"),
    (5, "shifted = x - x.max(axis=1, keepdims=True)", "shifted = x - x.max(axis=1)", "keepdims"),
    (5, "x.max(axis=1, keepdims=True)", "x.min(axis=1, keepdims=True)", "none above 0"),
    (5, "x.max(axis=1, keepdims=True)", "x.mean(axis=1, keepdims=True)", "none above 0"),
    (5, "x.max(axis=1, keepdims=True)", "x.max()", "subtract the maximum of each row"),
    (5, OUT, QUOTIENT, "subtract the logarithm of the sum instead"),
    (5, OUT, QUOTIENT.replace("=True))", "=True) + 1e-9)"), "logarithm of the sum instead"),
    (5, OUT, "out = shifted", "what does the formula subtract besides the shift"),
    (5, "shifted = x - ", "shifted = x; shifted -= ", "changed input 0 in place"),
    (5, TO_X, TO_X.replace("exp(out)", "exp(x) / np.exp(x).sum(axis=1, keepdims=True)"), "on the way back"),
    (5, TO_X, "G - np.exp(out)", r"every G\[c\] of the row counts"),
    (5, TO_X, "G * (1 - np.exp(out))", r"every G\[c\] of the row counts"),
    (5, TO_X, "np.exp(out) * (G - (G * np.exp(out)).sum(axis=1, keepdims=True))", "finite diff"),
    (6, "    return number(", "    number(", "mul returned None, wanted a place on the tape"),
    (6, "[(i, y), (j, x)]", "[(i, x), (j, y)]", r"∂\(a \* b\)/∂a is b"),
    (6, "[(i, y), (j, x)]", "[(i, 1.0), (j, 1.0)]", r"∂\(a \* b\)/∂a is b"),
    (6, "[(i, y), (j, x)]", "{i: y, j: x}.items()", r"both factors of x \* x"),
    (6, "    grads[root] = 1.0\n", "", "is 1: start with that"),
    (6, "grads[i] += ", "grads[i] = ", "do both uses count"),
    (6, WALK, "for place in range(root + 1)", "which number must have its turn before it"),
    (6, "grads[root] = 1.0", "grads[-1] = 1.0", "start at root"),
    (6, LOOP, RECURSION, "use a loop"),
    (6, LOOP, TO_DO_LIST, "have one turn, when its derivative is complete"),
]  # fmt: skip


def last_line(*blocks):
    """The error with which the blocks end, as Python prints it, on one line."""
    names = {}
    try:
        for block in blocks:
            exec(compile(block, "<exercise>", "exec"), names)
    except Exception as error:
        return " ".join("".join(traceback.format_exception_only(error)).split())
    return None


def test_there_are_six():
    assert list(EXERCISES) == list(STUBS) == [1, 2, 3, 4, 5, 6]
    assert all(len(blocks) == 3 for blocks in EXERCISES.values())
    assert len(re.findall(r"<details><summary>Solution</summary>\n\n```python", PAGE)) == 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", EXERCISES)
def test_the_stub_runs_and_the_check_says_what_is_missing(number):
    stub, check, _ = EXERCISES[number]
    assert last_line(stub) is None
    assert re.search(STUBS[number], last_line(stub, check))


@pytest.mark.filterwarnings("ignore")
def test_the_loop_can_be_mended_one_mistake_at_a_time():
    loop, check, _ = EXERCISES[4]
    for old, new, hint in (
        ("images @ w", "F.log_softmax(images @ w)", "Change its numbers in place"),
        ("w = w - lr * w.grad", UPDATE, "forget the old gradient first"),
        ("        loss.backward", FORGET + "        loss.backward", None),
    ):
        assert loop.count(old) == 1
        loop = loop.replace(old, new)
        said = last_line(loop, check)
        assert said is None if hint is None else re.search(hint, said)


def test_the_solutions_pass_with_what_the_readme_installs():
    """Each in a namespace of its own, with nothing that only tests install."""
    programs = ["".join([stub, solution, check]) for stub, check, solution in EXERCISES.values()]
    code = f"import sys\nfor program in {programs!r}: exec(program, {{}})\n"
    code += "assert not {'hypothesis', 'pytest', 'torch'} & sys.modules.keys()"
    printed = child(code=code)
    lines = printed.stdout.splitlines()
    assert [line[: len("1 is right: ")] for line in lines] == [f"{n} is right: " for n in EXERCISES]
    assert not printed.stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number, right, wrong, hint", MISTAKES)
def test_a_typical_mistake_is_told_how_to_go_on(number, right, wrong, hint):
    stub, check, solution = EXERCISES[number]
    assert solution.count(right) == 1
    said = last_line(stub, solution.replace(right, wrong), check)
    assert re.search(hint, said)
