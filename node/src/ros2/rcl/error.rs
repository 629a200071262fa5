//! What rcl says when something does not go well.

use std::ffi::{CStr, CString, NulError, c_char};

use r2r_rcl::{RCL_RET_OK, rcl_ret_t, rcutils_get_error_string, rcutils_reset_error};

/// An error of rcl or of the middleware below it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {text}")]
pub(in crate::ros2) struct RclError {
    what: &'static str,
    text: String,
}

impl RclError {
    pub(super) fn new(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, text: text.into() }
    }
}

/// Whether a call gave this code of rcl's, whose constants have another type.
pub(super) fn is(code: rcl_ret_t, expected: u32) -> bool {
    u32::try_from(code) == Ok(expected)
}

/// What a call gave back, with rcl's own words for what went wrong. `what` is what did not work.
pub(super) fn check(code: rcl_ret_t, what: &'static str) -> Result<(), RclError> {
    if is(code, RCL_RET_OK) {
        return Ok(());
    }
    // SAFETY: both read and write state of this thread only; the text is copied out of a value that ends with a NUL.
    let text = unsafe {
        let error = rcutils_get_error_string();
        let text = text_of(error.str_.as_ptr());
        rcutils_reset_error();
        text
    };
    // "…, at ./src/rcl/init.c:120" is of no use to who reads it.
    let text = text.split(", at ").next().unwrap_or_default();
    let text = if text.is_empty() { format!("code {code}") } else { text.to_owned() };
    Err(RclError { what, text })
}

/// Text for C.
pub(super) fn c_text(text: &str, what: &'static str) -> Result<CString, RclError> {
    CString::new(text).map_err(|error: NulError| RclError::new(what, error.to_string()))
}

/// Text from C; empty for a null pointer.
///
/// # Safety
/// `text` is null, or ends with a NUL and lives during the call.
pub(super) unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
