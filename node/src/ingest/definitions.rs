//! Where message definitions come from when a recording does not carry them.
//!
//! In this order: directories named by the user, the installed ROS 2 (`AMENT_PREFIX_PATH`), a built-in set of the common
//! interface packages. Reads `.msg`, `.srv` and `.action` files only, of at most [`msgdef::MAX_TEXT`] bytes, and only under
//! those directories: package and type names are checked identifiers, so a name cannot climb out.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::msgdef::{self, Lookup, Plan, normalize_type_name};

/// The built-in definitions of the common interface packages of ROS 2 Jazzy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Builtin;

impl Lookup for Builtin {
    fn find(&self, full_name: &str) -> Option<String> {
        static SECTIONS: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
        let sections = SECTIONS.get_or_init(|| {
            let text = include_str!("builtin.ros2msg");
            text.split("================================================================================\nMSG: ")
                .skip(1)
                .filter_map(|section| section.split_once('\n'))
                .collect()
        });
        sections.get(full_name).map(|text| (*text).to_owned())
    }
}

/// Directories of `.msg` files, then the built-in set.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    directories: Vec<PathBuf>,
}

impl Definitions {
    /// Looks in `directories` first (each may be a workspace or install prefix with `share/`, a `share` directory, or a
    /// directory of packages or of `.msg` files), then in the prefixes of `AMENT_PREFIX_PATH` if `ament` is set.
    #[must_use]
    pub fn new(directories: &[PathBuf], ament: bool) -> Self {
        let mut directories = directories.to_vec();
        if ament && let Some(prefixes) = env::var_os("AMENT_PREFIX_PATH") {
            directories.extend(env::split_paths(&prefixes).filter(|p| !p.as_os_str().is_empty()));
        }
        Self { directories }
    }

    /// The text for a type from the directories alone.
    #[must_use]
    pub fn in_directories(&self, full_name: &str) -> Option<String> {
        let full_name = normalize_type_name(full_name)?;
        let (package, short) = full_name.split_once('/')?;
        self.directories.iter().find_map(|directory| find_in(directory, package, short))
    }
}

impl Lookup for Definitions {
    fn find(&self, full_name: &str) -> Option<String> {
        self.in_directories(full_name).or_else(|| Builtin.find(full_name))
    }
}

/// The definition of a message type with the texts of all types it uses behind it, as recordings carry it; `None` if one is
/// unknown, or if the type is no message (services and actions have no such form).
#[must_use]
pub fn full_text(type_name: &str, lookup: &dyn Lookup) -> Option<String> {
    let root = lookup.find(&normalize_type_name(type_name)?)?;
    complete_text(type_name, &root, lookup)
}

/// As [`full_text`], from a text of the root that may lack the texts of the types it uses.
pub(super) fn complete_text(type_name: &str, root: &str, lookup: &dyn Lookup) -> Option<String> {
    let plan = Plan::compile(type_name, root, lookup).ok()?;
    let heads = root.lines().filter_map(|line| line.strip_prefix("MSG:"));
    let written: HashSet<String> = heads.filter_map(|name| normalize_type_name(name.trim())).collect();
    let mut text = root.trim_end().to_owned();
    for name in plan.type_names().filter(|name| *name != plan.type_name()) {
        if written.contains(name) {
            continue;
        }
        let body = match lookup.find(name) {
            Some(body) => body,
            None => msgdef::always_known(name)?.to_owned(),
        };
        text.push_str(&format!("\n{}\nMSG: {name}\n{}", "=".repeat(80), body.trim_end()));
        if text.len() > msgdef::MAX_TEXT {
            return None;
        }
    }
    text.push('\n');
    // A type from a service's file has no section of its own; then the text would not stand alone.
    Plan::compile(type_name, &text, &msgdef::NoLookup).ok().map(|_| text)
}

fn find_in(directory: &Path, package: &str, short: &str) -> Option<String> {
    let packages = [directory.join("share").join(package), directory.join(package), directory.to_owned()];
    for base in &packages {
        for sub in ["msg", ""] {
            if let Some(text) = read_text(&base.join(sub).join(format!("{short}.msg"))) {
                return Some(text);
            }
        }
        // A derived type of a service or action lives in the file of its base: Add_Event in srv/Add.srv.
        for (kind, extension) in [("srv", "srv"), ("action", "action")] {
            let mut stem = short;
            while let Some((shorter, _)) = stem.rsplit_once('_') {
                stem = shorter;
                if let Some(text) = read_text(&base.join(kind).join(format!("{stem}.{extension}"))) {
                    return Some(text);
                }
            }
        }
    }
    None
}

fn read_text(path: &Path) -> Option<String> {
    let file = fs::File::open(path).ok()?;
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut text = Vec::new();
    file.take(msgdef::MAX_TEXT as u64 + 1).read_to_end(&mut text).ok()?;
    // Comments of older files are not always UTF-8; they are skipped anyway.
    (text.len() <= msgdef::MAX_TEXT).then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_type_compiles() {
        let text = include_str!("builtin.ros2msg");
        let names: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("MSG: ")).collect();
        assert!(names.len() > 120, "{}", names.len());
        for name in names {
            let definition = Builtin.find(name).unwrap();
            Plan::compile(name, &definition, &Builtin).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn a_full_text_stands_alone() {
        let text = full_text("nav_msgs/msg/Odometry", &Builtin).unwrap();
        let alone = Plan::compile("nav_msgs/msg/Odometry", &text, &msgdef::NoLookup).unwrap();
        let known = Plan::compile("nav_msgs/Odometry", &Builtin.find("nav_msgs/Odometry").unwrap(), &Builtin).unwrap();
        assert_eq!(alone, known);
        assert_eq!(
            complete_text("nav_msgs/msg/Odometry", &text, &Builtin).as_ref(),
            Some(&text),
            "nothing is added twice"
        );
        assert_eq!(full_text("p/Gone", &Builtin), None);
    }

    #[test]
    fn a_directory_goes_before_the_built_in_set_and_names_cannot_climb_out() {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share/std_msgs/msg");
        fs::create_dir_all(&share).unwrap();
        fs::write(share.join("String.msg"), "string other\n").unwrap();
        fs::create_dir_all(dir.path().join("p/srv")).unwrap();
        fs::write(dir.path().join("p/srv/Add_Two.srv"), "int8 a\n---\nint8 b\n").unwrap();
        let definitions = Definitions::new(&[dir.path().to_owned()], false);
        assert_eq!(definitions.find("std_msgs/String").unwrap(), "string other\n");
        assert_eq!(definitions.find("std_msgs/Bool").unwrap(), "bool data\n");
        assert!(definitions.find("p/Add_Two_Event").unwrap().contains("---"));
        assert_eq!(definitions.in_directories("../etc/passwd"), None);
        assert_eq!(definitions.find("p/Gone"), None);
    }
}
