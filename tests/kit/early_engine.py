"""An engine that imports its library when its plugin is loaded."""

from importlib import import_module

from broken_engines import Engine

import_module("fake_library")


class ImportsEarly(Engine):
    """Imports its library too early."""

    library = "fake_library"
