"""The host's own preflights, of VASP and Quantum ESPRESSO, keep the contract of preflights."""

import os

import pytest
from ase.build import bulk

from crystalmath.testing import PreflightCase, PreflightContract
from vasp.potcars import library

pytestmark = pytest.mark.vasp

AL, SI = bulk("Al"), bulk("Si")
UPF = '<UPF version="2.0.1">\n<PP_HEADER element="{}" z_valence="4.0"/>\n</UPF>\n'


class TestVasp(PreflightContract):
    @pytest.fixture
    def plugin(self):
        return "vasp"

    @pytest.fixture
    def cases(self, tmp_path):
        place = {
            "PATH": os.environ["PATH"],
            "VASP_PP_PATH": str(library(tmp_path / "potcars", "Al", "Si")),
        }
        job = "quacc.recipes.vasp.core.static_job"
        # Ours are none of VASP's own.
        fair = {"environment": place, "warnings": ["potcar_unofficial"]}
        return [
            PreflightCase(job, AL, **fair),
            PreflightCase(job, SI, parameters={"encut": 400}, **fair),
            PreflightCase(job, bulk("Cu"), environment=place, errors=["potcar_missing"]),
            PreflightCase("quacc.recipes.emt.core.relax_job", bulk("Cu"), environment=place),
        ]


class TestEspresso(PreflightContract):
    @pytest.fixture
    def plugin(self):
        return "espresso"

    @pytest.fixture
    def cases(self, tmp_path):
        folder = tmp_path / "upf"
        folder.mkdir()
        for symbol in ("Al", "Si"):
            (folder / f"{symbol}.UPF").write_text(UPF.format(symbol))
        place = {"PATH": os.environ["PATH"], "QUACC_ESPRESSO_PSEUDO": str(folder)}
        job = "quacc.recipes.espresso.core.static_job"

        def case(atoms, name, **findings):
            names = dict.fromkeys(set(atoms.symbols), name)
            parameters = {"preset": None, "pseudopotentials": names}
            return PreflightCase(job, atoms, parameters=parameters, environment=place, **findings)

        return [
            case(SI, "Si.UPF"),
            case(AL, "Al.UPF"),
            case(SI, "Xy.UPF", errors=["upf_missing"]),
            case(SI, "Al.UPF", warnings=["upf_element"]),
        ]
