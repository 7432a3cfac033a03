"""Workers of one cluster, each in a process of its own."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager

HUNG = 600  # seconds, some hundred times what the workers need alone


@contextmanager
def reserved_ports(count):
    """Ports that nobody else is given meanwhile; who sets TF_GRPC_REUSE_PORT can listen there."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for reserved in sockets:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind(("localhost", 0))
        yield [reserved.getsockname()[1] for reserved in sockets]


def wait_for_all(workers):
    """Wait until all have ended well, or one has not: the others would wait for it without end."""
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            for ended in as_completed([pool.submit(worker.wait) for worker in workers], timeout=HUNG):
                assert ended.result() == 0
        finally:
            for worker in workers:
                worker.kill()


def run_two_workers(code, folder, *arguments):
    """Run `code` as two workers with `x.npy`, each one's output file, and these arguments."""
    with reserved_ports(2) as ports:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        workers = []
        for index in range(2):
            config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            files = [str(folder / "x.npy"), str(folder / f"out{index}.npz")]
            environment = os.environ | {"TF_CONFIG": config, "TF_GRPC_REUSE_PORT": "1"}
            command = [sys.executable, "-c", code, *files, *arguments]
            workers.append(subprocess.Popen(command, cwd=folder, env=environment))
        wait_for_all(workers)
