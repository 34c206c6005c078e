"""An engine that imports its library when its plugin is loaded."""

import fake_library  # noqa: F401
from broken_engines import Engine


class ImportsEarly(Engine):
    """Imports its library too early."""

    library = "fake_library"
