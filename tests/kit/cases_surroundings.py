"""Which test catches which engine that does something to its surroundings, and what it says."""

from __future__ import annotations

#: Engine, test, and a pattern of what the failure says.
CASES = [
    # To jobs.
    ("EmptyEnvironment", "test_a_job_finds_the_variables_of_its_owner[HOME]", "found: None"),
    ("DropsVariable", "test_a_job_finds_the_variables_of_its_owner[A_VARIABLE]", "some words"),
    ("EnvironmentByLines", "test_a_job_finds_the_variables_of_its_owner[A_VARIABLE]", "some words"),
    (
        "SecondWorkerKnowsLittle",
        "test_a_job_finds_the_variables_of_its_owner[A_VARIABLE]",
        "some words",
    ),
    (
        "ReplacementKnowsLittle",
        "test_launched_again_after_its_worker_was_killed",
        "after a worker was killed, jobs find",
    ),
    ("DropsPythonPath", "test_a_job_finds_the_pythonpath_of_its_owner", r"stage\d+/modules"),
    ("OtherLocale", "test_a_job_has_the_locale_of_its_owner", "text files"),
    ("FewerFiles", "test_a_job_has_the_limits_of_its_owner", r"RLIMIT_NOFILE is \[200"),
    ("LowersHardLimit", "test_a_job_has_the_limits_of_its_owner", "RLIMIT_"),
    ("UnquotedPaths", "test_a_home_with_blanks_and_accents", "a home named .a b"),
    ("JobsIgnoreSignals", "test_a_job_hears_all_signals", "'ignored': .'SIGINT', 'SIGTERM'"),
    ("JobsBlockSignals", "test_a_job_hears_all_signals", "'blocked': .'SIGINT', 'SIGTERM'"),
    ("JobsWithoutStreams", "test_a_job_has_standard_streams", "closed"),
    ("JobsOpenToAll", "test_a_job_has_the_umask_that_keeps_others_out", "found: 000"),
    ("JobsElsewhere", "test_a_job_begins_in_its_work_directory", "found: /$"),
    (
        "ScratchOfItsOwn",
        "test_a_job_finds_the_variables_of_its_owner[TMPDIR]",
        "variable TMPDIR .* found: .*/scratch-",
    ),
    (
        "BindsToOneCore",
        "test_jobs_have_the_cores_of_their_owner",
        r"2 jobs at once .* found: \[\[(\d+)\], \[\1\]\]",
    ),
    # To its owner.
    ("ChangesDirectory", "test_its_owner_stays_as_it_was[working directory]", "is /"),
    ("ChangesUmask", "test_its_owner_stays_as_it_was[umask]", "is 007"),
    ("HandlesSignals", "test_its_owner_stays_as_it_was[signal handlers]", "SIGTERM was"),
    ("SetsVariable", "test_its_owner_stays_as_it_was[environment]", "BROKEN_ENGINE_ADDRESS was"),
    (
        "ChangesDirectoryForAMoment",
        "test_its_owner_stays_as_it_was[working directory]",
        r"os\.chdir\('/'\)",
    ),
    (
        "SetsVariableForAMoment",
        "test_its_owner_stays_as_it_was[environment]",
        r"os\.putenv\(b'BROKEN_ENGINE_ADDRESS'",
    ),
    (
        "ChangesUmaskForAMoment",
        "test_its_owner_stays_as_it_was[umask]",
        r"os\.umask\(7\) \(broken_surroundings\.py",
    ),
    (
        "LimitsSocketsForAMoment",
        "test_its_owner_stays_as_it_was[interpreter]",
        r"setdefaulttimeout\(5\)",
    ),
    ("CapturesWarnings", "test_its_owner_stays_as_it_was[interpreter]", "showwarning was"),
    ("WritesBesideTheJob", "test_no_file_elsewhere", r"submit\.sh'\) \(broken_surroundings\.py"),
    ("ListensWhileJobsRun", "test_no_port_beyond_loopback", r"0\.0\.0\.0:"),
    ("AnswersXmlRpc", "test_no_port_for_everybody", "XML-RPC of anybody"),
    ("LeavesTemporaryFile", "test_no_file_elsewhere", "/tmp/broken-engine-note-.* is left"),
    ("ConfiguresLogging", "test_its_owner_stays_as_it_was[root logger]", "handlers was"),
    ("StampsLogRecords", "test_its_owner_stays_as_it_was[root logger]", "factory of records was"),
    ("LowersLimit", "test_its_owner_stays_as_it_was[limits]", "RLIMIT_NOFILE was"),
    ("ChangesPath", "test_its_owner_stays_as_it_was[interpreter]", "/broken/engine"),
    ("LeavesDescriptor", "test_no_descriptor_is_left_open", "/dev/null"),
    ("DescriptorPerJob", "test_a_job_costs_its_owner_nothing", r"\b([5-9]|1\d) more descriptors"),
    ("ThreadPerJob", "test_a_job_costs_its_owner_nothing", r"\b([5-9]|1\d) more threads"),
    ("DescriptorPerFailure", "test_a_job_costs_its_owner_nothing", "[45] more descriptors"),
    ("ThreadPerRelease", "test_a_job_costs_its_owner_nothing", "[45] more threads"),
    ("ProcessPerJob", "test_a_job_costs_its_owner_nothing", r"\b([5-9]|1\d) more processes"),
    (
        "KeepsItsLog",
        "test_its_owner_stays_as_it_was[loggers]",
        r"propagate of .* was True, is False",
    ),
    (
        "SilencesWarnings",
        "test_its_owner_stays_as_it_was[warning filters]",
        r"is \['ignore each of them'\]",
    ),
    (
        "PatchesTheLibrary",
        "test_its_owner_stays_as_it_was[standard library]",
        r"socket\.getaddrinfo was .*broken_guests\.py",
    ),
    (
        "SubreapsInItsOwner",
        "test_its_owner_stays_as_it_was[kernel attributes]",
        "PR_GET_CHILD_SUBREAPER was 0, is 1",
    ),
    ("ReapsAll", "test_its_owner_hears_of_its_children", "exited with 7.* found: 0"),
    (
        "EatsStandardInput",
        "test_its_owner_reads_its_standard_input",
        "stdin=subprocess.DEVNULL.* '' is left",
    ),
    (
        "SeedsRandomNumbers",
        "test_its_owner_stays_as_it_was[random numbers]",
        r"random\.seed\(7\) \(broken_guests\.py",
    ),
    (
        "SeedsNumpyForAMoment",
        "test_its_owner_stays_as_it_was[random numbers]",
        r"numpy\.random\.seed\(7\) \(broken_guests\.py",
    ),
    ("RunsTheScriptAgain", "test_its_owner_runs_its_script_alone", "found: .*`__mp_main__`"),
    (
        "ForksItsWorkers",
        "test_its_owner_closes_its_pipes",
        r"a thread or a `multiprocessing\.Process` .* hangs.* found: it is open in \d+ \(",
    ),
    (
        "NeverSleeps",
        "test_what_waits_sleeps",
        r"found: \d+ \(.*owner_process.*\) has computed for .*, while its jobs slept",
    ),
    ("LooksForJobsAllTheTime", "test_what_waits_sleeps", ", while it had no job"),
    ("AsksForTheEndAllTheTime", "test_what_waits_sleeps", ", while its jobs slept"),
    (
        "DescriptorPerWaiting",
        "test_as_many_wait_as_max_queued_says",
        "while 300 attempts .* wait, .* has 300 more descriptors than",
    ),
    (
        "ThreadPerWaiting",
        "test_as_many_wait_as_max_queued_says",
        "while 300 attempts .* wait, .* has 300 more threads than",
    ),
    # To the machine.
    ("ListensToAll", "test_no_port_beyond_loopback", r"0\.0\.0\.0:"),
    ("HearsByUdp", "test_no_port_beyond_loopback", r"UDP 0\.0\.0\.0:\d+ of process"),
    (
        "EnvironmentOnCommandLine",
        "test_no_variable_in_a_command_line",
        r"found: .*A_SECRET_OF_THE_SUBMITTER in that of \d+ \(bash\)",
    ),
    (
        "ListensByAbstractName",
        "test_no_port_for_everybody",
        r"found: .*the abstract Unix socket @broken-engine-\d+ of process \d+ \(",
    ),
    ("ServesAnybody", "test_no_port_for_everybody", r"answers HTTP of anybody \(/jobs\)"),
    ("WritesToHome", "test_no_file_elsewhere", r"home/\.broken-engine was not there"),
    ("WritesToCache", "test_no_file_elsewhere", r"\.cache.* was not there"),
    ("WritesWhereItStands", "test_no_file_elsewhere", "work/broken-engine.log was not there"),
    ("ChangesModes", "test_no_file_elsewhere", "was 100644, .* is 100666"),
    ("OpensItsFolder", "test_no_file_elsewhere", r"\.known-engine was 40755, .* is 40777"),
    ("OpensTheHome", "test_no_file_elsewhere", "/home was 40.*, is 40777"),
    ("WritesElsewhereAtOnce", "test_no_file_elsewhere", r"open\('/var/tmp/broken-engine-"),
    ("WritesElsewhere", "test_no_file_elsewhere", "/var/tmp/broken-engine-"),
    # When something happens to its owner.
    (
        "ResolvesItsPaths",
        "test_its_owner_loses_its_working_directory",
        "removed before the first launch.* submitted then failed: .*FileNotFoundError",
    ),
    (
        "RemovesItsFolderInAChild",
        "test_its_owner_has_a_child_that_ends",
        "has forked ended as scripts end.* submitted then failed: .*FileNotFoundError",
    ),
    (
        "CtrlCEndsItsJobs",
        "test_ctrl_c_is_for_its_owner",
        "pressed Ctrl-C.* a job that ran was lost, and begun anew: it took 2 attempts",
    ),
    (
        "CtrlCEndsItsQueue",
        "test_ctrl_c_is_for_its_owner",
        "pressed Ctrl-C.* a job that was submitted then does not end: it is pending",
    ),
    # When its owner is killed.
    ("TiedTooLate", "test_killed_at_each_moment_of_a_launch", "after its owner was killed"),
    # At which moment is up to the machine: on a busy one a launch may take longer than a job.
    ("TiedByItsThread", "test_killed_at_each_moment_of_a_launch", "after its owner was killed"),
    (
        "HelperNotTied",
        "test_killed_at_each_moment_of_a_launch",
        "after its owner was killed after a release",
    ),
    ("KilledLeavesFile", "test_killed_at_each_moment_of_a_launch", "/tmp/broken-engine-"),
    ("KilledLeavesSocket", "test_killed_at_each_moment_of_a_launch", "/engines/KilledLeavesSocket"),
    (
        "KilledLeavesShortSocket",
        "test_killed_at_each_moment_of_a_launch",
        r"/tmp/broken-engine-\d+\.sock",
    ),
    ("NeverTied", "test_killed_at_each_moment_of_a_launch", "sleep 300"),
    ("NeverTied", "test_running_job_of_a_killed_process", "which killed its process, these"),
]

#: Engines that do to their workers what core puts right for jobs, and the test that shows it.
MENDED = [
    ("IgnoresSignals", "test_a_job_hears_all_signals"),
    ("ClosesStreams", "test_a_job_has_standard_streams"),
    ("OpenToAll", "test_a_job_has_the_umask_that_keeps_others_out"),
    ("WorksInRoot", "test_a_job_begins_in_its_work_directory"),
]
