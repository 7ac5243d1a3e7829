"""Starts the real relightd and has clients in other languages ask it."""

import os
import shutil
import subprocess
import sys
import unittest

from harness import Daemon, GOOD, SIMPLENET, SOURCE_DIR

HERE = os.path.dirname(os.path.abspath(__file__))
WORK_DIR = os.environ["RELIGHT_INTEROP_DIR"]
# Of one client, its start included.
PATIENCE = 120


def install_node_packages():
    """Into the build folder, and only when package-lock.json has changed."""
    os.makedirs(WORK_DIR, exist_ok=True)
    with open(os.path.join(HERE, "package-lock.json"), "rb") as f:
        wanted = f.read()
    stamp = os.path.join(WORK_DIR, "installed")
    if os.path.exists(stamp) and open(stamp, "rb").read() == wanted:
        return
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(os.path.join(HERE, name), os.path.join(WORK_DIR, name))
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=WORK_DIR, check=True)
    with open(stamp, "wb") as f:
        f.write(wanted)


class InteropTest(unittest.TestCase):
    def run_client(self, *command):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "model_state.pth"), "step-1.pt")
            daemon.wait_serving()
            environment = {
                **os.environ,
                "RELIGHT_GRPC_PORT": str(daemon.grpc_port),
                "RELIGHT_ADMIN_SOCKET": daemon.admin_socket,
                "RELIGHT_MODEL": "simplenet",
                "RELIGHT_PROTO_DIR": os.path.join(SOURCE_DIR, "proto"),
                "RELIGHT_NODE_MODULES": WORK_DIR,
            }
            result = subprocess.run(command, cwd=HERE, env=environment, timeout=PATIENCE,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertEqual(result.returncode, 0, f"{result.stdout}\n{daemon.log()}")

    def test_python(self):
        self.run_client(sys.executable, "-m", "unittest", "-v", "python_client_test")

    @unittest.skipIf(shutil.which("node") is None or shutil.which("npm") is None,
                     "node and npm are not installed")
    def test_node(self):
        install_node_packages()
        self.run_client("node", "--test", "node_client_test.mjs")


if __name__ == "__main__":
    unittest.main()
