"""What `docs/client.md` and `docs/notebooks.md` show happens so."""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.server

DOCS = Path(__file__).parents[2] / "docs"
#: A block of code, and the block of text right below it, if there is one.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


@pytest.mark.by_turns
@pytest.mark.parametrize("page", ["client.md", "notebooks.md"])
def test_the_page_from_top_to_bottom(home_server, with_quacc, page):
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert len(blocks) >= 9
    notebook = {"__name__": "__main__"}
    for code, wanted in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"docs/{page}", "exec", dont_inherit=True), notebook)
        same = doctest.OutputChecker().check_output(wanted, printed.getvalue(), doctest.ELLIPSIS)
        assert same, f"{code}\nprinted\n{printed.getvalue()}"
