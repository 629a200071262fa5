//! ROS arguments among the words of the command line.
//!
//! ROS tools put `--ros-args …` behind whatever a program is started with. What stands between that word and `--`, or the end, is
//! ROS's: it is taken out before the rest is parsed, and `tributary run` hands it on. No other command has a use for it.

use std::ffi::OsString;

use super::{CliError, Command, Exit};

const BEGIN: &str = "--ros-args";
const END: &str = "--";

/// The words without ROS's, and ROS's, each part with its `--ros-args` in front; `None` when there are none.
pub(super) fn split(words: impl Iterator<Item = OsString>) -> (Vec<OsString>, Option<Vec<OsString>>) {
    let (mut own, mut ros) = (Vec::new(), None::<Vec<OsString>>);
    let (mut in_ros, mut all_own) = (false, false);
    for word in words {
        if all_own {
            own.push(word);
        } else if word == BEGIN {
            in_ros = true;
            ros.get_or_insert_default().push(word);
        } else if word == END {
            // Behind a `--` of our own, everything is an operand.
            all_own = !in_ros;
            if !in_ros {
                own.push(word);
            }
            in_ros = false;
        } else if in_ros {
            ros.get_or_insert_default().push(word);
        } else {
            own.push(word);
        }
    }
    (own, ros)
}

/// Gives ROS's words to the command.
pub(super) fn give(command: &mut Command, ros: Option<Vec<OsString>>) -> Result<(), CliError> {
    let Some(ros) = ros else { return Ok(()) };
    let Command::Run(args) = command else {
        return Err(CliError::new(Exit::Usage, "--ros-args means something to `tributary run` only")
            .hint("leave it out, or run the node"));
    };
    let words = ros.into_iter().map(OsString::into_string).collect::<Result<Vec<_>, _>>();
    let words = words.map_err(|word| {
        CliError::new(Exit::Usage, format!("the ROS argument {} is not UTF-8 text", word.to_string_lossy()))
    })?;
    args.ros = Some(words);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> (String, Option<String>) {
        let (own, ros) = split(line.split_whitespace().map(OsString::from));
        let join = |words: Vec<OsString>| words.join(" ".as_ref()).into_string().expect("UTF-8");
        (join(own), ros.map(join))
    }

    #[test]
    fn what_is_between_the_marks_is_for_ros() {
        for (line, own, ros) in [
            ("tributary run --json", "tributary run --json", None),
            ("tributary run --ros-args", "tributary run", Some("--ros-args")),
            ("t run --ros-args -r __node:=x --params-file f", "t run", Some("--ros-args -r __node:=x --params-file f")),
            ("t run --ros-args -p a:=1 -- --json", "t run --json", Some("--ros-args -p a:=1")),
            ("t --ros-args -r a:=b -- run --ros-args -r c:=d", "t run", Some("--ros-args -r a:=b --ros-args -r c:=d")),
            ("t publish -- --ros-args", "t publish -- --ros-args", None),
        ] {
            assert_eq!(parts(line), (own.to_owned(), ros.map(ToOwned::to_owned)), "{line}");
        }
    }
}
