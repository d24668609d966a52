"""What `explain` prints and `plot.graph` draws, and that both leave the graph as it was."""

import functools
import inspect
import io
import sys

import numpy as np
import pytest
from helpers import assert_drawn, child
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend

import minigrad as mg
from minigrad import engine, functional as F, more_ops, nn, ops, plot
from minigrad.explaining import describe
from minigrad.layout import lay_out

WORKED = """\
Forward
  v1 = leaf = 2
  v2 = leaf = 3
  v3 = mul(v1, v2) = 6
  v4 = add(v3, v1) = 8

Backward, with L = v4
  ∂L/∂v4 = 1
  at v4 = add(v3, v1), G = 1
    to v3: G = 1
    to v1: G = 1
  at v3 = mul(v1, v2), G = 1
    to v1: G * v2 = 3; added up: 4
    to v2: G * v1 = 2

Gradients of the leaves
  ∂L/∂v1 = 4
  ∂L/∂v2 = 2
"""


def test_a_scalar_graph_reads_like_a_worked_exercise(capsys):
    x, y = mg.tensor(2.0, requires_grad=True), mg.tensor(3.0, requires_grad=True)
    mg.explain(x * y + x)
    assert capsys.readouterr().out == WORKED


def broadcast():
    a, b = mg.ones(2, 3, requires_grad=True), mg.ones(3, requires_grad=True)
    return ((a + b) * b).sum()


def reused():
    x = mg.tensor(2.0, requires_grad=True)
    y = x * x
    return y * y + y * x + x  # 16 + 8 + 2; 4x³ + 3x² + 1 = 45


@mg.operation
def own_operation(x):
    shape = x.shape
    return x.sum(), lambda G: np.broadcast_to(G, shape)


@mg.operation
def relu(x):  # somebody else's, leaky
    slope = np.where(x > 0, 1, np.float32(0.1))
    return x * slope, lambda G: G * slope


@mg.operation
@mg.rule("2 * G * {0}")
def square(x):
    return x * x, lambda G: 2 * G * x


def one_for_many():
    factor = mg.tensor(0.5)
    terms = [mg.randn(3, 3, requires_grad=True) * factor for _ in range(8)]
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[::2], terms[1::2])]
    return terms[0]


def with_nan():
    x = mg.ones(3, 4, requires_grad=True)
    x.array[1, 1:3] = np.nan, np.inf
    return (x * 2).sum()


def whole_step(model=None):
    model = model or nn.MLP(784, 10, [20, 10])
    return F.nll_loss(model(mg.randn(5, 28, 28)), np.arange(5))


def used_five_times():
    x = mg.tensor(2.0, requires_grad=True)
    return x * 1 + x * 2 + x * 3 + x * 4 + x * 5


def recurrence(steps=30):
    w, h = mg.tensor(0.4, requires_grad=True), mg.tensor(0.5)
    for _ in range(steps):
        h = (w * h).tanh()
    return h


def stacked():
    x = mg.arange(12.0, requires_grad=True)
    return mg.stack([x, x * 2, mg.ones(12), x, x.exp()])


GRAPHS = {
    "broadcast": (broadcast, "to v2: G, summed over what broadcasting repeated = (3,): [2, 2, 2]"),
    "reused": (reused, "to v1: G * v1 = 20; added up: 45"),
    "its own rule": (
        lambda: own_operation(mg.ones(7, requires_grad=True)),
        "to v1: its own rule = (7,): all 1",
    ),
    "a rule of one's own": (
        lambda: square(mg.tensor(3.0, requires_grad=True)),
        "v2 = square(v1) = 9",
    ),
    "the rule of one's own": (
        lambda: square(mg.tensor(3.0, requires_grad=True)),
        "to v1: 2 * G * v1 = 6",
    ),
    "its own rule, but our name": (
        lambda: relu(mg.tensor([-1.0, 2.0], requires_grad=True)),
        "to v1: its own rule = (2,): [0.1, 1]",
    ),
    "one for many": (one_for_many, "to v1: G * v2 = (3, 3): all 0.5"),
    "NaN": (with_nan, "v1 = leaf = (3, 4): all 1, 2 not finite"),
    "nothing": (lambda: mg.ones(0, 3, requires_grad=True).sum(), "v1 = leaf = (0, 3)\n"),
    "picked twice": (
        lambda: mg.ones(3, requires_grad=True)[[0, 0, 2]],
        "to v1: G where v1 was picked (the sum of several), else 0 = (3,): [2, 0, 1]",
    ),
    "used five times": (used_five_times, "to v1: G * v4 = 2; added up: 14\n"),
    "a recurrence": (recurrence, "v62 = tanh(v61)"),
    "one input in three places of five": (stacked, "v6 = stack(v1, v3, v5, v1, v4)"),
    "the MLP": (whole_step, "Gᵀ @ v9 = (10, 10): "),
    "no scalar": (
        lambda: mg.ones(2, requires_grad=True) * 3,
        "\nBackward, with L = sum of v3\n  ∂L/∂v3 = (2,): [1, 1]\n",
    ),
    "no scalar, its leaf": (lambda: mg.ones(2, requires_grad=True) * 3, "∂L/∂v1 = (2,): [3, 3]"),
    "no element": (lambda: mg.ones(0, requires_grad=True) * 3, "with L = sum of v3\n"),
    "one element": (lambda: mg.ones(1, 1, requires_grad=True) * 3, "with L = v3\n"),
    "a leaf": (lambda: mg.ones((), requires_grad=True), "∂L/∂v1 = 1"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_every_kind(name, capsys, tmp_path):
    make, line = GRAPHS[name]
    loss = make()
    mg.explain(loss)
    assert line in capsys.readouterr().out
    figure = plot.graph(loss, tmp_path / "graph.png")
    assert_drawn(tmp_path / "graph.png")
    values, turns = describe(loss)
    boxes, arrows, labels = lay_out(values, turns)
    assert_nothing_overlaps(boxes, arrows)
    written = texts_of(figure)
    for value in values.values():
        assert any(text.startswith(f"{value.name} = ") for text in written)
    assert len(labels) == sum(len(list(filter(None, turn.contributions))) for turn in turns)
    assert_texts_fit(figure, boxes)


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def assert_nothing_overlaps(boxes, arrows):
    """Assert that no boxes touch each other, and that no arrow runs through a box."""
    where = [(b.x, b.y, b.width / 2, b.height / 2) for b in boxes.values()]
    for i, (x, y, wide, tall) in enumerate(where):
        for u, v, w, t in where[:i]:
            assert abs(x - u) > wide + w or abs(y - v) > tall + t
    for arrow in arrows:
        for (x, y), (u, v) in zip(arrow.points, arrow.points[1:]):
            for s in np.linspace(0, 1, 50):
                at = x + s * (u - x), y + s * (v - y)
                for p, q, wide, tall in where:
                    assert abs(at[0] - p) > wide - 1e-3 or abs(at[1] - q) > tall - 1e-3


def assert_texts_fit(figure, boxes):
    """Assert that each text of a box is inside it, and that all texts are on the page."""
    (axes,) = figure.axes
    patches = [patch.get_window_extent() for patch in axes.patches]
    assert len(patches) == len(boxes)
    texts = [text for text in axes.texts if text.get_text()]
    extents = [text.get_window_extent() for text in texts]
    inside = sum(len(box.texts) for box in boxes.values())
    for extent in extents[-inside:]:  # labels come first
        assert any(p.x0 < extent.x0 and extent.x1 < p.x1 and p.y0 < extent.y0 and extent.y1 < p.y1
                   for p in patches)  # fmt: skip
    for extent in [*extents, *patches]:
        assert 0 <= extent.x0 and extent.x1 <= figure.bbox.x1
        assert 0 <= extent.y0 and extent.y1 <= figure.bbox.y1


@mg.operation
@mg.rule("G * Σ₁")
def größe(x):
    return x * 1, lambda G: G


@pytest.mark.parametrize(
    "encoding, lines",
    [
        ("ascii", ["dL/dv1 = 1", "to v1: G * (1 - v2^2) = ", "at v3 = gr??e(v2)", "G * sum?"]),
        ("cp1252", ["dL/dv1 = 1", "to v1: G * (1 - v2²) = ", "at v3 = größe(v2)", "G * sum?"]),
        ("utf-8", ["∂L/∂v1 = 1", "to v1: G * (1 - v2²) = ", "at v3 = größe(v2)", "G * Σ₁"]),
        ("utf-16", ["∂L/∂v1 = 1", "to v1: G * (1 - v2²) = ", "at v3 = größe(v2)", "G * Σ₁"]),
        (None, ["∂L/∂v1 = 1", "to v1: G * (1 - v2²) = ", "at v3 = größe(v2)", "G * Σ₁"]),
    ],
)
def test_explain_where_characters_are_missing(encoding, lines, monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding) if encoding else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    mg.explain(größe(mg.zeros((), requires_grad=True).tanh()))
    assert sys.stdout is stdout and stdout.errors == (encoding and "strict")  # as it was
    stdout.seek(0)
    printed = stdout.read()
    assert all(line in printed for line in lines), printed


def lines_of(make, capsys, **options):
    mg.explain(make, **options)
    return capsys.readouterr().out.splitlines()


def test_names_are_those_of_a_model_or_of_a_mapping(capsys):
    model = nn.MLP(784, 10, [20])
    loss = whole_step(model)
    for names in (model, dict(model.named_parameters())):
        lines = lines_of(loss, capsys, names=names)
        assert "  main.0.bias = leaf = (20,): " in "\n".join(lines)
        assert any("v2 = linear(v1, main.0.weight, main.0.bias)" in line for line in lines)
        assert any("to main.2.weight: Gᵀ @ v3 = (10, 20): " in line for line in lines)
        assert any(line.startswith("  ∂L/∂main.2.bias = (10,): ") for line in lines)
        written = texts_of(plot.graph(loss, names=names))
        assert "main.0.bias = leaf" in written and "v1 = constant" in written


def test_results_and_constants_have_names_too_and_nothing_has_two(capsys):
    x, c = mg.tensor(2.0, requires_grad=True), mg.tensor(3.0)
    y = x * c
    unused = mg.ones(3, requires_grad=True) * 2
    loss = y + x
    names = {"v1": y, "c": c, "x": x, "again": x, "unused": unused, "": loss}
    assert lines_of(loss, capsys, names=names)[1:5] == [
        "  x = leaf = 2", "  c = constant = 3", "  v1 = mul(x, c) = 6", "  v2 = add(v1, x) = 8",
    ]  # fmt: skip


@pytest.mark.parametrize("names", [{"x": 3}, {"x": np.ones(2)}, [mg.ones(2)], "x", mg.ones(2)])
@pytest.mark.parametrize("show", [mg.explain, plot.graph])
def test_names_must_name_tensors(show, names):
    with pytest.raises(TypeError, match="names must be a Module, or a mapping from name to Tensor"):
        show(mg.ones(1, requires_grad=True) * 2, names=names)


def replace(x):
    x.data = mg.tensor(2.4)


def subtract(x):
    x.data -= 0.6


@pytest.mark.parametrize(
    "change, value",
    [
        (replace, "3 (replaced since then by 2.4)"),
        (subtract, "unknown (changed in place since then, to 2.4)"),
    ],
)
def test_numbers_that_have_changed_since_are_not_passed_off_as_those_of_then(change, value, capsys):
    x = mg.tensor(3.0, requires_grad=True)
    before, names = x + 0, {"x": x}
    y = x * x
    assert lines_of(y, capsys, names=names)[1] == "  x = leaf = 3"
    change(x)
    lines = lines_of(y, capsys, names=names)
    assert lines[1:3] == [f"  x = leaf = {value}", "  v1 = mul(x, x) = 9"]
    assert value in " ".join(texts_of(plot.graph(y, names=names)))
    assert lines_of(before, capsys)[1] == f"  v1 = leaf = {value}"
    assert lines_of(x * x, capsys)[1:3] == ["  v1 = leaf = 2.4", "  v2 = mul(v1, v1) = 5.76"]


def test_a_tensor_with_two_arrays_in_one_graph_is_not_two_of_one_name(capsys):
    x = mg.tensor(3.0, requires_grad=True)
    y = x * x
    replace(x)
    assert lines_of(y * x, capsys, names={"x": x})[1:5] == [
        "  x = leaf = 3 (replaced since then by 2.4)", "  v1 = mul(x, x) = 9",
        "  v2 = leaf = 2.4", "  v3 = mul(v1, v2) = 21.6",
    ]  # fmt: skip


def test_a_constant_that_has_changed_since(capsys):
    x, c = mg.ones(2, requires_grad=True), mg.ones(2)
    loss = (x + c).sum()
    c += 1
    lines = lines_of(loss, capsys)
    assert "  v2 = constant = (2,): unknown (changed in place since then, to [2, 2])" in lines


def arriving(x, names):
    """What the turns of a graph bring to the node of this name, as (rule, sent, sum, first, last)."""
    values, turns = describe(x, names)
    (node,) = (node for node, value in values.items() if value.name == "x")
    sent = [s for turn in turns for s in turn.contributions if s is not None and s.to is node]
    return [(s.rule, float(s.sent), float(s.total), s.first, s.last) for s in sent]


def test_the_turns_tell_what_comes_first_and_when_a_gradient_is_complete():
    x = mg.tensor(3.0, requires_grad=True)
    assert arriving(x * x, {"x": x}) == [
        ("G * x", 3, 3, True, False), ("G * x", 3, 6, False, True),
    ]  # fmt: skip
    assert arriving(x * 2, {"x": x}) == [("G * v1", 2, 2, True, True)]
    assert [total for _, _, total, _, _ in arriving(x * 1 + x * 2 + x * 3, {"x": x})] == [3, 5, 6]
    _, turns = describe(x * 2)
    assert [len(turn.contributions) for turn in turns] == [2, 0]
    assert turns[0].contributions[1] is None  # a constant


def labels_of(loss):
    return [text.text for text, _, _ in lay_out(*describe(loss))[2]]


def test_each_contribution_stands_on_its_edge_and_the_sum_in_the_box():
    labels = labels_of(used_five_times())
    assert sorted(labels) == ["1"] * 9 + ["2", "3", "4", "5"]  # 8 arrive at sums
    assert "grad 15" in texts_of(plot.graph(used_five_times()))
    x = mg.tensor([3.0, 0.25, -0.75], requires_grad=True)
    boxes, arrows, labels = lay_out(*describe(x * x))
    (text, left, y), (other, right, v) = labels
    assert len(arrows) == 2 and text == other and text.text == "[3, 0.25, -0.75]"
    assert y == v and right - left > text.width  # side by side


def test_small_arrays_show_their_shapes(capsys):
    written = texts_of(plot.graph(broadcast()))
    assert {"(2, 3)", "(3,)", "grad [6, 6, 6]"} <= {*written}, written


def test_value_and_gradient_differ_in_colour_and_what_is_not_finite_is_marked():
    (axes,) = plot.graph(with_nan()).axes
    texts = {text.get_text(): text for text in axes.texts if text.get_text()}
    colours = {text.get_color() for text in texts.values()}
    assert colours == {"black", plot.RED} and texts["grad 1"].get_color() == plot.RED
    marks = {
        name for name, text in texts.items()
        if np.allclose(text.get_bbox_patch().get_facecolor()[:3], to_rgb(plot.YELLOW))
    }  # fmt: skip
    assert marks == {"all 1, 2 not finite", "all 2, 2 not finite", "nan"}
    assert "NaN or infinite" in meanings(axes)
    assert "NaN or infinite" not in meanings(plot.graph(broadcast()).axes[0])
    x = mg.tensor(np.inf, requires_grad=True)
    (axes,) = plot.graph(x).axes
    (endless,) = (text for text in axes.texts if text.get_text() == "inf")
    assert np.allclose(endless.get_bbox_patch().get_facecolor()[:3], to_rgb(plot.YELLOW))


def meanings(axes):
    legends = axes.findobj(Legend)
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_a_legend_names_what_occurs_and_a_constant_is_not_called_a_leaf():
    one = "leaf: receives a gradient", "constant: needs none", "result of an operation"
    assert {*one, "contribution to a gradient"} < {*meanings(plot.graph(used_five_times()).axes[0])}
    assert one[1] not in meanings(plot.graph(broadcast()).axes[0])


def test_a_vanishing_gradient_is_seen_and_the_trunk_keeps_its_column():
    loss = recurrence()
    values, turns = describe(loss)
    trunk = [node for node in values if node.op is not None]
    boxes, _, _ = lay_out(values, turns)
    assert {boxes[node].x for node in trunk} == {0}
    (axes,) = plot.graph(loss).axes
    patches = {
        (patch.get_x() + patch.get_width() / 2, patch.get_y()): patch for patch in axes.patches
    }
    blue = [
        patch.get_facecolor()[2]
        for (x, y), patch in sorted(patches.items(), key=lambda p: p[0][1])
        if abs(x) < 0.01
    ]
    shades = blue[: len(trunk)]
    assert shades == sorted(shades) and len({*shades}) > 30  # the way up, paler and paler
    assert shades[0] < 0.5 and shades[-1] > 0.95


def test_a_gradient_of_zero_leaves_its_box_white():
    x = mg.tensor([-1.0, -2.0], requires_grad=True)
    (axes,) = plot.graph(F.relu(x).sum()).axes
    whites = [patch.get_facecolor() == (1, 1, 1, 1) for patch in axes.patches]
    assert whites.count(True) == 1


def test_above_a_hundred_nodes_it_warns_at_once(monkeypatch, recwarn):
    plot.graph(recurrence(49))
    assert not recwarn.list
    monkeypatch.setattr(plot, "lay_out", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="102 nodes is hard to read. Draw a part: plot.graph.x"):
        with pytest.raises(ZeroDivisionError):
            plot.graph(recurrence(50))


def test_a_notebook_shows_the_picture_without_pyplot():
    code = """if True:
        import sys
        import minigrad as mg
        from minigrad import plot
        x = mg.ones(2, requires_grad=True)
        picture = plot.graph((x * x).sum())
        assert "matplotlib.pyplot" not in sys.modules
        assert picture._repr_png_().startswith(b"\\x89PNG")
    """
    child(code=code)


def test_explain_changes_nothing(capsys):
    x = mg.ones(2, requires_grad=True)
    loss = (x * x).sum()
    loss.backward()
    grad, nodes = x.grad, engine.ancestors(loss.node)
    before = [(node, list(node.vjps), list(node.parents)) for node in nodes]
    mg.explain(loss)
    plot.graph(loss)
    assert x.grad is grad and grad.tolist() == [2, 2]
    assert before == [
        (node, list(node.vjps), list(node.parents)) for node in engine.ancestors(loss.node)
    ]
    failing = mg.operation(lambda x: (x * 1, lambda G: None))(x)
    with pytest.raises(RuntimeError, match="VJP of <lambda> must return an array, got NoneType"):
        mg.explain(failing)
    assert x.grad is grad


def test_an_operation_has_the_name_of_its_function():
    x = mg.ones(1, requires_grad=True)
    named = own_operation(x)
    partial = mg.operation(functools.partial(lambda by, x: (x * by, lambda G: G * by), 2))(x)
    assert named.node.name == "own_operation" and x.node.name == ""
    assert repr(named) == "tensor(1., grad_fn=<own_operation>)"
    assert repr(partial) == "tensor([2.], grad_fn=<custom>)"
    partial.backward()
    assert x.grad.item() == 2


@pytest.mark.parametrize("show", [mg.explain, plot.graph, plot.steps])
def test_a_graph_is_needed(show):
    with pytest.raises(TypeError, match="wanted a Tensor with a graph, got float"):
        show(1.0)
    with pytest.raises(RuntimeError, match="found no graph: .* with requires_grad=True"):
        show(mg.ones(1))
    with pytest.raises(TypeError, match="names must be a Module, or a mapping"):
        show(mg.ones(1, requires_grad=True) * 2, names={"x": 3})


def test_a_rule_may_be_above_or_below_operation(capsys):
    @mg.rule("three times G")
    @mg.operation
    def thrice(x):
        return 3 * x, lambda G: 3 * G

    mg.explain(thrice(mg.ones(2, requires_grad=True)).sum())
    assert "to v1: three times G = " in capsys.readouterr().out


def test_a_rule_has_a_text_for_each_input():
    with pytest.raises(TypeError, match=r"mul has 2 inputs \(x, y\); its rule has 1 texts"):

        @mg.rule("G * {1}")
        def mul(x, y, *, setting=0):
            return x * y, lambda G: G * y, lambda G: G * x


@pytest.mark.parametrize("room", [ops, more_ops])
def test_every_operation_has_its_rule(room):
    takers_of_arrays = {
        name for name, f in vars(room).items()
        if inspect.isfunction(f) and f.__annotations__.get("return") == "Made"
    }  # fmt: skip
    assert (
        takers_of_arrays == {name for name, f in vars(room).items() if hasattr(f, "rule")} != set()
    )
