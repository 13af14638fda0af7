"""Run every benchmark and write what was found: results.md and results.json (make bench)."""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Finding, show

HERE = Path(__file__).parent
PACKAGES = ("tensorflow", "keras", "numpy", "h5py", "pillow", "scikit-learn")
PEERS = ("openvino", "onnxruntime", "ai-edge-litert")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image_dir", help="photos in label folders")
    parser.add_argument("weights", help="a Keras InceptionV3 weights file, without the top")
    parser.add_argument("--also", nargs="*", default=[], help="other photos or vectors (.npz)")
    parser.add_argument("--only", nargs="*", help="names of benchmarks, as in bench_<name>.py")
    options = "NAME=VALUE of flags that the benchmarks of --only have; other findings of them stay"
    parser.add_argument("--options", nargs="*", default=[], help=options)
    parser.add_argument("--output", default=HERE, type=Path, help="folder for the results")
    arguments = parser.parse_args()
    names = arguments.only or [path.stem[6:] for path in sorted(HERE.glob("bench_*.py"))]
    results = earlier(arguments.output) if arguments.only else {}
    failed = []
    for name in names:
        print(f"\n{name}", flush=True)
        try:
            found = run(name, arguments)
        except subprocess.CalledProcessError:
            failed.append(name)
            continue
        show(found)
        names_found = {finding.what for finding in found}
        stay = results.get(name, []) if arguments.options else []
        results[name] = [*found, *(old for old in stay if old.what not in names_found)]
    machine = describe_machine()
    as_json = {
        "machine": machine,
        "findings": {
            name: [{**vars(f), "goal": f.goal, "reached": f.reached} for f in findings]
            for name, findings in results.items()
        },
    }
    (arguments.output / "results.json").write_text(json.dumps(as_json, indent=2) + "\n")
    (arguments.output / "results.md").write_text(table(machine, results))
    print(f"\nwritten to {arguments.output / 'results.md'} and results.json")
    if failed:
        print(f"error: failed: {' '.join(failed)}", file=sys.stderr)
    return 2 if failed else 0


def earlier(folder: Path) -> dict[str, list[Finding]]:
    """What the results in ``folder`` say, if there are any."""
    try:
        found = json.loads((folder / "results.json").read_text())["findings"]
    except FileNotFoundError:
        return {}
    names = [field.name for field in dataclasses.fields(Finding)]
    return {
        benchmark: [Finding(**{name: finding[name] for name in names}) for finding in findings]
        for benchmark, findings in found.items()
    }


def run(name: str, arguments: argparse.Namespace) -> list[Finding]:
    """Run one benchmark in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "findings.json"
        script = str(HERE / f"bench_{name}.py")
        options = ["--json", str(output), "--also", *arguments.also]
        options += [f"--{option}" for option in arguments.options]
        line = [sys.executable, script, arguments.image_dir, arguments.weights, *options]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        return [Finding(**finding) for finding in json.loads(output.read_text())]


def describe_machine() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [x.split(":")[1].strip() for x in cpuinfo.splitlines() if x.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {importlib.metadata.version(name)}" for name in (*PACKAGES, *PEERS)]
    return {
        "date": datetime.date.today().isoformat(),
        "processor": (models or [platform.processor()])[0],
        "cores": str(len(os.sched_getaffinity(0))),
        "bfloat16": "yes" if "avx512_bf16" in cpuinfo or "amx_bf16" in cpuinfo else "no",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(versions),
    }


def table(machine: dict[str, str], results: dict[str, list[Finding]]) -> str:
    lines = [
        "# Measured",
        "",
        "Written by `make bench`. Both sides of a ratio are measured in one ",
    ]
    lines[-1] += "run, alternating; the number is the median, with the range of the rounds."
    lines += ["", *(f"- {name}: {value}" for name, value in machine.items()), ""]
    lines += ["| what | measured | goal | reached |", "| --- | --- | --- | --- |"]
    for name, findings in sorted(results.items()):
        lines.append(f"| **[{name}](bench_{name}.py)** | | | |")
        for finding in findings:
            what = finding.what.strip() + (f" ({finding.note})" if finding.note else "")
            lines.append(f"| {what} | {finding.value} | {finding.goal} | {finding.reached} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
