"""Embed on a cluster of two nodes, one of which is killed in the middle; run by test_ray.py.

A process of its own: ray.data warns about itself, and its threads outlive a test.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ray._private.state import available_resources_per_node
from ray.cluster_utils import Cluster

from clever_hub.scale import embed_dataset


def main(model: str, photos: str, out: str, kill: bool) -> None:
    """Print what was done as JSON, on the last line."""
    node: Any = {"num_cpus": 2, "object_store_memory": 100_000_000}
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={**node, "include_dashboard": False}
    )
    worker = cluster.add_node(**node)
    cluster.wait_for_nodes()
    killed = []

    def busy() -> bool:
        """Whether an actor holds the CPUs of the node that is to die, and shards come out."""
        if len(list(Path(out).glob("part-*.parquet"))) < 4:
            return False
        available: Any = available_resources_per_node
        free = available().get(worker.node_id, {})
        return bool(free.get("CPU", 0) < 2)

    def end_one() -> None:
        while not busy():
            time.sleep(0.05)
        worker.kill_raylet(check_alive=False)
        killed.append(len(list(Path(out).glob("part-*.parquet"))))

    if kill:
        threading.Thread(target=end_one, daemon=True).start()
    began = time.monotonic()
    done = embed_dataset(
        model, photos, out, engine="ray", address=cluster.address, shard_size=8, backend="onnx"
    )
    seconds = time.monotonic() - began
    told = {"rows": done.rows, "computed": done.computed, "killed": killed, "seconds": seconds}
    print(json.dumps(told))
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "kill")
