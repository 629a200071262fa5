//! A service of the type `std_srvs/srv/Trigger`: no arguments, success and a text back.

use std::{ffi::CString, ptr, sync::Arc};

use r2r_rcl::{
    RCL_RET_SERVICE_TAKE_FAILED, rcl_get_zero_initialized_service, rcl_send_response, rcl_service_fini,
    rcl_service_get_default_options, rcl_service_init, rcl_service_t, rcl_take_request, rmw_request_id_t,
    rosidl_runtime_c__String, rosidl_runtime_c__String__assign, rosidl_runtime_c__String__fini,
    rosidl_runtime_c__String__init,
};

use super::{
    Node, RclError, ServiceType,
    error::{c_text, check, is},
};

/// Who asked, and which question it was.
#[derive(Clone, Copy)]
pub(in crate::ros2) struct RequestId(rmw_request_id_t);

/// The C structure of `std_srvs/srv/Trigger_Request`, which is empty but for the member that C asks for.
#[repr(C)]
struct Request {
    structure_needs_at_least_one_member: u8,
}

/// The C structure of `std_srvs/srv/Trigger_Response`.
#[repr(C)]
struct Response {
    success: bool,
    message: rosidl_runtime_c__String,
}

/// A service.
pub(in crate::ros2) struct TriggerService {
    raw: *mut rcl_service_t,
    node: Arc<Node>,
}

// SAFETY: used by one thread at a time (every call needs `&mut self`); rcl ties no service to the thread that made it.
unsafe impl Send for TriggerService {}

impl TriggerService {
    /// Offers the service. A name with `~/` in front lies under the node's own name.
    pub(in crate::ros2) fn new(node: &Arc<Node>, name: &str, service_type: ServiceType) -> Result<Self, RclError> {
        const WHAT: &str = "a service cannot be offered";
        let name = c_text(name, WHAT)?;
        // SAFETY: zero-initialized as rcl asks; text, type support and options live during the call, and the type support for ever. A
        // service that could not be made owns nothing.
        unsafe {
            let raw = Box::into_raw(Box::new(rcl_get_zero_initialized_service()));
            let options = rcl_service_get_default_options();
            let code = rcl_service_init(raw, node.raw(), service_type.raw(), name.as_ptr(), &raw const options);
            if let Err(error) = check(code, WHAT) {
                drop(Box::from_raw(raw));
                return Err(error);
            }
            Ok(Self { raw, node: Arc::clone(node) })
        }
    }

    pub(super) fn raw(&self) -> *const rcl_service_t {
        self.raw
    }

    /// Takes a request, without waiting. `None` when there is none.
    pub(in crate::ros2) fn take(&mut self) -> Result<Option<RequestId>, RclError> {
        let mut id = rmw_request_id_t { writer_guid: Default::default(), sequence_number: 0 };
        let mut request = Request { structure_needs_at_least_one_member: 0 };
        // SAFETY: `request` is the C structure of this service's requests, which the middleware fills in.
        let code = unsafe { rcl_take_request(self.raw, &raw mut id, (&raw mut request).cast()) };
        if is(code, RCL_RET_SERVICE_TAKE_FAILED) {
            return Ok(None);
        }
        check(code, "a request cannot be taken").map(|()| Some(RequestId(id)))
    }

    /// Answers a request.
    pub(in crate::ros2) fn respond(&mut self, to: RequestId, success: bool, message: &str) -> Result<(), RclError> {
        let RequestId(mut id) = to;
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        let text = rosidl_runtime_c__String { data: ptr::null_mut(), size: 0, capacity: 0 };
        let mut response = Response { success, message: text };
        // SAFETY: `response` is the C structure of this service's responses; its text is set up before it is used and ended after.
        unsafe {
            let text = &raw mut response.message;
            if !rosidl_runtime_c__String__init(text) {
                return Err(RclError::new("a request cannot be answered", "no memory"));
            }
            let sent = if rosidl_runtime_c__String__assign(text, message.as_ptr()) {
                let code = rcl_send_response(self.raw, &raw mut id, (&raw mut response).cast());
                check(code, "a request cannot be answered")
            } else {
                Err(RclError::new("a request cannot be answered", "no memory"))
            };
            rosidl_runtime_c__String__fini(text);
            sent
        }
    }
}

impl Drop for TriggerService {
    fn drop(&mut self) {
        // SAFETY: ended once, here; the node is alive.
        unsafe {
            rcl_service_fini(self.raw, self.node.raw());
            drop(Box::from_raw(self.raw));
        }
    }
}
