//! A subscription that gives messages as they came over the wire.

use std::{ffi::c_void, ptr, sync::Arc};

use r2r_rcl::{
    RCL_RET_SUBSCRIPTION_TAKE_FAILED, rcl_event_fini, rcl_event_t, rcl_get_zero_initialized_event,
    rcl_get_zero_initialized_subscription, rcl_subscription_event_init, rcl_subscription_event_type_e,
    rcl_subscription_fini, rcl_subscription_get_default_options, rcl_subscription_init, rcl_subscription_t,
    rcl_take_event, rcl_take_serialized_message, rcutils_allocator_t, rcutils_uint8_array_t,
    rmw_get_zero_initialized_message_info, rmw_message_lost_status_t, rmw_qos_durability_policy_e,
    rmw_qos_history_policy_e, rmw_qos_profile_t, rmw_qos_reliability_policy_e,
};

use super::{
    MessageType, Node, RclError,
    error::{c_text, check, is},
};
use crate::{
    config::{Durability, History, Qos, Reliability},
    ros2::account::{Gid, MessageInfo},
};

/// What the middleware says where it does not number a publisher's messages (`RMW_MESSAGE_INFO_SEQUENCE_NUMBER_UNSUPPORTED`).
const NO_SEQUENCE: u64 = u64::MAX;

/// Why a message could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::ros2) enum TakeError {
    /// It is longer than allowed. The middleware has let go of it.
    #[error("message of more than {limit} bytes; at most {limit} are read")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The middleware failed.
    #[error(transparent)]
    Rcl(#[from] RclError),
}

/// A subscription.
pub(in crate::ros2) struct Subscription {
    raw: *mut rcl_subscription_t,
    /// Counts what the middleware lost; `None` where it cannot say.
    lost: Option<*mut rcl_event_t>,
    node: Arc<Node>,
}

// SAFETY: used by one thread at a time (taking needs `&mut self`); rcl ties no subscription to the thread that made it.
unsafe impl Send for Subscription {}

impl Subscription {
    /// Subscribes. The node's remapping rules apply to `topic`.
    pub(in crate::ros2) fn new(
        node: &Arc<Node>,
        topic: &str,
        message_type: &MessageType,
        qos: Qos,
    ) -> Result<Self, RclError> {
        const WHAT: &str = "cannot subscribe";
        let topic = c_text(topic, WHAT)?;
        // SAFETY: zero-initialized as rcl asks; text, type support and options live during the call, and the type support for ever. A
        // subscription that could not be made owns nothing.
        unsafe {
            let raw = Box::into_raw(Box::new(rcl_get_zero_initialized_subscription()));
            let mut options = rcl_subscription_get_default_options();
            options.qos = profile(options.qos, qos);
            // What this node publishes itself is no data of the machine's.
            options.rmw_subscription_options.ignore_local_publications = true;
            let code = rcl_subscription_init(raw, node.raw(), message_type.raw(), topic.as_ptr(), &raw const options);
            if let Err(error) = check(code, WHAT) {
                drop(Box::from_raw(raw));
                return Err(error);
            }
            Ok(Self { raw, lost: lost_event(raw), node: Arc::clone(node) })
        }
    }

    pub(super) fn raw(&self) -> *const rcl_subscription_t {
        self.raw
    }

    /// Takes the oldest message into `buffer`, whose contents it replaces, without waiting. `None` when there is none.
    pub(in crate::ros2) fn take(
        &mut self,
        buffer: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Option<MessageInfo>, TakeError> {
        buffer.clear();
        let mut loan = Loan { buffer, limit, exceeded: false };
        let state: *mut Loan<'_> = &raw mut loan;
        // SAFETY: the array's memory is the buffer's, and whoever reallocates it through the array's allocator reaches the buffer, so
        // both always agree. The loan and the buffer outlive the call, and nothing else uses them during it. What the middleware wrote
        // is the first `buffer_length` bytes, within the capacity; all of them were initialized by it.
        unsafe {
            let mut array = rcutils_uint8_array_t {
                buffer: (*(*state).buffer).as_mut_ptr(),
                buffer_length: 0,
                buffer_capacity: (*(*state).buffer).capacity(),
                allocator: Loan::allocator(state),
            };
            let mut info = rmw_get_zero_initialized_message_info();
            let code = rcl_take_serialized_message(self.raw, &raw mut array, &raw mut info, ptr::null_mut());
            if is(code, RCL_RET_SUBSCRIPTION_TAKE_FAILED) {
                return Ok(None);
            }
            let result = check(code, "a message cannot be taken");
            if (*state).exceeded {
                return Err(TakeError::TooLarge { limit });
            }
            result?;
            let buffer = &mut *(*state).buffer;
            buffer.set_len(array.buffer_length.min(buffer.capacity()));
            Ok(Some(MessageInfo {
                published_ns: u64::try_from(info.source_timestamp).unwrap_or(0),
                received_ns: u64::try_from(info.received_timestamp).unwrap_or(0),
                publisher: Gid::new(&info.publisher_gid.data),
                sequence: Some(info.publication_sequence_number).filter(|number| *number != NO_SEQUENCE),
            }))
        }
    }

    /// How many messages the middleware says it lost since the subscription began; `None` where it cannot say.
    pub(in crate::ros2) fn lost(&mut self) -> Option<u64> {
        let event = self.lost?;
        let mut status = rmw_message_lost_status_t { total_count: 0, total_count_change: 0 };
        // SAFETY: the event is of the kind that fills this status, and lives as long as `self`.
        let code = unsafe { rcl_take_event(event, (&raw mut status).cast::<c_void>()) };
        check(code, "no count of lost messages").ok()?;
        u64::try_from(status.total_count).ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: ended once, here, the event before what it belongs to; the node is alive.
        unsafe {
            if let Some(event) = self.lost {
                rcl_event_fini(event);
                drop(Box::from_raw(event));
            }
            rcl_subscription_fini(self.raw, self.node.raw());
            drop(Box::from_raw(self.raw));
        }
    }
}

/// # Safety
/// The subscription was made and outlives the event.
unsafe fn lost_event(subscription: *const rcl_subscription_t) -> Option<*mut rcl_event_t> {
    // SAFETY: zero-initialized as rcl asks; as the caller promises. An event that could not be made owns nothing.
    unsafe {
        let event = Box::into_raw(Box::new(rcl_get_zero_initialized_event()));
        let kind = rcl_subscription_event_type_e::RCL_SUBSCRIPTION_MESSAGE_LOST;
        let code = rcl_subscription_event_init(event, subscription, kind);
        if check(code, "no count of lost messages").is_err() {
            drop(Box::from_raw(event));
            return None;
        }
        Some(event)
    }
}

/// The quality of service of a stream over what else a profile has.
pub(super) fn profile(base: rmw_qos_profile_t, qos: Qos) -> rmw_qos_profile_t {
    rmw_qos_profile_t {
        history: match qos.history {
            History::KeepLast => rmw_qos_history_policy_e::RMW_QOS_POLICY_HISTORY_KEEP_LAST,
            History::KeepAll => rmw_qos_history_policy_e::RMW_QOS_POLICY_HISTORY_KEEP_ALL,
        },
        depth: usize::try_from(qos.depth).unwrap_or(usize::MAX),
        reliability: match qos.reliability {
            Reliability::Reliable => rmw_qos_reliability_policy_e::RMW_QOS_POLICY_RELIABILITY_RELIABLE,
            Reliability::BestEffort => rmw_qos_reliability_policy_e::RMW_QOS_POLICY_RELIABILITY_BEST_EFFORT,
        },
        durability: match qos.durability {
            Durability::Volatile => rmw_qos_durability_policy_e::RMW_QOS_POLICY_DURABILITY_VOLATILE,
            Durability::TransientLocal => rmw_qos_durability_policy_e::RMW_QOS_POLICY_DURABILITY_TRANSIENT_LOCAL,
        },
        ..base
    }
}

/// A buffer of ours while the middleware writes into it. It is the state of the allocator that the middleware enlarges it with, so
/// a message lands in a `Vec` without another copy, and is never longer than allowed.
struct Loan<'a> {
    buffer: &'a mut Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl Loan<'_> {
    fn allocator(state: *mut Self) -> rcutils_allocator_t {
        rcutils_allocator_t {
            allocate: Some(allocate),
            deallocate: Some(deallocate),
            reallocate: Some(reallocate),
            zero_allocate: Some(zero_allocate),
            state: state.cast(),
        }
    }

    /// Room for `size` bytes in all, or null.
    fn resize(&mut self, size: usize) -> *mut c_void {
        if size > self.limit {
            self.exceeded = true;
            return ptr::null_mut();
        }
        // What was there is replaced by the message that asks for more room.
        self.buffer.clear();
        match self.buffer.try_reserve_exact(size) {
            Ok(()) => self.buffer.as_mut_ptr().cast(),
            Err(_) => ptr::null_mut(),
        }
    }
}

unsafe extern "C" fn allocate(size: usize, state: *mut c_void) -> *mut c_void {
    // SAFETY: the state is the loan of the call that this runs in.
    unsafe { &mut *state.cast::<Loan<'_>>() }.resize(size)
}

unsafe extern "C" fn reallocate(_: *mut c_void, size: usize, state: *mut c_void) -> *mut c_void {
    // SAFETY: as above; the pointer given is the buffer's own.
    unsafe { &mut *state.cast::<Loan<'_>>() }.resize(size)
}

unsafe extern "C" fn zero_allocate(count: usize, size: usize, state: *mut c_void) -> *mut c_void {
    let Some(size) = count.checked_mul(size) else { return ptr::null_mut() };
    // SAFETY: as above; the room is at least `size` bytes.
    unsafe {
        let room = (*state.cast::<Loan<'_>>()).resize(size);
        if !room.is_null() {
            ptr::write_bytes(room.cast::<u8>(), 0, size);
        }
        room
    }
}

/// The buffer keeps its memory.
unsafe extern "C" fn deallocate(_: *mut c_void, _: *mut c_void) {}
