"""The whole online path under closed loop: gateway with split, parameters and journal, in front of a real model server.

Compared in one run, interleaved: journal with `fsync = interval` and the model server asked directly. Needs `wrk`.
    python -m bench.bench_online
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from house import House, body, free_port, obey, running

from bench.report import publish, spread

CONNECTIONS = (1, 16, 64)
ROUNDS = 3
SECONDS = 4


def main() -> None:
    """Run and publish."""
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder) / "house")
        package = house.package()
        house.approve(package)
        house.route({"champion": (package, 10_000)})
        port = free_port()
        script = Path(folder) / "post.lua"
        script.write_text(
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            f"wrk.body = [[{json.dumps(body(1, unit_id='N1'))}]]\n"
        )
        with running(house.serve(package, 0, "--port", str(port)), house.gateway()):
            obey(house, 1)
            targets = {
                "gateway": f"{house.url}/v2/models/flight-delay/infer",
                "model server": f"http://127.0.0.1:{port}/v2/models/flight-delay/infer",
            }
            measured: dict[tuple[str, int], list[dict[str, float]]] = {}
            for _ in range(ROUNDS):
                for connections in CONNECTIONS:
                    for name, url in targets.items():
                        measured.setdefault((name, connections), []).append(load(url, connections, script))
        house.close()
    publish(
        "online",
        [
            {
                "path": name,
                "connections": connections,
                "requests/s": spread([run["rate"] for run in runs]),
                "p50 ms": spread([run["p50"] for run in runs]),
                "p99 ms": spread([run["p99"] for run in runs]),
            }
            for (name, connections), runs in sorted(measured.items(), key=lambda item: item[0][1])
        ],
    )


def load(url: str, connections: int, script: Path, seconds: int = SECONDS) -> dict[str, float]:
    """One run of wrk: rate, requests and latency percentiles in ms; no answer, or one other than 2xx, is an error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency", "-s", str(script)]
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if failed := re.search(r"(Non-2xx|Socket errors).*", text):
        raise RuntimeError(failed[0])
    found = {name: re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", text) for name in ("50", "99")}
    times = {f"p{name}": float(m[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[m[2]] for name, m in found.items() if m}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    requests = re.search(r"(\d+) requests in", text)
    return {"rate": float(rate[1]) if rate else 0.0, "requests": float(requests[1]) if requests else 0.0, **times}


if __name__ == "__main__":
    main()
