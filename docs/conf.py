"""How Sphinx builds the site. The command is in CONTRIBUTING.md.

The folder above is the source folder, so that the README and the page of the benchmarks are pages
as they are. A page asks for its own files only: no fonts, MathJax or require.js from elsewhere.
"""

import os
import re
import sys
from pathlib import Path
from unittest.mock import Mock

import jupytext
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes

ROOT = Path(__file__).parent.parent
os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'examples'}"  # the scripts import common
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.modules["mpi4py"] = Mock(**{"MPI.COMM_WORLD.size": 1})  # for the docstrings of `distributed`

project = author = html_title = "minigrad"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "benchmarks/README.md", "examples/[0-9t]*.py"]
exclude_patterns = ["docs/package.md"]  # for a package index
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
default_role = "py:obj"
add_module_names = toc_object_entries = False
smartquotes_action = "D"  # dashes, and no quotes
suppress_warnings = ["ref.python"]  # a word such as `shape`, the name of two attributes

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True  # float32, not dtype('float32')
autodoc_typehints = "none"  # the docstrings give shapes and dtypes
napoleon_use_param = napoleon_use_rtype = False  # words such as "shape" are not links

myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_in_temp = True  # where the scripts write their pictures, too
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True
nb_ipywidgets_js = {}

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_show_copyright = html_copy_source = False

HEAD = """\
# %% [markdown]
# # {title}
#
# ```text
# {usage}
# ```
#
"""
DOWNLOADS = """\
# Download the <a href="{name}.ipynb" download>notebook</a> or the [script](path:{name}.py), and
# [common.py](path:common.py) into the same folder.
"""
HIDDEN = """
# %% tags=["remove-cell"]
import sys
sys.argv = ["{name}.py", "--data", "digits"]  # the same page with and without MNIST
sys.modules["ipywidgets"] = None  # a page cannot compute what a slider asks for
%config InlineBackend.figure_format = "retina"
"""


def page_of_script(app, docname, source):
    """Begin a script's page with title, command and downloads; make one of them, the notebook."""
    if not docname.startswith("examples/"):
        return
    name = Path(docname).name
    title, usage, cells = re.match(r'"""(.*?)\.?\n\n(.*?)\n"""(.*)', source[0], re.DOTALL).groups()
    head = HEAD.format(title=title, usage=usage.replace("\n", "\n# "))
    notebook = jupytext.reads(head + cells, "py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    Path(app.outdir, "examples").mkdir(parents=True, exist_ok=True)
    jupytext.write(notebook, Path(app.outdir, f"{docname}.ipynb"))
    source[0] = head + DOWNLOADS.format(name=name) + HIDDEN.format(name=name) + cells


def links_as_on_github(app, doctree):
    """Let a link to a file or folder that is not a page lead to what shows it here, or fetch it."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        path, known = link["reftarget"], app.env.found_docs
        if link["reftype"] != "myst" or path in known:
            continue
        anchor = ""
        if (page := f"{path.strip('./')}/README") in known:
            pass
        elif link["refdomain"] != "doc":
            continue  # a heading
        elif path == "minigrad/kernels":
            page, anchor = "docs/reference", "#module-minigrad.kernels"
        elif path.startswith("minigrad/"):
            page = f"_modules/{path}"
        else:
            target = {"reftarget": f"/{path}.py", "refdoc": app.env.docname}
            link.replace_self(addnodes.download_reference("", "", *link.children, **target))
            continue
        uri = app.builder.get_relative_uri(app.env.docname, page) + anchor
        link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True))


def short_names(app, env, node, text):
    """Link `engine.sweep` or `minigrad.tensor`, as docstrings say, to the full name."""
    if node["refdomain"] != "py" or node["reftype"] != "obj":
        return None
    target = node["reftarget"].removeprefix("minigrad.")
    node["refspecific"] = True  # any object whose full name ends like this
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", target, node, text
    )


def skip_fields(app, what, name, member, skip, options):
    """Leave out the fields of named tuples, which their signatures show."""
    return True if str(member.__doc__).startswith("Alias for field number") else None


def mathml(block):
    def visit(writer, node):
        writer.body.append(tex2mathml(node.astext(), as_block=block))
        raise nodes.SkipNode

    return visit, None


def redirect(app, error):
    Path(app.outdir, "index.html").write_text(
        f'<meta http-equiv="refresh" content="0; url={app.config.root_doc}.html">'
    )


def setup(app):
    app.connect("source-read", page_of_script)
    app.connect("doctree-read", links_as_on_github, priority=100)  # before downloads are collected
    app.connect("missing-reference", short_names)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("build-finished", redirect)
    app.add_html_math_renderer("mathml", mathml(block=False), mathml(block=True))
