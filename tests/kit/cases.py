"""Which test of the kit catches which broken engine, and what it says then."""

#: What `StartsInEachCall` starts, in the kit's words, in any order.
STARTED = r"(?=.*process: /bin/true)(?=.*thread: )(?=.*port: \('127.0.0.1', 0\))(?=.*file: .*/note)"
#: Test -> engine -> a pattern of what the failure says.
SAID = {
    "test_one_job_ends": {"NeverThere": r"the engine said last: .*nobody answers at port 1"},
    "test_an_exception_is_told": {
        "FailedReadsCompleted": "JobState.COMPLETED",
        "SwallowsTraceback": "traceback",
        "SwallowsMessage": "the task failed",
    },
    "test_a_running_job_is_gone_with_all_its_processes": {
        "CancelsOnPaper": "assert not",
        "CancelledTooSoon": "assert not",
        "IgnoresCancel": "was not cancelled",
    },
    "test_a_job_gets_what_was_submitted_and_gives_it_back": {
        "LosesResult": "None",
        "KeepsAtoms": "assert",
    },
    "test_a_slow_launch_slows_nobody": {
        "BlocksInStatus": "get_status took",
        "BlocksInSubmit": "submit took",
        "BlocksInClusters": "submit took",
        "LocksItsClusters": "submit took",
    },
    "test_100_jobs_from_several_threads": {
        "ReusesIds": "90 == 100",
        "SerialIds": "badly formed",
        "MixesResults": "At index",
    },
    "test_states_change_as_they_may_and_end_for_good": {
        "FlipsTerminal": "failed",
        "CancelsTheFinished": "True is False",
    },
    "test_a_parameter_that_cannot_be_written_down_is_refused": {
        "AcceptsAnything": "DID NOT RAISE",
        "LeavesDirectory": "Extra items",
    },
    "test_an_unknown_id_is_a_key_error[get_status]": {"UnknownIsPending": "DID NOT RAISE"},
    "test_an_unknown_cluster_is_refused": {"AnyCluster": "DID NOT RAISE"},
    "test_resources_not_honoured_are_refused[nodes]": {"IgnoresResources": "DID NOT RAISE"},
    "test_twice_and_by_several_at_once": {"CancelRaisesTwice": "under way"},
    "test_the_walltime_is_kept": {
        "IgnoresWalltime": "did not finish",
        "AllocationEndsFirst": "margin",
    },
    "test_launched_twice_runs_once": {"RunsPastTheClaim": "'xxx*' == 'x'"},
    "test_launch_of_many": {
        "DropsEveryTenth": "has no outcome",
        "FirstPageOnly": "of 60 attempts .* 10 are gone",
        "GoneOnItsWay": "of 60 attempts .* 1 are gone",
    },
    "test_launch_gives_handles": {
        "OnlyTheFirst": "has no outcome",
        "NumbersAsHandles": "no strings",
        "HandlesByJob": "was not asked about",
    },
    "test_launch_does_not_wait": {
        "BlocksUntilDone": "gave no answer",
        "WaitsForAWorker": "gave no answer",
    },
    "test_what_fails_is_not_run_again": {"RunsTwice": "'xx' == 'x'"},
    "test_removed_directory_hinders_nothing": {
        "OneSpoilsTheBatch": "FileNotFoundError",
        "NobodyReadsItsErrors": "has no outcome",
    },
    "test_queued_job_of_a_killed_process[submitted]": {"HandleOfThisProcess": "did not finish"},
    "test_probe_of_queued[recorded]": {"QueuedIsGone": "'gone' in"},
    "test_probe_of_finished[recorded]": {"QueuedForEver": "under way for ever"},
    "test_probe_of_finished[unrecorded]": {"RunningForEver": "under way for ever"},
    "test_probe_of_never_launched": {
        "ProbeRaises": "KeyError",
        "ProbeStarts": "'(queued|running)' in|probe began it",
    },
    "test_probe_of_running[unrecorded]": {"ProbeNeedsHandle": "'gone' != 'gone'"},
    "test_probe_of_many": {"ProbeAsksOneByOne": "probe took"},
    "test_probe_of_running[recorded]": {
        "ProbeInWords": "no legal state",
        "GoneIsAlive": "'gone' != 'gone'",
    },
    "test_release_leaves_others": {
        "ReleasesAnother": "has no outcome",
        "ReleasesAll": "has no outcome",
        "ReleaseKillsNeighbours": "'lost' != 'completed'|has no outcome",
        "LeavesDaemonAtRelease": "after all tests these .*sleep 300",
    },
    "test_release_of_what_is_not_queued": {"ReleaseRaises": "KeyError"},
    "test_release_drops_what_is_queued": {
        "ReleaseDoesNothing": "released, and begun",
        "ReleasesTheFirst": "released, and begun",
        "ReleaseStopsAtAStranger": "released, and begun",
    },
    "test_queue_dies_with_owner": {"QueueOutlivesOwner": "without an owner"},
    "test_gone_means_dead": {"GoneAfterItsOwner": "are alive"},
    "test_capabilities_are_sane": {
        "QueuesNothing": "0 >= 1",
        "QueuesMany": "'many'",
        "CapabilitiesInADict": "isinstance",
        "WorksWithNobody": "0 >= 1",
    },
    "test_close_of_an_idle_engine": {
        "LeaksProcess": "these processes go on",
        "LeavesDaemon": "these processes go on.*sleep",
        "LeaksThread": "these threads go on: .'leak'",
        "LeaksWorkers": "these threads go on",
        "LeavesFile": "temporary files are left",
        "LeavesSharedMemory": "these are left: .'/dev/shm/",
        "LeavesSocket": "a socket is still open",
    },
    "test_script_that_does_not_close": {
        "StopRaises": "would not stop",
        "LoudAtTheEnd": "Exception ignored",
        "PollerIsNoDaemon": "that is no daemon",
    },
    "test_closing_twice": {"SecondCloseFails": "already closed"},
    "test_close_cancels_what_is_unfinished": {"CloseLeavesJobs": "was left unfinished"},
    "test_close_that_lets_go": {"CloseAlwaysCancels": "to be let go were ended"},
    "test_runner_after_close": {"NeverClosed": "the runner that was closed"},
    "test_submit_after_close": {"SubmitsAfterClose": "DID NOT RAISE"},
    "test_calls_start_nothing[constructor]": {
        "StartsWhenMade": "thread: early",
        "SpawnsWhenMade": "process: .*sleep",
    },
    "test_clusters": {"NoLocalCluster": "the default must be"},
    "test_nothing_is_written_to_standard_output": {
        "WritesToStandardOutput": "your engine wrote `launching 1 jobs` to standard output"
    },
    "test_import_brings_no_library": {
        "ImportsEarly": "imports fake_library",
        "BringsItsLibrary": "imports fake_library",
        "BringsNumpy": "imports numpy",
    },
    "test_listed_without_its_library": {
        "ImportsEarly": "fake_library",
        "SilentAboutLibrary": "no finding about its missing library",
    },
    "test_missing_library_is_named": {"SilentAboutLibrary": "does not name"},
    "test_calls_start_nothing[findings]": {
        "AsksItsServer": "process: /bin/true",
        "NotesFindings": "file: .*/findings",
    },
    "test_stop_ends_in_time": {
        "StopHangs": "did not return",
        "StopSweepsAll": "of another process was ended",
        "StopsOneByOne": r"stop of .* jobs are let go, 100 of them .* took",
    },
    "test_stop_without_a_launch[probe]": {"StopNeedsLaunch": "_book"},
    "test_probe_of_a_cluster_that_was_taken_out": {"ProbeByCluster": "KeyError: 'taken-out'"},
    "test_a_handle_means_the_same_in_another_process": {"SerialHandles": "handle '1'"},
    "test_each_of_a_batch_has_its_own_handle": {"NeighboursHandles": "mixes them up"},
    "test_launched_again_after_its_worker_was_killed": {
        "NeighboursHandles": "was killed, and probe says that it is under way",
        "IgnoresASecondLaunch": "a second time",
        "LosesWorkers": "a second time",
        "DeadWorkerIsRunning": "is under way",
        "ReplacementKnowsLittle": "after a worker was killed, jobs find",
    },
    "test_stop_ends_in_an_outage": {"StopHangsInAnOutage": "stop in an outage did not return"},
    "test_probe_of_many_in_mixed_states": {
        "MixesUpHandles": "mixes them up",
        "RecyclesHandles": "mixes them up",
    },
    "test_starts_in_order": {
        "LastComeFirst": "number 13 of those .* before number 1",
        "LexicalOrder": "number 9 of those .* before number 1",
    },
    "test_as_many_at_once_as_workers_says": {
        "FewerAtOnce": "says 2, and 1 jobs",
        "MoreAtOnce": "says 1, and 2 jobs",
    },
    "test_as_many_at_once_after_releases": {"ReleaseFreesASlot": "says 1, and 2 jobs"},
    "test_release_on_the_way_to_a_worker": {"DropsTooLate": "it is gone, and it was begun"},
    "test_an_outage_costs_nothing": {"ThreadPerFailedConnect": "has 10 more threads"},
    "test_an_unknown_option_is_refused": {"IgnoresOptions": "refuses options that you do not know"},
    "test_an_unknown_key_of_a_cluster_is_refused": {
        "IgnoresKeysOfClusters": "check_options refuses keys that you do not know"
    },
    "test_worker_init_is_run": {"IgnoresWorkerInit": "a job on that cluster finds None"},
    "test_questions_about_a_cluster_that_was_taken_out[runs_here]": {
        "RunsHereByTable": r"runs_here\('taken-out'\) raised KeyError"
    },
    "test_launch_beside_a_cluster_that_was_taken_out": {
        "UnknownClusterIsAway": "keeps back for ever .*the cluster taken-out does not answer"
    },
    "test_names_are_free_text": {
        "NamesUnquoted": "of 2 attempts .* 0 were begun",
        "SameNameOnce": "of 3 attempts .* 1 were begun",
    },
    "test_urgent_ones_are_not_overtaken": {"UrgentLast": "-5 began before one of priority 5"},
    "test_as_many_wait_as_max_queued_says": {
        "RingBuffer": "took 300 attempts .* the last of them",
        "DescriptorPerWaiting": "while 300 attempts .* wait, .* has .*300 more descriptors",
        "ThreadPerWaiting": "while 300 attempts .* wait, .* has .*300 more threads",
    },
    "test_a_job_finds_the_variables_of_its_owner[HOME]": {"EmptyEnvironment": "found: None"},
    "test_a_job_finds_the_variables_of_its_owner[A_VARIABLE]": {
        "DropsVariable": "some words",
        "EnvironmentByLines": "some words",
        "SecondWorkerKnowsLittle": "some words",
    },
    "test_a_job_finds_the_pythonpath_of_its_owner": {"DropsPythonPath": r"stage\d+/modules"},
    "test_a_job_has_the_locale_of_its_owner": {"OtherLocale": "text files"},
    "test_a_job_has_the_limits_of_its_owner": {
        "FewerFiles": r"RLIMIT_NOFILE is \[200",
        "LowersHardLimit": "RLIMIT_(STACK|CORE) is",
    },
    "test_a_home_with_blanks_and_accents": {"UnquotedPaths": "a home named .a b"},
    "test_a_job_hears_all_signals": {
        "JobsIgnoreSignals": "'ignored': .'SIGINT', 'SIGTERM'",
        "JobsBlockSignals": "'blocked': .'SIGINT', 'SIGTERM'",
    },
    "test_a_job_has_standard_streams": {"JobsWithoutStreams": "closed"},
    "test_a_job_has_the_umask_that_keeps_others_out": {"JobsOpenToAll": "found: 000"},
    "test_a_job_begins_in_its_work_directory": {"JobsElsewhere": "found: /$"},
    "test_a_job_finds_the_variables_of_its_owner[TMPDIR]": {
        "ScratchOfItsOwn": "variable TMPDIR .* found: .*/scratch-"
    },
    "test_jobs_have_the_cores_of_their_owner": {
        "BindsToOneCore": r"2 jobs at once .* found: \[\[(\d+)\], \[\1\]\]"
    },
    "test_its_owner_stays_as_it_was[working directory]": {
        "ChangesDirectory": "is /",
        "ChangesDirectoryForAMoment": r"os\.chdir\('/'\)",
    },
    "test_its_owner_stays_as_it_was[umask]": {
        "ChangesUmask": "is 007",
        "ChangesUmaskForAMoment": r"os\.umask\(7\) \(broken_surroundings\.py",
    },
    "test_its_owner_stays_as_it_was[signal handlers]": {"HandlesSignals": "SIGTERM was"},
    "test_its_owner_stays_as_it_was[environment]": {
        "SetsVariable": "BROKEN_ENGINE_ADDRESS was",
        "SetsVariableForAMoment": r"os\.putenv\(b'BROKEN_ENGINE_ADDRESS'",
    },
    "test_its_owner_stays_as_it_was[interpreter]": {
        "LimitsSocketsForAMoment": r"setdefaulttimeout\(5\)",
        "CapturesWarnings": "showwarning was",
        "CollectsNoGarbage": "garbage collection was True, is False",
        "ChangesPath": "/broken/engine",
    },
    "test_no_file_elsewhere": {
        "WritesBesideTheJob": r"submit\.sh'\) \(broken_surroundings\.py",
        "LeavesTemporaryFile": "/tmp/broken-engine-note-.* is left",
        "WritesToHome": r"home/\.broken-engine was not there",
        "WritesToCache": r"\.cache/broken-engine\S* was not there",
        "WritesWhereItStands": "work/broken-engine.log was not there",
        "ChangesModes": "was 100644, [^']* is 100666",
        "OpensItsFolder": r"\.known-engine was 40755, [^']* is 40777",
        "OpensTheHome": "/home was 40[^']*, is 40777",
        "WritesElsewhereAtOnce": r"open\('/var/tmp/broken-engine-\d+\.log",
        "WritesElsewhere": r"/var/tmp/broken-engine-log-\d+, open in",
    },
    "test_no_port_beyond_loopback": {
        "ListensWhileJobsRun": r"0\.0\.0\.0:",
        "ListensToAll": r"(?<!UDP )0\.0\.0\.0:",
        "HearsByUdp": r"UDP 0\.0\.0\.0:\d+ of process",
    },
    "test_no_port_for_everybody": {
        "AnswersXmlRpc": "XML-RPC of anybody",
        "ListensByAbstractName": r"the abstract Unix socket @broken-engine-\d+ of process \d+ \(",
        "ServesAnybody": r"answers HTTP of anybody \(/jobs\)",
    },
    "test_its_owner_stays_as_it_was[root logger]": {
        "ConfiguresLogging": "handlers was",
        "StampsLogRecords": "factory of records was",
    },
    "test_its_owner_stays_as_it_was[limits]": {"LowersLimit": "RLIMIT_NOFILE was"},
    "test_no_descriptor_is_left_open": {"LeavesDescriptor": "/dev/zero"},
    "test_a_job_costs_its_owner_nothing": {
        "DescriptorPerJob": r"\b([5-9]|1\d) more descriptors",
        "ThreadPerJob": r"\b([5-9]|1\d) more threads",
        "DescriptorPerFailure": "[45] more descriptors",
        "ThreadPerRelease": r"\d more threads",
        "ProcessPerJob": r"\b([5-9]|1\d) more processes",
    },
    "test_its_owner_stays_as_it_was[loggers]": {
        "KeepsItsLog": r"propagate of .* was True, is False"
    },
    "test_its_owner_stays_as_it_was[warning filters]": {
        "SilencesWarnings": r"is \['ignore each of them'\]"
    },
    "test_its_owner_stays_as_it_was[standard library]": {
        "PatchesTheLibrary": r"socket\.getaddrinfo was .*broken_guests\.py"
    },
    "test_its_owner_stays_as_it_was[kernel attributes]": {
        "SubreapsInItsOwner": "PR_GET_CHILD_SUBREAPER was 0, is 1",
        "WaitsForNoReader": (
            "(?=.*ITIMER_REAL was off, is on)(?=.*standard output blocks was True, is False)"
        ),
    },
    "test_its_owner_hears_of_its_children": {"ReapsAll": "a child of its own, 7.* found: 0"},
    "test_its_owner_reads_its_standard_input": {
        "EatsStandardInput": "stdin=subprocess.DEVNULL.* '' is left"
    },
    "test_its_owner_stays_as_it_was[random numbers]": {
        "SeedsRandomNumbers": r"random\.seed\(7\) \(broken_guests\.py",
        "SeedsNumpyForAMoment": r"numpy\.random\.seed\(7\) \(broken_guests\.py",
    },
    "test_its_owner_runs_its_script_alone": {"RunsTheScriptAgain": "found: .*`__mp_main__`"},
    "test_its_owner_closes_its_pipes": {
        "ForksItsWorkers": r"`multiprocessing\.Process` .* hangs.* found: it is open in \d+ \("
    },
    "test_what_waits_sleeps": {
        "NeverSleeps": r"\d+ \(.*owner_process.*\) has computed for .*, while its jobs slept",
        "LooksForJobsAllTheTime": ", while it had no job",
        "AsksForTheEndAllTheTime": ", while its jobs slept",
    },
    "test_no_variable_in_a_command_line": {
        "EnvironmentOnCommandLine": r"found: .*A_SECRET_OF_THE_SUBMITTER in that of \d+ \(bash\)"
    },
    "test_its_owner_loses_its_working_directory": {
        "ResolvesItsPaths": "removed before the first launch.* then failed: .*FileNotFoundError"
    },
    "test_its_owner_has_a_child_that_ends": {
        "RemovesItsFolderInAChild": "forked ended as scripts end.* then failed: .*FileNotFoundError"
    },
    "test_ctrl_c_is_for_its_owner": {
        "CtrlCEndsItsJobs": "Ctrl-C was pressed.* job was lost, and begun anew: it took 2",
        "CtrlCEndsItsQueue": "Ctrl-C was pressed.* submitted then does not end: it is pending",
    },
    "test_killed_at_each_moment_of_a_launch": {
        # At which moment is up to the machine: on a busy one a launch may take longer than a job.
        "TiedTooLate": "after its owner was killed",
        "TiedByItsThread": "after its owner was killed",
        "HelperNotTied": "after its owner was killed after a release",
        "KilledLeavesFile": r"/tmp/broken-engine-\w{8}'",
        "KilledLeavesSocket": r"/engines/\w+/\d+'",
        "KilledLeavesShortSocket": r"/tmp/broken-engine-\d+\.sock",
        "NeverTied": "sleep 300",
    },
    "test_running_job_of_a_killed_process": {"NeverTied": "which killed its process, these"},
}
for _step in ("import", "constructor", "clusters", "workers"):
    SAID.setdefault(f"test_calls_start_nothing[{_step}]", {})["StartsInEachCall"] = STARTED
# The first time may take long, for what it imports.
for _step in ("import", "remade", "clusters", "workers"):
    SAID[f"test_calls_are_quick[{_step}]"] = {"SlowInEachCall": r"took \d\.\d+ s, and may"}
#: Engine, test, and that pattern.
CASES = [(engine, test, said) for test, some in SAID.items() for engine, said in some.items()]

#: Of `MakesDaemons`, which does to its workers what core puts right for jobs: the tests of that.
MENDED = [
    "test_a_job_hears_all_signals",
    "test_a_job_has_standard_streams",
    "test_a_job_has_the_umask_that_keeps_others_out",
    "test_a_job_begins_in_its_work_directory",
]
