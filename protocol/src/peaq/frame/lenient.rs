//! Base64 as peaq's SDK reads it: Python's decoder, which skips what is not of the alphabet.
//!
//! What decodes here is judged by its hash alone, so several spellings of one ciphertext do no harm.

use base64::{Engine, decoded_len_estimate};

use super::FrameError;
use crate::peaq::base64_engine::BASE64;

/// Decodes `text` into `out`, whose content is replaced.
///
/// # Errors
/// [`FrameError::Malformed`]: text outside ASCII, one digit left over, or padding that is missing.
pub fn decode(text: &str, out: &mut Vec<u8>) -> Result<(), FrameError> {
    // Room that is there already is not wiped first.
    out.resize(decoded_len_estimate(text.len()), 0);
    if let Ok(len) = BASE64.decode_slice(text, out) {
        out.truncate(len);
        return Ok(());
    }
    out.clear();
    if !text.is_ascii() {
        return Err(FrameError::Malformed);
    }
    let (mut digits, mut held, mut pads) = (0u32, 0u32, 0u32);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                // Enough padding ends the text, wherever it stands; too little is skipped like any other character.
                pads += 1;
                if digits >= 2 && digits + pads >= 4 {
                    return Ok(());
                }
                continue;
            }
            _ => continue,
        };
        pads = 0;
        held = held << 6 | u32::from(digit);
        digits = (digits + 1) % 4;
        // From the second digit of four on, each one completes a byte.
        let spare = match digits {
            2 => 4,
            3 => 2,
            0 => 0,
            _ => continue,
        };
        out.push(u8::try_from(held >> spare & 0xff).unwrap_or_default());
        held &= (1 << spare) - 1;
    }
    if digits == 0 { Ok(()) } else { Err(FrameError::Malformed) }
}
