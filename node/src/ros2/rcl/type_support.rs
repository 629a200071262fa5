//! Type supports: what the middleware has to know about a type, from the library that its package installed.
//!
//! A package `p` installs `lib/libp__rosidl_typesupport_c.so` with one function for each of its types. Libraries are looked for in
//! the prefixes of `AMENT_PREFIX_PATH` only, and stay loaded: the middleware keeps pointers into them.

use std::{
    collections::HashMap,
    env,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use libloading::Library;
use r2r_rcl::{rosidl_message_type_support_t, rosidl_service_type_support_t};

use crate::ros2::type_name::TypeName;

/// Why there is no type support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::ros2) enum TypeSupportError {
    /// The package is not installed, or without its library.
    #[error("the package {package} is not installed: no {library} in the lib folders of AMENT_PREFIX_PATH")]
    NoLibrary {
        /// The package.
        package: String,
        /// The library's file name.
        library: String,
    },
    /// The system's loader refused the library.
    #[error("{library} of the package {package} cannot be loaded: {reason}")]
    NotLoaded {
        /// The package.
        package: String,
        /// The library's file name.
        library: String,
        /// The loader's words.
        reason: String,
    },
    /// The package has no such type.
    #[error("the installed package {package} has no type {type_name}")]
    NoType {
        /// The package.
        package: String,
        /// The type.
        type_name: String,
    },
}

/// A message type that is installed.
#[derive(Clone, Copy)]
pub(in crate::ros2) struct MessageType {
    raw: *const rosidl_message_type_support_t,
}

// SAFETY: points to a constant of a library that is never unloaded.
unsafe impl Send for MessageType {}
// SAFETY: as above.
unsafe impl Sync for MessageType {}

impl MessageType {
    /// Finds `pkg/msg/Type`.
    pub(in crate::ros2) fn find(name: &TypeName) -> Result<Self, TypeSupportError> {
        type Get = unsafe extern "C" fn() -> *const rosidl_message_type_support_t;
        let library = library(name.package())?;
        // SAFETY: rosidl generates this function with this signature for every message; it has no preconditions.
        let raw = unsafe { library.get::<Get>(name.message_symbol().as_bytes()).map(|get| get()) };
        match raw {
            Ok(raw) if !raw.is_null() => Ok(Self { raw }),
            _ => Err(no_type(name)),
        }
    }

    pub(super) fn raw(self) -> *const rosidl_message_type_support_t {
        self.raw
    }
}

/// A service type that is installed.
#[derive(Clone, Copy)]
pub(in crate::ros2) struct ServiceType {
    raw: *const rosidl_service_type_support_t,
}

impl ServiceType {
    /// `std_srvs/srv/Trigger`.
    pub(in crate::ros2) fn trigger() -> Result<Self, TypeSupportError> {
        type Get = unsafe extern "C" fn() -> *const rosidl_service_type_support_t;
        let name = TypeName::TRIGGER;
        let library = library(name.package())?;
        // SAFETY: rosidl generates this function with this signature for every service; it has no preconditions.
        let raw = unsafe { library.get::<Get>(name.service_symbol().as_bytes()).map(|get| get()) };
        match raw {
            Ok(raw) if !raw.is_null() => Ok(Self { raw }),
            _ => Err(no_type(&name)),
        }
    }

    pub(super) fn raw(self) -> *const rosidl_service_type_support_t {
        self.raw
    }
}

fn no_type(name: &TypeName) -> TypeSupportError {
    TypeSupportError::NoType { package: name.package().to_owned(), type_name: name.to_string() }
}

/// The library of a package, loaded once. There are at most as many as packages are installed.
fn library(package: &str) -> Result<&'static Library, TypeSupportError> {
    static LOADED: OnceLock<Mutex<HashMap<String, &'static Library>>> = OnceLock::new();
    let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = loaded.get(package) {
        return Ok(library);
    }
    let file = format!("lib{package}__rosidl_typesupport_c.so");
    let prefixes = env::var_os("AMENT_PREFIX_PATH").unwrap_or_default();
    let found = env::split_paths(&prefixes)
        .filter(|prefix| prefix.is_absolute())
        .map(|prefix| prefix.join("lib").join(&file))
        .find(|path: &PathBuf| path.is_file());
    let Some(path) = found else {
        return Err(TypeSupportError::NoLibrary { package: package.to_owned(), library: file });
    };
    // SAFETY: runs the initializers of a library that the owner of this machine installed with ROS; there is nothing more to hold to.
    let library = unsafe { Library::new(&path) }.map_err(|error| TypeSupportError::NotLoaded {
        package: package.to_owned(),
        library: file,
        reason: error.to_string(),
    })?;
    let library: &'static Library = Box::leak(Box::new(library));
    loaded.insert(package.to_owned(), library);
    Ok(library)
}
