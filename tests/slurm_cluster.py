"""A cluster of Slurm on this machine: a controller and two nodes, each a ``slurmd``, on the loopback interface.

Nothing but Debian's packages is needed: slurmctld, slurmd, slurm-client, libhwloc15. Messages are not signed
(``auth/none``), so that no munge runs, and no service manager is asked. A job that is put back into the queue may start
after ``cred_expire`` seconds. The first node has the name of the machine, which it must know.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])  # a user's may lack sbin
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_res
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
ReturnToService=2
KillWait=60
SlurmdTimeout=300
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 State=UNKNOWN
NodeName={other} NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 State=UNKNOWN
PartitionName=test Nodes={host},{other} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None if one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install slurmctld slurmd slurm-client libhwloc15"
    try:
        socket.gethostbyname(socket.gethostname().partition(".")[0])
    except OSError as error:
        return f"the name of this machine has no address ({error})"
    return None


def free_ports(n: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass(frozen=True)
class SlurmCluster:
    """A running cluster; ``stop`` ends its daemons."""

    folder: Path
    nodes: tuple[str, str]
    daemons: tuple[subprocess.Popen[bytes], ...]

    @classmethod
    def start(cls, folder: Path) -> SlurmCluster:
        """Starts a controller and two nodes, and waits until both are idle."""
        host = socket.gethostname().partition(".")[0]
        nodes = (host, f"{host}z")  # in this order in a list of nodes
        ports = free_ports(3)
        for name in ("state", *nodes):
            (folder / name).mkdir(parents=True)
        text = CONFIGURATION.format(
            host=host, other=nodes[1], user=getpass.getuser(), folder=folder,
            port=ports[0], first=ports[1], second=ports[2],
        )  # fmt: skip
        (folder / "slurm.conf").write_text(text)
        started = []
        one = cls(folder, nodes, ())
        for words in (["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in nodes)):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(words, env=one.environment(), **quiet))  # type: ignore[call-overload]
        one = cls(folder, nodes, tuple(started))
        until = time.monotonic() + 120
        while one.run("sinfo", "--noheader", "--format=%t %D").split() != ["idle", "2"]:
            if time.monotonic() > until:
                one.stop()
                logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
                raise RuntimeError(f"the nodes did not become idle:\n{logs}")
            time.sleep(0.2)
        return one

    def environment(self) -> dict[str, str]:
        """Variables with which programs find this cluster."""
        return {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *words: str) -> str:
        """Runs a program of Slurm."""
        done = subprocess.run(words, env=self.environment(), capture_output=True, text=True, check=False)
        return done.stdout

    def wait(self, seconds: float) -> None:
        """Waits until the queue is empty."""
        until = time.monotonic() + seconds
        while queue := self.run("squeue", "--noheader", "--array", "--format=%F_%K %T %r"):
            assert time.monotonic() < until, f"jobs remain:\n{queue}"
            time.sleep(0.5)

    def stop(self) -> None:
        """Ends the jobs and the daemons."""
        self.run("scancel", "--me", "--signal=KILL")
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
