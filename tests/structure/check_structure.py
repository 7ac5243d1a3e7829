"""check_structure.py SOURCE_DIR: fails where a lower layer includes a higher one, where a layer knows
a library that it must not know, or where ARCHITECTURE.md has no line for a source file."""

import pathlib
import re
import sys

# Each layer, and the layers whose headers it may include beside its own and base/.
LAYERS = {
    "base": [],
    "storage": ["base"],
    "server/network": ["storage"],
    "server/config": ["storage", "server/network"],
    "server/model": ["storage", "server/network", "server/config"],
    "server/serving": ["storage", "server/network", "server/config", "server/model"],
    "server/rpc": ["storage", "server/network", "server/serving"],
    "server": ["server/config", "server/model", "server/rpc", "server/serving"],
    "client": ["storage", "server/network", "server/config"],
}

# Libraries by the start of what is included, and the layers that may know them.
LIBRARIES = {
    r"(torch|ATen|c10|caffe2)/": ["server/model"],
    r"(grpc|grpcpp|grpc\+\+)/": ["server/rpc", "client"],
    r"google/protobuf/": ["server/config", "server/rpc", "client"],
    r"(inference|relight/v1)/.*\.pb\.h": ["server/config", "server/rpc", "client"],
    r"prometheus/": ["server/rpc"],
    r"spdlog/": ["server", "server/rpc", "server/serving"],
}


def layer_of(path):
    folders = [layer for layer in LAYERS if path.startswith(layer + "/")]
    return max(folders, key=len)


def main():
    root = pathlib.Path(sys.argv[1])
    problems = []
    sources = sorted(path for folder in ("base", "storage", "server", "client")
                     for path in (root / folder).rglob("*") if path.suffix in (".h", ".cc"))
    known = {str(path.relative_to(root)) for path in sources}
    mapped = (root / "ARCHITECTURE.md").read_text()

    for path in sources:
        name = str(path.relative_to(root))
        layer = layer_of(name)
        if name not in mapped and name[: -len(path.suffix)] not in mapped:
            problems.append(f"{name}: ARCHITECTURE.md has no line for it")
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+[<"]([^>"]+)[>"]', line)
            if not match:
                continue
            included = match.group(1)
            where = f"{name}:{number}"
            if included in known:
                other = layer_of(included)
                if other not in (layer, "base") and other not in LAYERS[layer]:
                    problems.append(f"{where}: {layer} may not include {included}")
            for pattern, allowed in LIBRARIES.items():
                if re.match(pattern, included) and layer not in allowed:
                    problems.append(f"{where}: {layer} may not know {included}")

    for problem in problems:
        print(problem)
    print(f"{len(sources)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
