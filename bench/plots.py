"""plots.py BENCH_JSON FOLDER: draws what bench.py measured, as SVG files into a folder."""

import json
import os
import shutil
import statistics
import subprocess
import sys

BLUE, GREEN, ORANGE, RED = "#1f77b4", "#2ca02c", "#ff7f0e", "#d62728"
# Fixed colours, on a ground that suits light and dark pages.
BEGIN = """
set terminal svg size 800,360 font "sans-serif,12" background "#ffffff" noenhanced
set border 3
set tics nomirror
set grid linecolor "#dddddd"
set key outside bottom center horizontal
set title "{title}"
set xlabel "{xlabel}"
set ylabel "{ylabel}"
"""


def block(name, *columns):
    """A data block; a row with no second value makes a gap."""
    return "\n".join([f"${name} << END", *(" ".join(f"{value:.6g}" for value in row)
                                           for row in zip(*columns)), "END", ""])


def latency_over_time(trace):
    title = (f"Latency while checkpoints arrive: {trace['what']}, {trace['rate']:.0f} requests a "
             "second")
    arrows = [f"set arrow from {at:.4f}, graph 0 to {at:.4f}, graph 1 nohead linecolor '{RED}' "
              "dashtype 2" for at in trace["served"]]
    return "\n".join([
        BEGIN.format(title=title, xlabel="seconds (dashed: a new version serves)",
                     ylabel="latency, ms"), "set logscale y", *arrows,
        block("data", trace["seconds"], [us / 1e3 for us in trace["p50_us"]],
              [us / 1e3 for us in trace["p99_us"]]),
        f"plot $data using 1:3 with lines linecolor '{BLUE}' title 'p99', "
        f"$data using 1:2 with lines linecolor '{GREEN}' title 'p50'"])


def latency_histogram(trace):
    def parts(counts):
        return [count / (sum(counts) or 1) for count in counts]
    title = f"How long answers take: {trace['what']}, {trace['rate']:.0f} requests a second"
    return "\n".join([
        BEGIN.format(title=title, xlabel="latency, us", ylabel="part of the requests"),
        "set logscale xy", "set format y '%g'",
        block("data", *zip(*([row for row in zip(trace["bounds_us"], parts(trace["quiet"]),
                                                 parts(trace["swapping"])) if any(row[1:])]
                             or [(1, 1, 1)]))),
        f"plot $data using 1:2 with steps linecolor '{GREEN}' title 'without swaps', "
        f"$data using 1:3 with steps linecolor '{BLUE}' title 'with swaps'"])


def throughput_over_batch(served):
    nets = {}
    for what, pairs in served.items():
        net, batch = what.removesuffix(" at a time").split(", ")
        nets.setdefault(net, []).append((int(batch), *(statistics.median(side)
                                                       for side in zip(*pairs))))
    lines = [BEGIN.format(title="Throughput over batch size", xlabel="rows of a request",
                          ylabel="rows a second"), "set logscale x 2", "set logscale y"]
    curves = []
    for (net, rows), color in zip(nets.items(), (BLUE, GREEN, ORANGE)):
        lines.append(block(net, *zip(*rows)))
        curves += [f"${net} using 1:2 with linespoints linecolor '{color}' title '{net}, served'",
                   f"${net} using 1:3 with linespoints linecolor '{color}' dashtype 2 "
                   f"title '{net}, LibTorch in the process'"]
    return "\n".join([*lines, f"plot {', '.join(curves)}"])


def draw(measured, folder):
    """Draws what there is of what was measured, and returns the paths."""
    if shutil.which("gnuplot") is None:
        print("no plots: gnuplot is not installed", file=sys.stderr)
        return []
    scripts = {}
    if measured.get("under swaps", {}).get("trace"):
        scripts["latency_over_time"] = latency_over_time(measured["under swaps"]["trace"])
        scripts["latency_histogram"] = latency_histogram(measured["under swaps"]["trace"])
    if "compute" in measured:
        scripts["throughput_over_batch"] = throughput_over_batch(measured["compute"]["served"])
    paths = []
    for name, script in scripts.items():
        paths.append(os.path.join(folder, f"{name}.svg"))
        with open(paths[-1], "wb") as file:
            subprocess.run(["gnuplot"], input=script.encode(), stdout=file, check=True)
    return paths


def main():
    with open(sys.argv[1]) as file:
        measured = json.load(file)
    print("\n".join(draw(measured, sys.argv[2])))


if __name__ == "__main__":
    main()
