//! Topic names with wildcards.

/// A topic name in which `*` stands for any characters but `/`, also none, and `**` for any characters at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Exactly(char),
    Name,
    Anything,
}

impl TopicPattern {
    /// The pattern that `topic` is; `None` when it has no `*` and so is a name.
    #[must_use]
    pub fn new(topic: &str) -> Option<Self> {
        if !topic.contains('*') {
            return None;
        }
        let (mut parts, mut chars) = (Vec::new(), topic.chars().peekable());
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' if chars.next_if_eq(&'*').is_some() => Part::Anything,
                '*' => Part::Name,
                c => Part::Exactly(c),
            });
        }
        Some(Self { parts })
    }

    /// Whether `topic` is one of those meant. Takes time in the product of both lengths, whatever the pattern.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        // `reached[i]`: the parts before `i` fit what was read so far.
        let mut reached = vec![false; self.parts.len() + 1];
        reached[0] = true;
        self.pass_wildcards(&mut reached);
        for c in topic.chars() {
            let mut next = vec![false; reached.len()];
            for (i, part) in self.parts.iter().enumerate().filter(|(i, _)| reached[*i]) {
                match part {
                    Part::Exactly(own) => next[i + 1] |= *own == c,
                    Part::Name => next[i] |= c != '/',
                    Part::Anything => next[i] = true,
                }
            }
            self.pass_wildcards(&mut next);
            reached = next;
        }
        reached[self.parts.len()]
    }

    /// A wildcard may stand for nothing.
    fn pass_wildcards(&self, reached: &mut [bool]) {
        for (i, part) in self.parts.iter().enumerate() {
            if reached[i] && !matches!(part, Part::Exactly(_)) {
                reached[i + 1] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        TopicPattern::new(pattern).expect("a pattern").matches(topic)
    }

    #[test]
    fn a_star_stays_between_slashes_and_two_do_not() {
        for (pattern, yes, no) in [
            ("/camera/*", &["/camera/left", "/camera/"][..], &["/camera", "/camera/left/image", "/cameras/left"][..]),
            ("/camera/**", &["/camera/left", "/camera/left/image"], &["/camera", "/lidar"]),
            ("/*/image_*", &["/left/image_raw", "/x/image_"], &["/a/b/image_raw", "/left/image"]),
            ("**/imu", &["/imu", "/base/imu", "/a/b/imu"], &["/imu/raw", "/imu2"]),
            ("/**", &["/", "/a", "/a/b"], &["a"]),
            ("/a*b*c", &["/abc", "/axxbyyc", "/abcbc"], &["/ab", "/a/bc", "/abcd"]),
            ("/a/**/b*/c", &["/a/x/y/b1/c", "/a//b/c"], &["/a/x/b/d/c", "/a/b/c"]),
            ("/ä*", &["/ä", "/äß"], &["/a"]),
        ] {
            yes.iter().for_each(|topic| assert!(matches(pattern, topic), "{pattern} {topic}"));
            no.iter().for_each(|topic| assert!(!matches(pattern, topic), "{pattern} {topic}"));
        }
        assert!(TopicPattern::new("/imu").is_none());
    }

    /// The same by trying every way.
    fn slowly(pattern: &[char], topic: &[char]) -> bool {
        match (pattern, topic) {
            ([], topic) => topic.is_empty(),
            (['*', '*', rest @ ..], topic) => (0..=topic.len()).any(|n| slowly(rest, &topic[n..])),
            (['*', rest @ ..], topic) => {
                let name = topic.iter().take_while(|c| **c != '/').count();
                (0..=name).any(|n| slowly(rest, &topic[n..]))
            }
            ([c, rest @ ..], [d, topic @ ..]) => c == d && slowly(rest, topic),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn every_way_to_match_is_found(pattern in "[/a*]{0,7}", topic in "[/ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            let own = TopicPattern::new(&pattern).map_or(pattern == topic, |p| p.matches(&topic));
            prop_assert_eq!(own, slowly(&chars(&pattern), &chars(&topic)));
        }
    }
}
