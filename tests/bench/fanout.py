"""One worker: CPU per delivery, publish → last, connecting, memory; the native fan-out, the Python one and the floor in turn."""

from argparse import Namespace

from tests.bench.rounds import Round, measure, ratios
from tests.bench.table import Figure
from tests.bench.world import Bench, floor, host, write_hellos


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    kinds = ["native", "python"] if bench.native else ["python"]
    least: list[Round] = []
    ours: dict[str, list[Round]] = {kind: [] for kind in kinds}
    for number in range(options.rounds):
        for kind in kinds:
            async with host(bench, fan_out=kind) as server:
                hellos = write_hellos(bench, server, options.connections)
                if kind == kinds[0]:
                    async with floor(bench) as bare:
                        least.append(await measure(bench, bare, hellos, options.connections, options.publishes))
                ours[kind].append(await measure(bench, server, hellos, options.connections, options.publishes))
        said = ", ".join(f"{kind} {rounds[-1].cpu_us:.2f}" for kind, rounds in ours.items())
        print(f"round {number + 1}: µs per delivery: floor {least[-1].cpu_us:.2f}, {said}", flush=True)
    return [figure for kind in kinds for figure in _figures(kind, ours[kind], least, kind == kinds[0])]


def _figures(kind: str, ours: list[Round], least: list[Round], first: bool) -> list[Figure]:
    goal = ("≤ 1.10", "≤ 1.15") if kind == "native" else ("≤ 1.35", "")
    found = [
        Figure(
            f"{kind}: server CPU per delivery", [r.cpu_us for r in ours], "µs", f"{goal[0]} × floor",
            ratios(ours, least, lambda r: r.cpu_us), "cpu_per_delivery" if first else "cpu_per_delivery_python",
        ),
        Figure(
            f"{kind}: publish → last device", [r.last_ms for r in ours], "ms", f"{goal[1]} × floor" if goal[1] else "",
            ratios(ours, least, lambda r: r.last_ms), "publish_to_last" if first else "",
        ),
    ]  # fmt: skip
    if not first:
        return found
    return [
        *found,
        Figure("floor: CPU per delivery", [r.cpu_us for r in least], "µs"),
        Figure("devices: CPU per delivery", [r.client_cpu_us for r in ours], "µs", "below the server's"),
        Figure("share of the most frequent last device", [100 * r.last_share for r in ours], "%", "nobody is always last"),
        Figure(
            "connect with a verified HS256 token: server CPU", [r.connect_cpu_us for r in ours], "µs", "≤ 120",
            ratios(ours, least, lambda r: r.connect_cpu_us), "connect_cpu_jwt",
        ),
        Figure("handshakes per second", [10_000 / r.connect_s for r in ours], "1/s"),
        Figure("accept queue overflows", [float(r.overflows) for r in ours], "", "0"),
        Figure("memory per idle connection", [r.pss_bytes for r in ours], "B PSS", "≤ 1,800", key="memory_idle"),
    ]  # fmt: skip
