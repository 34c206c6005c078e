"""Ask what answers, and what it has: engines, clusters, recipes, presets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from crystalmath.client.caller import Caller
from crystalmath.models import Preset

if TYPE_CHECKING:
    from crystalmath.models.answers import (
        ClusterEntry,
        EngineEntry,
        RecipeDescription,
        RecipeEntry,
        ServerStatus,
        ServerVersion,
    )

#: A recipe's name, or the function as imported.
RecipeLike: TypeAlias = str | Callable[..., Any]


class Installed(Caller):
    """What there is for jobs, and who runs them."""

    def engines(self) -> list[EngineEntry]:
        """List the installed engines, and why one cannot serve."""
        found: list[EngineEntry] = self._answer("engines.list")["engines"]
        return found

    def clusters(self) -> list[ClusterEntry]:
        """List the clusters of the configuration file, and why one cannot be used."""
        found: list[ClusterEntry] = self._answer("clusters.list")["clusters"]
        return found

    def recipes(self, prefix: str | None = None) -> list[RecipeEntry]:
        """List the recipes there are, or those whose name begins so (``emt``)."""
        found: list[RecipeEntry] = self._answer("recipes.list", prefix=prefix)["recipes"]
        return found

    def presets(self, name: str | None = None) -> list[Preset]:
        """List quacc's presets with what each sets, or those of one name (`InvalidJob` if none)."""
        _, environment = self._configured()
        answer = self._answer("presets.list", name=name, environment=environment)
        return [Preset.read(each) for each in answer["presets"]]

    def describe(self, recipe: RecipeLike) -> RecipeDescription:
        """Tell a recipe's docstring, and the JSON Schema of its parameters."""
        from crystalmath.client.request import recipe_name

        configured, _ = self._configured()
        name = recipe_name(recipe, configured.recipes_allow)
        return cast("RecipeDescription", self._answer("recipes.describe", recipe=name))

    def version(self) -> ServerVersion:
        """Return what answers: its release, protocol, process and interpreter."""
        return cast("ServerVersion", self._answer("system.version"))

    def status(self) -> ServerStatus:
        """Return what answers is doing: jobs, engines, workers, backlog, disk, newest failures.

        Returns
        -------
        dict
            ``{"jobs", "connections", "quiet_s", "engines", "workers", "backlog", "disk",
            "failures"}``; `workers` and `backlog` (how many jobs wait to begin) by engine, `disk`
            in bytes.
        """
        return cast("ServerStatus", self._answer("system.status"))
