#!/usr/bin/env python3
"""Makes tests/recordings/rclpy_truth.json.zst: CDR bytes and values that a real ROS 2 made, for the decoder to agree with.

Every message, service and action type of the installed interface packages is filled with random values, serialized by rclpy,
and read back by rclpy. Needs a ROS 2 environment (system, or wheels: ros-jazzy-rclpy[fastrtps] ros-jazzy-common-interfaces),
numpy and zstandard:

    python3 make_cdr_truth.py OUT.json.zst
"""

import array
import base64
import glob
import importlib
import json
import os
import random
import struct
import sys

import numpy as np
import zstandard
from rclpy.serialization import deserialize_message, serialize_message

SKIP = {"rmw_dds_common"}
PER_TYPE = 3
INTEGERS = {
    "int8": (-(2**7), 2**7 - 1), "uint8": (0, 2**8 - 1), "int16": (-(2**15), 2**15 - 1), "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1),
}
rng = random.Random("tributary cdr truth 1")


def integer(low, high):
    return rng.choice([low, high, 0, rng.randint(low, high), rng.randint(low, high)])


def text(limit=12):
    alphabet = "abc XYZ09_/-\"\\\n\t\x01é€漢🤖"
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, limit)))


def f32():
    return struct.unpack("<f", struct.pack("<f", rng.choice([0.0, -0.0, 0.1, 1e-30, 3.4e38, rng.gauss(0, 100), float("inf"), float("nan")])))[0]


def f64():
    return rng.choice([0.0, -0.0, 0.1, 5e-324, 1.7e308, 1e22, rng.gauss(0, 1e6), rng.random(), float("-inf"), float("nan")])


def split(kind):
    """('sequence', element, bound or None) | ('array', element, n) | ('one', element, None)"""
    if kind.startswith("sequence<"):
        inside = kind[len("sequence<"):-1]
        element, _, bound = inside.rpartition(", ")
        return ("sequence", element, int(bound)) if element and bound.isdigit() else ("sequence", inside, None)
    if kind.endswith("]"):
        element, _, size = kind[:-1].rpartition("[")
        return ("array", element, int(size))
    return ("one", kind, None)


def load(name):
    package, short = name.split("/")
    for sub in ("msg", "srv", "action"):
        try:
            module = importlib.import_module(f"{package}.{sub}")
        except ImportError:
            continue
        if hasattr(module, short):
            return getattr(module, short)
        base, _, part = short.rpartition("_")
        if hasattr(module, base) and hasattr(getattr(module, base), part):
            return getattr(getattr(module, base), part)
    raise KeyError(name)


def one(element, depth):
    if element in INTEGERS:
        return integer(*INTEGERS[element])
    if element == "boolean":
        return rng.random() < 0.5
    if element == "octet":
        return bytes([rng.randint(0, 255)])
    if element in ("float", "float32"):
        return f32()
    if element in ("double", "float64"):
        return f64()
    if element.startswith(("string", "wstring")):
        bound = element.partition("<")[2].rstrip(">")
        return text(min(12, int(bound) // 4) if bound else 12)
    return fill(load(element), depth + 1)


def fill(cls, depth=0):
    message = cls()
    for name, kind in cls.get_fields_and_field_types().items():
        shape, element, n = split(kind)
        if shape == "one":
            setattr(message, name, one(element, depth))
            continue
        if shape == "sequence":
            most = 3 if depth < 2 else 1
            count = rng.randint(0, min(most, n) if n else most)
            if element == "uint8" and n is None and rng.random() < 0.1:
                count = rng.choice([1024, 1025, 3000])
        else:
            count = n
        values = [one(element, depth) for _ in range(count)]
        current = getattr(message, name)
        if isinstance(current, array.array):
            values = array.array(current.typecode, values)
        elif isinstance(current, np.ndarray):
            values = np.array(values, dtype=current.dtype)
        setattr(message, name, values)
    return message


def number(value, single):
    value = float(value)
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float(str(np.float32(value))) if single else value


def plain(value, element):
    if element in INTEGERS:
        return int(value)
    if element == "boolean":
        return bool(value)
    if element == "octet":
        return value[0]
    if element in ("float", "float32"):
        return number(value, True)
    if element in ("double", "float64"):
        return number(value, False)
    if element.startswith(("string", "wstring")):
        return value
    return values(value)


def values(message):
    out = {}
    for name, kind in message.get_fields_and_field_types().items():
        shape, element, _ = split(kind)
        value = getattr(message, name)
        if shape == "one":
            out[name] = plain(value, element)
        elif element in ("uint8", "octet"):
            raw = b"".join(value) if element == "octet" else bytes(bytearray(value))
            out[name] = base64.b64encode(raw).decode()
        else:
            out[name] = [plain(item, element) for item in value]
    return out


def main():
    share = [p for p in os.environ["AMENT_PREFIX_PATH"].split(":") if p]
    definitions, cases = {}, []
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
                data = serialize_message(fill(kind))
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
