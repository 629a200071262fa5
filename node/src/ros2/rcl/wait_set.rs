//! Waiting for several things at once.

use std::{ptr, sync::Arc, time::Duration};

use r2r_rcl::{
    RCL_RET_TIMEOUT, rcl_get_zero_initialized_wait_set, rcl_wait, rcl_wait_set_add_guard_condition,
    rcl_wait_set_add_service, rcl_wait_set_add_subscription, rcl_wait_set_clear, rcl_wait_set_fini, rcl_wait_set_init,
    rcl_wait_set_resize, rcl_wait_set_t, rcutils_get_default_allocator,
};

use super::{
    Context, Guard, Node, RclError, Subscription, TriggerService,
    error::{check, is},
};

/// What is waited for.
#[derive(Default)]
pub(in crate::ros2) struct Waiting<'a> {
    /// Messages.
    pub(in crate::ros2) subscriptions: Vec<&'a Subscription>,
    /// Requests.
    pub(in crate::ros2) services: Vec<&'a TriggerService>,
    /// Triggers of other threads.
    pub(in crate::ros2) guards: Vec<&'a Guard>,
    /// Changes of the graph as this node sees it.
    pub(in crate::ros2) graph: Option<&'a Node>,
}

/// What has come, by the positions in [`Waiting`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::ros2) struct Ready {
    /// Subscriptions that have messages.
    pub(in crate::ros2) subscriptions: Vec<usize>,
    /// Services that have requests.
    pub(in crate::ros2) services: Vec<usize>,
    /// Whether the graph has changed.
    pub(in crate::ros2) graph: bool,
}

/// Waits for one thread.
pub(in crate::ros2) struct WaitSet {
    raw: rcl_wait_set_t,
    _context: Arc<Context>,
}

// SAFETY: used by one thread at a time (waiting needs `&mut self`); rcl ties no wait set to the thread that made it.
unsafe impl Send for WaitSet {}

impl WaitSet {
    pub(in crate::ros2) fn new(context: &Arc<Context>) -> Result<Self, RclError> {
        // SAFETY: zero-initialized as rcl asks, and the context is alive.
        unsafe {
            let mut raw = rcl_get_zero_initialized_wait_set();
            let allocator = rcutils_get_default_allocator();
            let code = rcl_wait_set_init(&raw mut raw, 0, 1, 0, 0, 0, 0, context.raw(), allocator);
            check(code, "no wait set can be made")?;
            Ok(Self { raw, _context: Arc::clone(context) })
        }
    }

    /// Waits until something has come, at most `timeout`.
    pub(in crate::ros2) fn wait(&mut self, on: &Waiting<'_>, timeout: Duration) -> Result<Ready, RclError> {
        const WHAT: &str = "cannot wait for messages";
        let guards = on.guards.len() + usize::from(on.graph.is_some());
        let set = &raw mut self.raw;
        // SAFETY: everything that is added lives during the call, for `on` borrows it, and is forgotten by the next clear or resize
        // before it is used again. Afterwards the set holds, at the positions where things were added, null for what has not come.
        unsafe {
            let same = (*set).size_of_subscriptions == on.subscriptions.len()
                && (*set).size_of_services == on.services.len()
                && (*set).size_of_guard_conditions == guards;
            let cleared = if same {
                rcl_wait_set_clear(set)
            } else {
                rcl_wait_set_resize(set, on.subscriptions.len(), guards, 0, 0, on.services.len(), 0)
            };
            check(cleared, WHAT)?;
            for subscription in &on.subscriptions {
                check(rcl_wait_set_add_subscription(set, subscription.raw(), ptr::null_mut()), WHAT)?;
            }
            for service in &on.services {
                check(rcl_wait_set_add_service(set, service.raw(), ptr::null_mut()), WHAT)?;
            }
            for guard in &on.guards {
                check(rcl_wait_set_add_guard_condition(set, guard.raw(), ptr::null_mut()), WHAT)?;
            }
            if let Some(node) = on.graph {
                check(rcl_wait_set_add_guard_condition(set, node.graph_guard(), ptr::null_mut()), WHAT)?;
            }
            let nanoseconds = i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
            let code = rcl_wait(set, nanoseconds);
            if is(code, RCL_RET_TIMEOUT) {
                return Ok(Ready::default());
            }
            check(code, WHAT)?;
            Ok(Ready {
                subscriptions: came((*set).subscriptions, on.subscriptions.len()),
                services: came((*set).services, on.services.len()),
                graph: on.graph.is_some() && !(*(*set).guard_conditions.add(guards - 1)).is_null(),
            })
        }
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        // SAFETY: ended once, here.
        unsafe { rcl_wait_set_fini(&raw mut self.raw) };
    }
}

/// # Safety
/// `first` points to `count` pointers.
unsafe fn came<T>(first: *mut *const T, count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: as the caller promises.
    let pointers = unsafe { std::slice::from_raw_parts(first, count) };
    (0..count).filter(|at| !pointers[*at].is_null()).collect()
}
