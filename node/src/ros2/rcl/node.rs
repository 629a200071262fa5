//! The ROS node.

use std::{ffi::c_char, ptr, sync::Arc};

use r2r_rcl::{
    rcl_get_zero_initialized_node, rcl_guard_condition_t, rcl_node_fini, rcl_node_get_default_options,
    rcl_node_get_fully_qualified_name, rcl_node_get_graph_guard_condition, rcl_node_init, rcl_node_resolve_name,
    rcl_node_t, rcutils_get_default_allocator,
};

use super::{
    Context, RclError,
    error::{c_text, check, text_of},
};

/// A node of the graph. It has no parameter services and no `/rosout`: its settings are in the configuration, its log on standard
/// error.
pub(in crate::ros2) struct Node {
    raw: *mut rcl_node_t,
    context: Arc<Context>,
}

// SAFETY: after it is made, a node is only read through `*const` by functions of rcl that allow concurrent calls, or handed to
// `rcl_…_fini` of its entities, which read it and reach the middleware under the middleware's own lock.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

impl Node {
    /// Makes the node; `-r __node:=…` and `-r __ns:=…` of the context's arguments win over the names given.
    pub(in crate::ros2) fn new(context: &Arc<Context>, name: &str, namespace: &str) -> Result<Arc<Self>, RclError> {
        const WHAT: &str = "the ROS node cannot be made";
        let (name, namespace) = (c_text(name, WHAT)?, c_text(namespace, WHAT)?);
        // SAFETY: zero-initialized as rcl asks, the texts live during the call, the context is alive. A node that could not be made
        // owns nothing.
        unsafe {
            let raw = Box::into_raw(Box::new(rcl_get_zero_initialized_node()));
            let mut options = rcl_node_get_default_options();
            options.enable_rosout = false;
            let code = rcl_node_init(raw, name.as_ptr(), namespace.as_ptr(), context.raw(), &raw const options);
            if let Err(error) = check(code, WHAT) {
                drop(Box::from_raw(raw));
                return Err(error);
            }
            Ok(Arc::new(Self { raw, context: Arc::clone(context) }))
        }
    }

    pub(in crate::ros2) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(super) fn raw(&self) -> *mut rcl_node_t {
        self.raw
    }

    /// Its name with the namespace, such as `/fleet/tributary`.
    pub(in crate::ros2) fn full_name(&self) -> String {
        // SAFETY: the text lives as long as the node, and is copied.
        unsafe { text_of(rcl_node_get_fully_qualified_name(self.raw)) }
    }

    /// What a topic of this name is called in the graph: the namespace in front of a relative name, then the remapping rules.
    pub(in crate::ros2) fn resolve(&self, topic: &str) -> Result<String, RclError> {
        const WHAT: &str = "a topic name cannot be resolved";
        let topic = c_text(topic, WHAT)?;
        // SAFETY: the text lives during the call; what is given is ours, was made with this allocator and is given back to it.
        unsafe {
            let allocator = rcutils_get_default_allocator();
            let mut name: *mut c_char = ptr::null_mut();
            let code = rcl_node_resolve_name(self.raw, topic.as_ptr(), allocator, false, false, &raw mut name);
            check(code, WHAT)?;
            let resolved = text_of(name);
            if let Some(free) = allocator.deallocate {
                free(name.cast(), allocator.state);
            }
            Ok(resolved)
        }
    }

    /// Triggered by every change of the graph.
    pub(super) fn graph_guard(&self) -> *const rcl_guard_condition_t {
        // SAFETY: the node is alive; the condition belongs to it and lives as long.
        unsafe { rcl_node_get_graph_guard_condition(self.raw) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: whatever was made of the node holds it alive, so nothing of it is left. Ended once, here.
        unsafe {
            rcl_node_fini(self.raw);
            drop(Box::from_raw(self.raw));
        }
    }
}
