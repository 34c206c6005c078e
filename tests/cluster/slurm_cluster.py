"""A real Slurm cluster on this machine: four hosts made of namespaces, and nothing is pretended.

``login``, ``login2``, ``node1`` and ``node2`` have a network, a name, processes, a machine id, a
boot id and a time of boot of their own. They see the same files, but each has its own ``/dev/shm``.
All of them live below one process, the room, which reads from a pipe of ours: however we end, the
kernel ends all of it.

Needs root, and Debian's ``slurmctld slurmd slurm-client munge iproute2``.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

__all__ = ["LOGIN", "LOGIN2", "NODES", "SlurmCluster", "missing"]

#: Where Slurm's controller is, and another login node, on which nothing of Slurm's runs.
LOGIN, LOGIN2 = "login", "login2"
NODES = ("node1", "node2")
#: Where each host's end of the network is.
ADDRESSES = {
    LOGIN: "10.77.0.10",
    "node1": "10.77.0.11",
    "node2": "10.77.0.12",
    LOGIN2: "10.77.0.13",
}
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")
#: How long hosts, and what is on them, may take to be there, in seconds.
START_S = 120.0

CONFIGURATION = """\
ClusterName=two
SlurmctldHost=login(10.77.0.10)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdTimeout=15
KillWait=3
MinJobAge=300
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=node1 NodeAddr=10.77.0.11 CPUs=2 RealMemory=4000
NodeName=node2 NodeAddr=10.77.0.12 CPUs=2 RealMemory=4000
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE
PartitionName=short Nodes=node1,node2 MaxTime=00:01:00
"""

#: Makes a host of the namespaces that it is started in; its first process collects the dead.
HOST = """\
set -e
mount --bind "$FOLDER/hosts" /etc/hosts
mount --bind "$FOLDER/$NAME.machine" /etc/machine-id
mount --bind "$FOLDER/$NAME.boot" /proc/sys/kernel/random/boot_id
mount -t tmpfs shm /dev/shm
hostname "$NAME"
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$ADDRESS/24" dev eth0
ip link set eth0 up
: > "$FOLDER/$NAME.on"
set +e
if [ "$NAME" = login ]; then
    munged --force --key-file="$FOLDER/munge/key" --socket="$FOLDER/munge/socket" \
        --pid-file="$FOLDER/munge/pid" --seed-file="$FOLDER/munge/seed" \
        --log-file="$FOLDER/munge/log"
    slurmctld -D &
elif [ "$NAME" != login2 ]; then
    slurmd -D -N "$NAME" &
fi
while :; do wait; sleep 0.2; done
"""


def missing():
    """Say what this machine lacks for such a cluster; empty if nothing."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return ", ".join(lacking if os.getuid() == 0 else [*lacking, "root"])


class SlurmCluster:
    """One cluster; use it in a ``with`` statement.

    Parameters
    ----------
    folder : path-like
        Where its files are; all hosts see it.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self._room = None
        self._hosts = {}  # name -> the process that started it, and its first process

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def environment(self):
        """The variable by which Slurm's commands find the cluster, and this process's others."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    @property
    def hosts(self):
        """The names of the hosts that are on."""
        return list(self._hosts)

    def start(self):
        """Start all hosts, and wait until Slurm takes jobs on both nodes."""
        self._write_files()
        # Nothing is heard of it but its end: `cat` ends when we do, and the kernel all below it.
        starting = subprocess.Popen(
            [*("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"), "cat"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._room = (starting, _only_child(starting.pid))
        self._in_room("ip", "link", "add", "bridge", "type", "bridge")
        self._in_room("ip", "link", "set", "bridge", "up")
        for name in ADDRESSES:
            self.power_on(name)
        self.wait_for_nodes()

    def stop(self):
        """End all hosts and all that runs on them."""
        if self._room is not None:
            starting, first = self._room
            os.kill(first, signal.SIGKILL)
            starting.stdin.close()
            starting.wait()
            for helper, _ in self._hosts.values():
                helper.wait()
            self._room, self._hosts = None, {}

    def power_on(self, name, *, has_own_time=True):
        """Start a host that is off, as after a failure of its power: its boot is another one.

        Without a time of its own it is up for as long as this machine, as a system container is.
        """
        (self.folder / f"{name}.boot").write_text(f"{uuid.uuid4()}\n")
        is_on = self.folder / f"{name}.on"
        is_on.unlink(missing_ok=True)
        new = ("unshare", "--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--time")
        # Slurm tells a host's time of boot by how long it is up.
        up_s = int(time.clock_gettime(time.CLOCK_BOOTTIME)) if has_own_time else 0
        with open(self.folder / f"{name}.console", "ab") as console:
            helper = subprocess.Popen(
                [
                    *self._entering(self._room[1]),
                    *new,
                    f"--boottime=-{up_s}",
                    "--mount-proc",
                    "--kill-child",
                    "sh",
                    "-c",
                    HOST,
                ],
                env=self.environment
                | {"FOLDER": str(self.folder), "NAME": name, "ADDRESS": ADDRESSES[name]},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        # nsenter has a child, unshare, and that one the host's first process.
        first = _only_child(_only_child(helper.pid))
        self._hosts[name] = (helper, first)
        cable = f"to-{name}"
        self._in_room("ip", "link", "add", cable, "type", "veth", "peer", "name", f"new-{name}")
        # The room does not see our pids: the end of the cable is carried over by the host's net.
        subprocess.run(
            [
                *("nsenter", f"--net=/proc/{self._room[1]}/ns/net"),
                *("ip", "link", "set", f"new-{name}", "netns", str(first), "name", "eth0"),
            ],
            check=True,
        )
        self._in_room("ip", "link", "set", cable, "master", "bridge")
        self._in_room("ip", "link", "set", cable, "up")
        # Slurm may still take it for the one that it was: only the host itself knows that it is on.
        deadline = time.monotonic() + START_S
        while not is_on.exists():
            assert time.monotonic() < deadline, f"{name} does not come up\n{self._consoles()}"
            time.sleep(0.02)

    def power_off(self, name):
        """Have a host lose its power: nothing on it does anything from now on."""
        helper, first = self._hosts.pop(name)
        os.kill(first, signal.SIGKILL)
        helper.wait()
        # The kernel takes the network apart later; the name of the cable must be free.
        subprocess.run(
            [*self._entering(self._room[1]), "ip", "link", "del", f"to-{name}"],
            check=False,
            capture_output=True,
        )

    def pull_cable(self, name):
        """Have the others hear nothing of a host any more; what runs on it goes on."""
        self._in_room("ip", "link", "set", f"to-{name}", "down")

    def plug_cable(self, name):
        """Connect a host again."""
        self._in_room("ip", "link", "set", f"to-{name}", "up")

    def restore(self):
        """Have all hosts on, connected and taking jobs, and nothing in the queue."""
        for name in ADDRESSES:
            if name not in self._hosts:
                self.power_on(name)
            self.plug_cable(name)
        self.run("scancel", "--user=root")
        deadline = time.monotonic() + START_S
        while self.queue() and time.monotonic() < deadline:
            time.sleep(0.2)
        # "invalid node state" is what it says of one that is well.
        self.resume(check=False)
        self.wait_for_nodes()

    def drain(self):
        """Have no node take jobs until `resume`."""
        self.run("scontrol", "update", "nodename=node[1-2]", "state=drain", "reason=test")

    def resume(self, *, check=True):
        self.run("scontrol", "update", "nodename=node[1-2]", "state=resume", check=check)

    def start_munge(self):
        """Start what identifies users, once it has been ended."""
        folder = self.folder / "munge"
        files = [f"--{name}-file={folder / name}" for name in ("key", "pid", "seed", "log")]
        self.run("munged", "--force", f"--socket={folder / 'socket'}", *files)

    def lose_state(self):
        """Have the controller begin anew, with job 1, as after the loss of its disk."""
        self.run("pkill", "slurmctld")
        deadline = time.monotonic() + START_S
        while self.run("pgrep", "slurmctld", check=False).returncode != 1:
            assert time.monotonic() < deadline, "the controller does not end"
            time.sleep(0.02)
        self.run("sh", "-c", f"rm -rf {self.folder}/state/*")
        # As its console has it: the first process of the host collects it.
        self.run("sh", "-c", "setsid slurmctld -D >/dev/null 2>&1 </dev/null &")
        self.wait_for_nodes()

    def command(self, *command, on=LOGIN, cwd=None):
        """Return the command line that runs a command on a host, for `subprocess`."""
        where = f"--wdns={cwd or self.folder}"
        return [*self._entering(self._hosts[on][1]), where, "--", *map(str, command)]

    def run(self, *command, on=LOGIN, cwd=None, env=None, timeout=300, check=True):
        """Run a command on a host, and give what it has written, as text."""
        done = subprocess.run(
            self.command(*command, on=on, cwd=cwd),
            env=self.environment | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            told = f"{done.stdout}\n{done.stderr}"
            raise AssertionError(
                f"{' '.join(map(str, command))} on {on}: {done.returncode}\n{told}"
            )
        return done

    def queue(self):
        """List the ids of the jobs that Slurm has and that have not ended."""
        return self.run("squeue", "--noheader", "--format=%i").stdout.split()

    def sleeping(self, seconds):
        """List the programs on each node that sleep for so long; neither `srun` nor a shell."""
        end = f"/sleep {seconds}"
        return [
            [command for command in self.processes(node).values() if command.endswith(end)]
            for node in NODES
        ]

    def node_states(self):
        """Tell each node's state in Slurm's words, as ``{"node1": "idle"}``."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t")
        return dict(line.split() for line in lines.stdout.splitlines())

    def processes(self, on):
        """List the command lines of the living processes of a host by their pids there."""
        told = self.run("ps", "-eo", "pid=,stat=,args=", on=on).stdout.splitlines()
        fields = [line.split(None, 2) for line in told]
        return {int(pid): args for pid, state, args in fields if not state.startswith("Z")}

    def wait_for_nodes(self, nodes=NODES, timeout=START_S):
        """Wait until nodes take jobs."""
        deadline = time.monotonic() + timeout
        while True:
            told = self._states_or_none()
            if told and all(told.get(node) in {"idle", "mix", "alloc"} for node in nodes):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"Slurm's nodes are not there: {told}\n{self._consoles()}")
            time.sleep(0.2)

    def _states_or_none(self):
        try:
            return self.node_states()
        except AssertionError:
            return None

    def _consoles(self):
        files = sorted([*self.folder.glob("*.console"), *self.folder.glob("*.log")])
        return "\n".join(f"{file.name}:\n{file.read_text()[-2000:]}" for file in files)

    def _write_files(self):
        for name in ("munge", "state", *_own_folders()):
            (self.folder / name).mkdir(mode=0o700, parents=True)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o400)
        key.write_bytes(secrets.token_bytes(128))
        # Everyone on a host must be able to speak to munge.
        (self.folder / "munge").chmod(0o755)
        hosts = [f"{address} {name}" for name, address in ADDRESSES.items()]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
        for name in ADDRESSES:
            (self.folder / f"{name}.machine").write_text(f"{uuid.uuid4().hex}\n")
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(folder=self.folder))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")

    def _entering(self, first):
        spaces = ("--net", "--mount", "--pid", "--uts", "--ipc", "--time")
        return ["nsenter", f"--target={first}", *spaces]

    def _in_room(self, *command):
        subprocess.run([*self._entering(self._room[1]), *command], check=True)


def _own_folders():
    # PMIx has files in the second by which ranks of one job on two nodes would meet.
    return [f"{what}-{node}" for what in ("spool", "tmp") for node in NODES]


def _only_child(pid, timeout=START_S):
    """Wait for a process's first child, and give its pid."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            break
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError(f"process {pid} has started nothing")
