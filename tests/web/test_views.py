"""Named views of the table, which a file of the home keeps."""

import pytest

from crystalmath.errors import InvalidJob
from crystalmath_web import views

HERE = "?view=jobs&q=recipe%3Aemt"


@pytest.fixture
def kept(tmp_path):
    return views.Views(tmp_path / "page-views.json")


def test_a_view_is_kept_replaced_and_removed(kept, tmp_path):
    assert kept.all() == []
    kept.keep({"name": "zinc", "address": HERE})
    kept.keep({"name": "Alloys", "address": "?view=jobs"})
    kept.keep({"name": "zinc", "address": "?view=jobs&state=failed"})
    again = views.Views(tmp_path / "page-views.json")
    assert again.all() == [
        {"name": "Alloys", "address": "?view=jobs"},
        {"name": "zinc", "address": "?view=jobs&state=failed"},
    ]
    assert [one["name"] for one in again.keep({"name": "zinc", "address": None})] == ["Alloys"]
    assert [path.name for path in tmp_path.iterdir()] == ["page-views.json"]


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"name": "", "address": HERE}, "1 to 80 characters"),
        ({"name": " ", "address": HERE}, "1 to 80 characters"),
        ({"name": "x" * 81, "address": HERE}, "1 to 80 characters"),
        ({"name": 1, "address": HERE}, "1 to 80 characters"),
        ({"address": HERE}, "1 to 80 characters"),
        ({"name": "a", "address": "javascript:alert(1)"}, "begins with"),
        ({"name": "a", "address": "https://elsewhere/?view=jobs"}, "begins with"),
        ({"name": "a", "address": "?view=jobs&q=" + "x" * 4000}, "begins with"),
        ({"name": "a", "address": "?view=jobs&q=a b"}, "begins with"),
        ({"name": "a", "address": ["?view=jobs"]}, "begins with"),
    ],
)
def test_what_is_no_view_changes_nothing(kept, params, why):
    before = kept.keep({"name": "here", "address": HERE})
    with pytest.raises(InvalidJob, match=why):
        kept.keep(params)
    assert kept.all() == before


@pytest.mark.parametrize("text", ["", "[]", '{"views": [{}]}', '{"views": [{"name": "a"}]}', "{"])
def test_a_damaged_file_is_named(kept, tmp_path, text):
    (tmp_path / "page-views.json").write_text(text)
    with pytest.raises(InvalidJob, match=r"page-views.json cannot be read as views"):
        kept.all()
    with pytest.raises(InvalidJob, match="repair or remove it"):
        kept.keep({"name": "a", "address": HERE})
    assert (tmp_path / "page-views.json").read_text() == text


def test_there_are_not_too_many_views(kept, monkeypatch):
    monkeypatch.setattr(views, "MOST", 2)
    for name in "ab":
        kept.keep({"name": name, "address": HERE})
    with pytest.raises(InvalidJob, match="there are 2 views already"):
        kept.keep({"name": "c", "address": HERE})
    assert len(kept.keep({"name": "a", "address": "?view=jobs"})) == 2
