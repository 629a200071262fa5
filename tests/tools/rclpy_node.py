#!/usr/bin/env python3
"""A ROS 2 node for tests: publishes, listens and calls services as it is told, and says exactly what it did.

    rclpy_node.py NAME

One JSON object a line on standard input, one answer a line on standard output, in order; {"error": ...} when something did not
work. It ends with its input. What it is asked is under "do":

    advertise  topic, type, qos: {reliability, durability, history, depth}
    retire     topic
    matched    topic, count              waits until exactly so many subscriptions are matched
    publish    topic, messages, count, first, rate, random, raw, report
               publishes and answers with what was published. `messages`: fields of each message (see ros2_values.assign); without
               it all fields are random, from the seed `random`. `first` is the number of the first. `rate` in Hz, else at
               once. `raw`: made and serialized before the first is published, all with the same random values, so that
               publishing costs little. `report`: which of
               "value", "cdr", "digest" to say of each; "stamp" sets header.stamp to the time of publishing
    begin      as publish, without count: goes on in the background
    published  topic                     how many the background has published
    end        topic                     ends the background, and answers as publish
    call       service, type, request    waits for the service, and answers with its response
    subscribe  topic, type, qos
    next       topic                     waits for the next message, and answers with its value
    exists     node                      waits until there is a node of this full name
    types      topic, count              waits until exactly so many types of a topic are known
    cpu                                  CPU seconds of this process so far
"""

import base64
import hashlib
import json
import os
import queue
import sys
import threading
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from ros2_values import Random, assign, load, values

WAIT = 80.0


def profile(qos):
    qos = qos or {}
    return QoSProfile(
        reliability=ReliabilityPolicy[qos.get("reliability", "reliable").upper()],
        durability=DurabilityPolicy[qos.get("durability", "volatile").upper()],
        history=HistoryPolicy[qos.get("history", "keep_last").upper()],
        depth=qos.get("depth", 1000),
    )


def until(what, look):
    """Polls, because the graph of ROS tells of no change that can be waited for by name."""
    deadline = time.monotonic() + WAIT
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {WAIT:.0f} s still waiting: {what}")
        time.sleep(0.002)
    return found


def only_numbers(said):
    """The parts of `said` that differ from message to message."""
    parts = {name: only_numbers(value) if isinstance(value, dict) else value for name, value in said.items()}
    return {name: value for name, value in parts.items() if value == "$n" or (isinstance(value, dict) and value)}


class Made:
    """Messages of one publisher as they are asked for, made and published."""

    def __init__(self, cls, publisher, ask):
        self.cls, self.publisher, self.ask = cls, publisher, ask
        self.said = ask.get("messages")
        self.base, self.numbered = None, only_numbers(self.said or {})
        self.report = ask.get("report", ["value"])
        self.first = ask.get("first", 0)
        self.rng = Random(f"{ask['topic']} {ask.get('random', 0)}")
        self.done = []

    def make(self, n):
        if self.said is None:
            return self.rng.fill(self.cls)
        if self.ask.get("raw"):
            if self.base is None:
                self.base = self.cls()
                assign(self.base, self.said, n, self.rng)
            assign(self.base, self.numbered, n, self.rng)
            return self.base
        message = self.cls()
        assign(message, self.said, n, self.rng)
        return message

    def publish(self, n, message, data=None):
        now = time.time_ns()
        if "stamp" in self.report:
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
        self.publisher.publish(message if data is None else data)
        self.done.append((n, now, message, data))

    def all(self):
        count, rate = self.ask["count"], self.ask.get("rate")
        made = ((n, self.make(n)) for n in range(self.first, self.first + count))
        made = [(n, message, serialize_message(message) if self.ask.get("raw") else None) for n, message in made]
        begun = time.monotonic()
        for at, (n, message, data) in enumerate(made):
            if rate:
                time.sleep(max(0.0, begun + at / rate - time.monotonic()))
            self.publish(n, message, data)
        return self.answer()

    def answer(self):
        return [self.told(*one) for one in self.done]

    def told(self, n, at, message, data):
        out = {"n": n, "at_ns": at}
        if "value" in self.report:
            out["value"] = values(message)
        if "cdr" in self.report or "digest" in self.report:
            data = serialize_message(message) if data is None else data
            if "cdr" in self.report:
                out["cdr"] = base64.b64encode(data).decode()
            if "digest" in self.report:
                out["bytes"], out["sha256"] = len(data), hashlib.sha256(data).hexdigest()
        return out


class Background(threading.Thread):
    def __init__(self, made):
        super().__init__(daemon=True)
        self.made, self.ending, self.failed = made, threading.Event(), None

    def run(self):
        try:
            rate, begun, at = self.made.ask["rate"], time.monotonic(), 0
            # One message again and again, where serializing it each time would cost too much.
            ready = None
            if self.made.ask.get("raw"):
                message = self.made.make(self.made.first)
                ready = (message, serialize_message(message))
            while not self.ending.wait(max(0.0, begun + at / rate - time.monotonic())):
                n = self.made.first + at
                self.made.publish(n, *(ready or (self.made.make(n), None)))
                at += 1
        except Exception as error:  # noqa: BLE001, told to whoever asks
            self.failed = error

    def checked(self):
        if self.failed:
            raise self.failed
        return self.made


class Tool:
    def __init__(self, name):
        rclpy.init()
        self.node = Node(name, enable_rosout=False, start_parameter_services=False)
        self.publishers, self.backgrounds, self.received, self.clients = {}, {}, {}, {}
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        threading.Thread(target=executor.spin, daemon=True).start()

    def advertise(self, ask):
        cls = load(ask["type"])
        self.publishers[ask["topic"]] = (cls, self.node.create_publisher(cls, ask["topic"], profile(ask.get("qos"))))

    def retire(self, ask):
        self.node.destroy_publisher(self.publishers.pop(ask["topic"])[1])

    def matched(self, ask):
        publisher, count = self.publishers[ask["topic"]][1], ask["count"]
        until(f"{count} subscriptions of {ask['topic']}", lambda: publisher.get_subscription_count() == count)

    def publish(self, ask):
        return Made(*self.publishers[ask["topic"]], ask).all()

    def begin(self, ask):
        background = Background(Made(*self.publishers[ask["topic"]], ask))
        self.backgrounds[ask["topic"]] = background
        background.start()

    def published(self, ask):
        return len(self.backgrounds[ask["topic"]].checked().done)

    def end(self, ask):
        background = self.backgrounds.pop(ask["topic"])
        background.ending.set()
        background.join()
        return background.checked().answer()

    def call(self, ask):
        cls = load(ask["type"])
        client = self.clients.get(ask["service"])
        if client is None:
            client = self.clients[ask["service"]] = self.node.create_client(cls, ask["service"])
        if not client.wait_for_service(timeout_sec=WAIT):
            raise TimeoutError(f"there is no service {ask['service']}")
        request, done = cls.Request(), threading.Event()
        assign(request, ask.get("request", {}), 0, None)
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(WAIT):
            raise TimeoutError(f"{ask['service']} does not answer")
        return values(future.result())

    def subscribe(self, ask):
        got = self.received[ask["topic"]] = queue.Queue(maxsize=10_000)
        self.node.create_subscription(load(ask["type"]), ask["topic"], got.put, profile(ask.get("qos")))

    def next(self, ask):
        return values(self.received[ask["topic"]].get(timeout=WAIT))

    def exists(self, ask):
        def look():
            return ask["node"] in [
                f"{space.rstrip('/')}/{name}" for name, space in self.node.get_node_names_and_namespaces()
            ]

        until(f"node {ask['node']}", look)

    def types(self, ask):
        def look():
            return len(dict(self.node.get_topic_names_and_types()).get(ask["topic"], [])) == ask["count"]

        until(f"{ask['count']} types of {ask['topic']}", look)

    def cpu(self, _):
        times = os.times()
        return times.user + times.system


def main():
    tool = Tool(sys.argv[1])
    print(json.dumps({"answer": None}), flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer = {"answer": getattr(tool, ask["do"])(ask)}
        except Exception as error:  # noqa: BLE001, the test decides what to make of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    # Threads of the middleware may still be at work; there is nothing to save.
    os._exit(0)


main()
