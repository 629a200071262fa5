//! What a home protects and refuses.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use super::*;

struct Temp {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn temp() -> Temp {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("home");
    Temp { _folder: folder, path }
}

fn options() -> InitOptions {
    InitOptions { owner: None, identity: None, passphrase: None, config: "roles: [machine]\n".into() }
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.to_owned().into()).expect("valid")
}

fn init(path: &Path, options: InitOptions) -> Result<Home, HomeError> {
    Home::init(path, options, &mut rand::rng())
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn keys_survive_and_are_private() {
    let temp = temp();
    let home = init(&temp.path, options()).expect("made");
    let public = home.public_keys().expect("readable");
    let keys = Home::open(&temp.path).expect("opened").keys(None).expect("loaded");
    assert_eq!(keys.identity.did(), public.did);
    assert_eq!(keys.feed.public(), public.feed);
    assert_eq!(keys.encryption.public(), public.encryption);
    assert_eq!(keys.node.public().to_peer_id(), public.peer);
    assert!(!public.sealed);
    let mut files = 0;
    for folder in [temp.path.clone(), temp.path.join("keys")] {
        assert_eq!(fs::metadata(&folder).expect("there").mode() & 0o777, 0o700);
        for entry in fs::read_dir(&folder).expect("listed") {
            let metadata = entry.expect("listed").metadata().expect("there");
            if metadata.is_file() {
                assert_eq!(metadata.mode() & 0o777, 0o600);
                files += 1;
            }
        }
    }
    assert_eq!(files, 9, "config.yaml, lock, six keys and owner.pub, and nothing temporary");
}

#[test]
fn keys_are_never_overwritten() {
    let temp = temp();
    let did = init(&temp.path, options()).expect("made").public_keys().expect("readable").did;
    assert!(matches!(init(&temp.path, options()), Err(HomeError::Exists { .. })));
    assert_eq!(Home::open(&temp.path).expect("opened").public_keys().expect("readable").did, did);
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let temp = temp();
    fs::create_dir(&temp.path).expect("made");
    fs::write(temp.path.join("thesis.txt"), "").expect("written");
    assert!(matches!(init(&temp.path, options()), Err(HomeError::Occupied { .. })));
    assert!(matches!(Home::open(&temp.path), Err(HomeError::NotAHome { .. })));
    fs::rename(temp.path.join("thesis.txt"), temp.path.join("owner.key")).expect("renamed");
    assert!(matches!(init(&temp.path, options()), Err(HomeError::Occupied { .. })), "somebody's owner key most of all");
}

#[test]
fn an_init_that_broke_off_can_be_run_again() {
    let temp = temp();
    fs::create_dir_all(temp.path.join("keys.new")).expect("made");
    fs::write(temp.path.join("keys.new/feed.key"), "half").expect("written");
    fs::write(temp.path.join("config.yaml"), "roles: [buyer]\n").expect("written");
    let home = init(&temp.path, options()).expect("made");
    assert!(home.keys(None).is_ok());
    assert_eq!(fs::read_to_string(home.config_path()).expect("there"), "roles: [buyer]\n", "kept");
}

#[test]
fn what_others_can_read_is_refused_with_the_way_to_fix_it() {
    let temp = temp();
    let home = init(&temp.path, options()).expect("made");
    for (path, loose, tight) in [
        (temp.path.clone(), 0o750, 0o700),
        (temp.path.join("keys"), 0o755, 0o700),
        (temp.path.join("keys/identity.key"), 0o640, 0o600),
        (temp.path.join("keys/feed.key"), 0o604, 0o600),
        (temp.path.join("keys/node.key"), 0o620, 0o600),
        (temp.path.join("keys/encryption.key"), 0o666, 0o600),
    ] {
        chmod(&path, loose);
        let error = Home::open(&temp.path).and_then(|home| home.keys(None).map(|_| ())).expect_err("refused");
        let message = error.to_string();
        assert!(message.ends_with(&format!("chmod {tight:03o} {}", path.display())), "{message}");
        chmod(&path, tight);
    }
    assert!(home.keys(None).is_ok());
}

#[test]
fn sealed_keys_open_with_their_passphrase_only() {
    let temp = temp();
    let home = init(&temp.path, InitOptions { passphrase: Some(passphrase("right\n")), ..options() }).expect("made");
    assert!(home.public_keys().expect("needs none").sealed);
    assert!(matches!(home.keys(None), Err(HomeError::PassphraseNeeded { .. })));
    assert!(matches!(home.keys(Some(&passphrase("wrong"))), Err(HomeError::WrongPassphrase { .. })));
    let keys = home.keys(Some(&passphrase("right"))).expect("opened");
    assert_eq!(keys.identity.did(), home.public_keys().expect("readable").did);
    for file in ["keys/identity.key", "keys/feed.key", "keys/node.key", "keys/encryption.key", "keys/owner.key"] {
        let text = fs::read_to_string(temp.path.join(file)).expect("there");
        assert!(!text.contains("secret:"), "{file}");
        assert!(!text.contains(&hex::encode(*keys.identity.to_bytes())), "{file}");
    }
    assert!(home.owner_key(Some(&passphrase("right"))).ok().flatten().is_some());
}

#[test]
fn an_empty_or_endless_passphrase_is_refused() {
    for text in ["", "\n", &"x".repeat(2_000)] {
        assert!(matches!(Passphrase::new(text.to_owned().into()), Err(HomeError::BadPassphrase)));
    }
}

#[test]
fn a_sealed_key_cannot_stand_in_for_another_one() {
    let temp = temp();
    let home = init(&temp.path, InitOptions { passphrase: Some(passphrase("p")), ..options() }).expect("made");
    let path = temp.path.join("keys/feed.key");
    let text = fs::read_to_string(&path).expect("there");
    let public = home.public_keys().expect("readable");
    fs::write(&path, text.replace(&public.feed.to_string(), &public.encryption.to_string())).expect("written");
    assert!(matches!(home.keys(Some(&passphrase("p"))), Err(HomeError::WrongPassphrase { kind: KeyKind::Feed, .. })));
}

#[test]
fn a_damaged_key_file_is_named() {
    let temp = temp();
    let home = init(&temp.path, options()).expect("made");
    let path = temp.path.join("keys/feed.key");
    let good = fs::read_to_string(&path).expect("there");
    let other = fs::read_to_string(temp.path.join("keys/encryption.key")).expect("there");
    let secret = good.lines().last().expect("has lines").to_owned();
    for bad in [
        String::new(),
        "garbage".to_owned(),
        other,
        good.replace("tributary-key 1", "tributary-key 2"),
        good.replace("public: ", "public: 00"),
        good.replace(&secret, "secret: zz"),
        good.replace(&secret, "secret: abcd"),
        good.replace(&secret, "sealed: scrypt 60 8 1 00 00 00"),
        good.replace(&secret, &format!("secret: {}", "11".repeat(32))),
        format!("{good}more\n"),
    ] {
        fs::write(&path, &bad).expect("written");
        let error = home.keys(Some(&passphrase("p"))).err().expect("refused");
        assert!(matches!(error, HomeError::BadKey { kind: KeyKind::Feed, .. }), "{bad}: {error}");
        assert!(error.to_string().contains("feed.key"));
    }
    fs::remove_file(&path).expect("removed");
    assert!(matches!(home.keys(None), Err(HomeError::MissingKey { kind: KeyKind::Feed, .. })));
}

#[test]
fn a_home_is_used_by_one_at_a_time() {
    let temp = temp();
    let home = init(&temp.path, options()).expect("made");
    let lock = home.lock().expect("free");
    let error = home.lock().expect_err("taken");
    assert!(matches!(&error, HomeError::Locked { pid: Some(pid), .. } if *pid == std::process::id()), "{error}");
    drop(lock);
    assert!(home.lock().is_ok());
}

#[test]
fn a_named_owner_leaves_no_owner_key_behind() {
    let temp = temp();
    let owner = OwnerKey::generate(&mut rand::rng()).public();
    let home = init(&temp.path, InitOptions { owner: Some(owner), ..options() }).expect("made");
    assert!(!home.owner_key_is_here());
    assert!(home.owner_key(None).expect("no error").is_none());
    assert_eq!(home.owner().expect("readable"), owner);
    assert_eq!(owner.to_string().parse::<OwnerPublic>().expect("reads back"), owner);
    for bad in ["", "/", &owner.address.to_string(), &format!("{owner}00")] {
        assert!(matches!(bad.parse::<OwnerPublic>(), Err(HomeError::BadOwner)), "{bad}");
    }
}

#[test]
fn an_owner_key_that_was_moved_away_can_be_read_there() {
    let temp = temp();
    let home = init(&temp.path, options()).expect("made");
    assert!(home.owner_key_is_here());
    let elsewhere = temp.path.with_file_name("moved.key");
    fs::rename(home.owner_key_path(), &elsewhere).expect("moved");
    assert!(!home.owner_key_is_here());
    let key = Home::read_owner_key(&elsewhere, None).expect("read");
    assert_eq!(key.public(), home.owner().expect("readable"));
}

#[test]
fn an_identity_can_be_imported() {
    let temp = temp();
    let key = IdentityKey::generate(&mut rand::rng());
    let file = temp.path.with_file_name("identity.hex");
    fs::write(&file, format!("0x{}\n", hex::encode(*key.to_bytes()))).expect("written");
    chmod(&file, 0o644);
    assert!(matches!(import_identity(&file), Err(HomeError::Permissions { .. })));
    chmod(&file, 0o600);
    let imported = import_identity(&file).expect("read");
    let home = init(&temp.path, InitOptions { identity: Some(imported), ..options() }).expect("made");
    assert_eq!(home.public_keys().expect("readable").did, key.did());
    for bad in ["", "zz", &"00".repeat(32), &"ff".repeat(32), &"ab".repeat(33)] {
        fs::write(&file, bad).expect("written");
        assert!(matches!(import_identity(&file), Err(HomeError::BadHexKey { .. })), "{bad}");
    }
}

#[test]
fn the_next_feed_key_waits_until_it_is_promoted() {
    for sealing in [None, Some(passphrase("p"))] {
        let temp = temp();
        let home = init(&temp.path, InitOptions { passphrase: sealing, ..options() }).expect("made");
        let right = home.public_keys().expect("readable").sealed.then(|| passphrase("p"));
        let (right, wrong) = (right.as_ref(), passphrase("q"));
        if right.is_some() {
            assert!(
                home.stage_feed_key(Some(&wrong), &mut rand::rng()).is_err(),
                "a mistyped passphrase seals nothing"
            );
        }
        let before = home.public_keys().expect("readable").feed;
        let next = home.stage_feed_key(right, &mut rand::rng()).expect("staged").public();
        assert_ne!(next, before);
        let again = home.stage_feed_key(right, &mut rand::rng()).expect("staged").public();
        assert_eq!(again, next, "a rotation that broke off goes on with the same key");
        assert_eq!(home.keys(right).expect("loaded").feed.public(), before);
        home.promote_feed_key().expect("promoted");
        assert_eq!(home.keys(right).expect("loaded").feed.public(), next);
        assert!(home.next_feed_key(right).expect("no error").is_none());
        assert!(home.promote_feed_key().is_err(), "nothing waits any more");
    }
}
