"""Runs the fuzz targets with libFuzzer until each has had its share, and says what is open.

    run_fuzzers.py BUILD_DIR [all | TARGET] [SECONDS] [EXECUTIONS]

Each target runs until it has used SECONDS of processor time (60 unless given) and made EXECUTIONS
executions (none unless given), or until it found something. Targets share the cores: one process
each while there are fewer cores than that, more where there are more. What a target learned stays
in BUILD_DIR/corpus/TARGET for the next run; an input that fails goes to BUILD_DIR/findings/TARGET.
Exits with 1 if a process stopped early or a finding there still fails.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
TARGETS = ["zip", "pickle", "safetensors", "request"]
# Longer inputs are slower and show no more.
MAX_INPUT_BYTES = {"zip": 16384, "pickle": 4096, "safetensors": 4096, "request": 2048}
# An input may take this long (seconds), one allocation this much, a process this much (MiB).
LIMITS = ["-timeout=10", "-malloc_limit_mb=64", "-rss_limit_mb=2048"]
# What libFuzzer's entropic schedule learns costs more executions than it saves on targets this fast.
SCHEDULE = ["-entropic=0"]
# Short stacks of allocations and little freed memory kept: another fifth. A finding is looked at
# without these.
FAST_ASAN = "malloc_context_size=2:quarantine_size_mb=16"
# A round is at least this long (seconds), so that starting costs little beside it.
SHORTEST_ROUND = 5


class Target:
    """One fuzz target: where its files are, and what it has done in this run."""

    def __init__(self, build, name):
        self.name = name
        self.binary = build / "tests" / "fuzz" / f"fuzz_{name}"
        self.seeds = build / "seeds" / name
        self.corpus = build / "corpus" / name
        self.findings = build / "findings" / name
        self.logs = build / "logs"
        self.lock = threading.Lock()
        self.executions = 0
        self.cpu_seconds = 0.0
        self.edges = 0
        self.stopped = None  # The log of a process that ended before its time.
        for folder in (self.corpus, self.findings, self.logs):
            folder.mkdir(parents=True, exist_ok=True)

    def options(self):
        return [*LIMITS, *SCHEDULE, f"-max_len={MAX_INPUT_BYTES[self.name]}",
                f"-dict={HERE / (self.name + '.dict')}"]

    def open_findings(self):
        """The findings that still fail; those that were fixed meanwhile no longer do."""
        return [path for path in sorted(self.findings.iterdir())
                if subprocess.run([self.binary, *LIMITS, path], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL).returncode != 0]


def fuzz(target, worker, workers, seconds, executions):
    """One process at a time, in rounds, until the target has had its share."""
    log_path = target.logs / f"{target.name}-{worker}.log"
    regressions = HERE / "regressions" / target.name
    folders = [target.corpus, target.seeds, *([regressions] if regressions.is_dir() else [])]
    with open(log_path, "wb") as log:
        while True:
            with target.lock:
                missing_seconds = (seconds - target.cpu_seconds) / workers
                missing_executions = (executions - target.executions) / workers
                speed = target.executions / target.cpu_seconds if target.cpu_seconds else 0
            if missing_seconds <= 0 and missing_executions <= 0:
                return
            by_executions = missing_executions / speed if speed else SHORTEST_ROUND
            round_seconds = int(max(missing_seconds, by_executions, SHORTEST_ROUND))
            command = [target.binary, *target.options(), f"-max_total_time={round_seconds}",
                       "-print_final_stats=1", f"-artifact_prefix={target.findings}/", *folders]
            begin = log.tell()
            environment = {"ASAN_OPTIONS": FAST_ASAN, **os.environ}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            text = log_path.read_bytes()[begin:].decode(errors="replace")
            with target.lock:
                target.cpu_seconds += usage.ru_utime + usage.ru_stime
                for count in re.findall(r"stat::number_of_executed_units:\s+(\d+)", text):
                    target.executions += int(count)
                for edges in re.findall(r" cov: (\d+)", text):
                    target.edges = max(target.edges, int(edges))
            if process.returncode != 0:
                target.stopped = log_path
                return


def report(targets):
    print(f"{'target':<12} {'executions':>12} {'per second':>10} {'cpu seconds':>11} "
          f"{'corpus':>7} {'edges':>6}  open")
    any_open = False
    for target in targets:
        still = target.open_findings()
        any_open = any_open or bool(still) or target.stopped is not None
        speed = target.executions / target.cpu_seconds if target.cpu_seconds else 0
        print(f"{target.name:<12} {target.executions:>12,} {speed:>10,.0f} "
              f"{target.cpu_seconds:>11,.0f} {len(list(target.corpus.iterdir())):>7} "
              f"{target.edges:>6}  {len(still) or 'nothing'}")
        for path in still:
            print(f"  {shlex.join([str(target.binary), *LIMITS, str(path)])}")
        if target.stopped is not None:
            print(f"  it stopped early: {target.stopped}")
        fixed = len(list(target.findings.iterdir())) - len(still)
        if fixed:
            print(f"  {fixed} in {target.findings} no longer fail: keep them as "
                  f"tests/fuzz/regressions/{target.name}/")
    return any_open


def main():
    parser = argparse.ArgumentParser(prog="./dev fuzz")
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("target", nargs="?", default="all", choices=["all", *TARGETS])
    parser.add_argument("seconds", nargs="?", type=int, default=60)
    parser.add_argument("executions", nargs="?", type=int, default=0)
    arguments = parser.parse_args()

    build = arguments.build
    subprocess.run([build / "tests" / "fuzz" / "fuzz_make_corpus", build / "seeds"], check=True)
    names = TARGETS if arguments.target == "all" else [arguments.target]
    targets = [Target(build, name) for name in names]
    cores = len(os.sched_getaffinity(0))
    workers = max(1, cores // len(targets))
    with concurrent.futures.ThreadPoolExecutor(max_workers=cores) as pool:
        runs = [pool.submit(fuzz, target, worker, workers, arguments.seconds, arguments.executions)
                for target in targets for worker in range(workers)]
        for run in runs:
            run.result()
    return 1 if report(targets) else 0


if __name__ == "__main__":
    sys.exit(main())
