"""Writes the page's table of elements from ASE: `python tests/elements_page.py`."""

from pathlib import Path

from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

PAGE = Path(__file__).parents[1] / "packages/web/src/crystalmath_web/page/elements.js"
BEGINNING = """\
// The elements by their atomic number, of ASE: `python tests/elements_page.py` writes this.

"""
#: Elements of a line, and how many have a measured radius (with X, which stands for none).
LINE, KNOWN = 12, 97


def page():
    """Return the file."""
    colours = [
        "#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in jmol_colors
    ]
    radii = [f"{radius:.2f}" for radius in covalent_radii[:KNOWN]]
    return BEGINNING + "\n".join(
        [
            *table("Symbols.", "SYMBOLS", [f'"{symbol}"' for symbol in chemical_symbols]),
            *table(
                "Colours of Jmol (`ase.data.colors.jmol_colors`), which end with Mt.",
                "COLOURS",
                [f'"{colour}"' for colour in colours],
            ),
            *table(
                "Covalent radii in Å (`ase.data.covalent_radii`: Cordero et al., Dalton Trans. "
                "2008, 2832), which end with Cm.",
                "RADII",
                radii,
            ),
        ]
    )


def table(title, name, values):
    """Return the lines of an exported array."""
    rows = [values[start : start + LINE] for start in range(0, len(values), LINE)]
    return [
        f"/** {title} */",
        f"export const {name} = [",
        *(f"  {', '.join(row)}," for row in rows),
        "];",
        "",
    ]


if __name__ == "__main__":
    PAGE.write_text(page().rstrip("\n") + "\n", encoding="utf-8")
