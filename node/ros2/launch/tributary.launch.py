"""
Starts a Tributary node that feeds live topics into its streams.

    ros2 launch tributary tributary.launch.py config_yaml:=$HOME/robot.yaml

Every argument may be left out; `ros2 launch tributary tributary.launch.py --show-args` lists them.
"""

from os.path import abspath, expanduser
from shlex import split

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

# Name, default, meaning.
ARGUMENTS = [
    ('config_yaml', '', "The configuration, Tributary's or that of peaq's ROS 2 agent; empty: config.yaml in the home"),
    ('home', '', 'The home folder of the node, made by `tributary init`; empty: $TRIBUTARY_HOME, or ~/.tributary'),
    ('node_name', '', 'Name of the ROS node; empty: as the configuration says'),
    ('namespace', '', 'Its namespace; empty: as the configuration says'),
    ('params_file', '', 'A file of ROS parameters'),
    ('ros_arguments', '', 'More ROS arguments, such as "-r /imu:=/robot7/imu -p use_sim_time:=true"'),
    ('arguments', '', 'More arguments of `tributary run`, such as "-v --set store.quota=10GiB"'),
    (
        'stop_timeout',
        '60',
        'Seconds that the node has, when it is stopped, to seal, store and announce what it took in',
    ),
]


def start(context):
    """Make the node from the values of the arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}

    def path(name):
        return abspath(expanduser(value[name]))

    command = ['run']
    if value['config_yaml']:
        command += ['--config', path('config_yaml')]
    if value['home']:
        command += ['--home', path('home')]
    command += split(value['arguments'])
    return [
        Node(
            package='tributary',
            executable='tributary',
            name=value['node_name'] or None,
            namespace=value['namespace'] or None,
            arguments=command,
            parameters=[path('params_file')] if value['params_file'] else [],
            ros_arguments=split(value['ros_arguments']),
            output='screen',
            emulate_tty=True,
            # A node that is ended before it has stored what it took in loses the messages of an open chunk.
            sigterm_timeout=value['stop_timeout'],
            sigkill_timeout='10',
        )
    ]


def generate_launch_description():
    """Declare the arguments, and start the node with them."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in ARGUMENTS
    ]
    return LaunchDescription(declared + [OpaqueFunction(function=start)])
