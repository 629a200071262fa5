//! Names of message types, and of what their packages install for them.

use std::{borrow::Cow, fmt, str::FromStr};

/// Longest package or type name, in bytes.
const MAX_PART: usize = 255;

/// `pkg/msg/Type`. Both names are checked identifiers: they go into the names of files and symbols.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TypeName {
    package: Cow<'static, str>,
    /// `msg`, or `srv`.
    kind: Kind,
    short: Cow<'static, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Message,
    Service,
}

/// Not the name of a message type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a message type such as sensor_msgs/msg/Imu")]
pub(super) struct NotATypeName(String);

impl TypeName {
    /// `std_srvs/srv/Trigger`, the type of the node's services.
    pub(super) const TRIGGER: Self =
        Self { package: Cow::Borrowed("std_srvs"), kind: Kind::Service, short: Cow::Borrowed("Trigger") };
    /// `diagnostic_msgs/msg/DiagnosticArray`.
    #[cfg(feature = "ros2")]
    pub(super) const DIAGNOSTICS: Self = Self {
        package: Cow::Borrowed("diagnostic_msgs"),
        kind: Kind::Message,
        short: Cow::Borrowed("DiagnosticArray"),
    };
    /// `rosgraph_msgs/msg/Clock`.
    #[cfg(feature = "ros2")]
    pub(super) const CLOCK: Self =
        Self { package: Cow::Borrowed("rosgraph_msgs"), kind: Kind::Message, short: Cow::Borrowed("Clock") };

    pub(super) fn package(&self) -> &str {
        &self.package
    }

    /// The function that gives a message's type support.
    pub(super) fn message_symbol(&self) -> String {
        let Self { package, short, .. } = self;
        format!("rosidl_typesupport_c__get_message_type_support_handle__{package}__msg__{short}")
    }

    /// The function that gives a service's type support.
    pub(super) fn service_symbol(&self) -> String {
        let Self { package, short, .. } = self;
        format!("rosidl_typesupport_c__get_service_type_support_handle__{package}__srv__{short}")
    }
}

impl FromStr for TypeName {
    type Err = NotATypeName;

    /// A message's name: `pkg/msg/Type`, or `pkg/Type` as people write it.
    fn from_str(text: &str) -> Result<Self, NotATypeName> {
        let error = || NotATypeName(text.chars().take(80).collect());
        let mut parts: Vec<&str> = text.split('/').collect();
        if parts.len() == 3 && parts[1] == "msg" {
            parts.remove(1);
        }
        let [package, short] = parts[..] else { return Err(error()) };
        if !is_identifier(package) || !is_identifier(short) {
            return Err(error());
        }
        Ok(Self { package: package.to_owned().into(), kind: Kind::Message, short: short.to_owned().into() })
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Message => "msg",
            Kind::Service => "srv",
        };
        write!(f, "{}/{kind}/{}", self.package, self.short)
    }
}

fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_PART
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_both_forms_and_names_its_symbols() {
        let name: TypeName = "sensor_msgs/msg/Imu".parse().unwrap();
        assert_eq!("sensor_msgs/Imu".parse(), Ok(name.clone()));
        assert_eq!(name.to_string(), "sensor_msgs/msg/Imu");
        assert_eq!(name.package(), "sensor_msgs");
        assert_eq!(
            name.message_symbol(),
            "rosidl_typesupport_c__get_message_type_support_handle__sensor_msgs__msg__Imu"
        );
        assert_eq!(
            TypeName::TRIGGER.service_symbol(),
            "rosidl_typesupport_c__get_service_type_support_handle__std_srvs__srv__Trigger"
        );
    }

    #[test]
    fn what_could_name_another_file_or_symbol_is_no_type() {
        for text in [
            "",
            "Imu",
            "a/b/c/d",
            "sensor_msgs/srv/SetCameraInfo",
            "../../tmp/evil/msg/T",
            "..//T",
            "/msg/T",
            "a/msg/",
            "a/msg/T\0",
            "a b/T",
            "1a/T",
            "a/msg/é",
            &format!("{}/T", "a".repeat(256)),
        ] {
            assert!(text.parse::<TypeName>().is_err(), "{text:?}");
        }
    }
}
