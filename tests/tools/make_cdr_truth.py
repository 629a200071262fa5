#!/usr/bin/env python3
"""Makes tests/recordings/rclpy_truth.json.zst: CDR bytes and values that a real ROS 2 made, for the decoder to agree with.

Every message, service and action type of the installed interface packages is filled with random values, serialized by rclpy,
and read back by rclpy. Needs a ROS 2 environment (system, or wheels: ros-jazzy-rclpy[fastrtps] ros-jazzy-common-interfaces),
numpy and zstandard:

    python3 make_cdr_truth.py OUT.json.zst
"""

import base64
import glob
import importlib
import json
import os
import sys

import zstandard
from rclpy.serialization import deserialize_message, serialize_message
from ros2_values import Random, values

SKIP = {"rmw_dds_common"}
PER_TYPE = 3


def main():
    share = [p for p in os.environ["AMENT_PREFIX_PATH"].split(":") if p]
    definitions, cases, rng = {}, [], Random("tributary cdr truth 1")
    for prefix in share:
        for path in sorted(glob.glob(f"{prefix}/share/*/*/*.*")):
            package, sub, file = path.split("/")[-3:]
            short, extension = os.path.splitext(file)
            if package in SKIP or (sub, extension) not in (("msg", ".msg"), ("srv", ".srv"), ("action", ".action")):
                continue
            definitions[f"{package}/{sub}/{short}"] = open(path, encoding="utf-8").read()
    for name in definitions:
        package, sub, short = name.split("/")
        module = importlib.import_module(f"{package}.{sub}")
        if not hasattr(module, short):
            continue
        cls = getattr(module, short)
        parts = {"msg": [""], "srv": ["_Request", "_Response", "_Event"], "action": ["_Goal", "_Result", "_Feedback"]}[sub]
        for part in parts:
            kind = getattr(cls, part[1:]) if part else cls
            for _ in range(PER_TYPE):
                data = serialize_message(rng.fill(kind))
                back = deserialize_message(data, kind)
                cases.append({
                    "type": f"{package}/{sub}/{short}{part}",
                    "definition": name,
                    "cdr": base64.b64encode(data).decode(),
                    "value": values(back),
                })
    document = json.dumps({"definitions": definitions, "cases": cases}, separators=(",", ":"), ensure_ascii=True)
    with open(sys.argv[1], "wb") as out:
        out.write(zstandard.ZstdCompressor(level=19).compress(document.encode()))
    print(len(cases), "messages of", len({c["type"] for c in cases}), "types")


main()
