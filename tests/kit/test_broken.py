"""Each broken engine is caught, by the test that should catch it; the good ones pass."""

import re
import sys

import pytest
from broken_engines import WHOLE
from cases import CASES

#: So many processes at most run engines at once, as they wait more than they compute; each has
#: about so many of them, or more, one after another.
AT_ONCE, EACH = 8, 7
#: Engine -> in which ways it is broken, the test that sees each, and what that says.
BROKEN = {}
for _part, _test, _said in CASES:
    BROKEN.setdefault(WHOLE.get(_part, _part), []).append((_part, _test, _said))


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """Yield a home of a user who has used such an engine before."""
    home = tmp_path_factory.mktemp("home")
    folder = home / ".known-engine"
    folder.mkdir()
    (folder / "settings").write_text("as it was")
    for path in (folder, folder / "settings"):
        path.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield folder


def test_the_home_of_the_user_stays_as_it_was(verdicts, known):
    assert [path.name for path in known.iterdir()] == ["settings"]
    assert known.stat().st_mode & 0o777 == 0o755


@pytest.fixture(scope="session")
def verdicts(request, judge, known):
    # Those that were selected, with -k for one.
    here = [item for item in request.session.items if item.module is sys.modules[__name__]]
    engines = [item.callspec.params["engine"] for item in here if hasattr(item, "callspec")]
    chosen = {engine: [test for _, test, _ in BROKEN[engine]] for engine in engines}
    at_once = min(AT_ONCE, 1 + len(chosen) // EACH)
    return judge(chosen, workers=1, limits="turn_s=0.5, linger_s=15.0", at_once=at_once)


@pytest.mark.by_turns
@pytest.mark.parametrize("engine", BROKEN)
def test_a_broken_engine_is_caught(verdicts, engine):
    for part, test, said in BROKEN[engine]:
        assert (engine, test) in verdicts, f"there is no test {test} any more"
        verdict = verdicts[engine, test]
        assert verdict.outcome == "failed", f"{part} passes {test}"
        # What a test looks at after its end is its own, too; but it must have begun.
        assert verdict.phase != "setup", verdict.details
        assert re.search(said, verdict.reason), f"{part}: {verdict.details}"
