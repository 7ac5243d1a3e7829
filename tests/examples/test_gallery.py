"""The examples' trainers, models and clients with the real relightd: answers improve while
checkpoints arrive."""

import os
import re
import signal
import subprocess
import sys
import unittest

from harness import Daemon, SOURCE_DIR

# Of a client, which takes some ten seconds.
PATIENCE = 120


class GalleryTest(unittest.TestCase):
    def start(self, *command):
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def train_and_watch(self, name, training, until):
        """Has a client watch until its score is `until` while the example's trainer saves into the
        watched folder. Returns the versions that it saw and their scores, an entry for each line."""
        folder = os.path.join(SOURCE_DIR, "examples", name)
        with open(os.path.join(folder, "models", name, "model.textproto")) as f:
            model = f.read()
        printed, answers = [], []
        with Daemon(models={name: model}) as daemon:
            client = self.start(os.path.join(folder, "client.py"), "--server", f"127.0.0.1:{daemon.grpc_port}",
                                "--until", str(until), "--seconds", str(PATIENCE), "--interval", "0.1")
            trainer = self.start(os.path.join(folder, "train.py"), daemon.watched(name), *training)
            for line in trainer.stdout:
                printed.append(line)
                saved = re.match(r"step (\d+)", line)
                if not saved:
                    continue
                # Loading gives way to other work: on a busy machine it would sleep through a short
                # training. Until the checkpoint has answered, or the client has seen enough:
                trainer.send_signal(signal.SIGSTOP)
                while not answers or answers[-1][0] < int(saved[1]):
                    line = client.stdout.readline()
                    if not line:
                        break
                    printed.append(line)
                    answer = re.search(r"version (\d+): .* ([0-9.]+)$", line)
                    if answer:
                        answers.append((int(answer[1]), float(answer[2])))
                trainer.send_signal(signal.SIGCONT)
            printed += client.stdout
            everything = "".join(printed)
            self.assertEqual(trainer.wait(), 0, everything)
            self.assertEqual(client.wait(), 0, everything + daemon.log())
        return zip(*answers)

    def check_improves(self, name, training, until):
        versions, scores = self.train_and_watch(name, training, until)
        self.assertEqual(list(versions), sorted(versions))
        self.assertGreater(len(set(versions)), 2)
        self.assertLess(scores[0], until)
        self.assertGreaterEqual(scores[-1], until)

    def test_simplenet(self):
        self.check_improves("simplenet", ("--steps", "6000", "--every", "500", "--lr", "2e-4"), until=0.95)

    def test_image_classifier(self):
        self.check_improves("image_classifier", ("--steps", "300"), until=0.9)

    def test_text_encoder(self):
        self.check_improves("text_encoder", ("--steps", "200"), until=0.9)


if __name__ == "__main__":
    unittest.main()
