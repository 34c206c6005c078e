"""What recipes of quacc give through us is what they give bare, in the same environment.

Of the 103 recipes of quacc 1.8.2, the 34 of EMT, Lennard-Jones, tblite and Quantum ESPRESSO are
compared. The others cannot be run where these tests are, bare or through us:

- VASP (35), Q-Chem (6), ORCA (6), FHI-aims (3), Gaussian (2), GULP (2), ONETEP (2) and MRCC (1):
  the programs are given out by their makers only, under a licence, as VASP's pseudopotentials are.
  What VASP's recipes hand to the program is compared in `tests/vasp`, with a stand-in.
- DFTB+ (2) and Psi4 (1): neither Debian nor the package index has the programs (conda-forge does).
  DFTB+ also needs a set of Slater-Koster files, and ``DFTB_PREFIX`` for where they are.
- mlip (5) and torchsim (3): they need ``quacc[mlip]``, ``quacc[fairchem]`` or ``quacc[torchsim]``
  with PyTorch, a gigabyte and more, and a model, which most libraries download from Hugging Face
  when it is first used, some only for who is logged in. Of a small one nobody has tried.
- ``common.elastic.elastic_tensor_flow`` (1): it is given the jobs that it runs, which are functions
  and cannot be sent; the flows of each program, which are compared, run it.

`own_tests` has quacc's own tests of recipes run through us.
"""
