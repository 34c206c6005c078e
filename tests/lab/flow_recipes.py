"""Flows of a user's own, in ordinary Python; admitted through CRYSTALMATH_RECIPES."""

import copy
import dataclasses
import functools
import os
import random
import subprocess
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from quacc import change_settings, flow, job, redecorate, subflow

from crystalmath.flow import step

#: What a test changes between two passes.
world = {}


@job
def double(number):
    return 2 * number


@job
def add(a, b=0, *, scale=1):
    return {"sum": scale * (a + b), "parts": (a, b)}


@job
def pick(*items):
    return items[-1]


@job
def broken(number):
    raise ZeroDivisionError(number, "by nothing")


@job
def ends_program(number):
    raise subprocess.CalledProcessError(3, ["program", str(number)])


@job
def calls_another(number):
    return double(number) + 1


@job
def table(number):
    return {1: number, (0, 1): {"set": {1, 2}, "array": np.arange(number)}, "path": Path("/x")}


@job
def scratch_of():
    from quacc import get_settings

    return str(get_settings().SCRATCH_DIR)


@job
def writes(prev_outdir, number):
    return {"dir_name": str(prev_outdir), "number": number}


@flow
def until_converged(start=1, limit=100):
    number = start
    for _ in range(20):
        number = double(number)
        if number > limit:
            return {"number": number, "converged": True}
    return {"number": number, "converged": False}


@flow
def branches(number=3):
    first = add(number, b=double(number))
    if first["sum"] > 5:
        return double(first["parts"][1])
    return first


@flow
def of_a_generator(count=3):
    return [each["sum"] for each in (add(number, scale=2) for number in range(count))]


@flow
def merges(number=1):
    one, other = add(number), add(number, b=2)
    return {**one, "other": other, "array": np.array([double(1), double(2)])}


@flow
def handles_failure(number=1):
    results = []
    for _ in range(2):
        try:
            results.append(double(broken(number)))
        except ZeroDivisionError as error:
            results.append(error.args)
    return results


@flow
def fails(number=1):
    return [double(number), broken(number), double(2)]


@flow
def falls_back(number=1):
    """Call others than without the failure, and others in their places."""
    found = add(number, b=step(lambda: 2))
    try:
        told = broken(number)
        for each in range(3):
            found = add(found["sum"], b=double(each))
    except ZeroDivisionError:
        return [add(found["sum"], b=double(7)), double(1)]
    return [told, found]


@flow
def until_one_fails(count=5):
    found = []
    for each in range(count):
        try:
            found.append(double(each) if each != 2 else broken(each))
        except ZeroDivisionError:
            break
    return found


@flow
def swallows(number=1):
    """Handle everything, as one must not, also what ends the pass."""
    found = double(number)
    for _ in range(2):
        try:
            found = found + double(2)
        except BaseException:  # noqa: BLE001 - the fault of this flow
            found = "swallowed"
            continue
        return found
    return found


@flow
def recursive(number=3):
    return double(number) if number <= 1 else add(recursive(number - 1), b=number)["sum"]


@subflow
def fan(numbers):
    return [double(number) for number in numbers]


@flow
def of_subflows(number=2):
    return fan([number, *fan([add(number)["sum"], number])])


@flow
def in_containers(number=4):
    told = table(number)
    kept = copy.deepcopy({"list": [told], "tuple": (told["path"], 1)})
    return [add(1, b=2), pick(told), kept, functools.partial(add, 1)(b=double(2))]


@job
def numpys(number):
    scalars = {"one": np.float64(number), "few": [np.int64(1), np.int64(2)], 3: np.bool_(number)}
    return {**scalars, "nested": (np.float32(0.5), [scalars]), "sum": np.float64(number) / 3}


@flow
def of_numpy(number=2):
    told = numpys(number)
    return [told, double(told["one"]), pick(1, told), add(told["few"][0], b=told["sum"]), told[3]]


@flow
def nested_jobs(number=1):
    return calls_another(number)


@flow
def local_jobs(number=1):
    @job
    def of_its_own(results, more):
        world["ran"] = world.get("ran", 0) + 1
        return {"most": max(results), more: True}

    return double(double(of_its_own(fan([number, 3]), "x")["most"]))


@flow
def with_settings(*, folder):
    swapped = redecorate(scratch_of, job(settings_swap={"SCRATCH_DIR": folder}))
    with change_settings({"SCRATCH_DIR": f"{folder}/x"}):
        inner = scratch_of()
    return [scratch_of(), swapped(), inner]


@flow
def at_random(count=2):
    numbers = step(lambda: [random.SystemRandom().random() for _ in range(count)])
    return fan([double(number) for number in numbers])


@flow
def differs(number=1):
    return double(add(number, b=world["b"])["sum"])


@flow
def forgets(number=1):
    return [double(number) for number in fan(list(range(world["count"])))]


@flow
def one_directory(number=1):
    first = writes("/a", number)
    return [writes(first["dir_name"], 2), writes(first["dir_name"], 3), writes("/a", 4)]


@flow
def of_structures(lattice=3.6):
    # Here: it takes longer than all else that the other flows need.
    from quacc.recipes.emt.core import relax_job, static_job

    relaxed = relax_job(bulk("Cu", a=lattice))
    return {"static": static_job(relaxed["atoms"]), "energy": relaxed["results"]["energy"]}


@job
def made(lattice):
    return {"slab": bulk("Cu", a=lattice), "odd": {"$step": "a", "$job": "b", "path": []}}


@job
def shifted(slab, *, by=0.1):
    slab.positions += by
    return {"slab": slab}


@job
def atoms_of(*, atoms, like=None):
    return len(atoms) + len(like)


@flow
def of_slabs(lattice=3.6):
    first, given = shifted(made(lattice)["slab"]), shifted(bulk("Al"))
    if abs(first["slab"].positions[0, 0] - 0.1) < 1e-6:
        second = shifted(slab=first["slab"], by=0.2)
    return [second, given, atoms_of(atoms=bulk("Cu"), like=second["slab"])]


@flow
def of_odd_names(lattice=3.6):
    told = pick_one(made(lattice))
    return [told, pick_one(told["odd"]), double(double(1) + 1)]


@job
def pick_one(item):
    return item


@job
def counted(folder, number, *, fails: bool = False, waits=False):
    """Leave a mark for each time that it ran; fail, or run, until its file is there."""
    with Path(folder, f"ran {number}").open("a") as file:
        file.write("x")
    while waits and not Path(folder, f"go {number}").exists():
        time.sleep(0.02)
    if fails and not Path(folder, f"mended {number}").exists():
        raise RuntimeError("no luck")
    return {"number": number, "next": [number + 1]}


@job
def total(numbers, after=None):
    return sum(numbers)


@subflow
def counted_fan(folder, numbers):
    return [counted(folder, number)["number"] for number in numbers]


@flow
def counts(*, folder, count=3, fails=(), waits=()):
    """Call jobs one after another and side by side, then what needs all of them."""
    firsts = [counted(folder, at, fails=at in fails, waits=at in waits) for at in range(count)]
    nexts = [counted(folder, first["next"][0] + 10)["number"] for first in firsts]
    return {"total": total(nexts), "fan": counted_fan(folder, nexts)}


class Tool:
    """An object that is neither JSON nor monty's."""

    def __init__(self, number):
        self.number = number


@dataclasses.dataclass
class Plan:
    """An object that monty writes, and that is not read again as one."""

    number: int


@job
def made_tool(number, *, kind="tool"):
    """Return an object without a form in JSON beside a number."""
    return {"number": number, "made": {"tool": Tool, "plan": Plan}[kind](number)}


@job
def uses(tool):
    """Return the number of a tool, or its absence."""
    return getattr(tool, "number", "no tool")


@flow
def hands_on(number=1, *, kind="tool"):
    """Hand an object on to a step."""
    return uses(made_tool(number, kind=kind)["made"])


@flow
def looks_into(number=1, *, kind="tool"):
    """Use an object in the body."""
    made = made_tool(number, kind=kind)["made"]
    return double(made.number if hasattr(made, "number") else -1)


@flow
def leaves_aside(number=1, *, kind="tool"):
    """Use what is beside an object, and return the object among other things."""
    made = made_tool(number, kind=kind)
    return {"double": double(made["number"]), "all": [dict(made)]}


@flow
def makes_locally(number=1, *, kind="tool"):
    """Hand an object on that a job of the body's own has made."""

    @job
    def of_its_own(number):
        world["ran"] = world.get("ran", 0) + 1
        return {"tool": Tool, "plan": Plan}[kind](number)

    made = of_its_own(double(number))

    @job
    def use_of_its_own(tool):
        return tool.number

    return double(use_of_its_own(made))


@flow
def sums(*, folder):
    """Call what takes the values of two steps, the second of which may wait."""
    both = [counted(folder, 0), counted(folder, 1, waits=True)]
    return total([each["number"] for each in both])


@flow
def calls_what_fails_meanwhile(*, folder):
    """Call a step of one that fails while this pass runs, which has found it running."""
    other = counted(folder, 0)
    try:
        first = counted(folder, 1, fails=True, waits=True)
        if other["number"] == 0:
            Path(folder, "go 1").touch()
            while not Path(folder, "go on").exists():
                time.sleep(0.02)
        return counted(folder, first["number"])
    except RuntimeError:
        return "handled"


@job
def place():
    return os.environ.get("FLOW_PLACE")


@flow
def waits_in_body(*, folder):
    """Run, once a step has ended, until a file is there; tell where the body and steps have run."""
    first = str(place())
    Path(folder, f"body {os.getpid()}").touch()
    while not Path(folder, "go on").exists():
        time.sleep(0.02)
    return [os.environ.get("FLOW_PLACE"), first, place()]


@flow
def reads(*, folder):
    """Call what a file says, as none must."""
    first = counted(folder, 0, waits=True)
    return [first, counted(folder, int(Path(folder, "wanted").read_text()))]


@flow
def calls_unknown(*, folder):
    """Call a job of a module whose recipes nobody has admitted."""
    from flow_strangers import stranger

    return [counted(folder, 1), stranger(1)]


@flow
def many(*, count):
    return fan(list(range(count)))
