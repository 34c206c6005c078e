"""What Quantum ESPRESSO's programs read of the parameters of quacc's recipes, as ASE lists it.

ASE writes a keyword, and a key of ``input_data`` that stands in no namelist, into the namelist of
the recipe's own program that has it, and drops it where none has. A namelist is written as it is
given: pw.x passes over one that it does not know, and ends with an error at a key that it does not
know.
"""

from __future__ import annotations

import ast
import difflib
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import shown
from crystalmath.recipes.source import arguments_of, definition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Where a parameter is, why nothing reads it, and where it may belong.
_Unread = tuple[str, str, str | None]

_IO = "ase.io.espresso"
#: What writes a program's input, with what more it takes out of its further arguments; of all that
#: are not named, the last.
_WRITERS = {
    "pw": ("write_espresso_in", ("rescale_magmom_fac", "parallel", "append")),
    "ph": ("write_espresso_ph", ()),
    "phcg": ("write_espresso_ph", ()),
    "": ("write_fortran_namelist", ()),
}
#: What cannot be given twice, or not at all: quacc and ASE end with an error.
_REFUSED = (
    *("input_atoms", "preset", "template", "profile", "directory"),
    *("format", "properties", "pseudo_dir", "fd", "binary"),
)
#: What older releases of pw.x read, and ASE has no more.
_OLDER = {
    "control": ("memory", "tqmmm", "lecrpa", "lfcpopt", "lfcpdyn", "use_wannier", "max_xml_steps"),
    "system": (
        *("lda_plus_u", "lda_plus_u_kind", "u_projection_type", "la2f", "use_spinflip"),
        *("hubbard_u", "hubbard_u_back", "hubbard_v", "hubbard_j", "hubbard_j0"),
        *("hubbard_alpha_back", "hubbard_parameters", "backall", "lback", "l1back"),
        *("nelec", "nelup", "neldw", "multiplicity", "esm_a", "esm_zb", "esm_debug"),
        *("ts_vdw", "mbd_vdw", "fcp_mu", "gcscf_ignore_mun", "scdm", "n_proj"),
    ),
    "electrons": ("tcpbo", "diago_gs_nblock", "niter_with_fixed_ns"),
}
#: Programs whose namelists of one name are one: pw.x and cp.x take each other's keys.
_SHARED = {"pw": "cp"}
_LIKE = 0.75


@functools.cache
def program_of_recipe(recipe: str) -> str | None:
    """Return which program a recipe of quacc's runs, as its source says."""
    module, _, name = recipe.rpartition(".")
    found = definition(module, name)
    if found is None:
        return None
    nodes = list(ast.walk(found))
    for node in nodes:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "EspressoTemplate":
            given = [*node.args, *(each.value for each in node.keywords if each.arg == "binary")]
            program = given[0] if given else ast.Constant("pw")
            if isinstance(program, ast.Constant):
                return str(program.value)
            # One of several that read the same.
            values = [
                inner.value
                for assigned in nodes
                if isinstance(assigned, ast.Assign)
                and any(ast.unparse(target) == ast.unparse(program) for target in assigned.targets)
                for inner in ast.walk(assigned.value)
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
            ]
            return values[-1] if values else None
    return None


def unread_keywords(program: str, names: Iterable[str]) -> Iterator[_Unread]:
    """Find the keywords that neither ASE nor a program looks at."""
    writer, more = _WRITERS.get(program, _WRITERS[""])
    taken = arguments_of(_IO, writer, others=True)
    if not taken:
        return  # ASE is another
    keys = [key for section in _namelists(program).values() for key in section]
    for name in names:
        if name in taken or name in more or name in _REFUSED or name.partition("(")[0] in keys:
            continue
        why = "the calculator Espresso drops it"
        if keys:
            why += f", and no namelist of {program}.x has it"
        known = [name for name in taken if name not in _REFUSED]
        like = difflib.get_close_matches(name.lower()[:80], known, 1, _LIKE)
        yield name, why, f"did you mean %{like[0]}?" if like else _meant(program, name)


def unread_input(program: str, given: Mapping[Any, object]) -> Iterator[_Unread]:
    """Find what a program does not read of `input_data`."""
    namelists = _namelists(program)
    if not namelists:
        return  # ASE has no list of its keys
    for name, value in given.items():
        if not isinstance(name, str):
            continue
        lower = name.lower()
        if isinstance(value, Mapping):
            if lower in namelists:
                yield from _unread_keys(program, lower, name, value)
                continue
            like = difflib.get_close_matches(lower[:80], namelists, 1, _LIKE)
            known = ", ".join(f"&{each.upper()}" for each in namelists)
            why = f"{program}.x passes over &{name.upper():.80}; its namelists are {known}"
            yield name, why, f"did you mean %input_data.{like[0]}?" if like else None
        elif lower not in namelists and not any(
            lower.partition("(")[0] in section for section in namelists.values()
        ):
            why = f"no namelist of {program}.x has it, so that it is not written"
            yield name, why, _meant(program, name)


def beaten_input(
    program: str, given: Mapping[Any, object], keywords: Mapping[str, object]
) -> Iterator[_Unread]:
    """Find values of `input_data` in whose place another one of the same variable is written.

    A keyword goes before what stands in no namelist, and this before what stands in one: so ASE
    writes it, in `ase.io.espresso_namelist.namelist`.
    """
    known = {key for section in _namelists(program).values() for key in section}
    tables = {"": keywords, "input_data.": given}
    tables |= {
        f"input_data.{section}.": table
        for section, table in given.items()
        if isinstance(table, Mapping)
    }
    first: dict[str, tuple[str, object]] = {}
    for place, table in tables.items():
        for name, value in table.items():
            key = str(name).lower().strip()
            if isinstance(value, Mapping) or key.partition("(")[0].strip() not in known:
                continue
            winner, written = first.setdefault(key, (f"{place}{name}", value))
            if written != value:
                why = f"{program}.x gets {winner} = {shown(written)}, and not {shown(value)}"
                yield f"{place}{name}".removeprefix("input_data."), why, "give it once"


def _unread_keys(
    program: str, namelist: str, written: str, given: Mapping[Any, object]
) -> Iterator[_Unread]:
    sections = (_namelists(program), _namelists(_SHARED.get(program, "")))
    known = {key for section in sections for key in section.get(namelist, ())}
    known.update(_OLDER.get(namelist, ()) if program == "pw" else ())
    for name in given:
        if isinstance(name, str) and name.lower().partition("(")[0].strip() not in known:
            why = (
                f"ASE knows no such key of {program}.x's namelist &{namelist.upper()}, and "
                f"{program}.x ends with an error where it knows none either"
            )
            yield f"{written}.{name}", why, _meant(program, name, nested=True)


def _meant(program: str, name: str, *, nested: bool = False) -> str | None:
    """Return where a key may belong; ``%`` stands for where the recipe's parameters are."""
    wanted = name.lower().partition("(")[0][:80]
    for section, keys in _OLDER.items() if program == "pw" else ():
        if wanted in keys:
            return f"where pw.x is so old that it reads it: %input_data.{section}.{name}"
    namelists = _namelists(program)
    places = {key: section for section, keys in namelists.items() for key in keys}
    like = [wanted] if wanted in places else difflib.get_close_matches(wanted, places, 1, _LIKE)
    if like:
        section = f"{places[like[0]]}." if nested else ""
        return f"did you mean %input_data.{section}{like[0]}?"
    for other in ("pw", "ph", "pp", "dos", "bands", "projwfc", "q2r", "matdyn"):
        if any(wanted in keys for keys in _namelists(other).values()):
            return f"{other}.x reads it, not {program}.x; leave it out"
    return None


@functools.cache
def _namelists(program: str) -> Mapping[str, tuple[str, ...]]:
    """Return a program's keys by its namelists, in lower case."""
    from ase.io.espresso_namelist.keys import ALL_KEYS

    return {
        section.lower(): tuple(dict.fromkeys(map(str.lower, keys)))
        for section, keys in ALL_KEYS.get(program, {}).items()
    }
