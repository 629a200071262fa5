//! The command as people and scripts meet it: output, errors, exit codes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use assert_cmd::cargo::CommandCargoExt as _;
use serde_json::Value;

/// The command with nothing of the surroundings' configuration.
fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = std::process::Command::cargo_bin("tributary").expect("built");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRIBUTARY_")) {
        command.env_remove(name);
    }
    command.args(args).envs(vars.iter().copied()).output().expect("runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

struct Temp {
    folder: tempfile::TempDir,
}

impl Temp {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn private(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        path
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

#[test]
fn init_makes_a_home_and_tells_to_move_the_owner_key() {
    let temp = Temp::new();
    let home = temp.path("home");
    let made = run(&["init", "--home", &home], &[]);
    assert_eq!(code(&made), Some(0), "{}", err(&made));
    let text = out(&made);
    assert!(text.contains("tributary://did:peaq:0x"), "{text}");
    assert!(text.contains("The owner key is still on this machine"), "{text}");
    // Until it is done.
    assert!(out(&run(&["key", "show", "--home", &home], &[])).contains("The owner key is still on this machine"));
    fs::remove_file(Path::new(&home).join("keys/owner.key")).expect("removed");
    assert!(!out(&run(&["key", "show", "--home", &home], &[])).contains("still on this machine"));
    // And the configuration it wrote is valid.
    let checked = run(&["config", "check", "--home", &home], &[]);
    assert_eq!(code(&checked), Some(0), "{}", err(&checked));
}

#[test]
fn a_second_init_changes_nothing() {
    let temp = Temp::new();
    let home = temp.path("home");
    assert_eq!(code(&run(&["init", "--home", &home], &[])), Some(0));
    let before = out(&run(&["key", "show", "--json", "--home", &home], &[]));
    let again = run(&["init", "--home", &home], &[]);
    assert_eq!(code(&again), Some(1));
    assert!(err(&again).contains("already") && err(&again).contains("next:"), "{}", err(&again));
    assert_eq!(out(&run(&["key", "show", "--json", "--home", &home], &[])), before);
}

#[test]
fn json_is_one_document_with_the_same_keys_as_key_show() {
    let temp = Temp::new();
    let home = temp.path("home");
    let made = json(&run(&["--json", "init", "--role", "machine", "--role", "buyer"], &[("TRIBUTARY_HOME", &home)]));
    let shown = json(&run(&["key", "show", "--json"], &[("TRIBUTARY_HOME", &home)]));
    for key in ["did", "link", "peer_id", "feed_key", "encryption_key", "owner"] {
        assert!(made[key].is_string() && made[key] == shown[key], "{key}: {made} {shown}");
    }
    assert_eq!(made["owner_key_on_machine"], Value::Bool(true));
    let checked = json(&run(&["config", "check", "--json"], &[("TRIBUTARY_HOME", &home)]));
    assert_eq!(checked["roles"], serde_json::json!(["machine", "buyer"]));
}

#[test]
fn an_identity_and_an_owner_that_exist_are_taken() {
    let temp = Temp::new();
    // Key 1 of secp256k1: its address is known everywhere.
    let key = temp.private("identity.hex", &format!("{:064x}\n", 1));
    let owner = format!("did:peaq:0x{}/{}", "12".repeat(20), "34".repeat(32));
    let home = temp.path("home");
    let made = run(&["init", "--json", "--home", &home, "--identity-key", &key, "--owner", &owner], &[]);
    assert_eq!(code(&made), Some(0), "{}", err(&made));
    let made = json(&made);
    assert_eq!(made["did"], "did:peaq:0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
    assert_eq!(made["owner"], owner);
    assert_eq!(made["owner_key_on_machine"], Value::Bool(false));
    let wrong = run(&["init", "--home", &temp.path("other"), "--owner", "me"], &[]);
    assert_eq!(code(&wrong), Some(2));
    assert!(!Path::new(&temp.path("other")).exists());
}

#[test]
fn sealed_keys_show_their_public_half_without_the_passphrase() {
    let temp = Temp::new();
    let (home, file) = (temp.path("home"), temp.private("passphrase", "correct horse\n"));
    let made = run(&["init", "--home", &home, "--passphrase-file", &file], &[]);
    assert_eq!(code(&made), Some(0), "{}", err(&made));
    assert_eq!(json(&run(&["key", "show", "--json", "--home", &home], &[]))["sealed"], Value::Bool(true));
    let empty = run(&["init", "--home", &temp.path("other")], &[("TRIBUTARY_PASSPHRASE", "")]);
    assert_eq!(code(&empty), Some(2), "{}", err(&empty));
}

#[test]
fn a_home_others_can_look_into_is_refused_with_the_command_that_fixes_it() {
    let temp = Temp::new();
    let home = temp.path("home");
    assert_eq!(code(&run(&["init", "--home", &home], &[])), Some(0));
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("set");
    let refused = run(&["key", "show", "--home", &home], &[]);
    assert_eq!(code(&refused), Some(1));
    assert!(err(&refused).contains(&format!("next:  make it private: chmod 700 {home}")), "{}", err(&refused));
}

#[test]
fn no_home_is_not_found() {
    let temp = Temp::new();
    let missing = run(&["key", "show", "--home", &temp.path("nowhere")], &[]);
    assert_eq!(code(&missing), Some(5));
    assert!(err(&missing).contains("tributary init") && out(&missing).is_empty(), "{}", err(&missing));
    let missing = run(&["config", "check", "--config", &temp.path("no.yaml")], &[]);
    assert_eq!(code(&missing), Some(5), "{}", err(&missing));
}

#[test]
fn a_wrong_configuration_is_told_with_file_line_key_and_what_was_expected() {
    let temp = Temp::new();
    let file = temp.path("config.yaml");
    fs::write(&file, "roles: [machine]\nstore:\n  quota: lots\n").expect("written");
    let refused = run(&["config", "check", "--config", &file], &[]);
    assert_eq!(code(&refused), Some(2));
    let text = err(&refused);
    assert!(text.contains(&format!("{file}:3:10: `store.quota` is \"lots\"; expected none, or a size")), "{text}");
    let refused = run(&["config", "check", "--json", "--config", &file], &[]);
    let error: Value = serde_json::from_slice(&refused.stderr).expect("one JSON document");
    assert_eq!((&error["exit_code"], &error["error"]["code"]), (&2.into(), &"usage".into()));
    // The environment is stronger than the file, and a flag than the environment.
    let set = ["config", "check", "--config", &file, "--set", "store.quota=1GiB"];
    assert_eq!(code(&run(&set, &[("TRIBUTARY_STORE__QUOTA", "never")])), Some(0));
    let refused = run(&set[..4], &[("TRIBUTARY_STORE__QUOTA", "never")]);
    assert!(err(&refused).contains("environment variable TRIBUTARY_STORE__QUOTA"), "{}", err(&refused));
}

#[test]
fn a_rule_key_that_is_missing_is_found_before_the_node_runs() {
    let temp = Temp::new();
    let file = temp.path("config.yaml");
    let rules = "[{path: a, action: encrypt, key_file: a.key}]";
    let text = format!("roles: [machine]\nstreams: [{{topic: /a, mode: fields, default: include, rules: {rules}}}]\n");
    fs::write(&file, text).expect("written");
    let refused = run(&["config", "check", "--config", &file], &[]);
    assert_eq!(code(&refused), Some(1));
    let text = err(&refused);
    assert!(
        text.contains("the rules of the stream /a")
            && text.contains("the rule for a")
            && text.contains("a.key does not hold a key"),
        "{text}"
    );
    assert!(text.contains("openssl rand -hex 32"), "{text}");
    temp.private("a.key", &"ab".repeat(32));
    assert_eq!(code(&run(&["config", "check", "--config", &file], &[])), Some(0));
}

#[test]
fn usage_errors_are_2_and_help_is_0() {
    assert_eq!(code(&run(&["--no-such-flag"], &[])), Some(2));
    assert_eq!(code(&run(&["no-such-command"], &[])), Some(2));
    assert_eq!(code(&run(&[], &[])), Some(2));
    let help = run(&["--help"], &[]);
    assert_eq!(code(&help), Some(0));
    assert!(out(&help).contains("3  verification failed"), "{}", out(&help));
    assert_eq!(code(&run(&["--version"], &[])), Some(0));
    let filter = run(&["man"], &[("TRIBUTARY_LOG", "tributary=loud")]);
    assert_eq!(code(&filter), Some(2), "{}", err(&filter));
}

#[test]
fn the_manual_has_the_exit_codes_and_a_page_for_every_command() {
    let page = run(&["man"], &[]);
    assert_eq!(code(&page), Some(0));
    for text in [".TH tributary", "verification failed", "access denied", "TRIBUTARY_HOME"] {
        assert!(out(&page).contains(text), "{text}");
    }
    let temp = Temp::new();
    let folder = temp.path("man");
    assert_eq!(code(&run(&["man", "--out", &folder], &[])), Some(0));
    for name in ["tributary.1", "tributary-init.1", "tributary-key-show.1", "tributary-config-check.1"] {
        assert!(Path::new(&folder).join(name).exists(), "{name}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], &[]);
        assert_eq!(code(&script), Some(0));
        assert!(out(&script).contains("init"), "{shell}");
    }
}
