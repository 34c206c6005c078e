"""The programs whose jobs core checks itself, each registered like an outsider's."""
