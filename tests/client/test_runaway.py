"""Jobs in whose last geometry atoms overlap, which nothing is gained by continuing."""

import pytest
from ase.build import bulk

from crystalmath.client import JobFailed, in_process

LONG = 300
FEW = {"opt_params": {"fmax": 1e-6, "max_steps": 1}}


@pytest.mark.filterwarnings("ignore::crystalmath.client.SubmissionWarning")
def test_a_runaway_is_not_continued_unless_forced(home):
    squeezed, sound = bulk("Cu", a=1.0, cubic=True), bulk("Cu", cubic=True)
    for seed, atoms in enumerate((squeezed, sound)):
        atoms.rattle(0.02, seed=seed)
    with in_process() as client:
        jobs = [client.submit("emt.core.relax_job", atoms, FEW) for atoms in (squeezed, sound)]
        for job in jobs:
            with pytest.raises(JobFailed):
                job.result(LONG)
        refused, again = client.retry(
            jobs, {"opt_params": {"max_steps": 300, "fmax": 0.05}}, continued=True
        )
        assert "ran away, and is not continued: in its last geometry the atoms Cu" in str(refused)
        assert "'force'" in str(refused)
        assert again.result(LONG)
        (forced,) = client.retry(jobs[:1], continued=True, force=True, dry_run=True)
        assert forced is None
