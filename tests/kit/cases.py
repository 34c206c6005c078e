"""Which test of the kit catches which broken engine, and what it says then."""

from __future__ import annotations

from broken_calls import FAULTS, STEPS, named

#: What an engine starts too early, in the kit's words.
STARTED = {
    "Process": "process: /bin/true",
    "Thread": "thread: ",
    "Port": r"port: \('127.0.0.1', 0\)",
    "File": "file: .*/note",
}

#: Engine, test, and a pattern of what the failure says.
CASES = [
    # What a caller sees.
    ("NeverThere", "test_one_job_ends", r"the engine said last: .*nobody answers at port 1"),
    ("FailedReadsCompleted", "test_an_exception_is_told", "JobState.COMPLETED"),
    ("CancelsOnPaper", "test_a_running_job_is_gone_with_all_its_processes", "assert not"),
    ("CancelledTooSoon", "test_a_running_job_is_gone_with_all_its_processes", "assert not"),
    ("IgnoresCancel", "test_a_running_job_is_gone_with_all_its_processes", "was not cancelled"),
    ("LosesResult", "test_a_job_gets_what_was_submitted_and_gives_it_back", "None"),
    ("BlocksInStatus", "test_a_slow_launch_slows_nobody", "get_status took"),
    ("BlocksInSubmit", "test_a_slow_launch_slows_nobody", "submit took"),
    ("ReusesIds", "test_100_jobs_from_several_threads", "90 == 100"),
    ("SerialIds", "test_100_jobs_from_several_threads", "badly formed"),
    ("FlipsTerminal", "test_states_change_as_they_may_and_end_for_good", "failed"),
    ("SwallowsTraceback", "test_an_exception_is_told", "traceback"),
    ("SwallowsMessage", "test_an_exception_is_told", "the task failed"),
    ("MixesResults", "test_100_jobs_from_several_threads", "At index"),
    ("KeepsAtoms", "test_a_job_gets_what_was_submitted_and_gives_it_back", "assert"),
    (
        "AcceptsAnything",
        "test_a_parameter_that_cannot_be_written_down_is_refused",
        "DID NOT RAISE",
    ),
    (
        "LeavesDirectory",
        "test_a_parameter_that_cannot_be_written_down_is_refused",
        "Extra items",
    ),
    ("UnknownIsPending", "test_an_unknown_id_is_a_key_error[get_status]", "DID NOT RAISE"),
    ("AnyCluster", "test_an_unknown_cluster_is_refused", "DID NOT RAISE"),
    ("IgnoresResources", "test_resources_not_honoured_are_refused[nodes]", "DID NOT RAISE"),
    ("CancelsTheFinished", "test_a_finished_job_stays_what_it_is", "True is False"),
    ("CancelRaisesTwice", "test_twice_and_by_several_at_once", "under way"),
    ("IgnoresWalltime", "test_the_walltime_is_kept", "did not finish"),
    # launch
    ("RunsPastTheClaim", "test_launched_twice_runs_once", "'xxx*' == 'x'"),
    ("DropsEveryTenth", "test_launch_of_many", "has no outcome"),
    ("OnlyTheFirst", "test_launch_gives_handles", "has no outcome"),
    ("BlocksUntilDone", "test_launch_does_not_wait", "gave no answer"),
    ("WaitsForAWorker", "test_launch_does_not_wait", "gave no answer"),
    ("NumbersAsHandles", "test_launch_gives_handles", "no strings"),
    ("RunsTwice", "test_what_fails_is_not_run_again", "'xx' == 'x'"),
    ("OneSpoilsTheBatch", "test_removed_directory_hinders_nothing", "FileNotFoundError"),
    ("HandlesByJob", "test_launch_gives_handles", "was not asked about"),
    ("HandleOfThisProcess", "test_queued_job_of_a_killed_process[submitted]", "did not finish"),
    # probe
    ("QueuedIsGone", "test_probe_of_queued[recorded]", "'gone' in"),
    ("QueuedForEver", "test_probe_of_finished[recorded]", "under way for ever"),
    ("RunningForEver", "test_probe_of_finished[unrecorded]", "under way for ever"),
    ("ProbeRaises", "test_probe_of_never_launched", "KeyError"),
    ("ProbeStarts", "test_probe_of_never_launched", "'(queued|running)' in|probe began it"),
    ("ProbeNeedsHandle", "test_probe_of_running[unrecorded]", "'gone' != 'gone'"),
    ("ProbeAsksOneByOne", "test_probe_of_many", "probe took"),
    ("ProbeInWords", "test_probe_of_running[recorded]", "no legal state"),
    # release
    ("ReleasesAnother", "test_release_leaves_others", "has no outcome"),
    ("ReleasesAll", "test_release_leaves_others", "has no outcome"),
    ("ReleaseRaises", "test_release_of_what_is_not_queued", "KeyError"),
    (
        "ReleaseKillsNeighbours",
        "test_release_leaves_others",
        "'lost' != 'completed'|has no outcome",
    ),
    ("ReleaseDoesNothing", "test_release_drops_what_is_queued", "released, and begun"),
    # Capabilities
    ("QueueOutlivesOwner", "test_queue_dies_with_owner", "without an owner"),
    ("GoneIsAlive", "test_probe_of_running[recorded]", "'gone' != 'gone'"),
    ("GoneAfterItsOwner", "test_gone_means_dead", "are alive"),
    ("QueuesNothing", "test_capabilities_are_sane", "0 >= 1"),
    ("QueuesMany", "test_capabilities_are_sane", "'many'"),
    ("CapabilitiesInADict", "test_capabilities_are_sane", "isinstance"),
    ("WorksWithNobody", "test_capabilities_are_sane", "0 >= 1"),
    # stop and close
    ("LeaksProcess", "test_close_of_an_idle_engine", "these processes go on"),
    ("LeavesDaemon", "test_close_of_an_idle_engine", "these processes go on.*sleep"),
    ("LeavesDaemonAtRelease", "test_release_leaves_others", "after all tests these .*sleep 300"),
    ("LeaksThread", "test_close_of_an_idle_engine", "these threads go on: .'leak'"),
    ("LeaksWorkers", "test_close_of_an_idle_engine", "these threads go on"),
    ("LeavesFile", "test_close_of_an_idle_engine", "temporary files are left"),
    ("LeavesSharedMemory", "test_close_of_an_idle_engine", "these are left: .'/dev/shm/"),
    ("LeavesSocket", "test_close_of_an_idle_engine", "a socket is still open"),
    ("StopRaises", "test_script_that_does_not_close", "would not stop"),
    ("LoudAtTheEnd", "test_script_that_does_not_close", "Exception ignored"),
    ("SecondCloseFails", "test_closing_twice", "already closed"),
    ("CloseLeavesJobs", "test_close_cancels_what_is_unfinished", "was left unfinished"),
    ("CloseAlwaysCancels", "test_close_that_lets_go", "to be let go were ended"),
    ("NeverClosed", "test_runner_after_close", "the runner that was closed"),
    ("SubmitsAfterClose", "test_submit_after_close", "DID NOT RAISE"),
    # When it is loaded and made
    ("StartsWhenMade", "test_making_a_runner_starts_nothing", "early"),
    ("SpawnsWhenMade", "test_making_a_runner_starts_nothing", "sleep"),
    ("NoLocalCluster", "test_clusters", "the default must be"),
    ("BlocksInClusters", "test_a_slow_launch_slows_nobody", "submit took"),
    ("LocksItsClusters", "test_a_slow_launch_slows_nobody", "submit took"),
    (
        "WritesToStandardOutput",
        "test_nothing_is_written_to_standard_output",
        "your engine wrote `launching 1 jobs` to standard output",
    ),
    ("ImportsEarly", "test_import_starts_nothing", "imports the engine's library"),
    ("ImportsEarly", "test_listed_without_its_library", "fake_library"),
    ("SilentAboutLibrary", "test_listed_without_its_library", "does not say so"),
    ("SilentAboutLibrary", "test_missing_library_is_named", "does not name"),
    # What core calls, and when
    *(
        (named("Slow", step), f"test_calls_are_quick[{step}]", r"took \d\.\d+ s, and may")
        for step in STEPS
        if step != "constructor"
    ),
    # The first time may take long, for what it imports.
    (named("Slow", "constructor"), "test_calls_are_quick[remade]", r"took \d\.\d+ s, and may"),
    *(
        (named(fault, step), f"test_calls_start_nothing[{step}]", STARTED[fault])
        for step in STEPS
        for fault in FAULTS
        if fault != "Slow"
    ),
    ("AsksItsServer", "test_calls_start_nothing[findings]", "process: /bin/true"),
    ("NotesFindings", "test_findings", "looking has made files"),
    ("BringsItsLibrary", "test_import_brings_no_library", "imports fake_library"),
    ("BringsNumpy", "test_import_brings_no_library", "imports numpy"),
    ("StopHangs", "test_stop_ends_in_time", "did not come back"),
    ("StopSweepsAll", "test_stop_ends_in_time", "of another process was ended"),
    ("StopNeedsLaunch", "test_stop_without_a_launch[probe]", "_book"),
    ("PollerIsNoDaemon", "test_script_that_does_not_close", "which is no daemon"),
    ("FirstPageOnly", "test_launch_of_many", "of 60 attempts .* 10 are gone"),
    ("GoneOnItsWay", "test_launch_of_many", "of 60 attempts .* 1 are gone"),
    ("ProbeByCluster", "test_probe_of_a_cluster_that_was_taken_out", "KeyError: 'taken-out'"),
    ("SerialHandles", "test_a_handle_means_the_same_in_another_process", "handle '1'"),
    ("NeighboursHandles", "test_each_of_a_batch_has_its_own_handle", "mixes them up"),
    (
        "NeighboursHandles",
        "test_launched_again_after_its_worker_was_killed",
        "was killed, and probe says that it is under way",
    ),
    ("StopHangsInAnOutage", "test_stop_ends_in_an_outage", "stop in an outage did not come back"),
    # What is launched, and when it runs
    ("IgnoresASecondLaunch", "test_launched_again_after_its_worker_was_killed", "a second time"),
    ("LosesWorkers", "test_launched_again_after_its_worker_was_killed", "a second time"),
    ("DeadWorkerIsRunning", "test_launched_again_after_its_worker_was_killed", "is under way"),
    ("MixesUpHandles", "test_probe_of_many_in_mixed_states", "mixes them up"),
    ("RecyclesHandles", "test_probe_of_many_in_mixed_states", "mixes them up"),
    ("LastComeFirst", "test_starts_in_order", "number 13 of those .* before number 1"),
    ("FewerAtOnce", "test_as_many_at_once_as_workers_says", "says 2, and 1 jobs"),
    ("MoreAtOnce", "test_as_many_at_once_as_workers_says", "says 1, and 2 jobs"),
    ("LexicalOrder", "test_starts_in_order", "number 9 of those .* before number 1"),
    ("ReleaseFreesASlot", "test_as_many_at_once_after_releases", "says 1, and 2 jobs"),
    ("DropsTooLate", "test_release_on_the_way_to_a_worker", "it is gone, and it was begun"),
    ("NobodyReadsItsErrors", "test_removed_directory_hinders_nothing", "has no outcome"),
    ("ThreadPerFailedConnect", "test_an_outage_costs_nothing", "has 10 threads and 0 desc"),
    ("AllocationEndsFirst", "test_the_walltime_is_kept", "margin"),
    ("IgnoresOptions", "test_an_unknown_option_is_refused", "refuses what you do not know"),
    (
        "IgnoresKeysOfClusters",
        "test_an_unknown_key_of_a_cluster_is_refused",
        "check_options refuses what you do not know",
    ),
    ("IgnoresWorkerInit", "test_worker_init_is_run", "a job on that cluster finds None"),
    # What launch is given, and how it ends
    (
        "RunsHereByTable",
        "test_questions_about_a_cluster_that_was_taken_out[runs_here]",
        r"runs_here\('taken-out'\) raised KeyError",
    ),
    (
        "UnknownClusterIsAway",
        "test_launch_beside_a_cluster_that_was_taken_out",
        "keeps back one .*the cluster taken-out does not answer",
    ),
    ("NamesUnquoted", "test_names_are_free_text", "of 2 attempts .* 0 were begun"),
    ("SameNameOnce", "test_names_are_free_text", "of 3 attempts .* 1 were begun"),
    ("UrgentLast", "test_urgent_ones_are_not_overtaken", "-5 began before one of priority 5"),
    ("RingBuffer", "test_as_many_wait_as_max_queued_says", "took 300 attempts .* the last of them"),
    ("StopsOneByOne", "test_stop_ends_in_time", r"stop of .* jobs are let go, 100 of them .* took"),
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
