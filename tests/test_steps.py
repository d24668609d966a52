"""The page that steps through a graph: what is in it, and in Chromium, what it shows and does."""

import base64
import html
import json
import os
import re
import shutil

import numpy as np
import pytest
from helpers import ROOT
from hypothesis import HealthCheck, given, settings
from test_explain import one_for_many, recurrence, reused, used_five_times, whole_step
from test_graphs import graphs, run

import minigrad as mg
from minigrad import engine, functional as F, layout, nn, plot, stepping
from minigrad.explaining import describe, shape_and_numbers


def leaf(*numbers, **options):
    return mg.tensor(*numbers, requires_grad=True, **options)


def chain():
    x = leaf(2.0)
    return x.exp(), {"x": x}


def worked():
    a, b = leaf(2.0), leaf(3.0)
    return a * b + a, {"a": a, "b": b}


def squared():
    x = leaf(-3.0)
    return x * x, {"x": x}


def broadcast():
    a, b = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), leaf([0.5, -1.0, 2.0])
    return ((a + b) * b).sum(), {"a": a, "b": b}


def classified():
    scores = leaf([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    return F.nll_loss(F.log_softmax(scores, dim=1), np.array([1, 2])), {"scores": scores}


def mlp():
    model = nn.MLP(784, 10, [100, 50, 20])
    return whole_step(model), model


def many_scalars():
    w, h = leaf(0.9), mg.tensor(0.5)
    for _ in range(59):
        h = (w * h).tanh()
    return h, {"w": w}


def hostile_names():
    x, y = leaf(2.0), leaf([1.0, -2.0])
    first = "</script><script>window.hacked = 1</script>"
    return (x * y).sum(), {first: x, "größe ∂ \"&' 重み": y}


def not_finite():
    x, y = leaf([[1.0, np.nan, np.inf], [0.0, -1.0, 2.0]]), leaf(np.linspace(-1.0, 1.0, 80))
    with np.errstate(all="ignore"):
        return x.log().sum() * (y / 0.0).sum(), {"x": x, "y": y}


def integers():
    x, n = leaf([1.0, 2.0]), mg.tensor([3, 123456789])
    return (x * n + 2).sum(), {"x": x, "n": n}


def no_scalar():
    x = leaf([1.0, 2.0])
    return x * 3, {"x": x}


def no_element():
    x = mg.ones(0, 3, requires_grad=True)
    return x.sum(), {"x": x}


def unnamed(make):
    return lambda: (make(), None)


GRAPHS = {
    "chain": chain, "a * b + a": worked, "x * x": squared, "broadcast": broadcast,
    "classified": classified, "the MLP": mlp, "120 nodes": many_scalars,
    "hostile names": hostile_names, "not finite": not_finite, "integers": integers,
    "no scalar": no_scalar, "no element": no_element, "reused": unnamed(reused),
    "used five times": unnamed(used_five_times), "one for many": unnamed(one_for_many),
    "a recurrence": unnamed(lambda: recurrence(5)), "a leaf": unnamed(lambda: leaf(1.0)),
}  # fmt: skip


def data_of(page):
    return json.loads(re.search('<script id="graph".*?>(.*)</script>', page.html)[1])


def walkable(make):
    mg.manual_seed(0)
    with np.errstate(all="ignore"):
        loss, names = make()
        return loss, names, plot.steps(loss, names=names)


@pytest.fixture(params=GRAPHS)
def made(request):
    """(loss, names, page)"""
    return walkable(GRAPHS[request.param])


def test_the_page_needs_nothing_else(made, tmp_path):
    loss, names, page = made
    with np.errstate(all="ignore"):
        plot.steps(loss, tmp_path / "steps.html", names)
    assert (tmp_path / "steps.html").read_text("utf-8") == page.html
    assert not re.search(r"https?:|\bsrc=|<link|@import|url\((?!#)|\bimport\b", page.html)
    assert page.html.count("<script") == page.html.count("</script>") == 2  # no name is a tag
    data_of(page)


def test_a_notebook_shows_the_page_in_a_frame(made):
    _, _, page = made
    (frame,) = re.findall('<iframe [^>]*srcdoc="([^"]*)"></iframe>', page._repr_html_())
    assert html.unescape(frame) == page.html
    assert len(repr(page)) < 100


def test_above_five_hundred_nodes_it_warns_at_once(monkeypatch, recwarn):
    def chain(length):
        x = leaf(1.0)
        for _ in range(length - 1):
            x = x.tanh()
        return x

    plot.steps(chain(500))
    assert not recwarn.list
    monkeypatch.setattr(stepping, "lay_out", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="501 nodes is hard to read.* plot.steps.x") as warned:
        with pytest.raises(ZeroDivisionError):
            plot.steps(chain(501))
    assert warned[0].filename == __file__


@pytest.mark.parametrize("name", ["name" * 50, "a name of words " * 20])
def test_a_long_name_makes_a_tall_box_and_not_a_wide_one(name):
    x = leaf(2.0)
    for node in data_of(plot.steps(x * x, names={name: x}))["nodes"]:
        wide, tall = node["size"]
        assert wide < 300 < 13 * tall and any("name" in line for line, *_ in node["lines"])


def test_the_page_of_a_step_of_the_mlp_stays_small():
    model = nn.MLP(784, 10, [800, 800, 800])
    page = plot.steps(F.nll_loss(model(mg.randn(250, 28, 28)), np.arange(250) % 10), names=model)
    assert len(page.html) < 1e6
    deep = mg.randn(100, 100, requires_grad=True)
    for _ in range(100):
        deep = deep.tanh()
    assert len(plot.steps(deep.sum()).html) < 1e6


def heat(array):
    x = mg.Tensor(array, requires_grad=True)
    data = data_of(plot.steps(x * 1, names={"x": x}))
    (node,) = (node for node in data["nodes"] if node["name"] == "x")
    told = data["arrays"][node["array"]]["heat"]
    levels = np.frombuffer(base64.b64decode(told["data"]), np.uint8).astype(float)
    return levels.reshape(-1, told["columns"]), told["block"], float(told["largest"])


@pytest.mark.parametrize("shape", [(65,), (8, 9), (1, 96), (96, 1), (3, 5, 7)])
def test_a_heat_map_shows_each_number_in_255_shades(shape, rng):
    array = rng.standard_normal(shape)
    levels, block, largest = heat(array)
    assert block == [1, 1] and largest == pytest.approx(np.abs(array).max(), rel=1e-3)
    numbers = (levels - 128) / 127 * np.abs(array).max()
    np.testing.assert_allclose(
        numbers, array.reshape(-1, shape[-1]), atol=np.abs(array).max() / 254
    )


@pytest.mark.parametrize("shape", [(97, 784), (1000,), (500, 3)])
def test_a_cell_of_a_reduced_heat_map_is_the_number_farthest_from_0(shape, rng):
    array = rng.standard_normal(shape)
    levels, (tall, wide), _ = heat(array)
    table = array.reshape(-1, shape[-1])
    assert levels.shape == (-(-table.shape[0] // tall), -(-table.shape[1] // wide))
    assert max(levels.shape) <= 96
    for i, j in np.ndindex(levels.shape):
        cells = table[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide].ravel()
        farthest = cells[np.abs(cells).argmax()] / np.abs(array).max()
        assert abs((levels[i, j] - 128) / 127 - farthest) <= 1 / 254 + 1e-12


def test_a_heat_map_marks_what_is_not_finite_and_no_other_cell():
    array = np.zeros((100, 200))
    array[0, 0], array[50, 100], array[99, 199] = np.nan, -np.inf, 3
    levels, (tall, wide), largest = heat(array)
    marked = {(0, 0), (50 // tall, 100 // wide)}
    assert {(i, j) for i, j in np.argwhere(levels == 0)} == marked
    assert largest == 3 and levels[-1, -1] == 255 and (levels == 128).sum() == levels.size - 3


def rules(loss, names=None):
    _, turns = describe(loss, names)
    return [sent.put_in for turn in turns for sent in turn.contributions if sent is not None]


def test_rules_have_numbers_put_in():
    assert rules(*worked()) == ["1", "1", "1 * 3", "1 * 2"]
    assert rules(leaf(-3.0) ** 2) == ["1 * 2 * (-3) ** (2 - 1)"]
    assert rules(-leaf(2.0) * -1) == ["1 * (-1)", "-(-1)"]
    assert rules(leaf([1.0, 2.0]) * leaf(-2.0)) == ["[1, 1] * (-2)", "[1, 1] * [1, 2], summed"]
    assert rules(leaf([[1.0, 2.0]]) @ leaf([[3.0] * 4] * 2)) == [
        "(1, 4) @ (2, 4)ᵀ",
        "[[1, 2]]ᵀ @ (1, 4)",
    ]
    assert rules(mg.ones(0, requires_grad=True) * 2) == ["(0,) * 2"]
    G = leaf(5.0)
    assert rules(G * 2, {"G": G}) == ["1 * 2"]


def test_numbers_that_have_changed_since_are_not_put_in():
    x, c = leaf([1.0, 2.0]), mg.ones(2)
    loss = (x[:2] + c).sum()
    x.data -= 1
    assert rules(loss, {"x": x})[-1] == "G where x was picked (the sum of several), else 0".replace(
        "G", "[1, 1]"
    )
    node = data_of(plot.steps(loss, names={"x": x}))["nodes"][0]
    assert node["array"] is None and node["numbers"].startswith("unknown (changed in place")


def assert_edges_join_their_boxes(page):
    data = data_of(page)
    nodes, edges = data["nodes"], data["edges"]
    wanted = [(i, which) for i, node in enumerate(nodes) for which in range(len(node["inputs"]))]
    assert sorted((edge["result"], edge["which"]) for edge in edges) == wanted
    sent = {(t["node"], i): s for t in data["turns"] for i, s in enumerate(t["sent"])}
    for edge in edges:
        result, which = nodes[edge["result"]], edge["which"]
        source = nodes[result["inputs"][which]]
        (x, y), (u, v) = edge["points"][0], edge["points"][-1]
        assert abs(x - source["middle"][0]) <= 1
        assert abs(y - source["middle"][1] - source["size"][1] / 2) <= 1.5
        assert abs(u - result["middle"][0]) < result["size"][0] / 2
        assert abs(v - result["middle"][1] + result["size"][1] / 2) <= 1.5
        heights = [y for _, y in edge["points"]]
        assert heights == sorted(heights)  # down the page
        assert (edge["spot"] is None) == (sent[edge["result"], which] is None)
        if edge["spot"]:
            assert heights[0] < edge["spot"][1] < heights[-1]
    assert len({(*map(tuple, edge["points"]),) for edge in edges}) == len(edges)  # x * x has two


def test_each_arrow_leads_from_its_input_to_its_result(made):
    assert_edges_join_their_boxes(made[2])


@given(graphs())
def test_each_arrow_of_a_random_graph_leads_from_its_input_to_its_result(graph):
    inputs, steps = graph
    total = run([mg.Tensor(a, requires_grad=True) for a in inputs], steps, F)
    assert_edges_join_their_boxes(plot.steps(total))


def test_the_colours_are_those_of_the_graph():
    template = (ROOT / "minigrad" / "steps.html").read_text("utf-8")
    for name, colour in (("value", plot.BLUE), ("grad", plot.RED), ("mark", plot.YELLOW)):
        assert f"--{name}: {colour};" in template


# In Chromium


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "install Chromium, or set the variable CHROMIUM to its path"
    with sync_playwright() as playwright:
        # A container's root has no sandbox to put it in.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Shown:
    """A page in the browser, its errors and its requests."""

    def __init__(self, chromium, folder, page, **options):
        file = folder / "steps.html"
        file.write_text(page.html, "utf-8")
        options = {"viewport": {"width": 620, "height": page.height}} | options
        self.tab = chromium.new_page(**{"reduced_motion": "reduce"} | options)
        self.tab.set_default_timeout(20_000)
        self.errors, self.requests = [], []
        self.tab.on("pageerror", lambda error: self.errors.append(error))
        self.tab.on("console", lambda message: self.errors.append(message.text))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(file.as_uri())
        self.address = file.as_uri()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        hacked = self.tab.evaluate("window.hacked")
        self.tab.close()
        if kind is None:
            assert self.errors == [] and self.requests == [self.address] and hacked is None

    def press(self, *keys):
        for key in keys:
            self.tab.keyboard.press(key)

    def read(self):
        """What can be seen of a step."""
        return self.tab.evaluate(READ)

    def walk(self, key, stride=1):
        """What can be seen now, and after each so many presses of this key, to the end."""
        seen = [self.read()]
        while True:
            self.press(*[key] * stride)
            now = self.read()
            if now == seen[-1]:
                return seen
            seen.append(now)


READ = """() => {
  const texts = (parent, what) => [...parent.querySelectorAll(what)].map(e => e.textContent);
  const seen = e => e.getAttribute("visibility") !== "hidden";
  const view = document.querySelector("#view").getBoundingClientRect();
  const inside = r => r.left >= view.left - 1 && r.right <= view.right + 1 &&
    r.top >= view.top - 1 && r.bottom <= view.bottom + 1;
  const boxes = [...document.querySelectorAll(".box")].map(box => box.getBBox());
  const labels = [...document.querySelectorAll("#scene > text")].filter(seen).map(e =>
    ({text: e.textContent, x: Number(e.getAttribute("x")), y: Number(e.getAttribute("y"))}));
  const at = (x, y, side) => boxes.findIndex(b => b.x < x && x < b.x + b.width && Math.abs(b.y + side * b.height - y) < 3);
  const edge = path => {
    const length = path.getTotalLength(), parts = Math.ceil(length / 8);
    const way = Array.from({length: parts + 1}, (_, i) => path.getPointAtLength(length * i / parts));
    const near = label => way.some(p => Math.hypot(p.x - label.x, p.y - label.y) < 12);
    return {
      source: at(way[0].x, way[0].y, 1), result: at(way[parts].x, way[parts].y, 0), end: way[parts].x,
      labels: labels.filter(near).map(label => label.text),
    };
  };
  return {
    title: document.querySelector("h1").textContent,
    lines: [...document.querySelectorAll("#told p")].map(p => p.textContent.trim()),
    last: [...document.querySelectorAll("#told .sum")].map(p => p.lastElementChild.textContent),
    waiting: texts(document, "#queue b"),
    numbers: [...document.querySelectorAll("#inside figure")].map(figure => ({
      caption: figure.querySelector("figcaption").textContent,
      rows: [...figure.querySelectorAll("tr")].map(row => texts(row, "td")),
      marked: figure.querySelectorAll(".marked").length,
      canvas: figure.querySelectorAll("canvas").length,
    })),
    boxes: [...document.querySelectorAll(".node")].map(node => ({
      name: node.getAttribute("aria-label"),
      made: !node.classList.contains("later"),
      gradient: [...node.querySelectorAll(".grad")].map(e => e.textContent).join(" "),
      tag: seen(node.querySelector(".tag")) ? node.querySelector(".tag").textContent : "",
      now: node.classList.contains("now"),
      marks: node.matches(".later") ? 0 : node.querySelectorAll(":scope > .high").length,
    })),
    seen: [...document.querySelectorAll(".box")].map(box => inside(box.getBoundingClientRect())),
    letters: 11 * document.querySelector("#scene").getScreenCTM().a,
    labels: labels.map(label => label.text),
    edges: [...document.querySelectorAll(".edge.now")].map(edge),
    count: document.querySelector("#count").textContent,
    slider: document.querySelector("#slider").value,
    spoken: document.querySelector("#slider").getAttribute("aria-valuetext"),
  };
}"""

NUMBER = r"-?(?:nan|inf|\d+(?:\.\d+)?(?:e[-+]?\d+)?)"


def numbers_in(text):
    return [float(number) for number in re.findall(NUMBER, text)]


def assert_told(text, array):
    """That a text tells the shape of an array, and its numbers or their range."""
    array = np.asarray(array)
    if array.ndim:
        assert text.startswith(f"{array.shape}"), (text, array)
        text = text.removeprefix(f"{array.shape}").removeprefix(": ")
        if not text:
            return
    assert_numbers(text, array)


def assert_numbers(text, array):
    array = np.asarray(array, float)
    finite = array[np.isfinite(array)]
    if match := re.fullmatch(rf"(?:all ({NUMBER})|({NUMBER}) to ({NUMBER}))?(.*)", text):
        if match[4] and match[4] != text:
            assert match[4] == f", {array.size - finite.size} not finite"
    if match and match[4] != text:
        low, high = float(match[1] or match[2]), float(match[1] or match[3])
        close(low, finite.min(), 1e-3)
        close(high, finite.max(), 1e-3)
    elif "not finite" in text:
        assert text == f"{array.size} not finite"
    else:
        close(numbers_in(text), array.ravel())


def close(shown, wanted, digits=1e-4):
    np.testing.assert_allclose(shown, wanted, rtol=digits, atol=0)


def assert_shown(step, k, caption, last, array):
    """That the text `last` and the figure of number k tell an array."""
    assert_told(last, array)
    if np.ndim(array) == 0:
        return
    figure = step["numbers"][k]
    assert figure["caption"].startswith(f"{caption} {array.shape}")
    if array.size > stepping.FEW:
        assert figure["canvas"] == 1
        assert_told(figure["caption"].removeprefix(f"{caption} "), array)
    elif array.size:
        close(
            [[float(x) for x in row] for row in figure["rows"]], array.reshape(-1, array.shape[-1])
        )


def assert_walk(seen, loss, names):
    """That each step tells what `sweep` does: G, each contribution, each sum; in the end, grads."""
    swept = []
    with np.errstate(all="ignore"):
        engine.sweep(loss.node, np.ones_like(loss.array), lambda *turn: swept.append(turn))
    nodes = engine.ancestors(loss.node)
    called = {node: value.name for node, value in describe(loss, names)[0].items()}
    steps = iter(seen)
    for i, node in enumerate(nodes):
        step = next(steps)
        assert called[node] in step["title"]
        assert_told(step["lines"][0].removeprefix(f"{called[node]} = "), node.result)
        made = [box["made"] for box in step["boxes"]]
        assert made == [True] * (i + 1) + [False] * (len(nodes) - i - 1)
        joined = sorted((edge["source"], edge["result"]) for edge in step["edges"])
        assert joined == sorted((nodes.index(parent), i) for parent in node.parents)
    step = next(steps)
    assert step["title"] == f"The way back starts at {called[loss.node]}"
    dL = f"∂L/∂{called[loss.node]} = "
    assert_told(step["last"][0].removeprefix(dL), np.ones_like(loss.array))
    to_come, arrived, labels = {}, {loss.node: np.ones_like(loss.array)}, []
    for node, _, contributions in swept:
        for parent, amount in zip(node.parents, contributions):
            to_come[parent] = to_come.get(parent, 0) + (amount is not None)
    for turn, (node, G, contributions) in enumerate(swept):
        step = next(steps)
        waits = [called[later] for later, _, _ in swept[turn + 1 :] if later in arrived]
        assert step["title"].startswith(f"{called[node]} ")
        assert ("has its turn" in step["title"]) == (node.op is not None)
        assert step["waiting"] == waits
        if node.op is not None:  # why it is the one
            older = [called[other] for other in nodes if other.op and called[other] in waits]
            why, _, rest = step["lines"][1].partition(":")
            assert why == (
                f"It is the youngest result that waits ({', '.join(older)} came earlier)"
                if older else "No other result waits"
            )  # fmt: skip
            users = ", ".join(called[user] for user in nodes if node in user.parents)
            assert users in rest and rest.startswith(" all that used it" if users else " nothing")
        assert_shown(step, 0, "G", step["last"][0].removeprefix(f"∂L/∂{called[node]} = "), G)
        ends = {}  # of the arrows from each input: of those from the same, the left one comes first
        for parent, amount in zip(node.parents, contributions):
            if amount is None:
                continue
            step = next(steps)
            labels.append(amount)
            first = parent not in arrived
            arrived[parent] = amount if first else arrived[parent] + amount
            to_come[parent] -= 1
            assert step["title"] == f"{called[node]} sends to {called[parent]}"
            assert_shown(step, 0, "contribution", step["last"][0].removeprefix("= "), amount)
            equal = [part.strip() for part in step["lines"][1].split(" = ")]
            assert len({*equal}) == len(equal)  # nothing is said twice
            assert ("Sum:" in " ".join(step["lines"])) == (not first)
            if not first:
                assert_shown(step, 1, "sum", step["last"][1].split("= ")[-1], arrived[parent])
            done = step["lines"][-2]
            assert ("complete" in done) == (to_come[parent] == 0)
            assert ("First" in done) == (first and to_come[parent] > 0)
            assert ("only" in done) == (first and to_come[parent] == 0)
            spoken = step["boxes"][nodes.index(parent)]["name"]
            before = "; gradient so far " if to_come[parent] else "; gradient "
            assert_told(spoken.split(before)[-1], arrived[parent])
            gradient = step["boxes"][nodes.index(parent)]["gradient"].strip()
            assert gradient.startswith("grad") == (not to_come[parent])
            assert gradient.endswith(" + …") == (to_come[parent] > 0)
            assert_numbers(
                gradient.removeprefix("grad").strip().removesuffix(" + …"), arrived[parent]
            )
            assert len(step["labels"]) == len(labels)
            (edge,) = step["edges"]
            assert edge["source"] == nodes.index(parent) and edge["result"] == nodes.index(node)
            assert shape_and_numbers(amount, layout.BRIEF)[1] in edge["labels"]
            assert edge["end"] > ends.get(parent, -np.inf)
            ends[parent] = edge["end"]
    step = next(steps)
    assert list(steps) == [] and step["title"] == "Done: every leaf has its gradient"
    return step, {called[node]: node for node, _, _ in swept if node.op is None}


def assert_grads(step, leaves, loss):
    """That the last step tells the `grad` of each leaf whose Tensor is still there."""
    told = [re.fullmatch("∂L/∂(.*) = (.*)", line, re.S).groups() for line in step["lines"][:-1]]
    assert dict(told).keys() == leaves.keys()
    tensors = {name: x for name, node in leaves.items() if (x := node.tensor()) is not None}
    with np.errstate(all="ignore"):
        loss.backward(np.ones_like(loss.array))
    for name, x in tensors.items():
        assert_told(dict(told)[name], x.grad.array)
    return tensors


@pytest.mark.browser
def test_a_graph_is_stepped_to_its_end_and_back(made, chromium, tmp_path):
    loss, names, page = made
    with Shown(chromium, tmp_path, page) as shown:
        there = shown.walk("ArrowRight")
        stride = 1 + len(there) // 100  # or the largest graph takes a minute
        back = shown.walk("ArrowLeft", stride)
    expected = there[::-stride]
    assert back == expected + there[:1] * (expected[-1] != there[0])
    with_grad = assert_grads(*assert_walk(there, loss, names), loss)
    assert names is None or with_grad
    for i, step in enumerate(there):
        assert step["count"] == f"{i + 1} / {len(there)}" and step["slider"] == str(i)
        assert step["spoken"].endswith(step["title"])
        assert step["letters"] > 9.5
        now = [seen for box, seen in zip(step["boxes"], step["seen"]) if box["now"]]
        assert not now or any(now), step["title"]
    assert {box["tag"] for box in there[-1]["boxes"]} <= {"done", ""}


@pytest.mark.browser
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(graph=graphs())
def test_random_graphs_are_stepped_to_their_end(graph, chromium, tmp_path_factory):
    inputs, steps = graph
    leaves = [mg.Tensor(a, requires_grad=True) for a in inputs]
    total = run(leaves, steps, F)
    names = {f"leaf {i}": x for i, x in enumerate(leaves)}
    page = plot.steps(total, names=names)
    with Shown(chromium, tmp_path_factory.mktemp("random"), page) as shown:
        there = shown.walk("ArrowRight")
    with_grad = assert_grads(*assert_walk(there, total, names), total)
    assert with_grad.keys() <= names.keys()


@pytest.mark.browser
def test_keys_slider_and_buttons_lead_to_the_same_steps(chromium, tmp_path):
    _, _, page = walkable(worked)
    with Shown(chromium, tmp_path, page) as shown:
        steps = shown.walk("ArrowRight")
        shown.press("Home")
        assert shown.read() == steps[0]
        shown.press("End")
        assert shown.read() == steps[-1]
        shown.tab.get_by_label("Step", exact=True).fill("4")
        assert shown.read() == steps[4]
        shown.press("ArrowRight")  # while the slider has the focus
        assert shown.read() == steps[5]
        for name, i in (
            ("Next step", 6),
            ("Previous step", 5),
            ("Last step", 13),
            ("First step", 0),
        ):
            shown.tab.get_by_role("button", name=name).click()
            assert shown.read() == steps[i]


@pytest.mark.browser
def test_play_goes_to_the_end_and_stops_there(chromium, tmp_path):
    _, _, page = walkable(worked)
    with Shown(chromium, tmp_path, page) as shown:
        shown.tab.clock.install()
        shown.tab.reload()
        shown.requests.pop()
        shown.tab.get_by_role("button", name="Play").click()
        shown.tab.clock.run_for(6100)
        assert shown.read()["count"] == "4 / 14"
        shown.tab.get_by_role("button", name="Pause").click()
        shown.tab.clock.run_for(6100)
        assert shown.read()["count"] == "4 / 14"
        shown.tab.get_by_role("button", name="Play").click()
        shown.tab.clock.run_for(60_000)
        assert shown.read()["count"] == "14 / 14"
        shown.tab.get_by_role("button", name="Play").click()  # from the start again
        assert shown.read()["count"] == "1 / 14"


@pytest.mark.browser
def test_a_contribution_travels_against_its_arrow(chromium, tmp_path):
    _, _, page = walkable(squared)
    places = """time => {
      const [pill] = document.querySelectorAll(".pill");
      for (const animation of pill.getAnimations()) {
        animation.pause();
        animation.currentTime = time;
      }
      const middle = e => { const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; };
      return [pill.textContent, ...[pill, ...document.querySelectorAll(".box")].map(middle)];
    }"""
    with Shown(chromium, tmp_path, page, reduced_motion="no-preference") as shown:
        ways = []
        shown.press(*["ArrowRight"] * 3)
        for _ in range(2):
            shown.press("ArrowRight")
            way = []
            for time in (0, 300, 600, 899):
                text, (x, y), source, result = shown.tab.evaluate(places, time)
                assert text == "-3" and source[1] < result[1]
                way.append((x, y))
            heights = [y for _, y in way]
            assert heights == sorted(heights, reverse=True)  # up, from the result
            assert heights[0] > (source[1] + result[1]) / 2 > heights[-1]
            ways.append(way)
        assert abs(ways[0][1][0] - ways[1][1][0]) > 10  # each on its own arrow


@pytest.mark.browser
def test_without_motion_nothing_travels(chromium, tmp_path):
    _, _, page = walkable(squared)
    with Shown(chromium, tmp_path, page) as shown:
        for _ in range(7):
            shown.press("ArrowRight")
            assert shown.tab.evaluate("document.getAnimations().length") == 0


@pytest.mark.browser
def test_the_numbers_of_a_node_are_shown_by_click_and_by_key(chromium, tmp_path):
    loss, model, page = walkable(mlp)
    with Shown(chromium, tmp_path, page) as shown:
        shown.press("End")
        nodes = shown.tab.locator(".node")
        names = [box["name"] for box in shown.read()["boxes"]]
        i = next(i for i, name in enumerate(names) if name.startswith("main.0.weight"))
        nodes.nth(i).focus()
        shown.press("Enter")
        gradient, value = shown.read()["numbers"]  # what is looked for first
        loss.backward()
        weight = model.main[0].weight
        assert value["canvas"] == gradient["canvas"] == 1
        assert_told(value["caption"].removeprefix("value "), weight.array)
        assert_told(gradient["caption"].removeprefix("gradient "), weight.grad.array)
        told = shown.tab.locator("#inside figcaption").all_text_contents()
        assert told[1].endswith("a cell is the number farthest from 0 among 2 × 9")
        for key, count in (("Escape", 0), (" ", 2), (" ", 0)):
            shown.press(key)
            assert len(shown.read()["numbers"]) == count
    loss, _, page = walkable(broadcast)
    with Shown(chromium, tmp_path, page) as shown:
        shown.tab.locator(".node").nth(0).click()
        (value,) = shown.read()["numbers"]
        assert value["rows"] == [["1", "2", "3"], ["4", "5", "6"]]
        height = shown.tab.locator("td").first.bounding_box()["height"]
        shown.press("End")  # it stays open, and follows
        assert len(shown.read()["numbers"]) == 2
        shown.tab.get_by_role("button", name="Close the numbers").click()
        assert shown.read()["numbers"] == []
    page = plot.steps(mg.randn(stepping.FEW, requires_grad=True).sum())
    with Shown(chromium, tmp_path, page) as shown:  # a long row scrolls, each number in one line
        assert shown.tab.locator("td").last.bounding_box()["height"] == height


@pytest.mark.browser
def test_what_is_not_finite_is_marked(chromium, tmp_path):
    _, _, page = walkable(not_finite)
    with Shown(chromium, tmp_path, page) as shown:
        step = shown.read()
        assert step["title"] == "x is a leaf" and step["numbers"][0]["marked"] == 3  # and caption
        assert [box["marks"] for box in step["boxes"]] == [1] + [0] * (len(step["boxes"]) - 1)
        assert "NaN or infinite" in shown.tab.locator("#legend").inner_text()
    with Shown(chromium, tmp_path, walkable(worked)[2]) as shown:
        assert "NaN or infinite" not in shown.tab.locator("#legend").inner_text()
        shown.press("End")
        assert sum(box["marks"] for box in shown.read()["boxes"]) == 0


@pytest.mark.browser
def test_a_large_graph_zooms_and_pans(chromium, tmp_path):
    _, _, page = walkable(many_scalars)
    with Shown(chromium, tmp_path, page) as shown:
        before = shown.read()
        assert not all(before["seen"])
        shown.press("+")
        assert shown.read()["letters"] == pytest.approx(1.25 * before["letters"])
        shown.press("-")
        assert shown.read()["letters"] == pytest.approx(before["letters"])
        shown.tab.get_by_role("button", name="Show the whole graph").click()
        assert all(shown.read()["seen"])
        shown.tab.get_by_role("button", name="Zoom in").click()
        place = "document.querySelector('.box').getBoundingClientRect().y"
        y = shown.tab.evaluate(place)
        shown.tab.mouse.move(300, 500)
        shown.tab.mouse.down()
        shown.tab.mouse.move(300, 440)
        shown.tab.mouse.up()
        shown.tab.mouse.move(300, 300)
        assert shown.tab.evaluate(place) == pytest.approx(y - 60, abs=1)


@pytest.mark.browser
def test_two_pages_in_frames_do_not_disturb_each_other(chromium):
    (_, _, one), (_, _, two) = walkable(worked), walkable(squared)
    tab = chromium.new_page(viewport={"width": 800, "height": 1200})
    errors = []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.set_content(f"<body>{one._repr_html_()}{two._repr_html_()}{one._repr_html_()}")
    frames = tab.main_frame.child_frames
    for frame in frames:
        frame.wait_for_selector("h1")

    def counts():
        return [frame.evaluate("document.querySelector('#count').textContent") for frame in frames]

    assert counts() == ["1 / 14", "1 / 8", "1 / 14"]
    assert tab.evaluate("document.activeElement === document.body")  # none takes the focus
    frames[1].get_by_role("button", name="Next step").click()
    tab.keyboard.press("ArrowRight")
    assert counts() == ["1 / 14", "3 / 8", "1 / 14"]
    frames[0].get_by_role("button", name="Last step").click()
    tab.keyboard.press("ArrowLeft")
    assert counts() == ["13 / 14", "3 / 8", "1 / 14"]
    tab.close()
    assert errors == []


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const light = colour => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(c => {
      c /= 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    const colour = getComputedStyle(e).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? behind(e.parentElement) : colour;
  };
  const all = document.querySelectorAll("h1, #told span, #told b, td, figcaption, button, #count, #legend span");
  return [...all].filter(e => e.textContent && e.ariaDisabled !== "true").map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a);
    return [(a + 0.05) / (b + 0.05), e.outerHTML];
  });
}"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 620, 1100])
def test_the_page_can_be_read(width, scheme, chromium, tmp_path):
    """Contrast of texts, nothing beyond the right edge, names for what can be pressed."""
    options = {"viewport": {"width": width, "height": 700}, "color_scheme": scheme}
    with Shown(chromium, tmp_path, walkable(broadcast)[2], **options) as shown:
        for _ in range(17):
            contrast, element = min(shown.tab.evaluate(CONTRAST))
            assert contrast > (4.5 if "button" not in element else 2.8), (contrast, element)
            wide = "document.scrollingElement.scrollWidth, innerWidth"
            assert shown.tab.evaluate(f"[{wide}]") == [width, width]
            shown.press("ArrowRight")
        for element in shown.tab.get_by_role("button").all():
            assert element.get_attribute("aria-label") or element.inner_text()
        assert shown.tab.locator("#told").get_attribute("aria-live") == "polite"
        focused = []
        for _ in range(14):
            shown.press("Tab")
            focused.append(shown.tab.evaluate("document.activeElement.id"))
            ring = "getComputedStyle(document.activeElement.querySelector('.ring') ?? document.activeElement)"
            outline, stroke = shown.tab.evaluate(f"[{ring}.outlineWidth, {ring}.strokeWidth]")
            assert outline == "3px" or stroke == "5px"
        assert focused[:6] == ["first", "previous", "play", "next", "last", "slider"]
        assert focused[6:] == [""] * 5 + ["out", "whole", "in"]  # after the nodes
