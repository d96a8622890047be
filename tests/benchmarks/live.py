"""Does the clock tell the truth? A real federation over sockets, measured, against what the clock predicts.

    python tests/benchmarks/live.py [results/reference/live.md]

Two link speeds, both protocols, 8 client processes, 5 rounds. The prediction comes from a rehearsal of two rounds of
compute-and-wait that is over before the measured runs begin; "as set" predicts from the numbers of the command alone.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

LINKS = {"slow": (2, 5), "fast": (10, 25)}  # Mbit/s, up and down
COMMON = (
    "--method spectral --model mlp:hidden=1024 --clients 8 --participation 1.0 --rounds 5 --batch-ms 30 --protocol both"
)
WITHIN = 0.10


def command(up: float, down: float) -> list[str]:
    """One call, as one would type it."""
    return ["pflbench", "live", *shlex.split(COMMON), "--up-mbps", str(up), "--down-mbps", str(down)]


def measure(up: float, down: float) -> dict:
    """The report of one call of `pflbench live`."""
    name, *arguments = command(up, down)
    executable = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [executable, *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True, timeout=600
    )
    return json.loads(done.stdout.splitlines()[-1])


def page(reports: dict[str, dict]) -> str:
    """The table as Markdown, with what it was measured on."""
    first = next(iter(reports.values()))
    rows, gains, worst = [], [], 0.0
    for name, report in reports.items():
        link = f"{report['set']['up_mbps']:g} / {report['set']['down_mbps']:g}"
        for protocol, each in report["protocols"].items():
            worst = max(worst, abs(each["ratio"] - 1))
            gap = report["learned"][protocol]
            rows.append(
                f"| {name} | {link} | {protocol.replace('_', '-')} | {each['measured_s']:.2f} | {each['predicted_s']:.2f} | "
                f"{each['ratio']:.3f} | {each['set_s']:.2f} | {100 * each['late']:.0f} % | {gap:g} |"
            )
        gains.append(
            f"- {name} links: gain of wait-free {report['gain']:.3f} measured, {report['predicted_gain']:.3f} predicted"
        )
    packages = ", ".join(f"{name} {version(name)}" for name in ("pflbench", "torch", "numpy"))
    lines = [
        "# The clock against a real federation",
        "",
        f"`python tests/benchmarks/live.py`, which calls once per link speed: `{shlex.join(command(*LINKS['slow']))}`",
        "",
        f"One server and {first['clients']} client processes on one machine ({os.cpu_count()} cores, {first['hardware']}; "
        f"{platform.system()}, Python {platform.python_version()}, {packages}), TCP over the loopback through gloo, "
        f"{first['rounds']} rounds, {first['bytes']['up'] / 1e6:.1f} MB up and {first['bytes']['down'] / 1e6:.1f} MB down "
        "in all. Computation, bytes and sockets are real. Links are shaped by a token bucket in the sender, and every "
        f"client is paced by waiting to a device that takes {first['set']['batch_ms']:g} ms per batch, so that "
        f"{first['clients']} devices fit on few cores.",
        "",
        "- predicted: by the clock (`block=client`) from a rehearsal, two rounds of compute-and-wait before the measured runs",
        "- as set: by the clock from the numbers of the command alone",
        "- late: stages that took the machine 5 % longer than the device",
        "- learned: largest difference of any learned number from the simulated run (0: equal bit for bit)",
        "",
        "| links | Mbit/s up / down | protocol | measured s | predicted s | measured / predicted | as set s | late | learned |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        *gains,
        f"- largest deviation of a total time: {100 * worst:.1f} % (required: within {100 * WITHIN:.0f} %)",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "results/reference/live.md")
    reports = {name: measure(up, down) for name, (up, down) in LINKS.items()}
    text = page(reports)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(text)
    ratios = [each["ratio"] for report in reports.values() for each in report["protocols"].values()]
    if any(abs(ratio - 1) > WITHIN for ratio in ratios):
        sys.exit(f"off by more than {100 * WITHIN:.0f} %")


if __name__ == "__main__":
    main()
