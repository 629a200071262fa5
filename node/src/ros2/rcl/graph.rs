//! The graph: who publishes what.

use r2r_rcl::{
    rcl_get_publishers_info_by_topic, rcl_get_topic_names_and_types, rcl_names_and_types_fini,
    rcl_subscription_get_default_options, rcutils_get_default_allocator, rmw_get_zero_initialized_names_and_types,
    rmw_get_zero_initialized_topic_endpoint_info_array, rmw_qos_compatibility_type_e, rmw_qos_profile_check_compatible,
    rmw_qos_profile_t, rmw_topic_endpoint_info_array_fini,
};

use super::{
    Node, RclError,
    error::{c_text, check, text_of},
    subscription::profile,
};
use crate::config::Qos;

/// Most topics, and most publishers of one topic, that are looked at.
const MAX_ENDPOINTS: usize = 4096;

/// What the middlewares say for the name of a node that they do not know (yet).
const UNKNOWN_NODE: &str = "_NODE_NAME_UNKNOWN_";

/// A publisher of a topic.
pub(in crate::ros2) struct Endpoint {
    /// Full name of its node; empty while the graph does not know it, and for publishers that are not of ROS.
    pub(in crate::ros2) node: String,
    /// Its type, `pkg/msg/Type`.
    pub(in crate::ros2) type_name: String,
    qos: rmw_qos_profile_t,
}

impl Endpoint {
    /// Why a subscription with this quality of service gets nothing from this publisher; `None` when it does.
    pub(in crate::ros2) fn incompatible_with(&self, qos: Qos) -> Option<String> {
        // SAFETY: gives a value.
        let defaults = unsafe { rcl_subscription_get_default_options() };
        let mut result = rmw_qos_compatibility_type_e::RMW_QOS_COMPATIBILITY_OK;
        let mut reason = [0; 1024];
        // SAFETY: `reason` has room for as many bytes as is said, the last of which stays 0.
        let (code, reason) = unsafe {
            let own = profile(defaults.qos, qos);
            let room = reason.len() - 1;
            let code = rmw_qos_profile_check_compatible(self.qos, own, &raw mut result, reason.as_mut_ptr(), room);
            (code, text_of(reason.as_ptr()))
        };
        let sure = check(code, "the qualities of service cannot be compared").is_ok();
        (sure && result == rmw_qos_compatibility_type_e::RMW_QOS_COMPATIBILITY_ERROR)
            .then(|| reason.trim_start_matches("ERROR: ").trim_end_matches([';', ' ']).to_owned())
    }
}

impl Node {
    /// The names of all topics that somebody publishes or subscribes, at most [`MAX_ENDPOINTS`] of them.
    pub(in crate::ros2) fn topics(&self) -> Result<Vec<String>, RclError> {
        // SAFETY: zero-initialized as rcl asks; what is given holds `size` texts, is ours, and is ended with the allocator it was made
        // with.
        unsafe {
            let mut allocator = rcutils_get_default_allocator();
            let mut topics = rmw_get_zero_initialized_names_and_types();
            let code = rcl_get_topic_names_and_types(self.raw(), &raw mut allocator, false, &raw mut topics);
            check(code, "the topics cannot be listed")?;
            let count = topics.names.size.min(MAX_ENDPOINTS);
            let names = if topics.names.data.is_null() {
                Vec::new()
            } else {
                std::slice::from_raw_parts(topics.names.data, count).iter().map(|name| text_of(*name)).collect()
            };
            rcl_names_and_types_fini(&raw mut topics);
            Ok(names)
        }
    }

    /// The publishers of a topic, by its name in the graph, at most [`MAX_ENDPOINTS`] of them.
    pub(in crate::ros2) fn publishers(&self, topic: &str) -> Result<Vec<Endpoint>, RclError> {
        const WHAT: &str = "the publishers of a topic cannot be listed";
        let topic = c_text(topic, WHAT)?;
        // SAFETY: zero-initialized as rcl asks; what is given holds `size` descriptions, is ours, and is ended with the allocator it was
        // made with.
        unsafe {
            let mut allocator = rcutils_get_default_allocator();
            let mut found = rmw_get_zero_initialized_topic_endpoint_info_array();
            let code =
                rcl_get_publishers_info_by_topic(self.raw(), &raw mut allocator, topic.as_ptr(), false, &raw mut found);
            check(code, WHAT)?;
            let mut out = Vec::new();
            if !found.info_array.is_null() {
                for info in std::slice::from_raw_parts(found.info_array, found.size.min(MAX_ENDPOINTS)) {
                    let (space, name) = (text_of(info.node_namespace), text_of(info.node_name));
                    let is_known = name != UNKNOWN_NODE;
                    out.push(Endpoint {
                        node: if is_known { format!("{}/{name}", space.trim_end_matches('/')) } else { String::new() },
                        type_name: text_of(info.topic_type),
                        qos: info.qos_profile,
                    });
                }
            }
            rmw_topic_endpoint_info_array_fini(&raw mut found, &raw mut allocator);
            Ok(out)
        }
    }
}
