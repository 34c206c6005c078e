"""Each broken engine is caught, by the test that should catch it; the good ones pass."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cases import CASES

#: So many processes run at once; they wait more than they compute. Each takes about so many of the
#: engines, and then another takes others: one may take twenty times as long as another.
AT_ONCE, EACH = 8, 7


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
    chosen = {}
    # Of those that were selected, with -k for one.
    for item in request.session.items:
        if item.module is sys.modules[__name__] and hasattr(item, "callspec"):
            case = item.callspec.params
            chosen.setdefault(case["engine"], []).append(case["test"])
    parts = max(AT_ONCE, len(chosen) // EACH)
    shares = [dict(list(chosen.items())[part::parts]) for part in range(parts)]
    limits = "turn_s=0.5, linger_s=15.0"
    verdicts = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        judged = pool.map(lambda each: judge(each, workers=1, limits=limits), filter(None, shares))
        for some in judged:
            verdicts |= some
    return verdicts


@pytest.mark.by_turns
@pytest.mark.parametrize(("engine", "test", "said"), CASES, ids=lambda value: value[:60])
def test_a_broken_engine_is_caught(verdicts, engine, test, said):
    assert (engine, test) in verdicts, "there is no such test any more"
    verdict = verdicts[engine, test]
    assert verdict.outcome == "failed"
    # What a test looks at after its end is its own, too; but it must have begun.
    assert verdict.phase != "setup", verdict.details
    assert re.search(said, verdict.reason), verdict.details
