"""
Says what a launch file with one node starts, as a JSON document: its arguments, the command, and how long it may take to stop.

    launch_process.py LAUNCH_FILE '{"argument": "value"}'

`launch` and `launch_ros` cannot be had from PyPI. What the launch file uses of them is stood in for here, as far as that is the
description of a process: the command is put together as `launch_ros.actions.Node` does it.
"""

import json
import pathlib
import runpy
import sys
import types

from ament_index_python.packages import get_package_prefix

values = json.loads(sys.argv[2])


class LaunchDescription:
    def __init__(self, entities):
        self.entities = entities


class DeclareLaunchArgument:
    def __init__(self, name, *, default_value, description):
        self.said = {'name': name, 'default': default_value, 'description': description}
        values.setdefault(name, default_value)


class LaunchConfiguration:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        assert context is CONTEXT
        return values[self.name]


class OpaqueFunction:
    def __init__(self, *, function):
        self.function = function


class Node:
    def __init__(self, *, package, executable, name, namespace, arguments, parameters, ros_arguments, output, emulate_tty,
                 sigterm_timeout, sigkill_timeout):
        program = pathlib.Path(get_package_prefix(package), 'lib', package, executable)
        assert all(isinstance(word, str) for word in [*arguments, *ros_arguments, sigterm_timeout, sigkill_timeout])
        assert output == 'screen' and emulate_tty is True
        command = [str(program), *arguments, '--ros-args', *ros_arguments, '--ros-args']
        if name is not None:
            command += ['-r', f'__node:={name}']
        if namespace is not None:
            command += ['-r', f'__ns:={namespace}']
        for file in parameters:
            command += ['--params-file', file]
        self.said = {'command': command, 'sigterm_timeout': sigterm_timeout, 'sigkill_timeout': sigkill_timeout}


def stand_in(name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


CONTEXT = object()
stand_in('launch', LaunchDescription=LaunchDescription)
stand_in('launch.actions', DeclareLaunchArgument=DeclareLaunchArgument, OpaqueFunction=OpaqueFunction)
stand_in('launch.substitutions', LaunchConfiguration=LaunchConfiguration)
stand_in('launch_ros')
stand_in('launch_ros.actions', Node=Node)

entities = runpy.run_path(sys.argv[1])['generate_launch_description']().entities
declared = [entity.said for entity in entities if isinstance(entity, DeclareLaunchArgument)]
unknown = set(values) - {argument['name'] for argument in declared}
assert not unknown, f'no such arguments: {unknown}'
(start,) = [entity for entity in entities if isinstance(entity, OpaqueFunction)]
(node,) = start.function(CONTEXT)
print(json.dumps({'arguments': declared, **node.said}))
