"""Tests lie in the folder of the room that they test (CONTRIBUTING.md, "Where the tests are")."""

from pathlib import Path

from crystalmath.cli import COMMANDS

TESTS = Path(__file__).parent
ROOT = TESTS.parent
#: Folders whose tests are about the whole, or run a room's tests in another way.
OF_THE_WHOLE = {
    *(
        "built_site",
        "cluster",
        "contract",
        "kit",
        "potentials",
        "protocol",
        "same",
        "simulation",
    ),
    *("together", "vasp", "wheels"),
}


def _names():
    """Return the names that tests may have, by the folder of the tests."""
    names = {
        "": {path.stem for path in ROOT.iterdir()},
        # A page, or a folder of pages.
        "pages": {page.stem for page in ROOT.glob("docs/*")},
        # A module of the page in the browser.
        "page": {file.stem for file in ROOT.glob("packages/web/src/*/page/*.js")},
    }
    for package in (*ROOT.glob("packages/*/src/*"), *ROOT.glob("examples/*/src/*/")):
        for file in package.rglob("*.py"):
            parts = file.relative_to(package).with_suffix("").parts
            room = package.name.removeprefix("crystalmath_")
            if package.name == "crystalmath":
                room = parts[0] if len(parts) > 1 else ""
            names.setdefault(room, {room}).update(parts)
    names["cli"] |= COMMANDS.keys()
    return {
        room: {name.strip("_").replace("-", "_") for name in known} for room, known in names.items()
    }


def test_each_folder_is_a_room():
    folders = {file.parent.name for file in TESTS.glob("*/test_*.py")}
    assert folders <= _names().keys() | OF_THE_WHOLE


def test_two_thirds_of_the_files_bear_the_name_of_what_they_test():
    names = _names()
    files = [file.relative_to(TESTS) for file in TESTS.rglob("test_*.py")]
    namesakes = [
        file for file in files if file.stem.removeprefix("test_") in names.get(file.parent.name, ())
    ]
    assert 3 * len(namesakes) >= 2 * len(files), sorted(set(files) - set(namesakes))
    print(len(namesakes), len(files))
