"""Measures relight against its goals, and prints how far it is.

    bench.py BUILD_DIR [--quick] [--device cuda:0 [--precision FP16]] [--rounds N] [--files FOLDER]

Each figure is a ratio of two things that are measured in turn, in one run, so that neither the
machine nor what else it does decides it. BUILD_DIR holds the binaries, and is given a folder
bench-results (bench-quick with --quick): figures.txt is what is printed, bench.json has all that the
figures are made of, and plots.py draws some of it.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import traceback

import figures
import target

SOURCE = pathlib.Path(__file__).resolve().parent.parent
ROUNDS, QUICK_ROUNDS = 5, 1
SECONDS, QUICK_SECONDS = (4, 1), (0.3, 0.1)  # Measured, and before that.
QUICK_RATE = 100  # Requests a second: few enough for any machine that has other things to do.
# Only something broken takes longer (seconds).
PATIENCE = 900


def find_harness(build):
    """Lets the black box tests' harness be imported. It asks the environment what to run."""
    sys.path += [str(SOURCE / "tests" / "blackbox"), str(build / "proto" / "python")]
    os.environ.update(RELIGHTD=str(build / "server" / "relightd"),
                      RELIGHTCTL=str(build / "client" / "relightctl"),
                      RELIGHT_SOURCE_DIR=str(SOURCE),
                      RELIGHT_TEST_DATA=str(SOURCE / "tests" / "data"))
    import harness
    harness.PATIENCE = PATIENCE


def measure_loading(arguments, folder):
    import loading
    width = arguments.width or (loading.QUICK_WIDTH if arguments.quick else loading.WIDTH)
    if width == "largest":
        width = loading.largest_width()
    return loading.measure(arguments.build / "bench" / "load_floor", folder, width,
                           arguments.rounds, arguments.bundle)


def measure_transport(arguments, folder):
    import transport
    return transport.measure(arguments.build, folder, make_generator(arguments), arguments.rounds)


def measure_compute(arguments, folder):
    import compute
    return compute.measure(arguments.build, folder, make_generator(arguments), arguments.rounds)


def measure_under_swaps(arguments, folder):
    import under_swaps
    cases = under_swaps.QUICK_CASES if arguments.quick else under_swaps.CASES
    return under_swaps.measure(folder, make_generator(arguments), arguments.rounds, cases)


def measure_endurance(arguments, folder):
    import endurance
    extent = ((endurance.QUICK_SWAPS, endurance.QUICK_PARTS) if arguments.quick else
              (endurance.SWAPS, endurance.PARTS))
    return endurance.measure(folder, make_generator(arguments), *extent)


def make_generator(arguments):
    import load
    if arguments.quick:
        return load.Generator(arguments.build, *QUICK_SECONDS, most_rate=QUICK_RATE)
    return load.Generator(arguments.build, arguments.seconds, SECONDS[1])


# What is measured has figures(), notes() for colour, and is a dataclass, for JSON.
MEASUREMENTS = {"transport": measure_transport, "compute": measure_compute,
                "under swaps": measure_under_swaps, "loading": measure_loading,
                "endurance": measure_endurance}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--quick", action="store_true",
                        help="small files and one round, only to see that the benchmark works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=SECONDS[0],
                        help="that a run measures (default: %(default)s)")
    parser.add_argument("--only", choices=MEASUREMENTS, nargs="+", default=list(MEASUREMENTS),
                        help="leave the others out")
    parser.add_argument("--files", default="/var/tmp",
                        help="folder for some 10 GB of files (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--precision", choices=target.TYPES, default="FP32")
    parser.add_argument("--width", type=lambda text: text if text == "largest" else int(text),
                        help="of the net that loading is measured with, which has 16 * width^2 bytes "
                        "of weights; largest: what the card and the host have room for")
    parser.add_argument("--no-bundle", dest="bundle", action="store_false",
                        help="loading of weights alone, which needs a third of the disk")
    parser.add_argument("--results", help="another name for that folder")
    arguments = parser.parse_args()
    arguments.results = arguments.results or ("bench-quick" if arguments.quick else "bench-results")
    target.device, target.precision = arguments.device, arguments.precision
    arguments.rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    return arguments


def measure_all(arguments):
    """What was measured, by name. One that fails costs none of the others."""
    measured = {}
    with tempfile.TemporaryDirectory(prefix="relight-bench-", dir=arguments.files) as folder:
        tempfile.tempdir = folder
        for name in arguments.only:
            try:
                measured[name] = MEASUREMENTS[name](arguments, folder)
            except Exception:  # pylint: disable=broad-except
                traceback.print_exc()
    return measured


def report(arguments, circumstances, measured):
    import plots
    reached = sorted((figure for one in measured.values() for figure in one.figures()),
                     key=lambda figure: figure.row)
    parts = [figures.figure_table(reached), *(one.notes() for one in measured.values()),
             ", ".join(f"{name} {value}" for name, value in circumstances.items())]
    if arguments.quick:
        parts.append("--quick: the figures mean nothing")
    text = "\n\n".join(parts)
    print(f"\n{text}")

    folder = arguments.build / arguments.results
    folder.mkdir(exist_ok=True)
    (folder / "figures.txt").write_text(f"{text}\n")
    values = {"circumstances": circumstances, "figures": [f.as_json() for f in reached],
              **{name: dataclasses.asdict(one) for name, one in measured.items()}}
    (folder / "bench.json").write_text(json.dumps(values, indent=1))
    plots.draw(values, folder)
    print(f"\nin {folder}: figures.txt, bench.json and plots")


def main():
    arguments = parse_arguments()
    find_harness(arguments.build)
    circumstances = {**figures.machine(), "rounds": arguments.rounds,
                     "load before": round(os.getloadavg()[0], 1)}
    import load
    circumstances["relightd"] = load.libraries()
    measured = measure_all(arguments)
    circumstances["load after"] = round(os.getloadavg()[0], 1)
    report(arguments, circumstances, measured)
    return 0 if len(measured) == len(arguments.only) else 1


if __name__ == "__main__":
    sys.exit(main())
