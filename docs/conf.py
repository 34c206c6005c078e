"""How Sphinx builds the site: ``nox -s docs``, or ``sphinx-build -W docs FOLDER``."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from crystalmath import __version__
from reference_pages import OUTSIDE


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



def _mend_links(_app: object, name: str, source: list[str]) -> None:
    """Lead the links of a page to pages of the site; what it does not have keeps its text alone."""
    up = "../" * name.count("/")
    for file, page in OUTSIDE.items():
        source[0] = re.sub(rf"\]\((?:\.\./)*{file}", f"]({up}{page}", source[0])
    source[0] = re.sub(r"\[([^\]]*)\]\((?:\.\./)+(?:examples|packages)/[^)]*\)", r"\1", source[0])


def setup(app: object) -> None:
    """Connect what this file adds."""
    app.connect("source-read", _mend_links)
