"""The recipe of CONTRIBUTING.md gives an operation that passes the tests."""

import re
import textwrap

import pytest
import test_gradients
from helpers import ROOT
from hypothesis import given, strategies as st

import minigrad as mg
from minigrad import functional, more_ops, tensors, testing


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # such as: log of 0
def test_the_recipe_for_an_operation(monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = map(textwrap.dedent, re.findall(r"```python\n(.*?)```", text, re.S))
    operation, method, entry = blocks
    for code, room, holder in ((operation, more_ops, more_ops), (method, tensors, mg.Tensor)):
        exec(code, names := dict(vars(room)))
        monkeypatch.setattr(holder, "log1p", names["log1p"], raising=False)
    (entry,) = eval(f"{{{entry}}}", vars(test_gradients)).values()
    given(st.data())(lambda data: test_gradients.agrees_with_pytorch(data, entry, "float32"))()
    calls = test_gradients.smooth_calls(entry)
    testing.check_operation(lambda f, *inputs: f(functional, *inputs), calls)
    assert mg.Tensor.log1p(1).item() == mg.tensor(2.0).log().item()
