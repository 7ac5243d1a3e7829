"""Measures relight against its goals, and prints how far it is.

    bench.py BUILD_DIR [--quick] [--rounds N] [--files FOLDER]

Each figure is a ratio of two things that are measured in turn, in one run, so that neither the
machine nor what else it does decides it. BUILD_DIR holds the binaries, and is given the figures, with
all that they are made of, as bench.json (bench-quick.json with --quick).
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile

import figures

SOURCE = pathlib.Path(__file__).resolve().parent.parent
ROUNDS, QUICK_ROUNDS = 5, 1


def find_harness(build):
    """Lets the black box tests' harness be imported. It asks the environment what to run."""
    sys.path += [str(SOURCE / "tests" / "blackbox"), str(build / "proto" / "python")]
    os.environ.update(RELIGHTD=str(build / "server" / "relightd"),
                      RELIGHTCTL=str(build / "client" / "relightctl"),
                      RELIGHT_SOURCE_DIR=str(SOURCE),
                      RELIGHT_TEST_DATA=str(SOURCE / "tests" / "data"))


def measure_loading(arguments, folder):
    import loading
    width = loading.QUICK_WIDTH if arguments.quick else loading.WIDTH
    return loading.measure(arguments.build / "bench" / "load_floor", folder, width, arguments.rounds)


# What is measured has figures(), notes() for colour, and is a dataclass, for JSON.
MEASUREMENTS = {"loading": measure_loading}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--quick", action="store_true",
                        help="small files and one round, only to see that the benchmark works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--files", default="/var/tmp",
                        help="folder for some 10 GB of files (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    return arguments


def measure_all(arguments):
    with tempfile.TemporaryDirectory(prefix="relight-bench-", dir=arguments.files) as folder:
        tempfile.tempdir = folder
        return {name: measure(arguments, folder) for name, measure in MEASUREMENTS.items()}


def report(arguments, circumstances, measured):
    reached = [figure for one in measured.values() for figure in one.figures()]
    print(f"\n{figures.figure_table(reached)}")
    for one in measured.values():
        print(f"\n{one.notes()}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in circumstances.items()))
    if arguments.quick:
        print("--quick: the figures mean nothing")
    name = "bench-quick.json" if arguments.quick else "bench.json"
    with open(arguments.build / name, "w") as file:
        json.dump({"circumstances": circumstances, "figures": [f.as_json() for f in reached],
                   **{name: dataclasses.asdict(one) for name, one in measured.items()}},
                  file, indent=1)


def main():
    arguments = parse_arguments()
    find_harness(arguments.build)
    circumstances = {**figures.machine(), "rounds": arguments.rounds,
                     "load before": round(os.getloadavg()[0], 1)}
    measured = measure_all(arguments)
    circumstances["load after"] = round(os.getloadavg()[0], 1)
    report(arguments, circumstances, measured)


if __name__ == "__main__":
    main()
