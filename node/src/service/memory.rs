//! What the network remembers over a restart, in `<home>/peers.json`: bans with the time of day when they end, and the
//! addresses of peers that were reached.
//!
//! Owns the file's form and when it is written: at once when somebody is banned, every minute, and when the node stops. It is
//! worth no more than a restart without it: what cannot be read is said and left out, never a reason not to start. It is bounded
//! before it is read, and written whole or not at all.

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, broadcast::error::RecvError},
    time::MissedTickBehavior,
};

use crate::{
    home::Home,
    machine::Clock,
    net::{Ban, Client, KnownPeer, Multiaddr, PeerEvent, PeerId, Remembered},
};

/// The form of the file.
const VERSION: u32 = 1;
/// No file that this program writes is longer: 1,024 bans and 128 peers with four addresses each.
const MAX_FILE: u64 = 512 << 10;
/// Most bans that are kept; those that end last.
const MAX_BANS: usize = 1024;
/// How often the book is written when nobody is banned.
const EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    version: u32,
    bans: Vec<BanRow>,
    peers: Vec<PeerRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanRow {
    peer: String,
    /// Ms since 1970; none for a ban that does not end.
    until_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerRow {
    peer: String,
    addresses: Vec<Multiaddr>,
}

impl Page {
    fn of(remembered: Remembered, now_ms: u64) -> Self {
        let until = |left: Duration| now_ms.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let row = |ban: Ban| BanRow { peer: ban.peer.to_string(), until_ms: ban.left.map(until) };
        let mut bans: Vec<BanRow> = remembered.bans.into_iter().map(row).collect();
        bans.sort_by_key(|ban| std::cmp::Reverse(ban.until_ms.unwrap_or(u64::MAX)));
        bans.truncate(MAX_BANS);
        let row = |known: KnownPeer| PeerRow { peer: known.peer.to_string(), addresses: known.addresses };
        Self { version: VERSION, bans, peers: remembered.peers.into_iter().map(row).collect() }
    }

    fn remembered(self, now_ms: u64, longest: Duration) -> Remembered {
        let ban = |row: BanRow| {
            let peer: PeerId = row.peer.parse().ok()?;
            let left = match row.until_ms {
                None => None,
                Some(until_ms) => {
                    let left = Duration::from_millis(until_ms.checked_sub(now_ms).filter(|left| *left > 0)?);
                    // A clock that was set back makes no ban longer than any is.
                    Some(left.min(longest))
                }
            };
            Some(Ban { peer, left })
        };
        let known = |row: PeerRow| Some(KnownPeer { peer: row.peer.parse().ok()?, addresses: row.addresses });
        Remembered {
            bans: self.bans.into_iter().filter_map(ban).collect(),
            peers: self.peers.into_iter().filter_map(known).collect(),
        }
    }
}

/// The book of a home.
pub(super) struct Memory {
    home: Home,
    clock: Clock,
    /// What the file says, as far as this process knows; also keeps two writers apart.
    written: Mutex<Option<Vec<u8>>>,
}

impl Memory {
    pub(super) fn new(home: Home, clock: Clock) -> Self {
        Self { home, clock, written: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.home.peers_path()
    }

    /// What was remembered; nothing where there is no file, or none that can be read. Waits for the disk. No ban has more left
    /// than `longest`.
    pub(super) fn load(&self, longest: Duration) -> Remembered {
        match self.read() {
            Ok(Some(page)) => page.remembered((self.clock)(), longest),
            Ok(None) => Remembered::default(),
            Err(error) => {
                tracing::warn!(path = %self.path().display(), %error, "known peers and bans cannot be read; starting without them");
                Remembered::default()
            }
        }
    }

    fn read(&self) -> io::Result<Option<Page>> {
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_FILE) {
            return Err(io::Error::other(format!("it is longer than {MAX_FILE} bytes")));
        }
        let page: Page = serde_json::from_slice(&bytes)?;
        if page.version != VERSION {
            return Err(io::Error::other(format!("it is of version {}, this program knows {VERSION}", page.version)));
        }
        Ok(Some(page))
    }

    /// Writes what the network knows now, if it is something else than what was written last.
    pub(super) async fn save(&self, net: &Client) {
        let Ok(remembered) = net.remembered().await else { return };
        let bytes = match serde_json::to_vec_pretty(&Page::of(remembered, (self.clock)())) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::warn!(%error, "known peers and bans cannot be written"),
        };
        let mut written = self.written.lock().await;
        if written.as_ref() == Some(&bytes) {
            return;
        }
        let (home, page) = (self.home.clone(), bytes.clone());
        match tokio::task::spawn_blocking(move || home.write_peers(&page)).await {
            Ok(Ok(())) => *written = Some(bytes),
            Ok(Err(error)) => tracing::warn!(%error, "known peers and bans are not kept"),
            Err(_) => {}
        }
    }

    /// Writes the book until the network has shut down.
    pub(super) async fn keep(&self, net: Client) {
        let mut events = net.watch_peers();
        let mut timer = tokio::time::interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    // Somebody may have been banned among what was missed.
                    Ok(PeerEvent::Banned(_)) | Err(RecvError::Lagged(_)) => self.save(&net).await,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                },
                _ = timer.tick() => self.save(&net).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(600);

    fn remembered() -> Remembered {
        let ban = |left| Ban { peer: PeerId::random(), left };
        Remembered {
            bans: vec![ban(None), ban(Some(Duration::from_secs(300)))],
            peers: vec![KnownPeer {
                peer: PeerId::random(),
                addresses: vec!["/ip4/192.0.2.1/tcp/4600".parse().unwrap()],
            }],
        }
    }

    #[test]
    fn a_ban_ends_by_the_time_of_day_and_is_never_prolonged() {
        let before = remembered();
        let page = Page::of(before.clone(), 1_000_000);
        assert_eq!(page.clone().remembered(1_000_000, LONGEST), before);
        let later = page.clone().remembered(1_100_000, LONGEST);
        assert_eq!(later.bans[1].left, Some(Duration::from_secs(200)));
        let over = page.clone().remembered(1_300_000, LONGEST);
        assert_eq!((over.bans.len(), over.bans[0].left), (1, None));
        // An hour back.
        let back = page.remembered(0, LONGEST);
        assert_eq!(back.bans[1].left, Some(LONGEST));
    }

    #[test]
    fn the_page_is_bounded_and_the_bans_that_end_last_are_kept() {
        let bans =
            (0..MAX_BANS as u64 + 10).map(|n| Ban { peer: PeerId::random(), left: Some(Duration::from_secs(n)) });
        let page = Page::of(Remembered { bans: bans.collect(), peers: Vec::new() }, 0);
        assert_eq!((page.bans.len(), page.bans[MAX_BANS - 1].until_ms), (MAX_BANS, Some(10_000)));
        let addresses = vec![format!("/dns/{}/tcp/65535", "a".repeat(200)).parse().unwrap(); 4];
        let known = |_| KnownPeer { peer: PeerId::random(), addresses: addresses.clone() };
        let full = Page::of(Remembered { bans: Vec::new(), peers: (0..128).map(known).collect() }, 0);
        let full = Page { bans: page.bans, ..full };
        assert!(serde_json::to_vec_pretty(&full).unwrap().len() < usize::try_from(MAX_FILE).unwrap());
    }

    #[test]
    fn a_page_that_cannot_be_read_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            crate::home::InitOptions { owner: None, identity: None, passphrase: None, config: "roles: [buyer]".into() };
        let home = Home::init(&dir.path().join("home"), options, &mut rand::rng()).unwrap();
        let memory = Memory::new(home.clone(), std::sync::Arc::new(|| 0));
        assert_eq!(memory.load(LONGEST), Remembered::default());
        let page = serde_json::to_vec(&Page::of(remembered(), 0)).unwrap();
        home.write_peers(&page).unwrap();
        assert_eq!(memory.load(LONGEST).bans.len(), 2);
        let other = String::from_utf8(page.clone()).unwrap().replace("\"version\":1", "\"version\":2");
        for bad in [&page[..page.len() / 2], other.as_bytes(), b"{}", &vec![b' '; 600 << 10]] {
            home.write_peers(bad).unwrap();
            assert_eq!(memory.load(LONGEST), Remembered::default());
        }
    }
}
