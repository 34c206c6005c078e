"""Engines that are broken in several ways at once: one run of the kit shows all of them."""

import os

import broken_guests as guests
import broken_subtly as subtly
import broken_surroundings as around
from broken_in_time import DescriptorPerWaiting, KeepsOfEachThatWaits, ThreadPerWaiting
from broken_when_killed import (
    CtrlCEndsItsJobs,
    KilledLeavesFile,
    KilledLeavesShortSocket,
    KilledLeavesSocket,
    RemovesItsFolderInAChild,
    ResolvesItsPaths,
)

# --- to jobs --------------------------------------------------------------------------------------


class WorkersApart(around.InAProcess):
    """Starts workers with what each of its parts changes about them."""

    def environment(self):
        made = dict(os.environ)
        for part in self.parts:
            own = part.environment(self)
            changed = {name: v for name, v in own.items() if v != os.environ.get(name)}
            dropped = os.environ.keys() - own.keys()
            made = {name: v for name, v in made.items() if name not in dropped} | changed
        return made

    def prepare(self):
        for part in self.parts:
            part.prepare(self)


class PassesOnLess(WorkersApart):
    parts = (
        around.DropsVariable,
        around.DropsPythonPath,
        around.OtherLocale,
        around.FewerFiles,
        subtly.LowersHardLimit,
    )


class MakesDaemons(WorkersApart):
    parts = (around.IgnoresSignals, around.ClosesStreams, around.OpenToAll, around.WorksInRoot)


class SpoilsJobs(around.PastCore):
    parts = (
        around.JobsIgnoreSignals,
        around.JobsBlockSignals,
        around.JobsWithoutStreams,
        around.JobsOpenToAll,
        around.JobsElsewhere,
    )
    what = " ".join(part.what for part in parts)


# --- to its owner and the machine -----------------------------------------------------------------


class BadGuest(around.AtLaunch):
    """Does at its first launch what each of its parts does then."""

    def __init__(self, settings):
        super().__init__(settings)
        self._guests = [part(settings) for part in self.parts]

    def begin(self):
        for guest in self._guests:
            guest.begin()

    def end(self):
        for guest in self._guests[::-1]:
            guest.end()


class ChangesItsOwner(BadGuest):
    parts = (
        around.ChangesDirectory,
        around.ChangesUmask,
        around.HandlesSignals,
        around.SetsVariable,
        around.CapturesWarnings,
        around.ConfiguresLogging,
        subtly.StampsLogRecords,
        around.LowersLimit,
        around.ChangesPath,
        around.LeavesDescriptor,
        guests.KeepsItsLog,
        guests.SilencesWarnings,
        guests.PatchesTheLibrary,
        guests.SubreapsInItsOwner,
        guests.CollectsNoGarbage,
        guests.WaitsForNoReader,
        guests.EatsStandardInput,
        guests.ReapsAll,
    )


class ChangesForAMomentAndWrites(BadGuest):
    parts = (
        around.ChangesDirectoryForAMoment,
        around.SetsVariableForAMoment,
        around.ChangesUmaskForAMoment,
        around.LimitsSocketsForAMoment,
        guests.SeedsRandomNumbers,
        guests.SeedsNumpyForAMoment,
        around.WritesToHome,
        subtly.WritesToCache,
        around.WritesWhereItStands,
        around.OpensTheHome,
        around.ChangesModes,
        around.OpensItsFolder,
        around.WritesElsewhereAtOnce,
        around.WritesElsewhere,
        around.LeavesTemporaryFile,
    )


class OpenHouse(BadGuest):
    parts = (
        around.ListensToAll,
        guests.HearsByUdp,
        guests.ListensByAbstractName,
        around.ServesAnybody,
        around.AnswersXmlRpc,
        guests.RunsTheScriptAgain,
        guests.ForksItsWorkers,
    )


class KilledLeavesAll(BadGuest):
    parts = (KilledLeavesFile, KilledLeavesSocket, KilledLeavesShortSocket)


class KeepsAllOfEachJob(around.KeepsOfEachJob):
    parts = (around.DescriptorPerJob, around.ThreadPerJob, around.ProcessPerJob)

    def keep(self, kept):
        for part in self.parts:
            part.keep(self, kept)


class KeepsAllOfEachThatWaits(KeepsOfEachThatWaits):
    parts = (DescriptorPerWaiting, ThreadPerWaiting)

    def keep(self, kept):
        for part in self.parts:
            part.keep(self, kept)


class KeepsOfSomeJobs(subtly.DescriptorPerFailure, subtly.ThreadPerRelease):
    parts = (subtly.DescriptorPerFailure, subtly.ThreadPerRelease)
    keeps = subtly.DescriptorPerFailure.keeps | subtly.ThreadPerRelease.keeps


class MeetsMishaps(ResolvesItsPaths, RemovesItsFolderInAChild, CtrlCEndsItsJobs):
    parts = (ResolvesItsPaths, RemovesItsFolderInAChild, CtrlCEndsItsJobs)
