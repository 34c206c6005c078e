"""How Sphinx builds the site: ``nox -s docs``, or ``sphinx-build -W docs FOLDER``."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from reference_pages import OUTSIDE

from crystalmath import __version__

project = "CrystalMath jobs"
author = "the CrystalMath authors"
copyright = f"2026, {author}"  # noqa: A001 - the name that Sphinx reads
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "reference_pages"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = f"CrystalMath jobs {version}"
html_static_path = ["pictures"]
html_theme_options = {"navigation_with_keys": True}
html_show_sourcelink = False
html_search_scorer = str(Path(__file__).with_name("search_scores.js"))


def _mend_links(_app: object, name: str, source: list[str]) -> None:
    """Lead the links of a page to pages of the site; what it does not have keeps its text alone."""
    up = "../" * name.count("/")
    for file, page in OUTSIDE.items():
        source[0] = re.sub(rf"\]\((?:\.\./)*{file}", f"]({up}{page}", source[0])
    source[0] = re.sub(r"\[([^\]]*)\]\((?:\.\./)*(?:examples|packages)/[^)]*\)", r"\1", source[0])


def _mend_roles(
    _app: object, _name: str, _template: str, context: dict[str, Any], _: object
) -> None:
    """Add what screen readers and keyboards need, and Sphinx and furo leave out."""
    for part in ("body", "furo_navigation_tree", "toc"):
        text = context.get(part) or ""
        text = text.replace('role="heading"', 'role="heading" aria-level="2"')
        context[part] = text.replace("<pre>", '<pre tabindex="0">')


#: What furo's own templates leave without a name, with the name.
NAMELESS = {
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Pages">',
    '<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    '<div id="search-results">': '<h1>Search</h1>\n<div id="search-results">',
}


def _mend_pages(app: Any, error: Exception | None) -> None:
    """Name for screen readers what has no name."""
    if error is not None:
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for before, after in NAMELESS.items():
            if after not in text:
                text = text.replace(before, after)
        page.write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Connect what this file adds."""
    app.connect("source-read", _mend_links)
    # After furo's own handler, which makes the tree.
    app.connect("html-page-context", _mend_roles, priority=900)
    app.connect("build-finished", _mend_pages)
