"""The cluster that the other tests run on is one: hosts of their own, and Slurm between them."""

from pathlib import Path

from cluster.slurm_cluster import SlurmCluster
from conftest import eventually

WHO = "echo $(hostname) $(cat /proc/sys/kernel/random/boot_id /etc/machine-id)"


def has(cluster, host, words):
    return any(words in each for each in cluster.processes(host).values())


def test_a_job_runs_on_two_hosts_that_do_not_see_each_other(slurm):
    script, output = slurm.folder / "hosts.sh", slurm.folder / "hosts.out"
    script.write_text(f"#!/bin/sh\nsrun sh -c '{WHO} $(readlink /proc/self/ns/pid)'\n")
    slurm.run("sbatch", "--wait", "--nodes=2", "--ntasks=4", f"--output={output}", script)
    lines = output.read_text().splitlines()
    one, two = sorted(set(lines))
    assert (len(lines), one.split()[0], two.split()[0]) == (4, "node1", "node2")
    assert not set(one.split()) & set(two.split())


def test_a_node_loses_its_power_and_comes_back(slurm):
    boot = slurm.run("sh", "-c", WHO, on="node1").stdout
    slurm.run("sbatch", "--nodelist=node1", "--no-requeue", "--wrap=sleep 300")
    eventually(lambda: has(slurm, "node1", "sleep 300"))
    slurm.power_off("node1")
    slurm.power_on("node1")
    slurm.wait_for_nodes()
    rebooted = slurm.run("sh", "-c", WHO, on="node1").stdout
    assert not has(slurm, "node1", "sleep 300")
    assert rebooted.split()[0::2] == boot.split()[0::2]
    assert rebooted.split()[1] != boot.split()[1]


def test_a_pulled_cable_leaves_a_node_running_and_unheard(slurm):
    slurm.run("sbatch", "--nodelist=node2", "--no-requeue", "--wrap=sleep 300")
    eventually(lambda: has(slurm, "node2", "sleep 300"))
    slurm.pull_cable("node2")
    heard = ("timeout", "2", "bash", "-c", "echo > /dev/tcp/node2/6818")
    assert slurm.run(*heard, check=False).returncode
    assert has(slurm, "node2", "sleep 300")
    slurm.plug_cable("node2")
    eventually(lambda: slurm.run(*heard, check=False).returncode == 0)


def test_nothing_is_left_when_it_stops(tmp_path):
    with SlurmCluster(tmp_path / "other") as other:
        assert other.run("hostname").stdout.strip() == "login"
    mark = str(tmp_path).encode()
    left = [each for each in Path("/proc").glob("[0-9]*/environ") if mark in read(each)]
    assert not left


def read(environ):
    try:
        return environ.read_bytes()
    except OSError:
        return b""
