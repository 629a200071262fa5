//! Arguments and the context: what one process tells rcl once.

use std::{
    ffi::{CString, c_char, c_int},
    ptr,
    sync::{Arc, Mutex, PoisonError},
};

use r2r_rcl::{
    rcl_arguments_fini, rcl_arguments_get_count_unparsed_ros, rcl_arguments_get_param_overrides,
    rcl_arguments_get_unparsed_ros, rcl_arguments_t, rcl_context_fini, rcl_context_is_valid, rcl_context_t,
    rcl_get_zero_initialized_arguments, rcl_get_zero_initialized_context, rcl_get_zero_initialized_init_options,
    rcl_init, rcl_init_options_fini, rcl_init_options_init, rcl_parse_arguments, rcl_shutdown,
    rcutils_get_default_allocator, rmw_get_implementation_identifier,
};

use super::{
    Parameters, RclError,
    error::{c_text, check, text_of},
};

/// Setting up and tearing down change state of the whole process in rcl and below.
static PROCESS: Mutex<()> = Mutex::new(());

/// The words of a command line for C.
struct Words {
    owned: Vec<CString>,
}

impl Words {
    fn new(arguments: &[String]) -> Result<Self, RclError> {
        // The first is the program's name, as in `main`.
        let all = std::iter::once("tributary").chain(arguments.iter().map(String::as_str));
        let owned = all.map(|word| c_text(word, "the ROS arguments cannot be read")).collect::<Result<_, _>>()?;
        Ok(Self { owned })
    }

    fn pointers(&self) -> (c_int, Vec<*const c_char>) {
        let pointers: Vec<_> = self.owned.iter().map(|word| word.as_ptr()).collect();
        (c_int::try_from(pointers.len()).unwrap_or(c_int::MAX), pointers)
    }
}

/// ROS arguments, parsed before there is a context: what they say decides which configuration is read.
pub(in crate::ros2) struct Arguments {
    raw: rcl_arguments_t,
}

impl Arguments {
    /// Parses `--ros-args …`.
    ///
    /// # Errors
    /// They are malformed, or hold what ROS does not know.
    pub(in crate::ros2) fn parse(arguments: &[String]) -> Result<Self, RclError> {
        let words = Words::new(arguments)?;
        let (count, pointers) = words.pointers();
        let _process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `pointers` holds `count` texts that live during the call; `out` is zero-initialized as rcl asks.
        let out = unsafe {
            let mut out = Self { raw: rcl_get_zero_initialized_arguments() };
            let code = rcl_parse_arguments(count, pointers.as_ptr(), rcutils_get_default_allocator(), &raw mut out.raw);
            check(code, "the ROS arguments cannot be read")?;
            out
        };
        // SAFETY: parsed above.
        unsafe { refuse_unknown(&raw const out.raw, &words) }?;
        Ok(out)
    }

    /// The parameters in them for the node of this full name.
    ///
    /// # Errors
    /// rcl cannot give them.
    pub(in crate::ros2) fn parameters(&self, full_name: &str) -> Result<Parameters, RclError> {
        // SAFETY: the arguments were parsed and live during the call.
        unsafe { parameters(&raw const self.raw, full_name) }
    }
}

impl Drop for Arguments {
    fn drop(&mut self) {
        // SAFETY: ended once, here. An error leaves nothing to do. A failed parse leaves them zero-initialized, where `impl` is null.
        unsafe {
            if !self.raw.impl_.is_null() {
                rcl_arguments_fini(&raw mut self.raw);
            }
        }
    }
}

/// rcl, set up for this process with its arguments.
pub(in crate::ros2) struct Context {
    raw: *mut rcl_context_t,
}

// SAFETY: rcl's functions on a context may be called from any thread; setting up and ending are serialized by `PROCESS`, and what
// else is called through here reads only (`rcl_context_is_valid` is atomic).
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Sets rcl up.
    ///
    /// # Errors
    /// The arguments are wrong, or the middleware does not start.
    pub(in crate::ros2) fn new(arguments: &[String]) -> Result<Arc<Self>, RclError> {
        let words = Words::new(arguments)?;
        let (count, pointers) = words.pointers();
        let _process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: options and context are zero-initialized as rcl asks; the texts live during the call, and rcl copies them.
        let context = unsafe {
            let mut options = rcl_get_zero_initialized_init_options();
            let code = rcl_init_options_init(&raw mut options, rcutils_get_default_allocator());
            check(code, "ROS 2 cannot be set up")?;
            let raw = Box::into_raw(Box::new(rcl_get_zero_initialized_context()));
            let code = rcl_init(count, pointers.as_ptr(), &raw const options, raw);
            let result = check(code, "ROS 2 cannot be set up");
            rcl_init_options_fini(&raw mut options);
            if let Err(error) = result {
                // A context that was never set up is zero-initialized and owns nothing.
                drop(Box::from_raw(raw));
                return Err(error);
            }
            Self { raw }
        };
        // SAFETY: the context was set up above, and its arguments with it.
        unsafe { refuse_unknown(&raw const (*context.raw).global_arguments, &words) }?;
        Ok(Arc::new(context))
    }

    pub(super) fn raw(&self) -> *mut rcl_context_t {
        self.raw
    }

    /// Whether nobody has shut ROS down in this process.
    pub(in crate::ros2) fn is_valid(&self) -> bool {
        // SAFETY: the context lives as long as `self`.
        unsafe { rcl_context_is_valid(self.raw) }
    }

    /// The parameters on the command line for the node of this full name.
    ///
    /// # Errors
    /// rcl cannot give them.
    pub(in crate::ros2) fn parameters(&self, full_name: &str) -> Result<Parameters, RclError> {
        // SAFETY: the context lives as long as `self`, and its arguments with it.
        unsafe { parameters(&raw const (*self.raw).global_arguments, full_name) }
    }

    /// The middleware's name, such as `rmw_fastrtps_cpp`.
    #[expect(clippy::unused_self, reason = "there is no middleware before a context")]
    pub(in crate::ros2) fn middleware(&self) -> String {
        // SAFETY: gives a constant of the middleware, which is loaded.
        unsafe { text_of(rmw_get_implementation_identifier()) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: whatever was made of the context holds it alive, so nothing of it is left. Ended once, here.
        unsafe {
            rcl_shutdown(self.raw);
            rcl_context_fini(self.raw);
            drop(Box::from_raw(self.raw));
        }
    }
}

/// As every ROS 2 node does: what stands behind `--ros-args` and means nothing is an error, not something to leave out.
///
/// # Safety
/// `arguments` were parsed from `words` and live during the call.
unsafe fn refuse_unknown(arguments: *const rcl_arguments_t, words: &Words) -> Result<(), RclError> {
    // SAFETY: as the caller promises; the indices are rcl's allocation of `count` elements and are given back to its allocator.
    let unknown = unsafe {
        let count = usize::try_from(rcl_arguments_get_count_unparsed_ros(arguments)).unwrap_or(0);
        if count == 0 {
            return Ok(());
        }
        let allocator = rcutils_get_default_allocator();
        let mut indices = ptr::null_mut();
        let code = rcl_arguments_get_unparsed_ros(arguments, allocator, &raw mut indices);
        check(code, "the ROS arguments cannot be read")?;
        let found = std::slice::from_raw_parts(indices, count).to_vec();
        if let Some(free) = allocator.deallocate {
            free(indices.cast(), allocator.state);
        }
        found
    };
    let words: Vec<_> = unknown
        .iter()
        .filter_map(|index| words.owned.get(usize::try_from(*index).ok()?))
        .map(|word| word.to_string_lossy())
        .collect();
    Err(RclError::new("these ROS arguments mean nothing", words.join(" ")))
}

/// # Safety
/// `arguments` were parsed and live during the call.
unsafe fn parameters(arguments: *const rcl_arguments_t, full_name: &str) -> Result<Parameters, RclError> {
    let mut overrides = ptr::null_mut();
    // SAFETY: as the caller promises; what is given is ours to end, which `take` does.
    unsafe {
        let code = rcl_arguments_get_param_overrides(arguments, &raw mut overrides);
        check(code, "the ROS parameters cannot be read")?;
        Ok(Parameters::take(overrides, full_name))
    }
}
