"""The pages lead somewhere: from the table of contents to each of them, and by their links."""

import re
from pathlib import Path
from shutil import which

import pytest
from helpers import ROOT, child

PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "benchmarks/README.md", "examples/[0-9t]*.py")
    for path in ROOT.glob(pattern)
    if path.name != "package.md"  # for a package index
)


def prose(page):
    """The text of a page without blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", (ROOT / page).read_text(), flags=re.M | re.DOTALL)


def anchors(page):
    """The anchors that GitHub and the site give to the headings of a page."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.M):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        same = sum(bool(re.fullmatch(rf"{words}(-\d+)?", anchor)) for anchor in found)
        found.add(f"{words}-{same}" if same else words)
    return found


def links(page):
    """What the page links to or shows, as (path, anchor); not what is on other sites."""
    text = re.sub(r"`[^`\n]+`", "", prose(page))
    for target in re.findall(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"', text):
        path, _, anchor = "".join(target).partition("#")
        if not re.match(r"\w+:", path):
            yield ((ROOT / page).parent / path if path else ROOT / page).resolve(), anchor


def test_the_table_of_contents_has_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    trees = re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL)
    entries = re.findall(r"^(?:.*<)?([\w./]+)>?$", "\n".join(trees), re.M)
    listed = {(ROOT / "docs" / entry).resolve().relative_to(ROOT) for entry in entries}
    assert {page.with_suffix("") for page in PAGES} - {*listed} == {Path("docs/index")}
    assert len(entries) == len(listed)


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=str)
def test_links_lead_to_a_file_and_a_heading(page):
    for path, anchor in links(page):
        assert path.exists(), f"{page} links to {path}, which is missing"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{path} has no heading for #{anchor}"


def test_the_reference_has_every_module():
    named = re.findall(
        r"automodule:: minigrad\.(\w+)", (ROOT / "docs" / "reference.md").read_text()
    )
    assert sorted(named) == [
        path.stem for path in sorted(ROOT.glob("minigrad/*.py")) if path.stem != "__init__"
    ]


@pytest.mark.browser
def test_the_site_in_a_browser(tmp_path):
    """Every page loads its own files only, shows its pictures, and can be found."""
    from playwright.sync_api import sync_playwright

    pages = "include_patterns=*.md,docs/*.md,benchmarks/README.md"  # scripts would take minutes
    sphinx = "-m", "sphinx", "-q", "-b", "html", "-c", "docs", "-D", pages
    folder, requests = tmp_path / "site", []
    child(*sphinx, ".", folder, cwd=ROOT, timeout=600)
    site = folder.as_uri()
    with sync_playwright() as playwright:
        options = "--no-sandbox", "--disable-gpu", "--disable-background-networking"
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=options)
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        for html in {*folder.rglob("*.html")} - {folder / "index.html"}:  # which redirects
            page.goto(html.as_uri())
            assert page.evaluate("[...document.images].every(image => image.naturalWidth)"), html
        for words, found in (("broadcasting", "questions"), ("log-softmax", "derivations")):
            page.goto(f"{site}/search.html?q={words}")
            page.locator(f"#search-results a[href*='{found}']").first.wait_for()
        page.goto(f"{site}/docs/derivations.html")
        assert page.locator("math mfrac").count() > 10
        browser.close()
    assert len(requests) > 100
    assert not [url for url in requests if not url.startswith((site, "data:", "about:"))]
