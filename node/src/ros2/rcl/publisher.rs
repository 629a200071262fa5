//! A publisher of messages that are already serialized.

use std::{ptr, sync::Arc};

use r2r_rcl::{
    rcl_get_zero_initialized_publisher, rcl_publish_serialized_message, rcl_publisher_fini,
    rcl_publisher_get_default_options, rcl_publisher_init, rcl_publisher_t, rcutils_get_default_allocator,
    rcutils_uint8_array_t,
};

use super::{
    MessageType, Node, RclError,
    error::{c_text, check},
    subscription::profile,
};
use crate::config::Qos;

/// A publisher.
pub(in crate::ros2) struct Publisher {
    raw: *mut rcl_publisher_t,
    node: Arc<Node>,
}

// SAFETY: rcl ties no publisher to the thread that made it, and publishing is allowed from any thread.
unsafe impl Send for Publisher {}

impl Publisher {
    /// Makes a publisher. The node's remapping rules apply to `topic`.
    pub(in crate::ros2) fn new(
        node: &Arc<Node>,
        topic: &str,
        message_type: &MessageType,
        qos: Qos,
    ) -> Result<Self, RclError> {
        const WHAT: &str = "cannot publish";
        let topic = c_text(topic, WHAT)?;
        // SAFETY: zero-initialized as rcl asks; text, type support and options live during the call, and the type support for ever. A
        // publisher that could not be made owns nothing.
        unsafe {
            let raw = Box::into_raw(Box::new(rcl_get_zero_initialized_publisher()));
            let mut options = rcl_publisher_get_default_options();
            options.qos = profile(options.qos, qos);
            let code = rcl_publisher_init(raw, node.raw(), message_type.raw(), topic.as_ptr(), &raw const options);
            if let Err(error) = check(code, WHAT) {
                drop(Box::from_raw(raw));
                return Err(error);
            }
            Ok(Self { raw, node: Arc::clone(node) })
        }
    }

    /// Publishes a message, CDR with its header.
    pub(in crate::ros2) fn publish(&self, cdr: &[u8]) -> Result<(), RclError> {
        let message = rcutils_uint8_array_t {
            buffer: cdr.as_ptr().cast_mut(),
            buffer_length: cdr.len(),
            buffer_capacity: cdr.len(),
            // SAFETY: gives a value.
            allocator: unsafe { rcutils_get_default_allocator() },
        };
        // SAFETY: the message is only read, and lives during the call.
        let code = unsafe { rcl_publish_serialized_message(self.raw, &raw const message, ptr::null_mut()) };
        check(code, "cannot publish")
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // SAFETY: ended once, here; the node is alive.
        unsafe {
            rcl_publisher_fini(self.raw, self.node.raw());
            drop(Box::from_raw(self.raw));
        }
    }
}
