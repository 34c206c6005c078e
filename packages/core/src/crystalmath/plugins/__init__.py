"""The public bases of plugins that teach CrystalMath another program.

A preflight plugin imports from these modules:

- :mod:`~crystalmath.plugins.program`: :class:`Program`, which a plugin subclasses;
  :class:`Context`, which its ``ask`` receives; :class:`Condition`, a line of ``crystalmath
  doctor``; and readers of common input files.
- :mod:`~crystalmath.plugins.report`: :class:`Step`, :class:`Need`, :class:`Trouble` and
  :class:`FileFacts`, the records that ``ask`` and ``read`` return.
- :mod:`~crystalmath.plugins.checked_job`: :class:`FileKind`, the words for a program's files;
  :class:`CheckedJob` and :class:`Wanted`, which the methods on the submitting side receive.
- :mod:`~crystalmath.plugins.folders`: :class:`Folders`, which explains why a file is missing.
  Subclass it if a program has several folders of files, or names the folder in its own way.
- :mod:`~crystalmath.plugins.launching`: :class:`Launch` and :class:`Command`, the commands that
  start a program, which core checks on the submitting machine.
- :mod:`~crystalmath.plugins.progress_reader`: :class:`ProgressReader` and :class:`Reading`, the
  progress of a running calculation.

``docs/writing-a-preflight.md`` shows them together.
"""
