"""What each test of the kit asks of an engine, in words, read off the test itself."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GUIDE", "original", "promise", "section", "topic"]

_CONTRACT = "crystalmath.testing.contract"

#: Where the sections are that `section` names.
GUIDE = "docs/writing-an-engine.md"
#: Above what an engine said before a failure.
SAID = "What the engine said last"


def original(cls: type, name: str) -> Callable[..., Any]:
    """Return a test as the kit has it, also where a subclass marks it ``xfail``; else its own."""
    found = [vars(each)[name] for each in cls.__mro__ if name in vars(each)]
    ours = [test for test in found if test.__module__.startswith(_CONTRACT)]
    test: Callable[..., Any] = (ours or found)[0]
    return test


def promise(test: Callable[..., Any]) -> str:
    """Return what a test asks: its name in words, and the first line of its docstring."""
    name = test.__name__.removeprefix("test_").replace("_", " ")
    told = (inspect.getdoc(test) or "").partition("\n\n")[0].replace("\n", " ")
    return f"{name}: {told}" if told else name


def section(test: Callable[..., Any]) -> str:
    """Name the section of the guide that says what an author has to do for a test."""
    owner = getattr(sys.modules[test.__module__], test.__qualname__.partition(".")[0], None)
    return str(getattr(owner, "guide", "What an engine is"))


def topic(test: Callable[..., Any]) -> str:
    """Name the topic of a test: the module that it is in."""
    return test.__module__.rpartition(".")[2]
