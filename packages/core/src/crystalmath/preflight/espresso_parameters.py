"""The parameters of quacc's recipes that Quantum ESPRESSO's programs read, by ASE's lists.

ASE writes a keyword, or a key of ``input_data`` outside the namelists, into the program's namelist
that has it. If none has, ASE drops the key. It writes namelists without a change: pw.x
ignores an unknown namelist, and ends with an error at an unknown key.
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

#: The place of a parameter, the reason why nothing reads it, and where it may belong.
_Unread = tuple[str, str, str | None]

_IO = "ase.io.espresso"
#: ASE's writers of input by program, and the further arguments that they use. The last writer is
#: that of all other programs.
_WRITERS = {
    "pw": ("write_espresso_in", ("rescale_magmom_fac", "parallel", "append")),
    "ph": ("write_espresso_ph", ()),
    "phcg": ("write_espresso_ph", ()),
    "": ("write_fortran_namelist", ()),
}
#: Keywords that quacc and ASE refuse with an error, some because the recipe passes them itself.
_REFUSED = (
    *("input_atoms", "preset", "template", "profile", "directory"),
    *("format", "properties", "pseudo_dir", "fd", "binary"),
)
#: Keys of older releases of pw.x that ASE lists no longer.
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
#: Programs that share namelists: pw.x and cp.x take each other's keys.
_SHARED = {"pw": "cp"}
_LIKE = 0.75


@functools.cache
def program_of_recipe(recipe: str) -> str | None:
    """Return the program that a recipe of quacc's runs, by its source."""
    module, _, name = recipe.rpartition(".")
    function = definition(module, name)
    if function is None:
        return None
    nodes = list(ast.walk(function))
    for node in nodes:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "EspressoTemplate":
            named = [*node.args, *(each.value for each in node.keywords if each.arg == "binary")]
            program = named[0] if named else ast.Constant("pw")
            if isinstance(program, ast.Constant):
                return str(program.value)
            # A name for one of several programs, which read the same parameters.
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
    """Yield the keywords that neither ASE nor a program reads."""
    writer, more = _WRITERS.get(program, _WRITERS[""])
    taken = arguments_of(_IO, writer, others=True)
    if not taken:
        return  # another release of ASE
    keys = [key for section in namelists_of(program).values() for key in section]
    for name in names:
        if name in taken or name in more or name in _REFUSED or name.partition("(")[0] in keys:
            continue
        why = "the calculator Espresso drops it"
        if keys:
            why += f", and no namelist of {program}.x has it"
        known = [name for name in taken if name not in _REFUSED]
        like = difflib.get_close_matches(name.lower()[:80], known, 1, _LIKE)
        yield name, why, f"did you mean %{like[0]}?" if like else _suggestion(program, name)


def unread_input(program: str, input_data: Mapping[Any, object]) -> Iterator[_Unread]:
    """Yield the members of `input_data` that a program does not read."""
    namelists = namelists_of(program)
    if not namelists:
        return  # ASE does not list its keys
    for name, value in input_data.items():
        if not isinstance(name, str):
            continue
        lower = name.lower()
        if isinstance(value, Mapping):
            if lower in namelists:
                yield from _unread_keys(program, lower, name, value)
                continue
            like = difflib.get_close_matches(lower[:80], namelists, 1, _LIKE)
            known = ", ".join(f"&{each.upper()}" for each in namelists)
            why = f"{program}.x ignores &{name.upper():.80}; its namelists are {known}"
            yield name, why, f"did you mean %input_data.{like[0]}?" if like else None
        elif lower not in namelists and not any(
            lower.partition("(")[0] in section for section in namelists.values()
        ):
            why = f"no namelist of {program}.x has it, so it is not written"
            yield name, why, _suggestion(program, name)


def beaten_input(
    program: str, input_data: Mapping[Any, object], keywords: Mapping[str, object]
) -> Iterator[_Unread]:
    """Yield values of `input_data` that another value of the same variable replaces.

    Keywords replace keys outside the namelists, and these replace keys in a namelist, as
    `ase.io.espresso_namelist.namelist` writes them.
    """
    known = {key for section in namelists_of(program).values() for key in section}
    tables = {"": keywords, "input_data.": input_data}
    tables |= {
        f"input_data.{section}.": table
        for section, table in input_data.items()
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
                why = f"{program}.x gets {winner} = {shown(written)}, not {shown(value)}"
                yield f"{place}{name}".removeprefix("input_data."), why, "give it once"


def _unread_keys(
    program: str, namelist: str, written: str, table: Mapping[Any, object]
) -> Iterator[_Unread]:
    sections = (namelists_of(program), namelists_of(_SHARED.get(program, "")))
    known = {key for section in sections for key in section.get(namelist, ())}
    known.update(_OLDER.get(namelist, ()) if program == "pw" else ())
    for name in table:
        if isinstance(name, str) and name.lower().partition("(")[0].strip() not in known:
            why = (
                f"ASE knows no such key of {program}.x's namelist &{namelist.upper()}, and "
                f"{program}.x ends with an error if it knows none either"
            )
            yield f"{written}.{name}", why, _suggestion(program, name, nested=True)


def _suggestion(program: str, name: str, *, nested: bool = False) -> str | None:
    """Return words on where a key may belong; ``%`` is the place of the recipe's parameters."""
    wanted = name.lower().partition("(")[0][:80]
    for section, keys in _OLDER.items() if program == "pw" else ():
        if wanted in keys:
            return f"if pw.x is old enough to read it: %input_data.{section}.{name}"
    namelists = namelists_of(program)
    places = {key: section for section, keys in namelists.items() for key in keys}
    like = [wanted] if wanted in places else difflib.get_close_matches(wanted, places, 1, _LIKE)
    if like:
        section = f"{places[like[0]]}." if nested else ""
        return f"did you mean %input_data.{section}{like[0]}?"
    for other in ("pw", "ph", "pp", "dos", "bands", "projwfc", "q2r", "matdyn"):
        if any(wanted in keys for keys in namelists_of(other).values()):
            return f"{other}.x reads it, not {program}.x; leave it out"
    return None


@functools.cache
def namelists_of(program: str) -> Mapping[str, tuple[str, ...]]:
    """Return a program's keys by its namelists, in lower case."""
    from ase.io.espresso_namelist.keys import ALL_KEYS

    return {
        section.lower(): tuple(dict.fromkeys(map(str.lower, keys)))
        for section, keys in ALL_KEYS.get(program, {}).items()
    }
