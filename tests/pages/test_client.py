"""What `docs/client.md` shows happens so."""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.server

PAGE = (Path(__file__).parents[2] / "docs/client.md").read_text()
#: A block of code, and the block of text right below it, if there is one.
BLOCKS = re.findall(
    r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", PAGE, re.MULTILINE | re.DOTALL
)


@pytest.mark.by_turns
def test_the_page_from_top_to_bottom(home_server, with_quacc):
    assert len(BLOCKS) >= 10
    notebook = {"__name__": "__main__"}
    for code, wanted in BLOCKS:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/client.md", "exec", dont_inherit=True), notebook)
        same = doctest.OutputChecker().check_output(wanted, printed.getvalue(), doctest.ELLIPSIS)
        assert same, f"{code}\nprinted\n{printed.getvalue()}"
