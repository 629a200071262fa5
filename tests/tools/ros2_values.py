"""Messages of any ROS 2 type: filled with random values, filled from what a test says, and read back as plain JSON values.

Plain values are spelled as the node's decoder spells them: byte arrays as base64, not-a-number and the infinities as text, a float32
by its own shortest digits.
"""

import array
import base64
import importlib
import random
import struct

import numpy as np

INTEGERS = {
    "int8": (-(2**7), 2**7 - 1), "uint8": (0, 2**8 - 1), "int16": (-(2**15), 2**15 - 1), "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1),
}


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
    """The class of `package/Name` or `package/msg/Name`, parts of services and actions included."""
    package, *sub, short = name.split("/")
    for sub in sub or ("msg", "srv", "action"):
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


class Random:
    """Random messages, the same for the same seed. The limits of each type come up often."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def fill(self, cls, depth=0):
        """A message with every field random; sequences are short, except for some of bytes."""
        message = cls()
        for name, kind in cls.get_fields_and_field_types().items():
            shape, element, n = split(kind)
            if shape == "one":
                setattr(message, name, self.one(element, depth))
                continue
            if shape == "sequence":
                most = 3 if depth < 2 else 1
                count = self.rng.randint(0, min(most, n) if n else most)
                if element == "uint8" and n is None and self.rng.random() < 0.1:
                    count = self.rng.choice([1024, 1025, 3000])
            else:
                count = n
            put(message, name, [self.one(element, depth) for _ in range(count)])
        return message

    def one(self, element, depth=0):
        if element in INTEGERS:
            low, high = INTEGERS[element]
            return self.rng.choice([low, high, 0, self.rng.randint(low, high), self.rng.randint(low, high)])
        if element == "boolean":
            return self.rng.random() < 0.5
        if element == "octet":
            return bytes([self.rng.randint(0, 255)])
        if element in ("float", "float32"):
            return self.f32()
        if element in ("double", "float64"):
            return self.f64()
        if element.startswith(("string", "wstring")):
            bound = element.partition("<")[2].rstrip(">")
            return self.text(min(12, int(bound) // 4) if bound else 12)
        return self.fill(load(element), depth + 1)

    def text(self, limit):
        alphabet = "abc XYZ09_/-\"\\\n\t\x01é€漢🤖"
        return "".join(self.rng.choice(alphabet) for _ in range(self.rng.randint(0, limit)))

    def f32(self):
        value = self.rng.choice([0.0, -0.0, 0.1, 1e-30, 3.4e38, self.rng.gauss(0, 100), float("inf"), float("nan")])
        return struct.unpack("<f", struct.pack("<f", value))[0]

    def f64(self):
        rng = self.rng
        return rng.choice(
            [0.0, -0.0, 0.1, 5e-324, 1.7e308, 1e22, rng.gauss(0, 1e6), rng.random(), float("-inf"), float("nan")]
        )


def put(message, name, values):
    """Sets an array or sequence, in whatever container the class has for it."""
    current = getattr(message, name)
    if isinstance(current, array.array):
        values = array.array(current.typecode, values)
    elif isinstance(current, np.ndarray):
        values = np.array(values, dtype=current.dtype)
    setattr(message, name, values)


def assign(message, said, n, rng):
    """Sets the fields that `said` names, deep. In it, "$n" is the number `n`, in the type of the field; {"$bytes": N} are N random
    bytes, and {"$floats": N} are N random floats, infinities and not-a-number among them."""
    kinds = message.get_fields_and_field_types()
    for name, value in said.items():
        shape, element, _ = split(kinds[name])
        if isinstance(value, dict) and "$bytes" in value:
            value = array.array("B", rng.rng.randbytes(value["$bytes"]))
            setattr(message, name, value)
        elif isinstance(value, dict) and "$floats" in value:
            put(message, name, [rng.one(element) for _ in range(value["$floats"])])
        elif isinstance(value, dict):
            assign(getattr(message, name), value, n, rng)
        elif shape != "one" and value and isinstance(value[0], dict):
            items = [load(element)() for _ in value]
            for item, inner in zip(items, value):
                assign(item, inner, n, rng)
            setattr(message, name, items)
        elif shape != "one":
            put(message, name, value)
        elif value == "$n":
            setattr(message, name, number_as(element, n))
        elif element in ("float", "double", "float32", "float64"):
            setattr(message, name, float(value))
        else:
            setattr(message, name, value)


def number_as(element, n):
    if element.startswith(("string", "wstring")):
        return str(n)
    return float(n) if element in ("float", "double", "float32", "float64") else n


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
    """A message as JSON values."""
    out = {}
    for name, kind in message.get_fields_and_field_types().items():
        shape, element, _ = split(kind)
        value = getattr(message, name)
        if shape == "one":
            out[name] = plain(value, element)
        elif element in ("uint8", "octet"):
            raw = b"".join(value) if element == "octet" else bytes(value)
            out[name] = base64.b64encode(raw).decode()
        else:
            out[name] = [plain(item, element) for item in value]
    return out
