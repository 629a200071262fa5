//! Cutting a dataset's byte stream into chunks.
//!
//! A chunk ends where a package ends, so that whoever holds one chunk and its key can read whole packages. Only a package
//! that is larger than a chunk is cut inside.

/// What is known about the packages that begin in a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackageInfo {
    /// The package's number.
    pub(crate) number: u64,
    /// How many numbers were given and lost just before it.
    pub(crate) gap: u64,
    /// Capture time, ms since 1970.
    pub(crate) time_ms: u64,
}

/// A chunk's content before it is sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// How many packages begin in it.
    pub(crate) packages: u32,
    /// Number of the first package that begins in it; 0 when none begins.
    pub(crate) first_number: u64,
    /// How many numbers were lost before packages of this slice.
    pub(crate) gaps: u64,
    /// Earliest and latest capture time, ms since 1970.
    pub(crate) time_ms: Option<(u64, u64)>,
}

/// Collects packages and gives slices of a bounded size.
pub(crate) struct Slicer {
    target: usize,
    open: Slice,
}

impl Slicer {
    /// Slices of at most `target` bytes.
    pub(crate) fn new(target: usize) -> Self {
        Self { target: target.max(1), open: Slice::default() }
    }

    /// Whether nothing waits to be cut off.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.bytes.is_empty()
    }

    /// Adds a package: its line and its blobs, in one. Full slices go to `full`.
    pub(crate) fn push(&mut self, info: PackageInfo, parts: &[&[u8]], full: &mut Vec<Slice>) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if !self.is_empty() && self.open.bytes.len() + len > self.target {
            full.extend(self.cut());
        }
        self.begin(info);
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let room = self.target - self.open.bytes.len();
                if room == 0 {
                    full.extend(self.cut());
                    self.go_on(info);
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(room));
                if self.open.bytes.is_empty() {
                    // One allocation for the slice, its tag included: sealing happens in place.
                    self.open.bytes.reserve_exact(self.target.min(len.max(4096)) + TAG);
                }
                self.open.bytes.extend_from_slice(now);
                rest = later;
            }
        }
        if self.open.bytes.len() == self.target {
            full.extend(self.cut());
        }
    }

    /// Ends the open slice, if it has anything in it.
    pub(crate) fn cut(&mut self) -> Option<Slice> {
        (!self.is_empty()).then(|| std::mem::take(&mut self.open))
    }

    fn begin(&mut self, info: PackageInfo) {
        if self.open.packages == 0 {
            self.open.first_number = info.number;
        }
        self.open.packages += 1;
        self.open.gaps += info.gap;
        self.include(info.time_ms);
    }

    fn go_on(&mut self, info: PackageInfo) {
        self.include(info.time_ms);
    }

    fn include(&mut self, time_ms: u64) {
        let (from, to) = self.open.time_ms.unwrap_or((time_ms, time_ms));
        self.open.time_ms = Some((from.min(time_ms), to.max(time_ms)));
    }
}

/// Length of the AEAD tag that sealing appends.
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(number: u64) -> PackageInfo {
        PackageInfo { number, gap: 0, time_ms: number }
    }

    #[test]
    fn packages_that_fit_are_never_cut() {
        let mut slicer = Slicer::new(10);
        let mut full = Vec::new();
        for number in 0..4 {
            slicer.push(info(number), &[b"1234"], &mut full);
        }
        full.extend(slicer.cut());
        assert_eq!(full.iter().map(|s| s.bytes.len()).collect::<Vec<_>>(), [8, 8]);
        assert_eq!(full.iter().map(|s| (s.first_number, s.packages)).collect::<Vec<_>>(), [(0, 2), (2, 2)]);
        assert_eq!(full[1].time_ms, Some((2, 3)));
    }

    #[test]
    fn a_large_package_is_cut_and_counted_once() {
        let mut slicer = Slicer::new(10);
        let mut full = Vec::new();
        slicer.push(PackageInfo { number: 7, gap: 3, time_ms: 1 }, &[b"line\n", &[0; 20]], &mut full);
        full.extend(slicer.cut());
        assert_eq!(
            full.iter().map(|s| (s.bytes.len(), s.packages, s.gaps)).collect::<Vec<_>>(),
            [(10, 1, 3), (10, 0, 0), (5, 0, 0)]
        );
        assert_eq!(full.iter().map(|s| s.first_number).collect::<Vec<_>>(), [7, 0, 0]);
        assert!(full.iter().all(|s| s.time_ms == Some((1, 1))));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered(
            target in 1usize..64,
            packages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..30),
        ) {
            let mut slicer = Slicer::new(target);
            let mut full = Vec::new();
            for (number, package) in packages.iter().enumerate() {
                slicer.push(info(number as u64), &[package], &mut full);
            }
            full.extend(slicer.cut());
            prop_assert!(full.iter().all(|s| !s.bytes.is_empty() && s.bytes.len() <= target));
            prop_assert_eq!(full.iter().map(|s| u64::from(s.packages)).sum::<u64>(), packages.len() as u64);
            prop_assert_eq!(full.into_iter().flat_map(|s| s.bytes).collect::<Vec<_>>(), packages.concat());
        }
    }
}
