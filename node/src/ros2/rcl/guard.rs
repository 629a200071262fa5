//! A guard condition: wakes a wait set from another thread.

use std::sync::Arc;

use r2r_rcl::{
    rcl_get_zero_initialized_guard_condition, rcl_guard_condition_fini, rcl_guard_condition_init,
    rcl_guard_condition_options_t, rcl_guard_condition_t, rcl_trigger_guard_condition, rcutils_get_default_allocator,
};

use super::{Context, RclError, error::check};

/// Wakes whoever waits on it. A trigger while nobody waits is kept for the next wait.
pub(in crate::ros2) struct Guard {
    raw: *mut rcl_guard_condition_t,
    _context: Arc<Context>,
}

// SAFETY: rcl_trigger_guard_condition may be called from any thread, at the same time too, on the same guard condition; a wait set
// reads the pointer only.
unsafe impl Send for Guard {}
// SAFETY: as above.
unsafe impl Sync for Guard {}

impl Guard {
    pub(in crate::ros2) fn new(context: &Arc<Context>) -> Result<Self, RclError> {
        // SAFETY: zero-initialized as rcl asks, and the context is alive. One that could not be made owns nothing.
        unsafe {
            let raw = Box::into_raw(Box::new(rcl_get_zero_initialized_guard_condition()));
            let options = rcl_guard_condition_options_t { allocator: rcutils_get_default_allocator() };
            let code = rcl_guard_condition_init(raw, context.raw(), options);
            if let Err(error) = check(code, "no guard condition can be made") {
                drop(Box::from_raw(raw));
                return Err(error);
            }
            Ok(Self { raw, _context: Arc::clone(context) })
        }
    }

    pub(in crate::ros2) fn trigger(&self) {
        // SAFETY: it lives as long as `self`. It fails only when it is not valid, which it is.
        unsafe { rcl_trigger_guard_condition(self.raw) };
    }

    pub(super) fn raw(&self) -> *const rcl_guard_condition_t {
        self.raw
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: ended once, here; no wait set holds it beyond a call that borrows `self`.
        unsafe {
            rcl_guard_condition_fini(self.raw);
            drop(Box::from_raw(self.raw));
        }
    }
}
