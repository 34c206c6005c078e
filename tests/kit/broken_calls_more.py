"""Engines that get wrong what `launch` is given: names, clusters, priorities, a long queue."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time

import attrs
from broken_engines import Engine
from broken_surroundings import SCRIPT
from good_engines import FreshProcesses

from crystalmath.errors import EngineUnavailable


class RunsHereByTable(Engine):
    """Looks a cluster up in its tables, which do not have one that was taken out."""

    def runs_here(self, cluster):
        return {"local": True, **dict.fromkeys(self.settings.clusters, True)}[cluster]


class UnknownClusterIsAway(Engine):
    """Says that it cannot be reached when one attempt is for a cluster that was taken out."""

    start_s = 10.0

    def launch(self, attempts):
        for each in attempts:
            if each.cluster not in self.clusters():
                raise EngineUnavailable(f"the cluster {each.cluster} does not answer")
        return super().launch(attempts)
