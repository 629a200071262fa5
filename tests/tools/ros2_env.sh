# Source this in bash: everything that building and running with ROS 2 needs, for `cargo ... --features ros2`.
#
#     source tests/tools/ros2_env.sh
#     cargo run --features ros2 -- run
#
# Where a ROS 2 is sourced already (/opt/ros/jazzy/setup.sh), that one is used. Otherwise ROS 2 Jazzy is installed from PyPI into
# target/ros2-venv, once; see ros2_install.sh.

# Of each package of messages, bindings are compiled, which is slow: only those that the node's own services and topics use. What
# streams subscribe to is found at run time, whatever it is.
export IDL_PACKAGE_FILTER="std_msgs;std_srvs;diagnostic_msgs;builtin_interfaces;rcl_interfaces;rosgraph_msgs;unique_identifier_msgs;action_msgs;service_msgs;type_description_interfaces;geometry_msgs"

if [[ -n ${TRIBUTARY_ROS2_PYTHON:-} ]]; then
    : # Sourced before.
elif [[ -n ${ROS_DISTRO:-} && -n ${AMENT_PREFIX_PATH:-} ]]; then
    export TRIBUTARY_ROS2_PYTHON=python3
elif _ros2=$(bash "$(dirname "${BASH_SOURCE[0]}")/ros2_install.sh"); then
    export TRIBUTARY_ROS2_PYTHON=$_ros2/bin/python
    export AMENT_PREFIX_PATH=$_ros2 ROS_DISTRO=jazzy RMW_IMPLEMENTATION=rmw_fastrtps_cpp
    LD_LIBRARY_PATH=$_ros2/lib$(printf ':%s' "$_ros2"/lib/python3.*/site-packages/ros_*.libs)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    # The wheels' message libraries expect Python's symbols in the process. Cargo starts programs with this, and only programs.
    _triple=$(rustc -vV | sed -n 's/^host: //p')
    _triple=${_triple^^}
    export "CARGO_TARGET_${_triple//-/_}_RUNNER=env LD_PRELOAD=$(<"$_ros2/libpython")"
    unset _ros2 _triple
else
    unset _ros2
    false
fi
